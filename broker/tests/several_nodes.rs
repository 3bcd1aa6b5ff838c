//! Three broker processes with a common secret are one cluster to clients: any of them creates topics, an acknowledged
//! record survives the death of its leader, and a broker that was killed comes back.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use support::cluster::Cluster;

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
        cluster.kill(dead);
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

#[test]
fn node_that_waits_for_others_says_so_lets_no_client_in_and_ends_when_it_is_told_to() {
    let cluster = Cluster::begin();
    let mut waiting = cluster.command(0).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(waiting.stderr.take().unwrap()).lines().map(Result::unwrap);
    let said = lines.find(|line| line.contains("no answer yet from node 2, 3")).expect("it says what it waits for");
    assert!(said.contains("node 3: unreachable: Connection refused"), "{said}");
    let refused = TcpStream::connect(("127.0.0.1", cluster.ports[0])).map(|_| ());
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    kill_process(Pid::from_child(&waiting), Signal::TERM).unwrap();
    assert!(lines.any(|line| line.contains("stopped before this node was ready")));
    assert_eq!(waiting.wait().unwrap().code(), Some(143));
}
