//! Messages read back, golden bytes, hostile bytes, and the proof between two ends.

use std::sync::Arc;

use bytes::Bytes;

use super::control::{Answer, Ask};
use super::feed::{Content, Leading, Pull, Pulled};
use super::frame::{Frame, Kind, PROOF_FRAME_BYTES_MAX};
use super::probe::{ListedVoter, Member, Part, Probe, ProbeAnswer};
use super::proof::{
    Accepting, Acceptor, Challenge, Dialer, Dialing, Hello, Identity, ProofError, Purpose, Seal, TAG_BYTES, Tag, Trust,
    Verdict,
};
use super::raft::{
    Append, AppendAnswer, LogId, SnapshotAnswer, SnapshotChunk, Transfer, TransferAnswer, Vote, VoteAnswer, VoteRequest,
};
use crate::{BrokerId, ClusterId, ErrorCode, Uuid};

const VOTE: Vote = Vote { term: 3, candidate: BrokerId(2), is_committed: true };
const ID: LogId = LogId { term: 3, index: 9 };

fn identity(node: i32, directory: u8, cluster: Option<&str>) -> Identity {
    let cluster = cluster.map(|cluster| ClusterId(cluster.into()));
    Identity { node: BrokerId(node), directory: Uuid([directory; 16]), cluster, incarnation: Uuid([3; 16]) }
}

fn voter(node: i32) -> ListedVoter {
    ListedVoter { node: BrokerId(node), host: "h".into(), port: 9093 }
}

fn hello() -> Hello {
    Hello {
        from: identity(1, 1, Some("c")),
        to: BrokerId(2),
        to_directory: Some(Uuid([2; 16])),
        purpose: Purpose::Quorum,
        has_secret: true,
        nonce: [5; 32],
    }
}

/// A message's bytes, and what reading them and writing them again makes of any bytes.
type Sample = (Bytes, fn(Bytes) -> Option<Bytes>);

macro_rules! sample {
    ($type:ty, $value:expr) => {{
        let value: $type = $value;
        let bytes = value.encode();
        assert_eq!(<$type>::decode(bytes.clone()), Ok(value));
        (bytes, (|bytes| <$type>::decode(bytes).ok().map(|value| value.encode())) as fn(Bytes) -> Option<Bytes>)
    }};
}

fn samples() -> Vec<Sample> {
    let entries = vec![Bytes::from_static(b"first"), Bytes::from_static(b""), Bytes::from_static(b"third")];
    let piece = Bytes::from_static(b"piece");
    vec![
        sample!(Hello, hello()),
        sample!(Hello, Hello { from: identity(0, 7, None), to_directory: None, purpose: Purpose::Probe, ..hello() }),
        sample!(Challenge, Challenge { from: identity(2, 2, Some("c")), has_secret: false, nonce: [6; 32] }),
        sample!(Probe, Probe { voters: vec![voter(1), voter(2), voter(3)] }),
        sample!(
            ProbeAnswer,
            ProbeAnswer::Empty {
                voters: vec![voter(1)],
                directory: Uuid([8; 16]),
                formatted: Some(ClusterId("c".into()))
            }
        ),
        sample!(
            ProbeAnswer,
            ProbeAnswer::Member {
                cluster: ClusterId("c".into()),
                members: vec![Member { voter: voter(4), directory: Uuid([4; 16]), part: Part::ToBe }],
                leader: Some(BrokerId(4)),
            }
        ),
        sample!(
            Append,
            Append {
                vote: VOTE,
                previous: Some(ID),
                committed: Some(LogId { term: 1, index: 2 }),
                entries: entries.clone()
            }
        ),
        sample!(Append, Append { vote: VOTE, previous: None, committed: None, entries: Vec::new() }),
        sample!(AppendAnswer, AppendAnswer::Success),
        sample!(AppendAnswer, AppendAnswer::Partial(Some(ID))),
        sample!(AppendAnswer, AppendAnswer::Conflict),
        sample!(AppendAnswer, AppendAnswer::HigherVote(VOTE)),
        sample!(VoteRequest, VoteRequest { vote: VOTE, last: Some(ID), is_transfer: true }),
        sample!(VoteAnswer, VoteAnswer { vote: VOTE, is_granted: true, last: None }),
        sample!(
            SnapshotChunk,
            SnapshotChunk { vote: VOTE, last: Some(ID), total_bytes: 12, position: 7, bytes: piece.clone() }
        ),
        sample!(SnapshotAnswer, SnapshotAnswer::Next(5)),
        sample!(SnapshotAnswer, SnapshotAnswer::Done(VOTE)),
        sample!(Transfer, Transfer { from: VOTE, to: BrokerId(3), last: Some(ID) }),
        sample!(TransferAnswer, TransferAnswer::Accepted),
        sample!(TransferAnswer, TransferAnswer::VoteChanged { expected: VOTE, actual: Vote { term: 4, ..VOTE } }),
        sample!(TransferAnswer, TransferAnswer::Behind { expected: Some(ID), actual: None }),
        sample!(Ask, Ask { within_ms: 300, request: piece.clone() }),
        sample!(Answer, Answer::Decided(piece.clone())),
        sample!(Answer, Answer::Rejected { code: ErrorCode::NotController, message: "why".into() }),
        sample!(Answer, Answer::NotController(Some(BrokerId(1)))),
        sample!(Answer, Answer::Unknown),
        sample!(Pull, Pull { applied: Some(ID), snapshot: Some((ID, 77)), wait_ms: 500, may_vote: true }),
        sample!(
            Pulled,
            Pulled {
                leader: Some(Leading { node: BrokerId(1), term: 3 }),
                applied: Some(ID),
                content: Content::Entries(entries),
            }
        ),
        sample!(
            Pulled,
            Pulled {
                leader: None,
                applied: None,
                content: Content::Snapshot { last: ID, total_bytes: 12, position: 7, bytes: piece },
            }
        ),
        sample!(Pulled, Pulled { leader: None, applied: None, content: Content::Ahead }),
    ]
}

#[test]
fn messages_read_back_and_no_shorter_or_longer_bytes_are_the_same_message() {
    for (bytes, read) in samples() {
        assert_eq!(read(bytes.clone()), Some(bytes.clone()));
        for len in 0..bytes.len() {
            // What ends in bytes of any length may still be a message, but another one.
            assert_ne!(read(bytes.slice(..len)), Some(bytes.clone()));
        }
    }
}

/// Small and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }
}

#[test]
fn damaged_messages_are_refused_or_are_other_messages_and_nothing_else_happens() {
    let mut random = Random(1);
    let (mut refused, mut read_as_other) = (0, 0);
    for (bytes, read) in samples() {
        for _ in 0..2_000 {
            let mut damaged = bytes.to_vec();
            for _ in 0..1 + random.below(3) {
                let at = random.below(damaged.len() + 1);
                match random.below(4) {
                    0 if at < damaged.len() => damaged[at] ^= 1 << random.below(8),
                    1 => damaged.truncate(at),
                    2 => drop(damaged.splice(at..at, [0xff; 4])),
                    // Counts and lengths of the largest kind.
                    _ => {
                        let end = (at + 4).min(damaged.len());
                        drop(damaged.splice(at..end, [0x7f, 0xff, 0xff, 0xff]));
                    }
                }
            }
            match read(damaged.into()) {
                None => refused += 1,
                // Whatever is read can be written.
                Some(_) => read_as_other += 1,
            }
        }
    }
    assert!(refused > 10_000 && read_as_other > 1_000, "{refused} refused, {read_as_other} read");
}

#[test]
fn messages_have_these_bytes() {
    let append = Append { vote: VOTE, previous: Some(ID), committed: None, entries: vec![Bytes::from_static(b"e")] };
    let mut golden = vec![0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 2, 1];
    golden.extend([1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 9]);
    golden.push(0);
    golden.extend([0, 0, 0, 1, 0, 0, 0, 1, b'e']);
    assert_eq!(append.encode(), golden);

    let mut golden = vec![0, 0, 0, 1];
    golden.extend([1; 16]);
    golden.extend([1, 0, 1, b'c']);
    golden.extend([3; 16]);
    golden.extend([0, 0, 0, 2, 1]);
    golden.extend([2; 16]);
    golden.extend([2, 1]);
    golden.extend([5; 32]);
    assert_eq!(hello().encode(), golden);

    let pull = Pull { applied: None, snapshot: None, wait_ms: 256, may_vote: true };
    assert_eq!(pull.encode(), vec![0, 0, 0, 0, 1, 0, 1]);
    assert_eq!(Answer::NotController(None).encode(), vec![2, 0]);
}

#[test]
fn snapshot_pieces_outside_the_whole_are_refused() {
    let chunk = |total_bytes, position, len| SnapshotChunk {
        vote: VOTE,
        last: None,
        total_bytes,
        position,
        bytes: vec![0; len].into(),
    };
    let is_read = |chunk: SnapshotChunk| SnapshotChunk::decode(chunk.encode()).is_ok();
    assert!(is_read(chunk(10, 5, 5)));
    assert!(!is_read(chunk(10, 6, 5)));
    assert!(!is_read(chunk(10, u64::MAX, 5)));
    assert!(!is_read(chunk(10, 10, 0)));
    assert!(!is_read(chunk(u64::MAX, 0, 1)));
}

/// A tag that depends on secret and message; no strength is asked of it here.
struct TestSeal(u64);

impl Seal for TestSeal {
    fn tag(&self, message: &[u8]) -> Tag {
        let mut state = self.0 ^ 0xcbf2_9ce4_8422_2325;
        let mut tag = [0; TAG_BYTES];
        for (index, byte) in message.iter().chain([0u8; TAG_BYTES].iter()).enumerate() {
            state = (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            tag[index % TAG_BYTES] ^= (state >> 32) as u8;
        }
        tag
    }

    fn is_tag_of(&self, tag: &Tag, message: &[u8]) -> bool {
        self.tag(message) == *tag
    }
}

fn secret(number: u64) -> Trust {
    Trust::Secret(Arc::new(TestSeal(number)))
}

const LOOPBACK: Trust = Trust::Loopback { is_loopback: true };

/// What the dialer and the acceptor make of each other, and the frames that went over.
fn meet(
    dialer: Trust,
    hello: Hello,
    acceptor: Trust,
    own: Identity,
    admit: Verdict,
) -> (Result<Identity, ProofError>, Result<Hello, ProofError>, Vec<Frame>) {
    let (mut dialer, mut frame) = Dialer::begin(dialer, hello);
    let mut acceptor = Acceptor::begin(acceptor, own, [9; 32]);
    let mut frames = Vec::new();
    const GONE: ProofError = ProofError::OutOfTurn(Kind::Hello);
    loop {
        assert!(frame.encode().len() <= PROOF_FRAME_BYTES_MAX);
        frames.push(frame.clone());
        let (answer, accepted) = match acceptor.on_frame(frame, |_| admit) {
            Ok(Accepting::Send(answer)) => (answer, None),
            Ok(Accepting::Proved(answer, hello)) => (answer, Some(Ok(hello))),
            Ok(Accepting::Refused(answer, verdict)) => (answer, Some(Err(ProofError::Refused(verdict)))),
            Err(error) => return (Err(GONE), Err(error), frames),
        };
        frames.push(answer.clone());
        match dialer.on_frame(answer) {
            Ok(Dialing::Send(next)) => frame = next,
            Ok(Dialing::Proved(reached)) => return (Ok(reached), accepted.unwrap(), frames),
            Err(error) => return (Err(error), accepted.unwrap_or(Err(GONE)), frames),
        }
    }
}

#[test]
fn both_ends_with_the_secret_prove_themselves_in_four_frames() {
    let own = identity(2, 2, Some("c"));
    let (dialed, accepted, frames) = meet(secret(7), hello(), secret(7), own.clone(), Verdict::Welcome);
    assert_eq!((dialed, accepted), (Ok(own), Ok(hello())));
    let kinds: Vec<Kind> = frames.iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, [Kind::Hello, Kind::Challenge, Kind::Proof, Kind::Verdict]);
}

#[test]
fn another_secret_is_found_out_by_the_acceptor_and_by_the_dialer() {
    let own = identity(2, 2, Some("c"));
    let (_, accepted, _) = meet(secret(8), hello(), secret(7), own.clone(), Verdict::Welcome);
    assert_eq!(accepted, Err(ProofError::WrongSecret));
    // An acceptor that waves everybody through does not have the tag that the dialer wants to see.
    let (mut dialer, first) = Dialer::begin(secret(7), hello());
    let mut acceptor = Acceptor::begin(secret(8), own, [9; 32]);
    let Ok(Accepting::Send(challenge)) = acceptor.on_frame(first, |_| Verdict::Welcome) else { panic!() };
    dialer.on_frame(challenge).unwrap();
    let verdict = Frame { kind: Kind::Verdict, exchange: 0, body: vec![0; 1 + TAG_BYTES].into() };
    assert_eq!(dialer.on_frame(verdict), Err(ProofError::WrongSecret));
}

#[test]
fn no_tag_can_be_sent_back_or_used_on_another_connection() {
    let own = identity(2, 2, Some("c"));
    let (_, _, frames) = meet(secret(7), hello(), secret(7), own.clone(), Verdict::Welcome);
    let proof = frames[2].clone();
    // The dialer's own tag as the verdict's.
    let (mut dialer, _) = Dialer::begin(secret(7), hello());
    dialer.on_frame(frames[1].clone()).unwrap();
    let reflected = [&[0], &proof.body[..]].concat();
    let reflected = Frame { kind: Kind::Verdict, exchange: 0, body: reflected.into() };
    assert_eq!(dialer.on_frame(reflected), Err(ProofError::WrongSecret));
    // An old proof against a fresh nonce.
    let mut acceptor = Acceptor::begin(secret(7), own, [10; 32]);
    acceptor.on_frame(frames[0].clone(), |_| Verdict::Welcome).unwrap();
    assert_eq!(acceptor.on_frame(proof, |_| Verdict::Welcome), Err(ProofError::WrongSecret));
}

#[test]
fn tags_cover_everything_that_was_said() {
    let own = identity(2, 2, Some("c"));
    let (_, _, frames) = meet(secret(7), hello(), secret(7), own.clone(), Verdict::Welcome);
    // Every byte of the hello that can be changed and still be read.
    let mut tried = 0;
    for at in 0..frames[0].body.len() {
        let mut body = frames[0].body.to_vec();
        body[at] ^= 1;
        let changed = Frame { body: body.into(), ..frames[0].clone() };
        let mut acceptor = Acceptor::begin(secret(7), own.clone(), [9; 32]);
        if acceptor.on_frame(changed, |_| Verdict::Welcome).is_ok() {
            tried += 1;
            let outcome = acceptor.on_frame(frames[2].clone(), |_| Verdict::Welcome);
            assert_eq!(outcome, Err(ProofError::WrongSecret), "byte {at}");
        }
    }
    assert!(tried > 60, "{tried} bytes tried");
    // The verdict: a refusal cannot be made a welcome.
    let (mut dialer, _) = Dialer::begin(secret(7), hello());
    let (_, _, refusing) = meet(secret(7), hello(), secret(7), own, Verdict::NotMember);
    dialer.on_frame(refusing[1].clone()).unwrap();
    let mut body = refusing[3].body.to_vec();
    body[0] = 0;
    let changed = Frame { body: body.into(), ..refusing[3].clone() };
    assert_eq!(dialer.on_frame(changed), Err(ProofError::WrongSecret));
}

#[test]
fn nothing_is_taken_out_of_turn() {
    let own = identity(2, 2, Some("c"));
    let mut acceptor = Acceptor::begin(secret(7), own.clone(), [9; 32]);
    for kind in Kind::ALL.iter().copied().filter(|kind| *kind != Kind::Hello) {
        let frame = Frame { kind, exchange: 0, body: Bytes::new() };
        assert_eq!(acceptor.on_frame(frame, |_| Verdict::Welcome), Err(ProofError::OutOfTurn(kind)));
    }
    let (mut dialer, _) = Dialer::begin(secret(7), hello());
    let verdict = Frame { kind: Kind::Verdict, exchange: 0, body: vec![0; 33].into() };
    assert_eq!(dialer.on_frame(verdict), Err(ProofError::OutOfTurn(Kind::Verdict)));
}

#[test]
fn who_is_somebody_else_is_told_so_after_the_proof() {
    let cases = [
        (identity(3, 2, Some("c")), Verdict::OtherNode),
        (identity(2, 3, Some("c")), Verdict::OtherDirectory),
        (identity(2, 2, Some("d")), Verdict::OtherCluster),
        (identity(2, 2, None), Verdict::OtherCluster),
    ];
    for (own, verdict) in cases {
        let (dialed, accepted, _) = meet(secret(7), hello(), secret(7), own, Verdict::Welcome);
        assert_eq!((dialed, accepted), (Err(ProofError::Refused(verdict)), Err(ProofError::Refused(verdict))));
    }
    let (dialed, _, _) = meet(secret(7), hello(), secret(7), identity(2, 2, Some("c")), Verdict::NotMember);
    assert_eq!(dialed, Err(ProofError::Refused(Verdict::NotMember)));
}

#[test]
fn node_without_a_cluster_may_only_probe() {
    let own = identity(2, 2, Some("c"));
    for purpose in [Purpose::Quorum, Purpose::Control, Purpose::Feed, Purpose::Streams, Purpose::Probe] {
        let hello = Hello { from: identity(1, 1, None), purpose, ..hello() };
        let (dialed, _, _) = meet(secret(7), hello, secret(7), own.clone(), Verdict::Welcome);
        let expected =
            if purpose == Purpose::Probe { Ok(own.clone()) } else { Err(ProofError::Refused(Verdict::OtherCluster)) };
        assert_eq!(dialed, expected, "{purpose:?}");
    }
}

#[test]
fn without_a_secret_only_the_loopback_interface_will_do() {
    let own = identity(2, 2, Some("c"));
    let (dialed, _, _) = meet(LOOPBACK, hello(), LOOPBACK, own.clone(), Verdict::Welcome);
    assert_eq!(dialed, Ok(own.clone()));
    let far = || Trust::Loopback { is_loopback: false };
    let (_, accepted, _) = meet(LOOPBACK, hello(), far(), own.clone(), Verdict::Welcome);
    assert_eq!(accepted, Err(ProofError::NotLoopback));
    let (dialed, _, _) = meet(far(), hello(), LOOPBACK, own.clone(), Verdict::Welcome);
    assert_eq!(dialed, Err(ProofError::NotLoopback));
    let (_, accepted, _) = meet(LOOPBACK, hello(), secret(7), own.clone(), Verdict::Welcome);
    assert_eq!(accepted, Err(ProofError::OneSecret));
    let (_, accepted, _) = meet(secret(7), hello(), LOOPBACK, own, Verdict::Welcome);
    assert_eq!(accepted, Err(ProofError::OneSecret));
}
