//! Controllers and brokers that are processes of their own: three controllers and two brokers form one cluster out of empty
//! directories, the quorum loses members and gets them back, and clients see brokers alone.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use stonelog_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use stonelog_protocol::messages::describe_quorum_response::PartitionData as Quorum;
use stonelog_protocol::messages::{DescribeClusterRequest, DescribeQuorumRequest, MetadataRequest};
use support::{BINARY, BlockingClient, LIMIT, topic_name};

const CONTROLLERS: [i32; 3] = [1, 2, 3];
const BROKERS: [i32; 2] = [4, 5];
/// A controller that nobody lists.
const LATER: i32 = 6;

/// A process; dropping it kills it.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Nodes, each with a port and a directory of its own.
struct Nodes {
    running: BTreeMap<i32, Node>,
    ports: BTreeMap<i32, u16>,
    directory: tempfile::TempDir,
    /// Those that are told where to ask, and not who votes.
    asking: BTreeSet<i32>,
}

impl Nodes {
    /// Ports and a secret; nothing runs yet.
    fn begin() -> Nodes {
        let sockets: Vec<TcpListener> = (0..6).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports = (1..).zip(&sockets).map(|(id, socket)| (id, socket.local_addr().unwrap().port())).collect();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("secret"), "a secret that all of them know\n").unwrap();
        Nodes { running: BTreeMap::new(), ports, directory, asking: [5, LATER].into() }
    }

    /// All of them, ready.
    fn formed() -> Nodes {
        let mut nodes = Nodes::begin();
        let all = || CONTROLLERS.into_iter().chain(BROKERS);
        all().for_each(|id| nodes.start(id));
        let named: Vec<String> = all()
            .map(|id| {
                let banner = nodes.ready(id);
                let named =
                    banner.iter().find_map(|line| line.split_once("CLUSTER ").or(line.split_once("cluster   ")));
                named.expect("it names its cluster").1.to_owned()
            })
            .collect();
        assert!(named.iter().all(|name| *name == named[0]), "{named:?}");
        nodes
    }

    fn data(&self, id: i32) -> PathBuf {
        self.directory.path().join(id.to_string())
    }

    /// What starts a node: a broker is told of the voters, or only where to ask.
    fn command(&self, id: i32) -> Command {
        let port = self.ports[&id];
        let at = |id: &i32| format!("127.0.0.1:{}", self.ports[id]);
        let voters: Vec<String> = CONTROLLERS.iter().map(|id| format!("{id}@{}", at(id))).collect();
        let servers = [1, 2, 3, LATER].each_ref().map(at).join(",");
        let quorum = match self.asking.contains(&id) {
            true => format!("controller.quorum.bootstrap.servers={servers}"),
            false => format!("controller.quorum.voters={}", voters.join(",")),
        };
        let mut settings = vec![format!("node.id={id}"), quorum, "controller.listener.names=CONTROLLER".to_owned()];
        settings.extend(match !BROKERS.contains(&id) {
            true => ["process.roles=controller".to_owned(), format!("listeners=CONTROLLER://127.0.0.1:{port}")],
            false => ["process.roles=broker".to_owned(), format!("listeners=PLAINTEXT://127.0.0.1:{port}")],
        });
        settings.push(format!("stonelog.cluster.secret.file={}", self.directory.path().join("secret").display()));
        settings.extend(["broker.session.timeout.ms=3000", "broker.heartbeat.interval.ms=500"].map(str::to_owned));
        let mut command = Command::new(BINARY);
        command.args(["serve", "--data-dir"]).arg(self.data(id));
        for setting in &settings {
            command.args(["--set", setting]);
        }
        command
    }

    fn start(&mut self, id: i32) {
        let child = self.command(id).stdout(Stdio::piped()).spawn().unwrap();
        self.running.insert(id, Node(child));
    }

    /// Reads what a node prints until it is ready.
    fn ready(&mut self, id: i32) -> Vec<String> {
        let child = &mut self.running.get_mut(&id).unwrap().0;
        let mut said = Vec::new();
        for line in BufReader::new(child.stdout.as_mut().unwrap()).lines() {
            said.push(line.unwrap());
            if said.last().unwrap() == "ready" {
                return said;
            }
        }
        panic!("node {id} has ended: {said:?}");
    }

    fn restart(&mut self, id: i32) {
        self.start(id);
        self.ready(id);
    }

    /// Ends a node without a word.
    fn kill(&mut self, id: i32) {
        self.running.remove(&id);
    }

    /// A node that is to end by itself: what it says.
    fn refused(&self, id: i32) -> String {
        let output = self.command(id).stdin(Stdio::null()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    fn open(&self, id: i32) -> BlockingClient {
        let stream = TcpStream::connect(("127.0.0.1", self.ports[&id])).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        BlockingClient(stream)
    }

    /// The quorum as a broker describes it, once it is as wanted.
    fn quorum_until(&self, broker: i32, is_wanted: impl Fn(&Quorum) -> bool) -> Quorum {
        let partition = PartitionData::default().with_partition_index(0);
        let topic = TopicData::default().with_topic_name(topic_name("__cluster_metadata"));
        let topic = topic.with_partitions(vec![partition]);
        let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
        let mut last = None;
        for _ in 0..1_000 {
            let mut response = self.open(broker).ask(2, &request);
            let quorum = response.topics.pop().and_then(|mut topic| topic.partitions.pop());
            match quorum {
                Some(quorum) if is_wanted(&quorum) => return quorum,
                other => last = Some(other),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("it stays at {last:?}");
    }

    /// Waits until a broker knows a topic's partitions to be led.
    fn wait_until_led(&self, broker: i32, topic: &str) {
        for _ in 0..1_000 {
            if self.run(broker, &["topic", "describe", topic], "").status.success() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("partitions stay without leaders");
    }

    fn run(&self, broker: i32, arguments: &[&str], input: &str) -> std::process::Output {
        let mut child = Command::new(BINARY)
            .args(arguments)
            .args(["--brokers", &format!("127.0.0.1:{}", self.ports[&broker]), "--timeout", "60s"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    fn succeed(&self, broker: i32, arguments: &[&str], input: &str) -> String {
        let output = self.run(broker, arguments, input);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Records go in through one broker and come out through the other.
    fn serves(&self, records: std::ops::Range<usize>) {
        let text =
            |records: std::ops::Range<usize>| records.map(|one| format!("record-{one:03}\n")).collect::<String>();
        self.succeed(4, &["produce", "t", "--acks", "all"], &text(records.clone()));
        let read = self.succeed(5, &["consume", "t", "-n", &records.end.to_string()], "");
        let mut lines: Vec<&str> = read.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, text(0..records.end).lines().collect::<Vec<_>>());
    }
}

/// The directory that a voter votes with.
fn directory_of(quorum: &Quorum, id: i32) -> Option<uuid::Uuid> {
    quorum.current_voters.iter().find(|voter| voter.replica_id.0 == id).map(|voter| voter.replica_directory_id)
}

fn voters(quorum: &Quorum) -> Vec<i32> {
    quorum.current_voters.iter().map(|voter| voter.replica_id.0).collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn controllers_and_brokers_form_a_cluster_that_outlives_its_controllers_one_after_the_other() {
    let mut nodes = Nodes::formed();
    // Brokers alone are what clients see; one of them is said to be the controller, for it passes on what only that may do.
    let described = nodes.open(4).ask(1, &DescribeClusterRequest::default().with_endpoint_type(1));
    let mut ids: Vec<i32> = described.brokers.iter().map(|broker| broker.broker_id.0).collect();
    ids.sort_unstable();
    assert_eq!(ids, BROKERS);
    let told = nodes.open(5).ask(12, &MetadataRequest::default().with_topics(None));
    assert!(BROKERS.contains(&told.controller_id.0), "{told:?}");
    // Nothing is decided for want of brokers that controllers will never be.
    nodes.succeed(4, &["topic", "create", "unset"], "");
    nodes.succeed(5, &["topic", "create", "t", "--partitions", "2", "--replicas", "2"], "");
    nodes.serves(0..100);
    let quorum = nodes.quorum_until(5, |quorum| quorum.current_voters.len() == 3);
    let mut observers: Vec<i32> = quorum.observers.iter().map(|observer| observer.replica_id.0).collect();
    observers.sort_unstable();
    assert_eq!(observers, BROKERS);
    for round in 1..3 {
        let leader = nodes.quorum_until(4, |quorum| quorum.leader_id.0 > 0).leader_id.0;
        nodes.kill(leader);
        nodes.quorum_until(5, |quorum| CONTROLLERS.contains(&quorum.leader_id.0) && quorum.leader_id.0 != leader);
        nodes.succeed(5, &["topic", "create", &format!("without-{round}"), "--replicas", "2"], "");
        nodes.serves(100 * round..100 * (round + 1));
        nodes.restart(leader);
    }
    // A broker goes and comes as before.
    nodes.kill(4);
    nodes.restart(4);
    nodes.wait_until_led(4, "t");
    nodes.serves(300..400);
}

#[test]
fn wiped_controller_votes_again_with_its_new_directory_and_counts_for_the_majority() {
    let mut nodes = Nodes::formed();
    nodes.succeed(4, &["topic", "create", "t", "--replicas", "2"], "");
    let quorum = nodes.quorum_until(4, |quorum| quorum.current_voters.len() == 3);
    let wiped = CONTROLLERS.into_iter().find(|id| *id != quorum.leader_id.0).unwrap();
    let before = directory_of(&quorum, wiped);
    nodes.kill(wiped);
    std::fs::remove_dir_all(nodes.data(wiped)).unwrap();
    nodes.restart(wiped);
    let is_back = |quorum: &Quorum| {
        quorum.current_voters.len() == 3 && directory_of(quorum, wiped).is_some_and(|now| Some(now) != before)
    };
    let quorum = nodes.quorum_until(5, is_back);
    // Without the leader it is one of the two that are needed.
    nodes.kill(quorum.leader_id.0);
    nodes.quorum_until(4, |now| now.leader_id.0 > 0 && now.leader_id.0 != quorum.leader_id.0);
    nodes.serves(0..100);
}

#[test]
fn controller_with_a_metadata_log_of_an_earlier_time_does_not_vote() {
    let mut nodes = Nodes::formed();
    let quorum = nodes.quorum_until(4, |quorum| quorum.current_voters.len() == 3);
    let id = CONTROLLERS.into_iter().find(|id| *id != quorum.leader_id.0).unwrap();
    nodes.kill(id);
    let (log, old) = (nodes.data(id).join("metadata"), nodes.directory.path().join("old"));
    copy(&log, &old);
    for name in ["a", "b", "c"] {
        nodes.succeed(4, &["topic", "create", name], "");
    }
    // It records how far it has come before it is ready.
    nodes.restart(id);
    nodes.kill(id);
    std::fs::remove_dir_all(&log).unwrap();
    std::fs::rename(&old, &log).unwrap();
    let said = nodes.refused(id);
    assert!(said.contains("is known to have applied entry") && said.contains("the quorum counts on"), "{said}");
    // Nor does one whose log is gone.
    std::fs::remove_dir_all(&log).unwrap();
    let said = nodes.refused(id);
    assert!(said.contains("its metadata log is gone"), "{said}");
}

#[test]
fn directory_with_another_role_is_refused() {
    let mut nodes = Nodes::formed();
    // A broker's directory, with everything that lies in it, given to a controller.
    nodes.kill(4);
    nodes.kill(3);
    std::fs::remove_dir_all(nodes.data(3)).unwrap();
    let properties = |id: i32| nodes.data(id).join("meta.properties");
    let broker = std::fs::read_to_string(properties(4)).unwrap();
    assert!(broker.contains("broker.epoch="), "{broker}");
    let controller = std::fs::read_to_string(properties(2)).unwrap();
    assert!(controller.contains("stonelog.metadata.index=") && !controller.contains("broker.epoch="), "{controller}");
    let arguments = |id: i32, also: &[&str]| {
        let mut command = nodes.command(id);
        for setting in also {
            command.args(["--set", setting]);
        }
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let address = format!("127.0.0.1:{}", nodes.ports[&4]);
    let servers = format!("controller.quorum.voters=4@{address}");
    let listeners = format!("listeners=CONTROLLER://{address}");
    let said = arguments(4, &["process.roles=controller", &servers, &listeners]);
    assert!(said.contains("is that of a broker"), "{said}");
    // A client finds nobody at a controller.
    let mut stream = TcpStream::connect(("127.0.0.1", nodes.ports[&1])).unwrap();
    stream.write_all(&[0, 0, 0, 8, 0, 18, 0, 0, 0, 0, 0, 1]).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    assert!(matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_)));
}

#[test]
fn quorum_moves_to_another_controller_by_commands_while_it_serves() {
    let mut nodes = Nodes::formed();
    nodes.succeed(4, &["topic", "create", "t", "--replicas", "2"], "");
    nodes.serves(0..50);
    // Nobody is added that is not there.
    let place = format!("{LATER}@127.0.0.1:{}", nodes.ports[&LATER]);
    let refused = nodes.run(4, &["cluster", "voter", "add", &place], "");
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    nodes.start(LATER);
    nodes.ready(LATER);
    nodes.quorum_until(4, |quorum| quorum.observers.iter().any(|observer| observer.replica_id.0 == LATER));
    nodes.succeed(4, &["cluster", "voter", "add", &place], "");
    nodes.quorum_until(5, |quorum| voters(quorum) == [1, 2, 3, LATER]);
    // A broker alone never votes.
    let broker = nodes.run(4, &["cluster", "voter", "add", &format!("5@127.0.0.1:{}", nodes.ports[&5])], "");
    assert!(String::from_utf8_lossy(&broker.stderr).contains("process.roles=controller"), "{broker:?}");
    // It votes already; and who is listed would come again.
    let again = nodes.run(4, &["cluster", "voter", "add", &place], "");
    assert!(String::from_utf8_lossy(&again.stderr).contains("votes already"), "{again:?}");
    let leader = nodes.quorum_until(4, |quorum| quorum.leader_id.0 > 0).leader_id.0;
    if leader != LATER {
        let listed = nodes.run(4, &["cluster", "voter", "remove", "3"], "");
        assert!(String::from_utf8_lossy(&listed.stderr).contains("bootstrap.servers"), "{listed:?}");
    }
    // The lists go, one node after the other.
    for id in CONTROLLERS {
        nodes.kill(id);
        nodes.asking.insert(id);
        nodes.restart(id);
        nodes.quorum_until(5, |quorum| quorum.current_voters.iter().all(|voter| voter.last_caught_up_timestamp > 0));
    }
    // All that voted go as well, whoever leads, until the one that was added is alone.
    let mut left = vec![1, 2, 3, LATER];
    for id in CONTROLLERS {
        nodes.succeed(5, &["cluster", "voter", "remove", &id.to_string()], "");
        left.retain(|voter| *voter != id);
        nodes.quorum_until(4, |quorum| voters(quorum) == left);
        let mut removed = nodes.running.remove(&id).unwrap();
        assert_eq!(removed.0.wait().unwrap().code(), Some(1), "node {id} ends");
        nodes.serves(50 * id as usize..50 * (id as usize + 1));
    }
    nodes.succeed(4, &["topic", "create", "decided-by-the-last", "--replicas", "2"], "");
    let only = nodes.run(4, &["cluster", "voter", "remove", &LATER.to_string()], "");
    assert!(String::from_utf8_lossy(&only.stderr).contains("no majority, or none"), "{only:?}");
    // One that was removed follows, and can be added again.
    nodes.restart(2);
    nodes.quorum_until(4, |quorum| quorum.observers.iter().any(|observer| observer.replica_id.0 == 2));
    let place = format!("2@127.0.0.1:{}", nodes.ports[&2]);
    nodes.succeed(4, &["cluster", "voter", "add", &place], "");
    nodes.quorum_until(5, |quorum| voters(quorum) == [2, LATER]);
    // Brokers that are started now find the quorum as it is.
    nodes.kill(5);
    nodes.restart(5);
    nodes.wait_until_led(5, "t");
    nodes.serves(200..250);
    // A voter is not started without the role.
    nodes.kill(LATER);
    let mut command = nodes.command(LATER);
    command.args(["--set", "process.roles=broker", "--set"]);
    let output = command.arg(format!("listeners=PLAINTEXT://127.0.0.1:{}", nodes.ports[&LATER])).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("is a voter of the metadata quorum, and process.roles"),
        "{said}"
    );
}
