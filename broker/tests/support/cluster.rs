//! Three broker processes with a common secret: one cluster, of which nodes are killed and come back. Brokers without a
//! vote may be added.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use stonelog_protocol::Request;
use stonelog_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use stonelog_protocol::messages::metadata_request::MetadataRequestTopic;
use stonelog_protocol::messages::{CreateTopicsRequest, MetadataRequest};

use super::{BINARY, BlockingClient, LIMIT, text, topic_name};

const VOTERS: usize = 3;
const REQUEST_TIMED_OUT: i16 = 7;
const TOPIC_ALREADY_EXISTS: i16 = 36;

/// A broker process; dropping it kills it.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Nodes, some of them running. Node n of these is broker n + 1; the first three vote.
pub(crate) struct Cluster {
    /// They end before their directories do.
    running: Vec<Option<Node>>,
    directory: tempfile::TempDir,
    /// For clients.
    pub(crate) ports: Vec<u16>,
    /// For controllers.
    quorum: [u16; VOTERS],
    /// What is set besides who and where they are.
    pub(crate) settings: Vec<String>,
    /// What is set on one node only.
    pub(crate) own_settings: Vec<Vec<String>>,
}

impl Cluster {
    /// Ports and a secret; nothing runs yet.
    pub(crate) fn begin() -> Cluster {
        Cluster::begin_of(VOTERS)
    }

    /// The same for so many nodes.
    fn begin_of(nodes: usize) -> Cluster {
        // Ports that are free, and stay so for the moment it takes.
        let sockets: Vec<TcpListener> =
            (0..nodes + VOTERS).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let port = |place: usize| sockets[place].local_addr().unwrap().port();
        let (ports, quorum) = ((0..nodes).map(port).collect(), std::array::from_fn(|voter| port(nodes + voter)));
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("secret"), "a secret that all three know\n").unwrap();
        let settings = ["broker.session.timeout.ms=3000", "broker.heartbeat.interval.ms=500"];
        let settings = settings.map(str::to_owned).into();
        let running = (0..nodes).map(|_| None).collect();
        Cluster { running, directory, ports, quorum, settings, own_settings: vec![Vec::new(); nodes] }
    }

    /// Three voters and so many brokers without a vote, all of them ready.
    pub(crate) fn started_with_brokers(brokers: usize) -> Cluster {
        let mut cluster = Cluster::begin_of(VOTERS + brokers);
        cluster.start_all();
        cluster
    }

    /// Three nodes that are ready.
    pub(crate) fn started() -> Cluster {
        Cluster::started_with(&[])
    }

    /// As [`Cluster::started`], with these settings besides.
    pub(crate) fn started_with(settings: &[&str]) -> Cluster {
        let mut cluster = Cluster::begin();
        for setting in settings {
            let (key, _) = setting.split_once('=').unwrap();
            cluster.settings.retain(|known| !known.starts_with(&format!("{key}=")));
            cluster.settings.push((*setting).to_owned());
        }
        cluster.start_all();
        cluster
    }

    fn start_all(&mut self) {
        for node in 0..self.ports.len() {
            self.start(node);
        }
        for node in 0..self.ports.len() {
            self.wait_until_ready(node);
        }
    }

    /// Starts a node.
    pub(crate) fn start(&mut self, node: usize) {
        let child = self.command(node).stdout(Stdio::piped()).spawn().unwrap();
        self.running[node] = Some(Node(child));
    }

    /// What starts a node.
    pub(crate) fn command(&self, node: usize) -> Command {
        let voters: Vec<String> = (1..).zip(&self.quorum).map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect();
        let port = self.ports[node];
        let (roles, controller) = match self.quorum.get(node) {
            Some(quorum) => ("broker,controller", format!(",CONTROLLER://127.0.0.1:{quorum}")),
            None => ("broker", String::new()),
        };
        let settings = [
            format!("node.id={}", node + 1),
            format!("process.roles={roles}"),
            format!("listeners=PLAINTEXT://127.0.0.1:{port}{controller}"),
            "controller.listener.names=CONTROLLER".to_owned(),
            format!("controller.quorum.voters={}", voters.join(",")),
            format!("stonelog.cluster.secret.file={}", self.directory.path().join("secret").display()),
        ];
        let mut command = Command::new(BINARY);
        command.args(["serve", "--data-dir"]).arg(self.directory.path().join(node.to_string()));
        for setting in settings.iter().chain(&self.settings).chain(&self.own_settings[node]) {
            command.args(["--set", setting]);
        }
        command
    }

    /// Reads what a node prints until it is ready.
    pub(crate) fn wait_until_ready(&mut self, node: usize) -> Vec<String> {
        let child = &mut self.running[node].as_mut().unwrap().0;
        let mut said = Vec::new();
        for line in BufReader::new(child.stdout.as_mut().unwrap()).lines() {
            said.push(line.unwrap());
            if said.last().unwrap() == "ready" {
                return said;
            }
        }
        panic!("the broker has ended: {said:?}");
    }

    /// Ends a node without a word.
    pub(crate) fn kill(&mut self, node: usize) {
        self.running[node] = None;
    }

    /// A node stands still, or goes on.
    pub(crate) fn hold(&self, node: usize, is_held: bool) {
        let pid = self.running[node].as_ref().unwrap().0.id().to_string();
        let signal = if is_held { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Runs a command against one node, with this input.
    pub(crate) fn run(&self, node: usize, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(BINARY)
            .args(arguments)
            .args(["--brokers", &format!("127.0.0.1:{}", self.ports[node]), "--timeout", "60s"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// As [`Cluster::run`]; it must succeed. What it printed.
    pub(crate) fn succeed(&self, node: usize, arguments: &[&str], input: &str) -> String {
        let output = self.run(node, arguments, input);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until every partition's leader of topic `t` answers.
    pub(crate) fn wait_until_led(&self, node: usize) {
        for _ in 0..1_000 {
            if self.run(node, &["topic", "describe", "t"], "").status.success() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("partitions stay without leaders");
    }

    /// Asks one node.
    pub(crate) fn ask<R: Request>(&self, node: usize, version: i16, request: &R) -> R::Response {
        let stream = TcpStream::connect(("127.0.0.1", self.ports[node])).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        BlockingClient(stream).ask(version, request)
    }

    /// Asks one node again and again until the answer is as wanted.
    pub(crate) fn ask_until<R: Request>(
        &self,
        node: usize,
        version: i16,
        request: &R,
        is_wanted: impl Fn(&R::Response) -> bool,
    ) -> R::Response
    where
        R::Response: std::fmt::Debug,
    {
        let mut last = None;
        for _ in 0..1_000 {
            let response = self.ask(node, version, request);
            if is_wanted(&response) {
                return response;
            }
            last = Some(response);
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("it stays at {last:?}");
    }

    /// Makes a topic whose partitions have these replicas; its id. A controller that loses its lease on the way cannot say
    /// whether the topic was made, and is asked again.
    pub(crate) fn create(&self, name: &str, replicas: &[&[i32]], configs: &[(&str, &str)]) -> uuid::Uuid {
        let assignments = (0..).zip(replicas).map(|(index, replicas)| {
            let replicas = replicas.iter().map(|id| (*id).into()).collect();
            CreatableReplicaAssignment::default().with_partition_index(index).with_broker_ids(replicas)
        });
        let configs = configs
            .iter()
            .map(|(key, value)| CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value))));
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_assignments(assignments.collect())
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
        let response = self.ask_until(1, 7, &request, |response| response.topics[0].error_code != REQUEST_TIMED_OUT);
        let made = &response.topics[0];
        if made.error_code == TOPIC_ALREADY_EXISTS {
            let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
            return self.ask(1, 12, &MetadataRequest::default().with_topics(Some(vec![topic]))).topics[0].topic_id;
        }
        assert_eq!(made.error_code, 0, "{:?}", made.error_message);
        made.topic_id
    }
}
