//! Nodes that are processes of their own form one cluster's metadata plane over loopback TCP, lose members and get them
//! back.
//!
//! Each node is this test binary again, running the test `node` only; it is told what to do line by line, and killed
//! with SIGKILL. No client speaks to them: what a broker is to the others is what counts here.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod processes;
mod support;

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use processes::{ALL, Cluster, Process, Quorum};

/// A node, when another test starts it; nothing by itself.
#[test]
fn node() {
    processes::node();
}

#[test]
fn three_empty_nodes_form_a_cluster_and_each_of_them_creates_topics() {
    let mut cluster = Cluster::formed();
    let state = cluster.settled();
    for id in ALL {
        assert_eq!(cluster.node(id).state().cluster, state.cluster);
        // Wherever the controller is: the others ask it.
        cluster.node(id).tell(&format!("create topic-{id}"));
        assert_eq!(cluster.node(id).hear("created"), "3");
    }
    let topics = ALL.map(|id| (format!("topic-{id}"), 3));
    for id in ALL {
        cluster.node(id).until(|state| topics.iter().all(|(name, count)| state.topics.get(name) == Some(count)));
    }
}

#[test]
fn any_node_describes_the_quorum_as_its_leader_knows_it() {
    let mut cluster = Cluster::formed();
    let state = cluster.settled();
    for id in ALL {
        let all_current = |quorum: &Quorum| quorum.voters.values().all(|(_, is_current)| *is_current);
        let quorum = cluster.node(id).until_quorum(all_current);
        assert_eq!(quorum.leader, state.controller);
        assert_eq!(quorum.voters.keys().copied().collect::<Vec<_>>(), ALL);
        assert!(quorum.observers.is_empty(), "{quorum:?}");
    }
}

#[test]
fn killed_controller_is_followed_by_another_that_fences_it_until_it_is_back() {
    let mut cluster = Cluster::formed();
    let before = cluster.settled();
    let dead = before.controller;
    cluster.kill(dead);
    let others = cluster.others(dead);
    for id in &others {
        let state = cluster.node(*id).until(|state| !state.brokers[&dead].1 && others.contains(&state.controller));
        assert_eq!(state.brokers[&dead].0, before.brokers[&dead].0);
        assert!(others.iter().all(|id| state.brokers[id] == before.brokers[id]), "{state:?}");
    }
    // Those that are left go on; a registered broker that is down still gets replicas.
    cluster.node(others[0]).tell("create meanwhile");
    assert_eq!(cluster.node(others[0]).hear("created"), "3");
    cluster.start(dead);
    let epoch: i64 = cluster.node(dead).hear("ready").parse().unwrap();
    assert!(epoch > before.brokers[&dead].0);
    let after = cluster.settled();
    assert_eq!(after.brokers[&dead], (epoch, true));
    assert_eq!(cluster.node(dead).state().topics.get("meanwhile"), Some(&3));
}

#[test]
fn broker_that_is_restarted_at_once_takes_its_own_place() {
    let mut cluster = Cluster::formed();
    let before = cluster.settled();
    // No controller, so that there is one all the time; its session has not ended when it is back.
    let id = cluster.others(before.controller)[0];
    cluster.kill(id);
    cluster.start(id);
    let epoch: i64 = cluster.node(id).hear("ready").parse().unwrap();
    let after = cluster.settled();
    assert!(epoch > before.brokers[&id].0);
    assert_eq!(after.brokers[&id], (epoch, true));
    assert_eq!(after.controller, before.controller);
}

#[test]
fn broker_whose_process_is_gone_is_fenced_long_before_its_session_ends() {
    let mut cluster = Cluster::formed_with(Duration::from_secs(3_600));
    let before = cluster.settled();
    // The controller goes with it: the next one has never heard it.
    let id = before.controller;
    cluster.kill(id);
    let other = cluster.others(id)[0];
    // Its connection is closed, and where it listened nobody does any more.
    cluster.node(other).until(|state| !state.brokers[&id].1);
}

#[test]
fn wiped_voter_joins_as_a_broker_and_one_that_lost_its_metadata_log_is_refused() {
    let mut cluster = Cluster::formed();
    let before = cluster.settled();
    let id = cluster.others(before.controller)[0];
    cluster.kill(id);
    std::fs::remove_dir_all(cluster.directory(id).join("metadata")).unwrap();
    cluster.start(id);
    let why = cluster.node(id).hear("refused");
    assert!(why.contains("its metadata log is gone"), "{why}");
    cluster.kill(id);
    // Emptied, as far as `rm -rf *` sees it: the hidden files are named, and without them it is not empty either.
    empty_but_for(&cluster.directory(id), |name| name.starts_with('.'));
    cluster.start(id);
    let why = cluster.node(id).hear("refused");
    assert!(why.contains(".stonelog_member, ") && why.contains(".stonelog_tenure"), "{why}");
    cluster.kill(id);
    empty_but_for(&cluster.directory(id), |name| name.starts_with(".stonelog_member"));
    cluster.start(id);
    let why = cluster.node(id).hear("refused");
    assert!(why.contains("its metadata log is gone"), "{why}");
    cluster.kill(id);
    std::fs::remove_dir_all(cluster.directory(id)).unwrap();
    cluster.start(id);
    cluster.node(id).hear("ready");
    let after = cluster.settled();
    assert_eq!(after.cluster, before.cluster);
    // It has the controller create what it is asked for.
    cluster.node(id).tell("create from-the-wiped");
    assert_eq!(cluster.node(id).hear("created"), "3");
}

/// Empties the directories of a node that is not running, and starts it.
fn wipe_and_start(cluster: &mut Cluster, id: i32) {
    std::fs::remove_dir_all(cluster.directory(id)).unwrap();
    cluster.start(id);
}

/// Waits until three vote that all have caught up, and this one with another directory than before.
fn replaced(cluster: &mut Cluster, asked: i32, id: i32, before: &Quorum) -> Quorum {
    cluster.node(asked).until_quorum(|quorum| {
        let all_current = quorum.voters.len() == 3 && quorum.voters.values().all(|(_, is_current)| *is_current);
        all_current && quorum.voters[&id].0 != before.voters[&id].0
    })
}

#[test]
fn wiped_voter_is_a_voter_again_and_then_another_one_can_go() {
    let mut cluster = Cluster::formed();
    let before = cluster.settled();
    let described = cluster.node(before.controller).quorum();
    let id = cluster.others(before.controller)[0];
    cluster.node(id).makes("before");
    cluster.kill(id);
    wipe_and_start(&mut cluster, id);
    cluster.node(id).hear("ready");
    let after = replaced(&mut cluster, before.controller, id, &described);
    assert!(after.observers.is_empty(), "{after:?}");
    // The controller goes: the other one and the one that was wiped are a majority, and one of them leads.
    cluster.kill(before.controller);
    let others = cluster.others(before.controller);
    cluster.node(id).until(|state| others.contains(&state.controller));
    cluster.node(id).makes("with-two");
    // What it has promised since is durable: it votes after a restart as well.
    cluster.kill(id);
    cluster.start(id);
    cluster.node(id).hear("ready");
    let state = cluster.node(id).until(|state| others.contains(&state.controller));
    assert!(state.topics.contains_key("before") && state.topics.contains_key("with-two"), "{state:?}");
    // And a second time.
    cluster.start(before.controller);
    cluster.node(before.controller).hear("ready");
    let state = cluster.settled();
    let other = cluster.others(state.controller)[0];
    let described = cluster.node(state.controller).quorum();
    cluster.kill(other);
    wipe_and_start(&mut cluster, other);
    cluster.node(other).hear("ready");
    replaced(&mut cluster, state.controller, other, &described);
}

#[test]
fn voter_is_replaced_although_the_leader_and_the_wiped_node_are_killed_on_the_way() {
    let mut cluster = Cluster::formed();
    let before = cluster.settled();
    let described = cluster.node(before.controller).quorum();
    let id = cluster.others(before.controller)[0];
    let third = cluster.others(before.controller)[1];
    cluster.kill(id);
    wipe_and_start(&mut cluster, id);
    // The old directory is out, and the new one not in yet, or hardly.
    cluster
        .node(before.controller)
        .until_quorum(|quorum| quorum.voters.len() == 2 || quorum.voters[&id].0 != described.voters[&id].0);
    cluster.kill(before.controller);
    cluster.kill(id);
    cluster.start(before.controller);
    cluster.node(third).until(|state| state.controller != -1);
    cluster.start(id);
    replaced(&mut cluster, third, id, &described);
    // Nobody asks a node any more that has been killed in between.
    cluster.node(before.controller).hear("ready");
    cluster.node(id).hear("ready");
    let after = cluster.settled();
    assert_eq!(after.cluster, before.cluster);
}

#[test]
fn voter_whose_metadata_log_has_a_flipped_bit_is_refused_and_votes_again_once_it_is_emptied() {
    let mut cluster = Cluster::formed();
    let before = cluster.settled();
    let described = cluster.node(before.controller).quorum();
    let id = cluster.others(before.controller)[0];
    cluster.node(id).makes("before");
    cluster.kill(id);
    // In the first commit: the membership, which everything behind it names as durable.
    let journals =
        std::fs::read_dir(cluster.directory(id).join("metadata")).unwrap().map(|entry| entry.unwrap().path());
    let mut journals: Vec<_> = journals.filter(|path| path.extension().is_some_and(|end| end == "journal")).collect();
    journals.sort();
    let flip = |path: &std::path::PathBuf| {
        let mut bytes = std::fs::read(path).unwrap();
        let found = bytes.windows(4).position(|bytes| bytes == b"127.").filter(|found| *found > 0);
        found.map(|found| {
            bytes[found] ^= 1;
            std::fs::write(path, bytes).unwrap();
        })
    };
    journals.iter().find_map(flip).expect("the membership has an address");
    for _ in 0..2 {
        cluster.start(id);
        let why = cluster.node(id).hear("refused");
        assert!(why.contains("metadata"), "{why}");
        cluster.kill(id);
    }
    wipe_and_start(&mut cluster, id);
    cluster.node(id).hear("ready");
    replaced(&mut cluster, before.controller, id, &described);
    assert!(cluster.node(id).state().topics.contains_key("before"));
}

#[test]
fn replaced_voter_that_comes_back_with_its_old_directory_votes_only_when_it_is_added_again() {
    let mut cluster = Cluster::formed();
    let before = cluster.settled();
    let described = cluster.node(before.controller).quorum();
    let id = cluster.others(before.controller)[0];
    cluster.kill(id);
    let old = cluster.directory(id).with_file_name("old");
    std::fs::rename(cluster.directory(id), &old).unwrap();
    cluster.start(id);
    cluster.node(id).hear("ready");
    let between = replaced(&mut cluster, before.controller, id, &described);
    cluster.kill(id);
    std::fs::rename(cluster.directory(id), cluster.directory(id).with_file_name("new")).unwrap();
    std::fs::rename(&old, cluster.directory(id)).unwrap();
    cluster.start(id);
    // Its own log says that it votes, and the leader that it does not: it follows, as far as it knows for good.
    cluster.node(id).hear("ready");
    // It has registered by now with an entry that its own log lacks. That log still must not vote, and hinders nothing.
    cluster.kill(id);
    cluster.start(id);
    cluster.node(id).hear("ready");
    let now = cluster.node(id).quorum();
    assert!(
        now.leader == -1 || now.observers.contains_key(&id) || now.voters[&id].0 != between.voters[&id].0,
        "{now:?}"
    );
    // The other directory is gone in its turn, so it takes its place, with a log that begins anew behind the old one.
    let again = replaced(&mut cluster, before.controller, id, &between);
    assert_eq!(again.voters[&id].0, described.voters[&id].0);
    cluster.kill(before.controller);
    let others = cluster.others(before.controller);
    cluster.node(id).until(|state| others.contains(&state.controller));
    cluster.node(id).makes("with-two");
}

#[test]
fn lone_voter_becomes_one_of_three_when_its_configuration_lists_three() {
    let mut cluster = Cluster::begin();
    let listed = std::mem::take(&mut cluster.listed);
    cluster.listed = vec![listed[0]];
    cluster.start(1);
    cluster.node(1).hear("ready");
    cluster.node(1).tell("create alone");
    assert_eq!(cluster.node(1).hear("created"), "1");
    cluster.kill(1);
    cluster.listed = listed;
    for id in ALL {
        cluster.start(id);
    }
    for id in ALL {
        cluster.node(id).hear("ready");
    }
    let state = cluster.settled();
    cluster
        .node(1)
        .until_quorum(|quorum| quorum.voters.len() == 3 && quorum.voters.values().all(|(_, current)| *current));
    cluster.kill(1);
    let others = [2, 3];
    let after = cluster.node(2).until(|state| others.contains(&state.controller));
    assert_eq!(after.cluster, state.cluster);
    assert_eq!(after.topics.get("alone"), Some(&1));
}

#[test]
fn metadata_log_of_another_voter_or_of_an_earlier_time_does_not_vote() {
    let mut cluster = Cluster::formed();
    let before = cluster.settled();
    let id = cluster.others(before.controller)[0];
    let own = cluster.directory(id).join("metadata");
    let aside = tempfile::tempdir().unwrap();
    let [early, newest] = ["early", "newest"].map(|name| aside.path().join(name));
    cluster.kill(id);
    copy_files(&own, &early);
    // It registers anew, with an entry behind the copy's.
    cluster.start(id);
    cluster.node(id).hear("ready");
    cluster.kill(id);
    std::fs::rename(&own, &newest).unwrap();

    let other = cluster.others(id)[0];
    copy_files(&cluster.directory(other).join("metadata"), &own);
    cluster.start(id);
    let why = cluster.node(id).hear("refused");
    assert!(why.contains(&format!("begun by node {other}")), "{why}");
    cluster.kill(id);

    std::fs::remove_dir_all(&own).unwrap();
    copy_files(&early, &own);
    cluster.start(id);
    let why = cluster.node(id).hear("refused");
    assert!(why.contains("of an earlier time"), "{why}");
    cluster.kill(id);

    std::fs::remove_dir_all(&own).unwrap();
    std::fs::rename(&newest, &own).unwrap();
    cluster.start(id);
    cluster.node(id).hear("ready");
    cluster.settled();
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        // Files may come and go in a directory that is in use.
        if let Err(error) = std::fs::copy(entry.path(), to.join(entry.file_name())) {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
        }
    }
}

/// Removes what is in a directory, but for names that are kept.
fn empty_but_for(directory: &Path, is_kept: impl Fn(&str) -> bool) {
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if is_kept(entry.file_name().to_str().unwrap()) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            std::fs::remove_dir_all(entry.path()).unwrap();
        } else {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
}

#[test]
fn process_that_was_away_while_another_took_its_place_ends() {
    let mut cluster = Cluster::formed();
    let before = cluster.settled();
    let id = cluster.others(before.controller)[0];
    cluster.node(id).signal(libc::SIGSTOP);
    let controller = before.controller;
    cluster.node(controller).until(|state| !state.brokers[&id].1);
    // The same node, with other directories and another address.
    let spare = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let second = Process::start(id, &spare.path().join("data"), port, &cluster.listed);
    let epoch: i64 = second.hear("ready").parse().unwrap();
    assert!(epoch > before.brokers[&id].0);
    cluster.node(id).signal(libc::SIGCONT);
    let why = cluster.node(id).hear("replaced");
    assert!(why.contains("another process has registered"), "{why}");
    cluster.node(controller).until(|state| state.brokers[&id] == (epoch, true));
}

#[test]
fn broker_that_leaves_in_order_is_fenced_when_it_has_handed_over() {
    let mut cluster = Cluster::formed();
    let before = cluster.settled();
    cluster.node(1).tell("create t");
    cluster.node(1).hear("created");
    // The controller itself: another voter leads, and hears the rest.
    let id = before.controller;
    cluster.node(id).tell("leave");
    cluster.node(id).hear("left");
    cluster.kill(id);
    let others = cluster.others(id);
    for other in others {
        cluster.node(other).until(|state| !state.brokers[&id].1 && state.controller != id && state.controller != -1);
    }
}
