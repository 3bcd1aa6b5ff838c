//! Replicas that come to the directory or leave it, and what a crash makes of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use stonelog_protocol::{LeaderEpoch, Offset};
use stonelog_storage::disk::Survival;
use stonelog_storage::log::LogConfig;
use stonelog_storage::recovery::Verdict;

use support::{Batch, Lane, new_disk, partition};

#[test]
fn a_drop_behind_the_checkpoint_ends_what_lies_before_it_and_touches_nothing_else() {
    // What the dropped replica went through between the checkpoint's position and its drop: all of it is replayed
    // without a base to stand on, or with its creation alone.
    for created_before in [true, false] {
        for flushed in [true, false] {
            let disk = new_disk();
            let mut lane = Lane::start(Arc::new(disk.clone()), LogConfig::default()).unwrap();
            let other = lane.create(0);
            lane.commit().unwrap();
            let kept = lane.append(other, &Batch::of(3), 1);
            if created_before {
                lane.create(1);
                lane.append(1, &Batch::of(2), 1);
                lane.commit().unwrap();
                lane.flush(1).unwrap();
                lane.checkpoint().unwrap();
            }
            lane.commit().unwrap();
            let reported = lane.durable();
            if !created_before {
                lane.create(1);
                lane.commit().unwrap();
            }
            lane.append(1, &Batch::of(2), 1);
            let ticket = lane.next_ticket();
            let epoch = lane.logs[1].begin_epoch(LeaderEpoch(2), ticket);
            lane.push(ticket, epoch);
            lane.append(1, &Batch::of(4), 2);
            let more = lane.append(other, &Batch::of(1), 1);
            lane.commit().unwrap();
            let end = Offset(lane.logs[1].log_end().0 - 4);
            lane.truncate(1, end).unwrap();
            lane.commit().unwrap();
            let ticket = lane.next_ticket();
            if let Some(entry) = lane.logs[1].advance_log_start(Offset(1), ticket) {
                lane.push(ticket, entry);
            }
            let ticket = lane.next_ticket();
            let mode = lane.logs[1].set_mode(false, ticket).unwrap();
            lane.push(ticket, mode);
            lane.commit().unwrap();
            if flushed {
                lane.flush(1).unwrap();
                lane.flush(other).unwrap();
            }
            let ticket = lane.next_ticket();
            let entry = lane.logs[1].drop_log(ticket);
            lane.push(ticket, entry);
            lane.commit().unwrap();
            assert!(lane.logs[1].is_gone());
            lane.checkpoint_at(reported).unwrap();
            drop(lane);
            disk.crash_to(Survival::Nothing);
            let lane = Lane::start(Arc::new(disk.clone()), LogConfig::default()).unwrap();
            let what = format!("created before {created_before}, flushed {flushed}");
            assert_eq!(lane.dropped, [partition(1)], "{what}");
            assert_eq!(lane.logs.len(), 1, "{what}");
            assert_eq!((lane.logs[0].key().partition, lane.verdicts[0]), (partition(0), Verdict::Proved), "{what}");
            assert!(lane.journal_end.is_proved(), "{what}");
            assert_eq!(lane.read_all(0, Offset(0), 1000).unwrap(), [&kept[..], &more[..]].concat(), "{what}");
        }
    }
}

#[test]
fn a_log_that_is_cut_before_it_hears_of_its_creation_is_named_by_the_checkpoint() {
    // Simulation seed 52: the report of the creation was of an older generation, and the log was left out.
    let disk = new_disk();
    let mut lane = Lane::start(Arc::new(disk.clone()), LogConfig::default()).unwrap();
    let other = lane.create(0);
    lane.commit().unwrap();
    lane.append(other, &Batch::of(1), 0);
    let at = lane.create(1);
    let kept = lane.append(at, &Batch::of(2), 0);
    lane.append(at, &Batch::of(2), 0);
    let unheard = lane.write_unheard().unwrap().unwrap();
    lane.truncate(at, Offset(2)).unwrap();
    lane.hear(unheard);
    lane.sync().unwrap();
    lane.checkpoint().unwrap();
    lane.commit().unwrap();
    lane.checkpoint_at(lane.durable()).unwrap();
    disk.crash_to(Survival::Nothing);
    let lane = Lane::start(Arc::new(disk.clone()), LogConfig::default()).unwrap();
    assert_eq!(lane.logs.len(), 2);
    assert_eq!(lane.read_all(1, Offset(0), 1000).unwrap(), kept[..]);
}

#[test]
fn a_log_may_be_dropped_while_a_reset_or_a_cut_is_on_its_way() {
    // Simulation seeds 11 and 21: the reset settled with the drop, or was covered as if it were small change.
    for (is_reset, together) in [(true, true), (true, false), (false, true), (false, false)] {
        let disk = new_disk();
        let mut lane = Lane::start(Arc::new(disk.clone()), LogConfig::default()).unwrap();
        let other = lane.create(0);
        let at = lane.create(1);
        let kept = lane.append(other, &Batch::of(1), 0);
        for _ in 0..3 {
            lane.append(at, &Batch::of(2), 0);
        }
        lane.commit().unwrap();
        lane.flush(at).unwrap();
        let ticket = lane.next_ticket();
        if is_reset {
            let entry = lane.logs[at].reset(Offset(9), ticket);
            lane.push(ticket, entry);
        } else {
            lane.truncate(at, Offset(3)).unwrap();
        }
        if !together {
            lane.write().unwrap();
        }
        let ticket = lane.next_ticket();
        let entry = lane.logs[at].drop_log(ticket);
        lane.push(ticket, entry);
        if !together {
            // The reset alone is durable.
            lane.sync().unwrap();
            lane.checkpoint().unwrap();
        }
        lane.commit().unwrap();
        assert!(lane.logs[at].is_gone(), "reset {is_reset}, together {together}");
        lane.remove(at).unwrap();
        disk.crash_to(Survival::Nothing);
        let lane = Lane::start(Arc::new(disk.clone()), LogConfig::default()).unwrap();
        assert_eq!(lane.logs.len(), 1);
        assert_eq!(lane.read_all(0, Offset(0), 1000).unwrap(), kept[..]);
    }
}

#[test]
fn what_a_checkpoint_says_of_a_log_never_goes_back_behind_one_that_passed_it_over() {
    // Simulation seed 400: the journal was freed by a checkpoint that passed over an idle log. Then the log was dropped
    // (or cut, or reset), and the next one named the older position: at the start the journal looked damaged, and
    // every replica of the directory was lost.
    for change in ["drop", "truncation", "reset"] {
        let disk = new_disk();
        let mut lane = Lane::start(Arc::new(disk.clone()), LogConfig::default()).unwrap();
        let (busy, idle) = (lane.create(0), lane.create(1));
        lane.append(idle, &Batch::of(2), 0);
        lane.commit().unwrap();
        lane.flush(idle).unwrap();
        lane.checkpoint().unwrap();
        let before = lane.durable();
        while lane.durable().0 < before.0 + 3 * (128 << 10) {
            lane.append(busy, &Batch { filler_bytes: 9_000, ..Batch::of(1) }, 0);
            lane.commit().unwrap();
        }
        lane.flush(busy).unwrap();
        lane.checkpoint_passing_over(idle).unwrap();
        lane.append(idle, &Batch::of(2), 0);
        lane.commit().unwrap();
        let ticket = lane.next_ticket();
        match change {
            "drop" => {
                let entry = lane.logs[idle].drop_log(ticket);
                lane.push(ticket, entry);
            }
            "reset" => {
                let entry = lane.logs[idle].reset(Offset(7), ticket);
                lane.push(ticket, entry);
            }
            _ => lane.truncate(idle, Offset(2)).unwrap(),
        }
        lane.checkpoint().unwrap();
        disk.crash_to(Survival::Nothing);
        let lane = Lane::start(Arc::new(disk.clone()), LogConfig::default()).unwrap();
        assert!(lane.journal_end.is_proved(), "{change}: {:?}", lane.journal_end);
        assert!(lane.verdicts.iter().all(|verdict| *verdict == Verdict::Proved), "{change}: {:?}", lane.verdicts);
    }
}
