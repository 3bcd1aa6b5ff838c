//! What goes wrong with a cluster, one thing at a time: chosen from a seed, done, held for a while, and mended.
//!
//! After each the cluster is as before, but for what it still has to catch up with. What takes a second copy away waits
//! first until there are three again, of the metadata too: two failures at once may cost records that were acknowledged with one copy left,
//! and a promise about two disks is none about three.

use std::time::Duration;

use anyhow::{Result, bail};
use rustix::process::Signal;

use super::NODES;
use super::disk::SlowDisk;
use super::nodes::Nodes;
use crate::random::Random;

/// Longest time a fault is held.
const HELD_MS: u64 = 5_000;
/// A broker that has missed its session is fenced within this.
const SEEN_WITHIN: Duration = Duration::from_secs(4);
/// How far a wall clock jumps. No farther back: what a producer stamps would lie more than
/// `message.timestamp.after.max.ms` ahead of such a broker, and be refused, as by Kafka.
const JUMP_MS: i64 = 60 * 60 * 1_000;
/// Longest time between the two kills of a round in which nodes start.
const STARTING_MS: u64 = 400;

/// Something that goes wrong. Nodes count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A node is killed and started again after a while.
    Kill(usize),
    /// The node with the active controller is.
    KillController,
    /// A node is killed while it starts, and again.
    KillWhileStarting(usize),
    /// Two nodes are killed: no majority of anything is left.
    KillTwo(usize),
    /// All nodes are killed at once.
    KillAll,
    /// A node is stopped as an operator does it, and started again.
    Restart(usize),
    /// A node does not run for a while, and then goes on as if nothing had been.
    Pause(usize),
    /// The node with the active controller does not.
    PauseController,
    /// The others and a node do not hear each other; clients hear all.
    Isolate(usize),
    /// The node with the active controller is isolated.
    IsolateController,
    /// Nothing a node sends reaches the others, and it hears them.
    Mute(usize),
    /// Nothing the others send reaches a node, and they hear it.
    Deafen(usize),
    /// Two nodes do not hear each other; the third hears both.
    Bridge(usize),
    /// One node does not hear another, and that is all.
    OneWay(usize, usize),
    /// A node's link carries little.
    SlowLink(usize),
    /// A node's disk takes little.
    SlowDisk(usize),
    /// A node's wall clock goes forward, and back again after a while.
    ClockForward(usize),
    /// A node's wall clock goes back, and forward again after a while.
    ClockBack(usize),
    /// A node loses its disk for good and comes back with an empty one.
    Wipe(usize),
}

/// What a machine allows.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// Network namespaces.
    pub network: bool,
    /// Control groups for disks.
    pub slow_disk: bool,
    /// Whether disks are taken away.
    pub wipe: bool,
    /// A build whose wall clock can be moved.
    pub clocks: bool,
}

impl Fault {
    /// One that is allowed.
    pub fn choose(random: &mut Random, allowed: Allowed) -> Fault {
        let node = random.below(NODES as u64) as usize;
        let other = (node + 1 + random.below(NODES as u64 - 1) as usize) % NODES;
        loop {
            let kinds = if allowed.clocks { 22 } else { 20 };
            let fault = match random.below(kinds) {
                0 | 1 => Fault::Kill(node),
                2 => Fault::KillController,
                3 => Fault::KillWhileStarting(node),
                4 => Fault::KillTwo(node),
                5 => Fault::KillAll,
                6 => Fault::Restart(node),
                7 | 8 => Fault::Pause(node),
                9 => Fault::PauseController,
                10 | 11 => Fault::Isolate(node),
                12 => Fault::IsolateController,
                13 => Fault::Mute(node),
                14 => Fault::Deafen(node),
                15 => Fault::Bridge(node),
                16 => Fault::OneWay(node, other),
                17 => Fault::SlowLink(node),
                18 => Fault::SlowDisk(node),
                19 => Fault::Wipe(node),
                20 => Fault::ClockForward(node),
                _ => Fault::ClockBack(node),
            };
            if fault.is_possible(allowed) {
                return fault;
            }
        }
    }

    fn is_possible(self, allowed: Allowed) -> bool {
        match self {
            Fault::Isolate(_)
            | Fault::IsolateController
            | Fault::Mute(_)
            | Fault::Deafen(_)
            | Fault::Bridge(_)
            | Fault::OneWay(..)
            | Fault::SlowLink(_) => allowed.network,
            Fault::SlowDisk(_) => allowed.slow_disk,
            Fault::Wipe(_) => allowed.wipe,
            Fault::ClockForward(_) | Fault::ClockBack(_) => allowed.clocks,
            _ => true,
        }
    }

    /// Its name, without the node.
    pub fn name(self) -> String {
        let text = format!("{self:?}");
        text.split('(').next().unwrap_or_default().to_owned()
    }

    /// Does it, holds it, and mends it.
    pub fn strike(self, nodes: &mut Nodes, random: &mut Random) -> Result<()> {
        let hold = |random: &mut Random| std::thread::sleep(random.millis_below(HELD_MS));
        let controller = || nodes.controller().unwrap_or(0);
        match self {
            Fault::KillController => Fault::Kill(controller()).strike(nodes, random),
            Fault::PauseController => Fault::Pause(controller()).strike(nodes, random),
            Fault::IsolateController => Fault::Isolate(controller()).strike(nodes, random),
            Fault::Kill(node) => {
                nodes.kill9(node)?;
                hold(random);
                nodes.spawn(node)?;
                nodes.wait_ready(node)
            }
            Fault::KillWhileStarting(node) => {
                for _ in 0..3 {
                    nodes.kill9(node)?;
                    nodes.spawn(node)?;
                    std::thread::sleep(random.millis_below(STARTING_MS));
                }
                nodes.kill9(node)?;
                nodes.spawn(node)?;
                nodes.wait_ready(node)
            }
            Fault::KillTwo(spared) => {
                let killed: Vec<usize> = (0..NODES).filter(|node| *node != spared).collect();
                kill_and_start(nodes, &killed, || hold(random))
            }
            Fault::KillAll => kill_and_start(nodes, &[0, 1, 2], || ()),
            Fault::Restart(node) => {
                nodes.stop(node)?;
                nodes.spawn(node)?;
                nodes.wait_ready(node)
            }
            Fault::Pause(node) => {
                nodes.signal(node, Signal::STOP)?;
                hold(random);
                nodes.signal(node, Signal::CONT)
            }
            Fault::Isolate(node) => cut(nodes, &[to_others(node), from_others(node)].concat(), || hold(random)),
            Fault::Mute(node) => cut(nodes, &to_others(node), || hold(random)),
            Fault::Deafen(node) => cut(nodes, &from_others(node), || hold(random)),
            Fault::Bridge(middle) => {
                let (one, other) = ((middle + 1) % NODES, (middle + 2) % NODES);
                cut(nodes, &[(one, other), (other, one)], || hold(random))
            }
            Fault::OneWay(from, to) => cut(nodes, &[(from, to)], || hold(random)),
            Fault::SlowLink(node) => {
                nodes.ground().slow_down(node)?;
                hold(random);
                nodes.ground().speed_up(node)
            }
            Fault::SlowDisk(node) => {
                let process = nodes.process(node).unwrap_or_default();
                let slow = SlowDisk::begin(nodes.data(node), process)?;
                hold(random);
                drop(slow);
                Ok(())
            }
            Fault::ClockForward(node) => jump(nodes, node, JUMP_MS, || hold(random)),
            Fault::ClockBack(node) => jump(nodes, node, -JUMP_MS, || hold(random)),
            Fault::Wipe(node) => {
                nodes.wait_whole()?;
                nodes.wait_voting()?;
                nodes.kill9(node)?;
                nodes.wipe(node)?;
                hold(random);
                nodes.spawn(node)?;
                nodes.wait_ready(node)?;
                nodes.wait_whole()?;
                nodes.wait_voting()
            }
        }
    }
}

fn to_others(node: usize) -> Vec<(usize, usize)> {
    (0..NODES).filter(|other| *other != node).map(|other| (node, other)).collect()
}

fn from_others(node: usize) -> Vec<(usize, usize)> {
    to_others(node).into_iter().map(|(from, to)| (to, from)).collect()
}

fn cut(nodes: &Nodes, ways: &[(usize, usize)], hold: impl FnOnce()) -> Result<()> {
    for (from, to) in ways {
        nodes.ground().cut(*from, *to)?;
    }
    hold();
    for (from, to) in ways {
        nodes.ground().join(*from, *to)?;
    }
    Ok(())
}

/// Nothing that waits looks at the wall clock: nobody is fenced or leaves a set, neither by the jump nor by the one back.
fn jump(nodes: &mut Nodes, node: usize, by_ms: i64, hold: impl FnOnce()) -> Result<()> {
    nodes.wait_whole()?;
    let before = nodes.fencings()?;
    nodes.shift_clock(node, by_ms)?;
    hold();
    nodes.shift_clock(node, 0)?;
    std::thread::sleep(SEEN_WITHIN);
    let missing = nodes.view(node)?.missing(NODES);
    let fenced = nodes.fencings()? - before;
    if missing.is_some() || fenced > 0 {
        let node = node + 1;
        bail!("a jump of node {node}'s wall clock by {by_ms} ms: {fenced} brokers were fenced, missing: {missing:?}");
    }
    Ok(())
}

fn kill_and_start(nodes: &mut Nodes, killed: &[usize], hold: impl FnOnce()) -> Result<()> {
    for node in killed {
        nodes.kill9(*node)?;
    }
    hold();
    for node in killed {
        nodes.spawn(*node)?;
    }
    for node in killed {
        nodes.wait_ready(*node)?;
    }
    Ok(())
}
