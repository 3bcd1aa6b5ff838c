//! A cluster whose nodes are processes of their own, told what to do line by line, and killed with SIGKILL.
//!
//! Each node is the test's binary again, running its test `node` only.

#![allow(dead_code, reason = "each test target uses its part")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use super::support::Upkeep;
use stonelog_protocol::peer::probe::ListedVoter;
use stonelog_protocol::{BrokerId, TopicPartition};
use stonelog_replication::controller::duties::DutySettings;
use stonelog_replication::controller::member::ClusterOptions;
use stonelog_replication::controller::{ControllerRequest, ControllerResponse, CreateTopics, NewTopic, ReplicaFacts};
use stonelog_replication::metadata::{Endpoint, SecurityProtocol};
use stonelog_replication::runtime::clock::Clock;
use stonelog_replication::runtime::start::{self, Random, StartOptions, Started};
use stonelog_storage::disk::RealDisk;
use stonelog_storage::log_dir::current_tenure;

/// A cluster that has not come to it by then never will.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const SESSION: Duration = Duration::from_secs(3);
/// Where a node is told another one.
const SESSION_VARIABLE: &str = "STONELOG_TEST_SESSION_MS";
const HEARTBEAT: Duration = Duration::from_millis(500);
/// What a node is told its part with.
const VARIABLE: &str = "STONELOG_TEST_NODE";

// The node's side.

/// What the test `node` of each target runs: a node, when another test starts it; nothing by itself.
pub(crate) fn node() {
    let Ok(part) = std::env::var(VARIABLE) else { return };
    let mut words = part.split(' ');
    let id: i32 = words.next().unwrap().parse().unwrap();
    let directory = PathBuf::from(words.next().unwrap());
    let port: u16 = words.next().unwrap().parse().unwrap();
    let listed: Vec<ListedVoter> = words
        .map(|word| word.split_once('@').unwrap())
        .map(|(node, port)| ListedVoter {
            node: BrokerId(node.parse().unwrap()),
            host: "127.0.0.1".into(),
            port: port.parse().unwrap(),
        })
        .collect();
    let (sender, mut commands) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let _ = sender.send(line.unwrap());
        }
    });
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async move {
        let started = match start::start(node_options(id, directory, port, listed)).await {
            Ok(started) => started,
            Err(error) => return say(&format!("refused {error}")),
        };
        say(&format!("ready {}", started.report.broker_epoch));
        let mut failures = started.node.watch_failures();
        loop {
            tokio::select! {
                command = commands.recv() => match command.as_deref() {
                    None => return,
                    Some("state") => say(&state(&started)),
                    Some("quorum") => say(&quorum(&started).await),
                    Some("leave") => {
                        started.hand_over().await;
                        started.stop().unwrap();
                        return say("left");
                    }
                    Some(other) => match other.split_once(' ').unwrap() {
                        ("create", name) => create_topic(&started, name).await,
                        ("append", what) => append(&started, what).await,
                        ("values", of) => values(&started, of).await,
                        ("leader", of) => say(&leader(&started, of)),
                        (unknown, _) => panic!("{unknown}"),
                    },
                },
                _ = failures.changed() => {
                    if let Some(why) = started.node.must_stop() {
                        return say(&format!("replaced {why}"));
                    }
                }
            }
        }
    });
}

fn say(what: &str) {
    println!("@@{what}");
}

fn node_options(id: i32, directory: PathBuf, port: u16, listed: Vec<ListedVoter>) -> StartOptions {
    let socket = TcpListener::bind(("127.0.0.1", port)).unwrap();
    socket.set_nonblocking(true).unwrap();
    let duties = DutySettings {
        session_timeout: Duration::from_millis(std::env::var(SESSION_VARIABLE).unwrap().parse().unwrap()),
        balance_every: None,
        listed: listed.iter().map(|voter| voter.node).collect(),
    };
    let cluster = ClusterOptions {
        voters: listed,
        servers: Vec::new(),
        may_vote: true,
        secret: None,
        sockets: vec![socket],
        handed_over: None,
        listener: "PLAINTEXT".into(),
        duties,
        request_within: Duration::from_secs(2),
        heartbeat_every: HEARTBEAT,
    };
    let random = || {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).unwrap();
        bytes
    };
    StartOptions {
        node_id: BrokerId(id),
        endpoints: vec![Endpoint {
            listener: "PLAINTEXT".into(),
            host: "127.0.0.1".into(),
            port,
            protocol: SecurityProtocol::Plaintext,
        }],
        random: Random { cluster: random(), directory: random(), incarnation: random() },
        tenure_of: current_tenure,
        cluster: Some(cluster),
        ..super::support::options(Arc::new(RealDisk), vec![directory], Upkeep::OnlyForRoom, 0)
    }
}

fn state(started: &Started) -> String {
    let image = started.metadata.image();
    let controller = image.controller().map_or(-1, |controller| controller.0);
    let brokers = image.brokers().map(|broker| {
        let up = if broker.fenced { "fenced" } else { "up" };
        format!("{}:{}:{up}", broker.id, broker.epoch)
    });
    let brokers = brokers.collect::<Vec<_>>().join(",");
    let topics = image.topics().map(|topic| format!("{}:{}", topic.name, topic.partitions[0].replicas.len()));
    let topics = topics.collect::<Vec<_>>().join(",");
    format!("state {} {controller} {brokers} {topics}", started.report.cluster_id)
}

/// Who leads, who votes, who observes: `leader voters observers`, each node with its end and whether it was caught up.
async fn quorum(started: &Started) -> String {
    let facts = match started.metadata.describe_quorum().await {
        Ok(facts) => facts,
        Err(error) => return format!("quorum -1 {error}"),
    };
    let list = |replicas: &[ReplicaFacts]| {
        let one = |replica: &ReplicaFacts| {
            let (end, caught_up) = (replica.log_end.unwrap_or(0), replica.last_caught_up.is_some());
            assert!(replica.last_fetch.is_some() || end == 0, "{replica:?}");
            format!("{}:{}:{}:{caught_up}", replica.node, replica.directory, end >= facts.high_watermark)
        };
        let list: Vec<String> = replicas.iter().map(one).collect();
        if list.is_empty() { "-".to_owned() } else { list.join(",") }
    };
    assert!(facts.epoch > 0 && facts.high_watermark > 0, "{facts:?}");
    format!("quorum {} {} {}", facts.leader, list(&facts.voters), list(&facts.observers))
}

/// `topic partition` as this node knows it.
fn named(started: &Started, topic: &str, partition: &str) -> TopicPartition {
    let image = started.metadata.image();
    let topic_id = image.topic_by_name(topic).unwrap().id;
    super::support::partition(topic_id, partition.parse().unwrap())
}

/// Appends records one after the other, each once the one before is acknowledged, and says so of each.
async fn append(started: &Started, what: &str) {
    let words: Vec<&str> = what.split(' ').collect();
    let to = named(started, words[0], words[1]);
    for value in words[2].parse::<u64>().unwrap()..words[3].parse().unwrap() {
        match super::support::produce(started, to, value.to_string().into_bytes()).await {
            Ok(offset) => say(&format!("acked {} {value}", offset.0)),
            Err(error) => return say(&format!("appended {error}")),
        }
    }
    say("appended all");
}

/// Every record that may be read, if this node leads; nothing otherwise.
async fn values(started: &Started, of: &str) {
    let (topic, partition) = of.split_once(' ').unwrap();
    let of = named(started, topic, partition);
    let asked = started
        .lanes
        .call(started.lanes.owner(of), move |lane| lane.confirm_leadership(of, Duration::from_secs(5)))
        .await;
    if asked.is_err() {
        return say("values ");
    }
    let all = super::support::read_values(started, of).await;
    let text: Vec<String> = all.into_iter().map(|value| String::from_utf8(value).unwrap()).collect();
    say(&format!("values {}", text.join(",")));
}

fn leader(started: &Started, of: &str) -> String {
    let (topic, partition) = of.split_once(' ').unwrap();
    let image = started.metadata.image();
    let found = image.partition(named(started, topic, partition)).unwrap();
    let leader = found.leader.map_or(-1, |leader| leader.0);
    format!("leader {leader} {}", found.isr.len())
}

async fn create_topic(started: &Started, name: &str) {
    let topic = NewTopic {
        name: name.to_owned(),
        partitions: 3,
        replication_factor: -1,
        assignments: Vec::new(),
        configs: Vec::new(),
    };
    let request = CreateTopics { topics: vec![topic], validate_only: false };
    let answer = match started.metadata.submit(ControllerRequest::CreateTopics(request)).await {
        Ok(ControllerResponse::CreateTopics(results)) => match &results[0].result {
            Ok(created) => {
                assert!(started.metadata.image().topic_by_name(name).is_some(), "whoever was answered sees it");
                format!("created {}", created.replication_factor)
            }
            Err(reject) => format!("refused {reject}"),
        },
        Ok(other) => panic!("{other:?}"),
        Err(error) => format!("refused {error}"),
    };
    say(&answer);
}

// The tests' side.

pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) stdin: ChildStdin,
    pub(crate) said: Receiver<String>,
}

/// What one node knows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) cluster: String,
    pub(crate) controller: i32,
    /// Epoch, and whether it is unfenced.
    pub(crate) brokers: BTreeMap<i32, (i64, bool)>,
    pub(crate) topics: BTreeMap<String, usize>,
}

/// The quorum as its leader describes it: each node's directory, and whether it has caught up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Quorum {
    pub(crate) leader: i32,
    pub(crate) voters: BTreeMap<i32, (String, bool)>,
    pub(crate) observers: BTreeMap<i32, (String, bool)>,
}

impl Process {
    pub(crate) fn start(id: i32, directory: &Path, port: u16, listed: &[(i32, u16)]) -> Process {
        Process::start_with(id, directory, port, listed, SESSION)
    }

    fn start_with(id: i32, directory: &Path, port: u16, listed: &[(i32, u16)], session: Duration) -> Process {
        let listed: Vec<String> = listed.iter().map(|(id, port)| format!("{id}@{port}")).collect();
        let part = format!("{id} {} {port} {}", directory.display(), listed.join(" "));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "node", "--nocapture"])
            .env(VARIABLE, part)
            .env(SESSION_VARIABLE, session.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, said) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // The harness prints on the same line.
                if let Some((_, said)) = line.split_once("@@") {
                    let _ = sender.send(said.to_owned());
                }
            }
        });
        Process { child, stdin, said }
    }

    pub(crate) fn hear(&self, first: &str) -> String {
        match self.said.recv_timeout(PATIENCE) {
            Ok(said) => match said.split_once(' ') {
                Some((word, rest)) if word == first => rest.to_owned(),
                _ if said == first => String::new(),
                _ => panic!("{said:?} instead of {first:?}"),
            },
            Err(RecvTimeoutError::Timeout) => panic!("nothing was said for a long time, where {first:?} is due"),
            Err(RecvTimeoutError::Disconnected) => panic!("the node has ended, where {first:?} is due"),
        }
    }

    pub(crate) fn tell(&mut self, command: &str) {
        writeln!(self.stdin, "{command}").unwrap();
        self.stdin.flush().unwrap();
    }

    pub(crate) fn state(&mut self) -> State {
        self.tell("state");
        let said = self.hear("state");
        let words: Vec<&str> = said.split(' ').collect();
        let list = |text: &str| text.split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let broker = |item: String| {
            let parts: Vec<&str> = item.split(':').collect();
            (parts[0].parse().unwrap(), (parts[1].parse().unwrap(), parts[2] == "up"))
        };
        let topic = |item: String| {
            let (name, replicas) = item.split_once(':').unwrap();
            (name.to_owned(), replicas.parse().unwrap())
        };
        State {
            cluster: words[0].to_owned(),
            controller: words[1].parse().unwrap(),
            brokers: list(words[2]).into_iter().map(broker).collect(),
            topics: list(words[3]).into_iter().map(topic).collect(),
        }
    }

    /// Looks again and again until what this node knows is as wished.
    pub(crate) fn until(&mut self, wish: impl Fn(&State) -> bool) -> State {
        let begun = Clock.mono();
        loop {
            let state = self.state();
            if wish(&state) {
                return state;
            }
            assert!(begun.elapsed() < PATIENCE, "it never comes to it: {state:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Has a topic made, whoever leads by then: a controller that goes on the way leaves the outcome open.
    pub(crate) fn makes(&mut self, name: &str) {
        let begun = Clock.mono();
        while !self.state().topics.contains_key(name) {
            assert!(begun.elapsed() < PATIENCE, "{name} never comes to be");
            self.tell(&format!("create {name}"));
            let said = self.said.recv_timeout(PATIENCE).unwrap();
            assert!(said.starts_with("created") || said.starts_with("refused"), "{said}");
        }
    }

    /// The quorum as its leader describes it through this node.
    pub(crate) fn quorum(&mut self) -> Quorum {
        self.tell("quorum");
        let said = self.hear("quorum");
        let words: Vec<&str> = said.split(' ').collect();
        let list = |text: Option<&&str>| {
            let all = text.copied().unwrap_or("-").split(',').filter(|item| *item != "-");
            let one = |item: &str| {
                let parts: Vec<&str> = item.split(':').collect();
                let is_current = parts[2] == "true" && parts[3] == "true";
                (parts[0].parse().unwrap(), (parts[1].to_owned(), is_current))
            };
            all.map(one).collect()
        };
        let leader = words[0].parse().unwrap();
        if leader == -1 {
            return Quorum { leader, voters: BTreeMap::new(), observers: BTreeMap::new() };
        }
        Quorum { leader, voters: list(words.get(1)), observers: list(words.get(2)) }
    }

    /// Asks again and again until the quorum is as wished.
    pub(crate) fn until_quorum(&mut self, wish: impl Fn(&Quorum) -> bool) -> Quorum {
        let begun = Clock.mono();
        loop {
            let quorum = self.quorum();
            if wish(&quorum) {
                return quorum;
            }
            assert!(begun.elapsed() < PATIENCE, "the quorum never comes to it: {quorum:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: the process is our child and has not been waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Three nodes, some of them running.
pub(crate) struct Cluster {
    /// They end before their directories do.
    pub(crate) running: BTreeMap<i32, Process>,
    pub(crate) directories: Vec<tempfile::TempDir>,
    pub(crate) listed: Vec<(i32, u16)>,
    pub(crate) session: Duration,
}

pub(crate) const ALL: [i32; 3] = [1, 2, 3];

impl Cluster {
    pub(crate) fn begin() -> Cluster {
        // Ports that are free, and stay so for the moment it takes.
        let sockets = ALL.map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let listed = ALL.into_iter().zip(&sockets).map(|(id, socket)| (id, socket.local_addr().unwrap().port()));
        let listed = listed.collect();
        let directories = ALL.map(|_| tempfile::tempdir().unwrap()).into();
        Cluster { running: BTreeMap::new(), directories, listed, session: SESSION }
    }

    pub(crate) fn formed() -> Cluster {
        Cluster::formed_with(SESSION)
    }

    /// Formed, with this session timeout.
    pub(crate) fn formed_with(session: Duration) -> Cluster {
        let mut cluster = Cluster { session, ..Cluster::begin() };
        for id in ALL {
            cluster.start(id);
        }
        for id in ALL {
            cluster.node(id).hear("ready");
        }
        cluster
    }

    pub(crate) fn directory(&self, id: i32) -> PathBuf {
        self.directories[id as usize - 1].path().join("data")
    }

    pub(crate) fn port(&self, id: i32) -> u16 {
        self.listed.iter().find(|(other, _)| *other == id).unwrap().1
    }

    pub(crate) fn start(&mut self, id: i32) {
        let process = Process::start_with(id, &self.directory(id), self.port(id), &self.listed, self.session);
        self.running.insert(id, process);
    }

    pub(crate) fn node(&mut self, id: i32) -> &mut Process {
        self.running.get_mut(&id).unwrap()
    }

    pub(crate) fn kill(&mut self, id: i32) {
        drop(self.running.remove(&id));
    }

    pub(crate) fn others(&self, id: i32) -> Vec<i32> {
        self.running.keys().copied().filter(|other| *other != id).collect()
    }

    /// Waits until all that run know the same controller, one of them, and three brokers that are up.
    pub(crate) fn settled(&mut self) -> State {
        let ids: Vec<i32> = self.running.keys().copied().collect();
        let first = ids[0];
        loop {
            let all_up = |state: &State| state.brokers.len() == 3 && state.brokers.values().all(|(_, up)| *up);
            let known = ids.clone();
            let state = self.node(first).until(|state| all_up(state) && known.contains(&state.controller));
            let same = |other: &State| other.brokers == state.brokers && other.controller == state.controller;
            if ids.iter().all(|id| same(&self.node(*id).state())) {
                return state;
            }
        }
    }
}
