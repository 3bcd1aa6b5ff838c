//! The part of the checker that follows consumer groups: what members read and what they committed.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::history::{Event, Run};
use super::super::verdict::{Anomaly, Verdict};
use super::scan::Scan;

/// Commits of one group in one partition.
#[derive(Debug)]
struct Commits {
    /// Largest acknowledged offset; -1 if none.
    acked: i64,
    /// Offsets asked for whose outcome is unknown so far.
    open: HashSet<i64>,
    /// Offsets asked for, refused ones included: a refusal after a lost answer proves nothing.
    asked: HashSet<i64>,
}

impl Default for Commits {
    fn default() -> Commits {
        Commits { acked: -1, open: HashSet::new(), asked: HashSet::new() }
    }
}

/// Something a member has read.
#[derive(Clone, Copy, Debug)]
struct Read {
    partition: i32,
    run: Run,
}

#[derive(Debug)]
struct AskedCommit {
    group: String,
    offsets: Vec<(i32, i64)>,
}

/// All groups of a run.
#[derive(Debug)]
pub(super) struct Groups {
    exclusive: bool,
    /// Expected next offset by group, member and partition, since the member last joined.
    positions: HashMap<(String, u32), BTreeMap<i32, i64>>,
    reads: Vec<Read>,
    asked: Vec<AskedCommit>,
    commits: HashMap<(String, i32), Commits>,
}

impl Groups {
    pub(super) fn new(exclusive: bool) -> Groups {
        Groups { exclusive, positions: HashMap::new(), reads: Vec::new(), asked: Vec::new(), commits: HashMap::new() }
    }

    pub(super) fn on_event(&mut self, event: &Event, verdict: &mut Verdict) {
        match event {
            Event::Joined { group, member, positions, committed, .. } => {
                let committed_of: BTreeMap<i32, i64> = committed.iter().copied().collect();
                for (partition, _) in positions {
                    self.judge_committed(group, *partition, committed_of.get(partition).copied(), verdict);
                }
                self.positions.insert((group.clone(), *member), positions.iter().copied().collect());
            }
            Event::Repositioned { group, member, partition, position } => {
                self.positions.entry((group.clone(), *member)).or_default().insert(*partition, *position);
            }
            Event::Polled { group, member, partition, runs, others } => {
                self.on_polled(group, *member, *partition, runs, others, verdict);
            }
            Event::CommitAsked { id, group, offsets } => {
                assert_eq!(*id, self.asked.len() as u64, "commits are numbered without gaps");
                for (partition, offset) in offsets {
                    let commits = self.commits.entry((group.clone(), *partition)).or_default();
                    commits.asked.insert(*offset);
                    commits.open.insert(*offset);
                }
                self.asked.push(AskedCommit { group: group.clone(), offsets: offsets.clone() });
            }
            Event::CommitAcked { id } => {
                verdict.commits += 1;
                self.settle(*id, |commits, offset| commits.acked = commits.acked.max(offset));
            }
            Event::CommitFailed { id, .. } => self.settle(*id, |_, _| {}),
            Event::CommitUnknown { .. } => {}
            Event::CommitsRead { group, offsets } => {
                let mut read: BTreeMap<i32, i64> = offsets.iter().copied().collect();
                let known = self.commits.keys().filter(|(of, _)| of == group).map(|(_, partition)| *partition);
                let partitions: Vec<i32> = known.collect();
                for partition in partitions {
                    self.judge_committed(group, partition, read.remove(&partition), verdict);
                }
                for (partition, offset) in read {
                    self.judge_committed(group, partition, Some(offset), verdict);
                }
            }
            Event::Drained { group, complete: false } => {
                if !verdict.undrained_groups.contains(group) {
                    verdict.undrained_groups.push(group.clone());
                }
            }
            Event::Drained { .. } => {}
            Event::Send { .. } | Event::Acked { .. } | Event::Failed { .. } | Event::Unknown { .. } => {
                unreachable!("batches are the checker's own")
            }
        }
    }

    fn settle(&mut self, id: u64, with: impl Fn(&mut Commits, i64)) {
        let AskedCommit { group, offsets } = &self.asked[id as usize];
        for (partition, offset) in offsets {
            let commits = self.commits.entry((group.clone(), *partition)).or_default();
            commits.open.remove(offset);
            with(commits, *offset);
        }
    }

    fn judge_committed(&mut self, group: &str, partition: i32, read: Option<i64>, verdict: &mut Verdict) {
        let commits = self.commits.entry((group.to_owned(), partition)).or_default();
        let offset = read.unwrap_or(-1);
        if offset < commits.acked {
            if commits.open.contains(&offset) {
                verdict.commits_overtaken += 1;
                return;
            }
            let acked = commits.acked;
            let shown = read.map_or("none".to_owned(), |offset| offset.to_string());
            verdict.add(Anomaly::CommitWentBack, 1, || {
                format!("group {group} partition {partition}: {acked} was acknowledged, then {shown} was read")
            });
        } else if read.is_some() && !commits.asked.contains(&offset) {
            verdict.add(Anomaly::CommitPhantom, 1, || {
                format!("group {group} partition {partition}: offset {offset} was read, which nobody committed")
            });
        }
    }

    fn on_polled(
        &mut self,
        group: &str,
        member: u32,
        partition: i32,
        runs: &[Run],
        others: &[i64],
        verdict: &mut Verdict,
    ) {
        let mut offsets: Vec<(i64, u32)> = runs.iter().map(|run| (run.offset, run.count)).collect();
        offsets.extend(others.iter().map(|offset| (*offset, 1)));
        offsets.sort_unstable();
        let positions = self.positions.entry((group.to_owned(), member)).or_default();
        for (offset, count) in offsets {
            verdict.polled += u64::from(count);
            let expected = positions.get(&partition).copied().unwrap_or(offset);
            if offset < expected {
                verdict.add(Anomaly::WentBackwards, 1, || {
                    format!(
                        "group {group} member {member} partition {partition}: offset {offset} after {}",
                        expected - 1
                    )
                });
            } else if offset > expected && self.exclusive {
                verdict.add(Anomaly::Skipped, (offset - expected) as u64, || {
                    let last = offset - 1;
                    format!("group {group} member {member} partition {partition}: offsets {expected} to {last}")
                });
            }
            positions.insert(partition, (offset + i64::from(count)).max(expected));
        }
        self.reads.extend(runs.iter().map(|run| Read { partition, run: *run }));
        if self.exclusive {
            for offset in others {
                verdict.add(Anomaly::Corrupted, 1, || {
                    format!("group {group} member {member} partition {partition} offset {offset}, as it was read")
                });
            }
        }
    }

    /// Holds everything that was read against the final scan.
    pub(super) fn finish(&self, scan: &Scan, verdict: &mut Verdict) {
        for Read { partition, run } in &self.reads {
            for index in 0..run.count {
                let (offset, sequence) = (run.offset + i64::from(index), run.sequence + u64::from(index));
                let place =
                    || format!("{} producer {} record {sequence}", scan.place(*partition, offset), run.producer);
                match scan.offset_of(run.producer, *partition, sequence) {
                    Some(found) if found == offset => {}
                    Some(found) => verdict.add(Anomaly::Changed, 1, || format!("{} is now at {found}", place())),
                    None if scan.may_have_expired(*partition, Some(offset)) => {}
                    None => verdict.add(Anomaly::Vanished, 1, place),
                }
            }
        }
    }
}
