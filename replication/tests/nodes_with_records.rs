//! Records in a cluster of real processes: what was acknowledged is there, at its offset, whoever was killed or paused.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod processes;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use processes::{ALL, Cluster, PATIENCE};
use stonelog_replication::runtime::clock::Clock;

/// A node, when another test starts it; nothing by itself.
#[test]
fn node() {
    processes::node();
}

/// Who appends to `t` 0, and what of it was acknowledged.
struct Appender {
    next: u64,
    acknowledged: BTreeMap<i64, u64>,
    /// Nodes that append: they answer nothing else.
    busy: BTreeSet<i32>,
}

impl Appender {
    fn new() -> Appender {
        Appender { next: 0, acknowledged: BTreeMap::new(), busy: BTreeSet::new() }
    }

    /// Has the leader append, one that is wished, and hears of so many acknowledgements; it goes on until somebody stops
    /// it. A leader that could not is asked no more: another one is. Says who it was.
    fn begin(&mut self, cluster: &mut Cluster, count: usize, wish: impl Fn(i32, usize) -> bool) -> i32 {
        loop {
            let leader = self.leader(cluster, &wish);
            let (from, to) = (self.next, self.next + 1_000_000);
            // Whatever of it is in the log was appended before anything else.
            self.next = to;
            cluster.node(leader).tell(&format!("append t 0 {from} {to}"));
            if (0..count).all(|_| self.hear_one(cluster, leader)) {
                self.busy.insert(leader);
                return leader;
            }
        }
    }

    /// Hears of one acknowledgement, or that there will be no more.
    fn hear_one(&mut self, cluster: &mut Cluster, node: i32) -> bool {
        let Ok(said) = cluster.node(node).said.recv_timeout(PATIENCE) else { return false };
        match said.split_once(' ').unwrap() {
            ("acked", acknowledged) => self.note(acknowledged),
            ("appended", _) => return false,
            other => panic!("{other:?}"),
        }
        true
    }

    fn note(&mut self, said: &str) {
        let (offset, value) = said.split_once(' ').unwrap();
        let before = self.acknowledged.insert(offset.parse().unwrap(), value.parse().unwrap());
        assert_eq!(before, None, "offset {offset} was acknowledged twice");
    }

    /// Hears what a node said that is gone, or that has stopped by itself.
    fn hear_rest(&mut self, cluster: &mut Cluster, node: i32) {
        self.busy.remove(&node);
        while self.hear_one(cluster, node) {}
    }

    /// Waits until the partition is led, by somebody that runs, and as wished; says by whom.
    fn leader(&self, cluster: &mut Cluster, wish: impl Fn(i32, usize) -> bool) -> i32 {
        let begun = Clock.mono();
        loop {
            let asked = *cluster.running.keys().find(|id| !self.busy.contains(id)).unwrap();
            cluster.node(asked).tell("leader t 0");
            let said = cluster.node(asked).hear("leader");
            let (leader, isr) = said.split_once(' ').unwrap();
            let (leader, isr): (i32, usize) = (leader.parse().unwrap(), isr.parse().unwrap());
            if cluster.running.contains_key(&leader) && wish(leader, isr) {
                if self.busy.contains(&leader) {
                    return leader;
                }
                // It may hear of it later than the one that was asked.
                cluster.node(leader).tell("leader t 0");
                if cluster.node(leader).hear("leader").starts_with(&format!("{leader} ")) {
                    return leader;
                }
            }
            assert!(begun.elapsed() < PATIENCE, "it never comes to it: {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Everything acknowledged is there, at its offset.
    fn check(&self, cluster: &mut Cluster) {
        let last = *self.acknowledged.keys().next_back().unwrap();
        let begun = Clock.mono();
        let found = loop {
            let leader = self.leader(cluster, |_, _| true);
            cluster.node(leader).tell("values t 0");
            let said = cluster.node(leader).hear("values");
            let found: Vec<u64> = said.split(',').filter_map(|value| value.parse().ok()).collect();
            // A new leader's watermark may not have come so far.
            if found.len() as i64 > last {
                break found;
            }
            assert!(begun.elapsed() < PATIENCE, "{} records are left, and offset {last} was acknowledged", found.len());
        };
        for (offset, value) in &self.acknowledged {
            assert_eq!(found.get(*offset as usize), Some(value), "offset {offset} of {} records", found.len());
        }
    }
}

fn begun() -> Cluster {
    let mut cluster = Cluster::formed();
    cluster.settled();
    cluster.node(1).tell("create t");
    assert_eq!(cluster.node(1).hear("created"), "3");
    for id in ALL {
        cluster.node(id).until(|state| state.topics.contains_key("t"));
    }
    cluster
}

#[test]
fn replicas_of_a_replaced_disk_are_fetched_again_and_count_again() {
    let mut cluster = begun();
    let mut appender = Appender::new();
    let leader = appender.begin(&mut cluster, 40, |_, isr| isr == 3);
    let replaced = *ALL.iter().find(|id| **id != leader).unwrap();
    cluster.kill(replaced);
    appender.leader(&mut cluster, |_, isr| isr == 2);
    std::fs::remove_dir_all(cluster.directory(replaced)).unwrap();
    cluster.start(replaced);
    cluster.node(replaced).hear("ready");
    // In sync: it has everything that was acknowledged.
    appender.leader(&mut cluster, |_, isr| isr == 3);
}

#[test]
fn what_was_acknowledged_survives_the_death_of_one_leader_after_the_other() {
    let mut cluster = begun();
    let mut appender = Appender::new();
    for _ in 0..3 {
        let dead = appender.begin(&mut cluster, 40, |_, isr| isr == 3);
        cluster.node(dead).signal(libc::SIGKILL);
        appender.hear_rest(&mut cluster, dead);
        cluster.kill(dead);
        appender.leader(&mut cluster, |leader, _| leader != dead);
        appender.check(&mut cluster);
        // Two are enough, and what the third has more than they is cut when it comes back.
        let next = appender.begin(&mut cluster, 40, |leader, _| leader != dead);
        cluster.start(dead);
        cluster.node(dead).hear("ready");
        appender.leader(&mut cluster, |_, isr| isr == 3);
        cluster.node(next).signal(libc::SIGKILL);
        appender.hear_rest(&mut cluster, next);
        cluster.kill(next);
        cluster.start(next);
        cluster.node(next).hear("ready");
    }
    appender.leader(&mut cluster, |_, isr| isr == 3);
    appender.check(&mut cluster);
}

#[test]
fn leader_that_was_paused_acknowledges_nothing_that_its_successor_does_not_have() {
    let mut cluster = begun();
    let mut appender = Appender::new();
    let paused = appender.begin(&mut cluster, 40, |_, isr| isr == 3);
    cluster.node(paused).signal(libc::SIGSTOP);
    let away = cluster.running.remove(&paused).unwrap();
    let next = appender.begin(&mut cluster, 40, |leader, _| leader != paused);
    away.signal(libc::SIGCONT);
    cluster.running.insert(paused, away);
    // It was appending, and hears that it leads no more.
    appender.hear_rest(&mut cluster, paused);
    appender.leader(&mut cluster, |_, isr| isr == 3);
    cluster.node(next).signal(libc::SIGKILL);
    appender.hear_rest(&mut cluster, next);
    cluster.kill(next);
    appender.leader(&mut cluster, |leader, _| leader != next);
    appender.check(&mut cluster);
}

#[test]
fn all_nodes_are_killed_at_once_and_everything_acknowledged_is_there_again() {
    let mut cluster = begun();
    let mut appender = Appender::new();
    for _ in 0..2 {
        let leader = appender.begin(&mut cluster, 60, |_, isr| isr == 3);
        for id in ALL {
            cluster.node(id).signal(libc::SIGKILL);
        }
        appender.hear_rest(&mut cluster, leader);
        for id in ALL {
            cluster.kill(id);
        }
        for id in ALL {
            cluster.start(id);
        }
        for id in ALL {
            cluster.node(id).hear("ready");
        }
        appender.check(&mut cluster);
    }
    // They go on from there.
    let leader = appender.begin(&mut cluster, 20, |_, isr| isr == 3);
    cluster.node(leader).signal(libc::SIGKILL);
    appender.hear_rest(&mut cluster, leader);
    cluster.kill(leader);
    appender.check(&mut cluster);
}
