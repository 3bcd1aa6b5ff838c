//! What goes wrong, and the whole life of a seed: a minute of faults, then everything heals and has to come together.

use stonelog_protocol::{BrokerId, DirectoryId, TopicPartition};
use stonelog_replication::controller::{ControllerRequest, DeleteTopics, TopicReference};
use stonelog_storage::disk::{Survival, Tearing};

use super::network::CONTROLLER;
use super::node::{Role, Store};
use super::{Cluster, Event};
use crate::support::Random;

/// A seed has at least so many.
pub const APPENDS_MIN: u64 = 500;
/// A seed has at least so many.
pub const FAULTS_MIN: u64 = 10;
/// Simulated microseconds of a seed with faults, at least.
pub const TIME_MIN: u64 = 60_000_000;
/// Simulated microseconds within which a healed cluster comes together.
const HEAL: u64 = 90_000_000;

/// What must have come up over a run.
pub const MARKS: &[&str] = &[
    "acknowledged",
    "append failed after the fact",
    "append refused for want of replicas",
    "two believe to lead",
    "leader began",
    "leader stepped down",
    "stream opened",
    "stream refused",
    "histories parted",
    "cut in memory",
    "cut into segments",
    "catch-up read from disk",
    "report fenced",
    "join proposed",
    "leave proposed",
    "ISR change accepted",
    "ISR change refused",
    "ISR answer lost",
    "ISR request there twice",
    "message of an earlier connection",
    "session expired",
    "several requests in one entry",
    "controller changed",
    "power cut of one node",
    "process killed",
    "power cut of all nodes",
    "restart inside a session",
    "disk replaced",
    "one-way partition",
    "node cut off from the controller",
    "connection reset",
    "journal stands still",
    "gray leader hands over",
    "topic deleted and made again",
    "min ISR changed",
    "elected from the ELR",
    "flush",
    "checkpoint written",
    "message of a former life",
    "request of a former life",
    "died before an epoch was recorded everywhere",
    "directory failed",
    "disk replaced outside the in-sync set",
    "replica given another directory",
    "replica waits for an earlier one's deletion",
    "reassignment asked for",
    "reassignment complete",
    "replica dropped",
    "flush.messages changed",
    "strict topic relaxed",
    "records deleted",
    "reset to a later log start",
    "relaxed loss accepted",
    "follower serves consumers",
    "report of an earlier stream behind an open",
    "disk replaced under a wish to join",
    "led by one that lacks committed records",
    "stopped rather than cut below its watermark",
    "damage in a sealed segment",
    "damage in the segment being written",
    "damage in the journal",
    "sector lost",
    "damage found in a segment",
    "damage met by a read for a follower",
    "read refused for damage",
    "repair begun",
    "damaged segment mended",
    "lost range mended in a segment",
    "lost range mended beside the segments",
    "damaged leader hands over",
];

fn tell(cluster: &Cluster, what: &str, id: BrokerId) {
    if std::env::var_os("STONELOG_SIMULATION_LOG").is_some() {
        println!("{:>12} {what} {id}", cluster.now);
    }
}

fn survival(random: &mut Random) -> Survival {
    match random.below(6) {
        0 => Survival::Nothing,
        1 => Survival::Everything,
        2 | 3 => Survival::Some { seed: random.next(), tearing: Tearing::Blocks },
        _ => Survival::Some { seed: random.next(), tearing: Tearing::Sectors },
    }
}

/// Something goes wrong.
pub(super) fn inject(cluster: &mut Cluster) {
    cluster.faults_count += 1;
    if cluster.below(4) == 0 {
        super::damage::settle(cluster);
    }
    let nodes = cluster.options.nodes;
    let id = BrokerId(1 + cluster.below(nodes as u64) as i32);
    let other = BrokerId(1 + (id.0 + cluster.below(nodes as u64 - 1) as i32) % nodes);
    let until = cluster.now + 300_000 + cluster.below(15_000_000);
    match cluster.below(33) {
        0..=4 => {
            let is_power = cluster.below(3) > 0;
            cluster.coverage.hit(if is_power { "power cut of one node" } else { "process killed" });
            crash(cluster, id, is_power);
        }
        5 | 6 => {
            cluster.coverage.hit("power cut of all nodes");
            cluster.ids().into_iter().for_each(|id| crash(cluster, id, true));
            if cluster.ever_relaxed && cluster.below(2) == 0 {
                // Before anybody is back: what a topic promises from now on it may lack.
                cluster.set_modes("1");
            }
        }
        7..=9 => {
            cluster.coverage.hit("one-way partition");
            cluster.network.cut(id, other, until);
            if cluster.below(2) == 0 {
                cluster.network.cut(other, id, until);
            }
        }
        10..=12 => {
            cluster.coverage.hit("node cut off from the controller");
            cluster.network.cut(CONTROLLER, id, until);
            if cluster.below(2) == 0 {
                cluster.network.cut(id, CONTROLLER, until);
            }
        }
        13 | 14 => {
            cluster.coverage.hit("connection reset");
            cluster.plan(0, Event::Reset(id, other, None));
        }
        15 | 16 => {
            cluster.coverage.hit("controller changed");
            let keeps = cluster.below(2) == 0;
            let now = cluster.now;
            cluster.log.change_controller(keeps, now);
            cluster.publish();
        }
        17 | 18 => {
            cluster.coverage.hit("journal stands still");
            cluster.node(id).stuck_until = until;
        }
        19 | 20 => replace_some_disk(cluster, id),
        21 => recreate(cluster),
        22 => change_min_isr(cluster),
        // What is relaxed loses more to a power cut than a damaged replica's peers are sure to have.
        23 if cluster.damaged.is_none() => cluster.change_modes(),
        23..=25 => cluster.reassign(),
        26 => cluster.delete_records(),
        27 | 28 => fail_directory(cluster, id),
        29..=31 => super::damage::inject(cluster, id),
        _ => {
            // Everybody on their own for a while.
            for from in cluster.ids() {
                for to in cluster.ids() {
                    cluster.network.cut(from, to, until);
                }
            }
        }
    }
}

pub(super) fn crash(cluster: &mut Cluster, id: BrokerId, is_power: bool) {
    if cluster.node(id).up.take().is_none() {
        return;
    }
    tell(cluster, if is_power { "power cut" } else { "kill" }, id);
    cluster.node(id).stuck_until = 0;
    if is_power {
        cluster.oracle.on_power_cut();
    }
    for directory in cluster.node(id).stores.keys().copied().collect::<Vec<_>>() {
        let survival = survival(&mut cluster.random);
        let store = &cluster.node(id).stores[&directory];
        match is_power {
            true => store.disk.crash_to(survival),
            false => store.disk.kill(),
        }
    }
    let fast = cluster.below(3) > 0;
    cluster.coverage.hit_if(fast, "restart inside a session");
    let after = if fast { 20_000 + cluster.below(1_500_000) } else { cluster.below(20_000_000) };
    cluster.plan(after, Event::Start(id, !is_power));
    for other in cluster.ids().into_iter().filter(|other| *other != id) {
        cluster.plan(1_000, Event::Reset(id, other, None));
    }
}

/// Whether all that a directory of a node holds may go: what is committed is on enough other disks, durably, and one more
/// loss would not be one too many for the promise. What is outside of every set is missed by nobody.
pub(super) fn may_lose(cluster: &Cluster, id: BrokerId, directory: DirectoryId) -> Option<&'static str> {
    let image = cluster.log.newest();
    let is_known = |node: &super::node::Node| {
        let registered = image.broker(node.id).map(|broker| broker.incarnation);
        node.up.as_ref().is_some_and(|up| registered == Some(up.incarnation) && up.epoch.is_some())
    };
    if cluster.damaged.is_some() {
        return None;
    }
    if cluster.options.min_isr == Some(1) || cluster.ever_relaxed || !cluster.nodes.iter().all(is_known) {
        return None;
    }
    let mut mark = "disk replaced outside the in-sync set";
    for (_, _, partition) in image.partitions() {
        if partition.directory_of(id) != Some(directory) {
            continue;
        }
        if partition.isr.contains(&id) || partition.elr.contains(&id) {
            mark = "disk replaced";
            if partition.isr.len() < 3 || partition.isr.len() < partition.replicas.len() {
                return None;
            }
        }
    }
    Some(mark)
}

pub(super) fn any_directory(cluster: &mut Cluster, id: BrokerId) -> DirectoryId {
    let all: Vec<DirectoryId> = cluster.node(id).stores.keys().copied().collect();
    all[cluster.below(all.len() as u64) as usize]
}

/// A disk goes with all it holds, of a node outside every set where there is one.
fn replace_some_disk(cluster: &mut Cluster, id: BrokerId) {
    let outside = cluster.nodes.iter().map(|node| node.id).find(|id| {
        let image = cluster.log.newest();
        image.partitions().all(|(_, _, partition)| !partition.isr.contains(id) && !partition.elr.contains(id))
    });
    replace_disk(cluster, outside.unwrap_or(id));
}

/// A disk goes, and an empty one takes its place, as a copy of its name or under a new one.
pub(super) fn replace_disk(cluster: &mut Cluster, id: BrokerId) {
    let directory = any_directory(cluster, id);
    let Some(mark) = may_lose(cluster, id, directory) else { return };
    cluster.coverage.hit(mark);
    crash(cluster, id, true);
    replace(cluster, id, directory);
}

fn replace(cluster: &mut Cluster, id: BrokerId, directory: DirectoryId) {
    tell(cluster, "replaced disk", id);
    let renamed = cluster.below(2) == 0;
    cluster.stores_count = cluster.stores_count.wrapping_add(1);
    let fresh = super::directory_id(id.0, 100, cluster.stores_count);
    let node = cluster.node(id);
    node.stores.remove(&directory);
    node.stores.insert(if renamed { fresh } else { directory }, Store::new());
}

/// A directory fails under a process that goes on with the others. It is never used again.
fn fail_directory(cluster: &mut Cluster, id: BrokerId) {
    let directory = any_directory(cluster, id);
    // A process that has no other directory left ends, which is a crash as any other.
    let open = cluster.node(id).up.as_ref().map_or(0, |up| up.directories.ids().len());
    if open < 2 || may_lose(cluster, id, directory).is_none() {
        return;
    }
    tell(cluster, "failed directory", id);
    cluster.coverage.hit("directory failed");
    cluster.with(id, |node, env| {
        let me = node.id;
        node.stores.remove(&directory);
        let Some(up) = &mut node.up else { return };
        for gone in up.directories.close(directory) {
            up.forget(gone);
        }
        up.has_failed = true;
        up.hurry();
        up.after(me, env);
    });
    let fresh = super::directory_id(id.0, 101, cluster.stores_count);
    cluster.stores_count = cluster.stores_count.wrapping_add(1);
    // It is there at the next start.
    cluster.node(id).stores.insert(fresh, Store::new());
}

fn recreate(cluster: &mut Cluster) {
    let names: Vec<_> = cluster.log.newest().topics().map(|topic| topic.name.to_string()).collect();
    let topics = names.into_iter().map(TopicReference::Name).collect();
    cluster.coverage.hit("topic deleted and made again");
    cluster.request(ControllerRequest::DeleteTopics(DeleteTopics { topics }));
    cluster.create_topic();
}

fn change_min_isr(cluster: &mut Cluster) {
    // Lowering it to one would make a replaced disk a loss.
    if cluster.options.min_isr == Some(1) {
        return;
    }
    let min = 2 + cluster.below(2);
    let names: Vec<_> = cluster.log.newest().topics().map(|topic| topic.name.to_string()).collect();
    cluster.coverage.hit("min ISR changed");
    for name in names {
        cluster.set(&name, "min.insync.replicas", &min.to_string());
    }
}

/// Lives a whole seed; panics when an invariant is broken or the healed cluster does not come together.
pub fn live(seed: u64) -> Cluster {
    let mut cluster = Cluster::new(seed);
    let mut end = TIME_MIN;
    cluster.run_until(end);
    while cluster.appends_count < APPENDS_MIN || cluster.faults_count < FAULTS_MIN {
        end += 5_000_000;
        cluster.run_until(end);
        assert!(end < 20 * TIME_MIN, "seed {seed}: hardly anything is appended: {}", describe(&cluster));
    }
    heal(&mut cluster);
    super::damage::read_everything(&mut cluster);
    if seed.is_multiple_of(3) {
        super::epilogue::accept_loss(&mut cluster);
    }
    cluster
}

/// Nothing fails any more.
fn heal(cluster: &mut Cluster) {
    cluster.healing = true;
    cluster.network.heal();
    let acknowledged = cluster.oracle.acknowledged_count;
    cluster.nodes.iter_mut().for_each(|node| node.stuck_until = 0);
    let end = cluster.now + HEAL;
    while cluster.now < end {
        let next = cluster.now + 1_000_000;
        cluster.run_until(next);
        if cluster.ever_relaxed {
            cluster.accept_losses();
        }
        super::damage::settle(cluster);
        if cluster.now > end - HEAL + 22_000_000
            && cluster.damaged.is_none()
            && unsettled(cluster).is_none()
            && cluster.oracle.acknowledged_count > acknowledged
        {
            return;
        }
    }
    let (why, damaged) = (unsettled(cluster), cluster.damaged);
    panic!("seed {}: does not come together: {why:?} {damaged:?}: {}", cluster.seed, describe(cluster));
}

/// What a settled cluster still lacks: everybody in sync, with the same log but for what is on its way, and everything
/// that was ever committed in it.
fn unsettled(cluster: &Cluster) -> Option<String> {
    for id in cluster.partitions() {
        let registration = cluster.log.newest().partition(id)?;
        if registration.isr.len() < registration.replicas.len() || registration.is_reassigning() {
            return Some(format!("{id}: in sync are {:?}", registration.isr));
        }
        for node in cluster.nodes.iter().filter(|node| registration.replicas.contains(&node.id)) {
            let Some(part) = node.up.as_ref().and_then(|up| up.parts.get(&id)) else {
                return Some(format!("{id} is not on {}", node.id));
            };
            let start = node.up.as_ref().map_or(0, |up| up.directories.log(id).log_start().0);
            if let Some(entry) = cluster.oracle.missing(id, &part.shadow, start, registration.leader_epoch) {
                return Some(format!("{id} on {} lacks {entry:?}", node.id));
            }
            let end = part.shadow.values().last().map_or(0, |entry| entry.end);
            let behind = cluster.oracle.committed_of(id) as i64;
            if behind > 0 && end == 0 {
                return Some(format!("{id} on {} is empty", node.id));
            }
        }
    }
    None
}

fn describe(cluster: &Cluster) -> String {
    let mut said = format!("at {} s, {:?}\n", cluster.now / 1_000_000, cluster.options);
    let image = cluster.log.newest();
    for (topic, index, partition) in image.partitions() {
        said.push_str(&format!(
            "{}-{index}: leader {:?} epoch {} isr {:?} elr {:?} pe {}\n",
            topic.name,
            partition.leader,
            partition.leader_epoch,
            partition.isr,
            partition.elr,
            partition.partition_epoch
        ));
    }
    for broker in image.brokers() {
        said.push_str(&format!("broker {} epoch {} fenced {}\n", broker.id, broker.epoch, broker.fenced));
    }
    for node in &cluster.nodes {
        let Some(up) = &node.up else {
            said.push_str(&format!("node {} is down\n", node.id));
            continue;
        };
        said.push_str(&format!(
            "node {} epoch {:?} image {} of {}\n",
            node.id,
            up.epoch,
            up.image.index(),
            image.index()
        ));
        for (id, part) in &up.parts {
            said.push_str(&describe_part(*id, part, up.directories.log(*id)));
        }
        up.streams.values().for_each(|stream| said.push_str(&format!("  leads {stream:?}\n")));
    }
    said
}

fn describe_part(id: TopicPartition, part: &super::node::Part, log: &stonelog_storage::log::Log) -> String {
    let role = match &part.role {
        Role::Idle => "idle".to_owned(),
        Role::Leader(leader) => format!("leads, counts {:?}", leader.maximal_isr()),
        Role::Follower(follower) => format!("follows: {follower:?}"),
    };
    format!(
        "  {id}: {role}; start {} durable {} written {} end {} watermark {} changing {} holes {:?}\n",
        log.log_start(),
        log.durable(),
        log.written(),
        log.log_end(),
        part.high_watermark,
        log.is_changing(),
        log.holes()
    )
}
