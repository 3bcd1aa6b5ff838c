//! `stonelog dev`: a cluster of processes that is played with, stopped cleanly, and leaves no orphans.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

const BINARY: &str = env!("CARGO_BIN_EXE_stonelog");
/// Looks at something that is to come about, 50 ms apart.
const LOOKS_MAX: u32 = 1_200;

/// A `stonelog dev` process; dropping it kills it, and with it its nodes.
struct Dev {
    child: Child,
    data: PathBuf,
    bootstrap: String,
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Dev {
    /// Starts a cluster and waits until it is ready.
    fn start(data: &Path, arguments: &[&str]) -> Dev {
        let mut command = Command::new(BINARY);
        command.args(["dev", "--base-port", "0", "--data-dir"]).arg(data).args(arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said: Vec<String> = lines.map(Result::unwrap).take_while(|line| line != "ready").collect();
        let bootstrap = said.iter().find_map(|line| line.strip_prefix("bootstrap ")).expect("it is ready").to_owned();
        Dev { child, data: data.to_owned(), bootstrap }
    }

    fn play(&self, arguments: &[&str]) -> Output {
        Command::new(BINARY).args(["dev", "--data-dir"]).arg(&self.data).args(arguments).output().unwrap()
    }

    /// As [`Dev::play`]; it must succeed. What it printed.
    fn must(&self, arguments: &[&str]) -> String {
        let output = self.play(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn states(&self) -> Vec<String> {
        let answer: serde_json::Value = serde_json::from_str(&self.must(&["status", "-o", "json"])).unwrap();
        let states = answer["nodes"].as_array().unwrap().iter().map(|node| node["state"].as_str().unwrap().to_owned());
        states.collect()
    }

    /// Runs a client command, with this input; what it printed.
    fn client(&self, arguments: &[&str], input: &str) -> String {
        let mut child = Command::new(BINARY)
            .args(arguments)
            .args(["--brokers", &self.bootstrap, "--timeout", "60s"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn interrupt(mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        self.child.wait().unwrap()
    }

    fn ports(&self) -> Vec<u16> {
        self.bootstrap.split(',').map(|address| address.rsplit_once(':').unwrap().1.parse().unwrap()).collect()
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

#[test]
fn nodes_of_a_cluster_are_killed_paused_and_started_and_stop_cleanly() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(directory.path(), &["--nodes", "3"]);
    assert_eq!(dev.states(), ["running", "running", "running"]);
    dev.client(&["topic", "create", "t", "--partitions", "3"], "");
    dev.client(&["produce", "t"], "one\ntwo\n");
    dev.must(&["kill", "2"]);
    assert_eq!(dev.states(), ["running", "killed", "running"]);
    dev.client(&["produce", "t"], "three\n");
    let again = dev.play(&["kill", "2"]);
    assert_eq!(again.status.code(), Some(8), "a dead node is not killed again");
    dev.must(&["start", "2"]);
    dev.must(&["pause", "3"]);
    assert_eq!(dev.states(), ["running", "running", "paused"]);
    dev.must(&["resume", "3"]);
    assert_eq!(dev.play(&["kill", "4"]).status.code(), Some(8), "there is no fourth node");
    let read = dev.client(&["consume", "t", "-n", "3"], "");
    let mut read: Vec<&str> = read.lines().collect();
    read.sort_unstable();
    assert_eq!(read, ["one", "three", "two"]);
    let (ports, data) = (dev.ports(), dev.data.clone());
    let second = Command::new(BINARY).args(["dev", "--data-dir"]).arg(&data).output().unwrap();
    assert!(String::from_utf8_lossy(&second.stderr).contains("runs in"), "{second:?}");
    assert!(dev.interrupt().success());
    assert!(ports.iter().all(|port| is_free(*port)), "all nodes are gone");
    let logs: Vec<String> =
        (1..=3).map(|node| std::fs::read_to_string(data.join(format!("node-{node}.log"))).unwrap()).collect();
    assert!(logs.iter().all(|log| log.lines().any(|line| line == "ready")), "{logs:?}");
    // What is there is found again, with the same ports.
    let dev = Dev::start(&data, &[]);
    assert_eq!(dev.ports(), ports);
    assert_eq!(dev.client(&["consume", "t", "-n", "3"], "").lines().count(), 3);
    assert!(dev.interrupt().success());
}

#[test]
fn nodes_end_with_the_process_that_runs_them_however_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(directory.path(), &["--nodes", "1"]);
    let ports = dev.ports();
    // Even one that could not hear anything.
    dev.must(&["pause", "1"]);
    assert!(!is_free(ports[0]));
    drop(dev);
    for _ in 0..LOOKS_MAX {
        if is_free(ports[0]) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the node is still there");
}

#[test]
fn node_that_cannot_start_ends_the_start_with_its_reason() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(BINARY);
    command.args(["dev", "--base-port", "0", "--set", "min.insync.replicas=abc", "--data-dir"]).arg(directory.path());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("instead of starting") && errors.contains("min.insync.replicas=abc"), "{errors}");
}
