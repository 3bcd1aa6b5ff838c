//! Bits that flip on one node's disk after the other, in rounds under load: each is to be found and mended from the other
//! nodes, and at the end no file is damaged and all replicas hold the same bytes.
//!
//! In every other round the node is killed and its bits flip while it does not run; in the others it runs. Sealed segments
//! are read by its scrub, which goes round all the time; what has not been met at the end, in segments that are still
//! being written, is met by leading and being read. Last, a bit of a voter's metadata log: the node does not start with it,
//! and says so; emptied, it comes back and votes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::bits::{Class, Place};
use super::compare::{self, Compared};
use super::loads::Loads;
use super::nodes::Nodes;
use super::{NODES, view};
use crate::clock;
use crate::random::Random;

/// What nodes are started with: many small segments, and a scrub that goes round all the time.
pub const SETTINGS: [&str; 3] =
    ["log.segment.bytes=1048576", "stonelog.scrub.interval.ms=1000", "stonelog.scrub.max.bytes.per.second=134217728"];
/// Bits that flip in a round.
pub const PER_ROUND: u64 = 50;
/// Batches of each load between two rounds.
const BATCHES: u64 = 20;
/// Damage that is not mended so long after is not mended.
const MENDED_WITHIN: Duration = Duration::from_secs(180);
/// A node that does not end so long after it found that it must not start is stuck.
const REFUSED_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Bits of a metadata log that are tried until one counts.
const TRIES_MAX: u32 = 200;
/// Topics of the brokers' own.
const INTERNAL: &str = "__";

/// What came of it.
#[derive(Debug, Default)]
pub struct Flips {
    binary: PathBuf,
    /// Bits, by what they lay in.
    pub flipped: BTreeMap<Class, u64>,
    /// Places that `stonelog storage check` named right after bits of stopped nodes had flipped.
    pub named: u64,
    /// Of those, how many were left of an earlier round, in segments that nobody had read yet.
    pub left: u64,
    /// The longest time until a node's scrub had seen everything and all replicas were in sync.
    pub mended_within: Duration,
}

impl std::fmt::Display for Flips {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Flips { named, left, mended_within, .. } = self;
        write!(
            f,
            "{named} places named by a check at once, {left} left of earlier rounds; whole again {mended_within:.1?} after"
        )
    }
}

impl Flips {
    /// With the broker's own commands.
    pub fn new(binary: &Path) -> Flips {
        Flips { binary: binary.to_owned(), ..Flips::default() }
    }

    /// Bits that have flipped so far.
    pub fn count(&self) -> u64 {
        self.flipped.values().sum()
    }

    /// One round: `count` bits of one node.
    pub fn round(&mut self, nodes: &mut Nodes, loads: &mut Loads, random: &mut Random, count: u64) -> Result<()> {
        let number = self.count() / PER_ROUND;
        let (node, is_running) = ((number % NODES as u64) as usize, number % 2 == 1);
        loads.get_on(BATCHES, 1)?;
        nodes.wait_whole()?;
        if !is_running {
            nodes.kill9(node)?;
            self.left += self.check(nodes.data(node))?.len() as u64;
        }
        let mut place = Place::in_partitions(nodes.data(node), is_running)?;
        let mut left = count;
        while left > 0 {
            let (class, bit) = place.choose(random)?;
            match bit.flip() {
                Ok(()) => {
                    *self.flipped.entry(class).or_default() += 1;
                    left -= 1;
                }
                // Compaction has removed the segment meanwhile.
                Err(_) if is_running && !bit.path.exists() => (),
                Err(error) => return Err(error),
            }
        }
        if !is_running {
            self.named += self.check(nodes.data(node))?.len() as u64;
            nodes.spawn(node)?;
            nodes.wait_ready(node)?;
        }
        let took = self.wait_mended(nodes, node)?;
        self.mended_within = self.mended_within.max(took);
        Ok(())
    }

    /// Waits until a node's scrub has read all sealed segments from now on and found them whole, and everything is in sync.
    fn wait_mended(&self, nodes: &mut Nodes, node: usize) -> Result<Duration> {
        let begun = clock::now();
        let mut rounds_wanted = None;
        loop {
            let status = self.json(&["storage", "scrub-status", "--json"], &[nodes.data(node)])?;
            let status = &status["directories"][0];
            // The round under way may have passed what was hit, the next one sees it all, the one behind it what was mended.
            let rounds = status["last_round"]["number"].as_u64().unwrap_or(0);
            let wanted = *rounds_wanted.get_or_insert(rounds + 2);
            let damage = status["damage"].as_array().map_or(0, Vec::len);
            if rounds >= wanted && damage == 0 {
                nodes.wait_whole()?;
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > MENDED_WITHIN {
                bail!("node {}: not mended {MENDED_WITHIN:?} after bits had flipped: {status}", node + 1);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// What `stonelog storage check` finds damaged in a directory that no node uses.
    fn check(&self, data: &Path) -> Result<Vec<Value>> {
        let checked = self.json(&["storage", "check", "--json"], &[data])?;
        let findings = checked["directories"][0]["findings"].as_array().context("no findings")?;
        Ok(findings.iter().filter(|finding| finding["severity"] != "note").cloned().collect())
    }

    /// Has a node lead everything, so that it reads what groups have stored, and has damage in that mended.
    fn lead(&self, nodes: &mut Nodes, leader: usize) -> Result<()> {
        nodes.wait_whole()?;
        let partitions = nodes.view(leader)?.partitions;
        let places = partitions.iter().map(|partition| format!("{}:{}", partition.topic, partition.index));
        let to = (leader + 1).to_string();
        let mut command = Command::new(&self.binary);
        command.args(["leader", "transfer", "--to", &to, "--brokers", &nodes.bootstrap()]).args(places);
        let output = command.output()?;
        if !output.status.success() {
            bail!("node {} does not lead: {}", leader + 1, String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Has each node in turn lead everything under load. Damage that nobody has met yet would cost a second replica when one
    /// is taken away.
    pub fn lead_each(&self, nodes: &mut Nodes, loads: &mut Loads) -> Result<()> {
        for leader in 0..NODES {
            self.lead(nodes, leader)?;
            loads.get_on(BATCHES, 1)?;
        }
        nodes.wait_whole().map(drop)
    }

    /// Has each node in turn lead everything, and the checker read it from there.
    pub fn read_from_each(&self, nodes: &mut Nodes, histories: &[PathBuf]) -> Result<()> {
        for leader in 0..NODES {
            self.lead(nodes, leader)?;
            for history in histories {
                let mut command = Command::new(&self.binary);
                command.args(["verify", "--output", "json", "--patience", "60s", "--brokers", &nodes.bootstrap()]);
                let output = command.arg("--check").arg(history).output()?;
                let name = format!("{} from node {}", history.display(), leader + 1);
                let verdict = crate::load::judge(&name, &output, false, history)?;
                if !verdict.is_sound {
                    bail!("{}", verdict.report);
                }
            }
        }
        nodes.wait_whole().map(drop)
    }

    /// What is on the disks of nodes that have stopped: nothing damaged, and the same bytes in all replicas of `topics`.
    pub fn compare(&self, data: [&Path; NODES], topics: &[view::Partition]) -> Result<Compared> {
        for data in data {
            let damage = self.check(data)?;
            if !damage.is_empty() {
                bail!("{} is not whole: {damage:?}", data.display());
            }
        }
        let own = topics.iter().filter(|partition| !partition.topic.starts_with(INTERNAL));
        let named = own.map(|partition| format!("{}-{}", partition.topic_id, partition.index));
        compare::replicas(data, &named.collect::<Vec<_>>())
    }

    /// Flips a bit of a voter's metadata log that counts; returns what the node says instead of starting. Then its disk is
    /// emptied, and it must be a voter again.
    pub fn metadata(&self, nodes: &mut Nodes, loads: &mut Loads, random: &mut Random) -> Result<String> {
        let node = random.below(NODES as u64) as usize;
        nodes.wait_whole()?;
        nodes.wait_voting()?;
        nodes.kill9(node)?;
        let mut place = Place::in_metadata(nodes.data(node))?;
        let mut tries = 0;
        loop {
            let (_, bit) = place.choose(random)?;
            bit.flip()?;
            if self.check(nodes.data(node))?.iter().any(|finding| finding["severity"] == "damage") {
                break;
            }
            // In bytes that nobody needs, or in what was being written when the node was killed.
            bit.flip()?;
            tries += 1;
            if tries > TRIES_MAX {
                bail!("no bit of node {}'s metadata log counts", node + 1);
            }
        }
        let said = nodes.spawn_refused(node, REFUSED_WITHIN)?;
        let said = said.lines().find(|line| line.contains("metadata log")).map(str::to_owned);
        let said = said.with_context(|| format!("node {} does not name its metadata log", node + 1))?;
        let without = format!("while node {} does not start", node + 1);
        loads.get_on(BATCHES, 1).context(without)?;
        nodes.wipe(node)?;
        nodes.spawn(node)?;
        nodes.wait_ready(node)?;
        nodes.wait_whole()?;
        nodes.wait_voting()?;
        Ok(said)
    }

    /// Runs a command of the broker's, whose answer is one document whatever its exit code.
    fn json(&self, arguments: &[&str], directories: &[&Path]) -> Result<Value> {
        let output = Command::new(&self.binary).args(arguments).args(directories).output()?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!("{arguments:?}: {} {}", output.status, String::from_utf8_lossy(&output.stderr).trim())
        })
    }
}
