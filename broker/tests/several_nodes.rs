//! Three broker processes with a common secret are one cluster to clients: any of them creates topics, an acknowledged
//! record survives the death of its leader, and a broker that was killed comes back.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use stonelog::config::quorum::GATE;

const BINARY: &str = env!("CARGO_BIN_EXE_stonelog");

/// A broker process; dropping it kills it.
struct Broker(Child);

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Broker {
    /// Reads what it prints until it is ready.
    fn wait_until_ready(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        for line in BufReader::new(self.0.stdout.as_mut().unwrap()).lines() {
            said.push(line.unwrap());
            if said.last().unwrap() == "ready" {
                return said;
            }
        }
        panic!("the broker has ended: {said:?}");
    }
}

/// Three nodes, some of them running.
struct Cluster {
    /// They end before their directories do.
    running: [Option<Broker>; 3],
    directory: tempfile::TempDir,
    /// For clients.
    ports: [u16; 3],
    /// For controllers.
    quorum: [u16; 3],
}

impl Cluster {
    fn begin() -> Cluster {
        // Ports that are free, and stay so for the moment it takes.
        let sockets: [TcpListener; 6] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let port = |place: usize| sockets[place].local_addr().unwrap().port();
        let (ports, quorum) = ([port(0), port(1), port(2)], [port(3), port(4), port(5)]);
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("secret"), "a secret that all three know\n").unwrap();
        Cluster { running: [None, None, None], directory, ports, quorum }
    }

    fn start(&mut self, node: usize) {
        let voters: Vec<String> = (0..3).map(|node| format!("{}@127.0.0.1:{}", node + 1, self.quorum[node])).collect();
        let (port, quorum) = (self.ports[node], self.quorum[node]);
        let settings = [
            format!("node.id={}", node + 1),
            format!("listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{quorum}"),
            "controller.listener.names=CONTROLLER".to_owned(),
            format!("controller.quorum.voters={}", voters.join(",")),
            format!("stonelog.cluster.secret.file={}", self.directory.path().join("secret").display()),
            "broker.session.timeout.ms=3000".to_owned(),
            "broker.heartbeat.interval.ms=500".to_owned(),
        ];
        let mut command = Command::new(BINARY);
        command.args(["serve", "--data-dir"]).arg(self.directory.path().join(node.to_string())).env(GATE, "1");
        for setting in settings {
            command.args(["--set", &setting]);
        }
        let child = command.stdout(Stdio::piped()).spawn().unwrap();
        self.running[node] = Some(Broker(child));
    }

    fn wait_until_ready(&mut self, node: usize) -> Vec<String> {
        self.running[node].as_mut().unwrap().wait_until_ready()
    }

    /// Runs a command against one node, with this input.
    fn run(&self, node: usize, arguments: &[&str], input: &str) -> Output {
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
    fn succeed(&self, node: usize, arguments: &[&str], input: &str) -> String {
        let output = self.run(node, arguments, input);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until every partition's leader answers.
    fn wait_until_led(&self, node: usize) {
        for _ in 0..1_000 {
            if self.run(node, &["topic", "describe", "t"], "").status.success() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("partitions stay without leaders");
    }
}

fn numbered(numbers: std::ops::Range<usize>) -> String {
    numbers.map(|number| format!("record-{number:03}\n")).collect()
}

#[test]
fn three_brokers_serve_clients_as_one_and_lose_nothing_with_one_of_them() {
    let mut cluster = Cluster::begin();
    for node in 0..3 {
        cluster.start(node);
    }
    let ids: Vec<String> = (0..3)
        .map(|node| {
            let banner = cluster.wait_until_ready(node);
            banner.iter().find_map(|line| line.strip_prefix("NEW CLUSTER ")).expect("it is new").to_owned()
        })
        .collect();
    assert!(ids[0] == ids[1] && ids[1] == ids[2], "{ids:?}");
    cluster.succeed(1, &["topic", "create", "t", "--partitions", "3", "--replicas", "3"], "");
    cluster.succeed(2, &["produce", "t", "--acks", "all"], &numbered(0..100));
    for dead in 0..3 {
        // Without a word; whatever it led, and the quorum if it led that, goes to others.
        cluster.running[dead] = None;
        let other = (dead + 1) % 3;
        cluster.wait_until_led(other);
        let begin = 100 * (dead + 1);
        cluster.succeed(other, &["produce", "t", "--acks", "all"], &numbered(begin..begin + 100));
        let read = cluster.succeed(other, &["consume", "t", "-n", &(begin + 100).to_string()], "");
        let mut lines: Vec<&str> = read.lines().collect();
        lines.sort_unstable();
        let expected = numbered(0..begin + 100);
        assert_eq!(lines, expected.lines().collect::<Vec<_>>());
        cluster.start(dead);
        cluster.wait_until_ready(dead);
    }
}
