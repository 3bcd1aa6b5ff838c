//! A member that has proved itself and says what no member may: it is cut off, and nothing happens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::entry::RaftEntry as _;
use stonelog_protocol::peer::frame::Kind;
use stonelog_protocol::peer::proof::{Identity, Purpose, Verdict};
use stonelog_protocol::peer::raft::{Append, LogId, SnapshotChunk, Transfer, Vote, VoteRequest};
use stonelog_protocol::{BrokerId, Uuid};

use super::cluster::{ALL, Cluster, PATIENCE, block_on, identity, others};
use super::{entry, id as id_of};
use crate::quorum::codec::{decode_entry, encode_entry};
use crate::quorum::link::{LinkError, PeerDialer, PeerLink, Target};
use crate::quorum::type_config::{Entry, Membership, Voter};
use crate::runtime::peers::TcpDialer;

#[test]
fn member_that_speaks_for_another_or_sends_what_does_not_follow_is_cut_off() {
    block_on(async {
        let mut cluster = Cluster::form(3).await;
        let leader = cluster.write_leader("before").await;
        let (victim, liar) = (others(leader)[0], others(leader)[1]);
        let leading = cluster.node(leader).leading().unwrap();
        let own = identity(liar);
        let dialer = TcpDialer::new(Arc::new(move || own.clone()), Some(cluster.secret.clone()), BTreeMap::new());
        let target = Target {
            node: BrokerId(victim),
            directory: None,
            host: "127.0.0.1".to_owned(),
            port: cluster.site(victim).address.port(),
        };
        let mut link = dialer.link(target, Purpose::Quorum);

        let vote = |candidate: i32, is_committed| Vote {
            term: leading.term + 5,
            candidate: BrokerId(candidate),
            is_committed,
        };
        let at = |index| Some(LogId { term: leading.term, index });
        let append = |vote, previous, entries| Append { vote, previous, committed: None, entries }.encode();
        let entries = |ids: &[(u64, u64)]| -> Vec<Bytes> {
            ids.iter().map(|(term, index)| encode_entry(&entry(*term, *index, 8))).collect()
        };
        let term = leading.term;
        let lies: Vec<(Kind, Bytes)> = vec![
            // For the leader, and for the victim itself.
            (Kind::Append, append(vote(leader, true), at(1), vec![])),
            (Kind::Vote, VoteRequest { vote: vote(victim, false), last: at(90), is_transfer: true }.encode()),
            (Kind::PreVote, VoteRequest { vote: vote(leader, false), last: at(90), is_transfer: false }.encode()),
            (Kind::Transfer, Transfer { from: vote(leader, true), to: BrokerId(victim), last: None }.encode()),
            // A hole, a step back in terms, an entry of a term to come, no entry, no message.
            (Kind::Append, append(vote(liar, true), at(1), entries(&[(term, 3)]))),
            (Kind::Append, append(vote(liar, true), at(1), entries(&[(term + 1, 2), (term, 3)]))),
            (Kind::Append, append(vote(liar, true), at(1), entries(&[(term + 6, 2)]))),
            (Kind::Append, append(vote(liar, true), at(1), vec![Bytes::from_static(b"x")])),
            (Kind::Append, Bytes::from_static(b"x")),
            (Kind::Transfer, Transfer { from: vote(liar, true), to: BrokerId(liar), last: None }.encode()),
            // Not between voters.
            (Kind::Pull, Bytes::new()),
            // A snapshot that has not begun, and one that is none.
            (Kind::Snapshot, chunk(vote(liar, true), 1, 8)),
            (Kind::Snapshot, chunk(vote(liar, true), 0, 7)),
        ];
        for (index, (kind, body)) in lies.into_iter().enumerate() {
            let outcome = link.exchange(kind, body, Duration::from_secs(20)).await;
            assert!(matches!(outcome, Err(LinkError::Broken(_))), "lie {index}, {kind:?}: {outcome:?}");
        }
        // Nobody's term has changed, and the quorum goes on.
        for id in ALL {
            assert_eq!(cluster.node(id).leading(), Some(leading), "node {id}");
        }
        cluster.propose(leader, "after").await.unwrap();
        cluster.sees(victim, &["before", "after"]).await;
        cluster.end().await;
    });
}

#[test]
fn running_copy_of_a_voter_gets_no_vote_while_the_other_one_speaks() {
    block_on(async {
        let mut cluster = Cluster::form(3).await;
        let leader = cluster.write_leader("before").await;
        let voter = others(leader)[0];
        let copy = Identity { incarnation: Uuid([0xc0; 16]), ..identity(leader) };
        let dialer = TcpDialer::new(Arc::new(move || copy.clone()), Some(cluster.secret.clone()), BTreeMap::new());
        let port = cluster.site(voter).address.port();
        let target = Target { node: BrokerId(voter), directory: None, host: "127.0.0.1".to_owned(), port };
        let mut link = dialer.link(target, Purpose::Quorum);
        let vote = Vote { term: 1, candidate: BrokerId(leader), is_committed: false };
        let asked = VoteRequest { vote, last: None, is_transfer: false }.encode();
        let within = Duration::from_secs(20);
        let answer = link.exchange(Kind::PreVote, asked.clone(), within).await;
        assert_eq!(answer, Err(LinkError::Refused(Verdict::OtherProcess)));
        // It has ended, and its connections with it.
        cluster.stop(leader).await;
        let heard = async {
            while link.exchange(Kind::PreVote, asked.clone(), within).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.unwrap();
        cluster.end().await;
    });
}

#[test]
fn membership_with_a_number_that_no_node_has_is_not_read() {
    let named = |id: u64| {
        let voter = Voter { directory: [9; 16], host: "h".to_owned(), port: 1 };
        let membership = Membership::new(vec![[id].into()], BTreeMap::from([(id, voter)])).unwrap();
        encode_entry(&Entry::new(id_of(1, 1), EntryPayload::Membership(membership)))
    };
    assert!(decode_entry(&named(i32::MAX as u64)).is_ok());
    assert!(decode_entry(&named(i32::MAX as u64 + 1)).is_err());
}

fn chunk(vote: Vote, position: u64, total_bytes: u64) -> Bytes {
    SnapshotChunk { vote, last: None, total_bytes, position, bytes: Bytes::from_static(b"nothing") }.encode()
}
