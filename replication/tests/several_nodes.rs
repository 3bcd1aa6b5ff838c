//! Nodes that are processes of their own form one cluster's metadata plane over loopback TCP, lose members and get them
//! back.
//!
//! Each node is this test binary again, running the test `node` only; it is told what to do line by line, and killed
//! with SIGKILL. No client speaks to them: what a broker is to the others is what counts here.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use stonelog_protocol::BrokerId;
use stonelog_protocol::peer::probe::ListedVoter;
use stonelog_replication::controller::duties::DutySettings;
use stonelog_replication::controller::member::ClusterOptions;
use stonelog_replication::controller::{ControllerRequest, ControllerResponse, CreateTopics, NewTopic};
use stonelog_replication::metadata::{Endpoint, SecurityProtocol};
use stonelog_replication::runtime::clock::Clock;
use stonelog_replication::runtime::start::{self, Random, StartOptions, Started};
use stonelog_storage::disk::RealDisk;
use stonelog_storage::log_dir::current_tenure;
use support::Upkeep;

/// A cluster that has not come to it by then never will.
const PATIENCE: Duration = Duration::from_secs(60);
const SESSION: Duration = Duration::from_secs(3);
const HEARTBEAT: Duration = Duration::from_millis(500);
/// What a node is told its part with.
const VARIABLE: &str = "STONELOG_TEST_NODE";

// The node's side.

/// A node, when another test starts it; nothing by itself.
#[test]
fn node() {
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
                    Some("leave") => {
                        started.hand_over().await;
                        started.stop().unwrap();
                        return say("left");
                    }
                    Some(create) => create_topic(&started, create.strip_prefix("create ").unwrap()).await,
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
        session_timeout: SESSION,
        balance_every: None,
        listed: listed.iter().map(|voter| voter.node).collect(),
    };
    let cluster = ClusterOptions {
        voters: listed,
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
        ..support::options(Arc::new(RealDisk), vec![directory], Upkeep::OnlyForRoom, 0)
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

struct Process {
    child: Child,
    stdin: ChildStdin,
    said: Receiver<String>,
}

/// What one node knows.
#[derive(Debug, PartialEq, Eq)]
struct State {
    cluster: String,
    controller: i32,
    /// Epoch, and whether it is unfenced.
    brokers: BTreeMap<i32, (i64, bool)>,
    topics: BTreeMap<String, usize>,
}

impl Process {
    fn start(id: i32, directory: &Path, port: u16, listed: &[(i32, u16)]) -> Process {
        let listed: Vec<String> = listed.iter().map(|(id, port)| format!("{id}@{port}")).collect();
        let part = format!("{id} {} {port} {}", directory.display(), listed.join(" "));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "node", "--nocapture"])
            .env(VARIABLE, part)
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

    fn hear(&self, first: &str) -> String {
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

    fn tell(&mut self, command: &str) {
        writeln!(self.stdin, "{command}").unwrap();
        self.stdin.flush().unwrap();
    }

    fn state(&mut self) -> State {
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
    fn until(&mut self, wish: impl Fn(&State) -> bool) -> State {
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

    fn signal(&self, signal: i32) {
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
struct Cluster {
    directories: Vec<tempfile::TempDir>,
    listed: Vec<(i32, u16)>,
    running: BTreeMap<i32, Process>,
}

const ALL: [i32; 3] = [1, 2, 3];

impl Cluster {
    fn begin() -> Cluster {
        // Ports that are free, and stay so for the moment it takes.
        let sockets = ALL.map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let listed = ALL.into_iter().zip(&sockets).map(|(id, socket)| (id, socket.local_addr().unwrap().port()));
        let listed = listed.collect();
        let directories = ALL.map(|_| tempfile::tempdir().unwrap()).into();
        Cluster { directories, listed, running: BTreeMap::new() }
    }

    fn formed() -> Cluster {
        let mut cluster = Cluster::begin();
        for id in ALL {
            cluster.start(id);
        }
        for id in ALL {
            cluster.node(id).hear("ready");
        }
        cluster
    }

    fn directory(&self, id: i32) -> PathBuf {
        self.directories[id as usize - 1].path().join("data")
    }

    fn port(&self, id: i32) -> u16 {
        self.listed.iter().find(|(other, _)| *other == id).unwrap().1
    }

    fn start(&mut self, id: i32) {
        let process = Process::start(id, &self.directory(id), self.port(id), &self.listed);
        self.running.insert(id, process);
    }

    fn node(&mut self, id: i32) -> &mut Process {
        self.running.get_mut(&id).unwrap()
    }

    fn kill(&mut self, id: i32) {
        drop(self.running.remove(&id));
    }

    fn others(&self, id: i32) -> Vec<i32> {
        self.running.keys().copied().filter(|other| *other != id).collect()
    }

    /// Waits until all that run know the same controller, one of them, and three brokers that are up.
    fn settled(&mut self) -> State {
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

#[test]
fn three_empty_nodes_form_a_cluster_and_each_of_them_creates_topics() {
    let mut cluster = Cluster::formed();
    let state = cluster.settled();
    for id in ALL {
        assert_eq!(cluster.node(id).state().cluster, state.cluster);
        // Wherever the controller is: the others ask it.
        cluster.node(id).tell(&format!("create topic-{id}"));
        assert_eq!(cluster.node(id).hear("created"), "3");
    }
    let topics = ALL.map(|id| (format!("topic-{id}"), 3));
    for id in ALL {
        cluster.node(id).until(|state| topics.iter().all(|(name, count)| state.topics.get(name) == Some(count)));
    }
}

#[test]
fn killed_controller_is_followed_by_another_that_fences_it_until_it_is_back() {
    let mut cluster = Cluster::formed();
    let before = cluster.settled();
    let dead = before.controller;
    cluster.kill(dead);
    let others = cluster.others(dead);
    for id in &others {
        let state = cluster.node(*id).until(|state| !state.brokers[&dead].1 && others.contains(&state.controller));
        assert_eq!(state.brokers[&dead].0, before.brokers[&dead].0);
        assert!(others.iter().all(|id| state.brokers[id] == before.brokers[id]), "{state:?}");
    }
    // Those that are left go on; a registered broker that is down still gets replicas.
    cluster.node(others[0]).tell("create meanwhile");
    assert_eq!(cluster.node(others[0]).hear("created"), "3");
    cluster.start(dead);
    let epoch: i64 = cluster.node(dead).hear("ready").parse().unwrap();
    assert!(epoch > before.brokers[&dead].0);
    let after = cluster.settled();
    assert_eq!(after.brokers[&dead], (epoch, true));
    assert_eq!(cluster.node(dead).state().topics.get("meanwhile"), Some(&3));
}

#[test]
fn broker_that_is_restarted_at_once_takes_its_own_place() {
    let mut cluster = Cluster::formed();
    let before = cluster.settled();
    // No controller, so that there is one all the time; its session has not ended when it is back.
    let id = cluster.others(before.controller)[0];
    cluster.kill(id);
    cluster.start(id);
    let epoch: i64 = cluster.node(id).hear("ready").parse().unwrap();
    let after = cluster.settled();
    assert!(epoch > before.brokers[&id].0);
    assert_eq!(after.brokers[&id], (epoch, true));
    assert_eq!(after.controller, before.controller);
}

#[test]
fn wiped_voter_joins_as_a_broker_and_one_that_lost_its_metadata_log_is_refused() {
    let mut cluster = Cluster::formed();
    let before = cluster.settled();
    let id = cluster.others(before.controller)[0];
    cluster.kill(id);
    std::fs::remove_dir_all(cluster.directory(id).join("metadata")).unwrap();
    cluster.start(id);
    let why = cluster.node(id).hear("refused");
    assert!(why.contains("its metadata log is gone"), "{why}");
    cluster.kill(id);
    std::fs::remove_dir_all(cluster.directory(id)).unwrap();
    cluster.start(id);
    cluster.node(id).hear("ready");
    let after = cluster.settled();
    assert_eq!(after.cluster, before.cluster);
    // It follows without voting, and has the controller create what it is asked for.
    cluster.node(id).tell("create from-the-wiped");
    assert_eq!(cluster.node(id).hear("created"), "3");
    // The two that vote are a majority, and not one of them can go.
    let other = cluster.others(after.controller).into_iter().find(|other| *other != id).unwrap();
    cluster.kill(other);
    cluster.node(id).until(|state| state.controller == -1);
}

#[test]
fn process_that_was_away_while_another_took_its_place_ends() {
    let mut cluster = Cluster::formed();
    let before = cluster.settled();
    let id = cluster.others(before.controller)[0];
    cluster.node(id).signal(libc::SIGSTOP);
    let controller = before.controller;
    cluster.node(controller).until(|state| !state.brokers[&id].1);
    // The same node, with other directories and another address.
    let spare = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let second = Process::start(id, &spare.path().join("data"), port, &cluster.listed);
    let epoch: i64 = second.hear("ready").parse().unwrap();
    assert!(epoch > before.brokers[&id].0);
    cluster.node(id).signal(libc::SIGCONT);
    let why = cluster.node(id).hear("replaced");
    assert!(why.contains("another process has registered"), "{why}");
    cluster.node(controller).until(|state| state.brokers[&id] == (epoch, true));
}

#[test]
fn broker_that_leaves_in_order_is_fenced_when_it_has_handed_over() {
    let mut cluster = Cluster::formed();
    let before = cluster.settled();
    cluster.node(1).tell("create t");
    cluster.node(1).hear("created");
    // The controller itself: another voter leads, and hears the rest.
    let id = before.controller;
    cluster.node(id).tell("leave");
    cluster.node(id).hear("left");
    cluster.kill(id);
    let others = cluster.others(id);
    for other in others {
        cluster.node(other).until(|state| !state.brokers[&id].1 && state.controller != id && state.controller != -1);
    }
}
