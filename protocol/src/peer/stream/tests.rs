//! Every message there and back, cut, flipped and forged.

use super::*;

fn stamps() -> Stamps {
    Stamps {
        partition: TopicPartition { topic_id: Uuid([0xab; 16]), partition: PartitionIndex(3) },
        leader_epoch: LeaderEpoch(5),
        leader: BrokerId(1),
        leader_broker_epoch: BrokerEpoch(70),
        follower: BrokerId(2),
        follower_broker_epoch: BrokerEpoch(71),
        follower_directory: Uuid([0xcd; 16]),
        generation: StreamGeneration { recovery_epoch: 4, counter: 9 },
    }
}

fn report() -> StreamReport {
    StreamReport { written: Offset(20), durable: Offset(18), probe: 6, log_start: Offset(5), is_whole: true }
}

fn news() -> StreamNews {
    StreamNews { high_watermark: Offset(17), log_start: Offset(2), probe: 7, is_whole: true }
}

fn filled(upto: i64, batches: &'static [u8]) -> Filled {
    let batches = vec![Bytes::from_static(batches)];
    Filled { number: 12, from: Offset(5), upto: Offset(upto), cleaned_end: Offset(6), batches }
}

fn bodies() -> Vec<StreamBody> {
    let open = OpenStream {
        fetch_offset: Offset(21),
        last_fetched_epoch: LeaderEpoch(4),
        report: report(),
        credit: 99,
        batch_bytes_max: 1 << 24,
    };
    let batches = vec![Bytes::from_static(b"whole batches")];
    let push = Push { number: 8, base: Offset(21), news: news(), batches };
    let refusals = [
        Refusal::NotLeader,
        Refusal::FencedEpoch(LeaderEpoch(6)),
        Refusal::UnknownEpoch(LeaderEpoch(4)),
        Refusal::StaleBroker,
        Refusal::NotReplica,
        Refusal::OutOfRange { log_start: Offset(30), log_end: Offset(40) },
        Refusal::Offline,
        Refusal::Damaged,
        Refusal::OtherDirectory,
    ];
    let mut bodies = vec![
        StreamBody::Open(open),
        StreamBody::Report(report()),
        StreamBody::Credit(1 << 20),
        StreamBody::Close,
        StreamBody::Opened(Opened { news: news(), counts: true }),
        StreamBody::Diverging(Diverging { epoch: LeaderEpoch(4), end: Offset(15) }),
        StreamBody::Push(push),
        StreamBody::News(news()),
        StreamBody::Wants(1 << 21),
        StreamBody::Repair(Repair { number: 12, from: Offset(5), to: Offset(9), cleaned_end: Offset(6) }),
        StreamBody::Filled(filled(8, b"some")),
        StreamBody::Filled(filled(5, b"")),
    ];
    bodies.extend(refusals.map(StreamBody::Refused));
    bodies
}

fn messages() -> Vec<StreamMessage> {
    let message = |body| StreamMessage { stream: StreamId(11), stamps: stamps(), body };
    bodies().into_iter().map(message).collect()
}

#[test]
fn every_message_reads_back_as_it_was_written() {
    for message in messages() {
        let bytes = message.encode();
        assert_eq!(bytes.len(), message.encoded_len());
        assert_eq!(StreamMessage::decode(bytes), Ok(message));
    }
}

#[test]
fn the_bytes_are_those_of_the_format() {
    let report = messages().remove(1).encode();
    let hex: String = report.iter().map(|byte| format!("{byte:02x}")).collect();
    let head = "0402000000000000000b";
    let stamps = "abababababababababababababababab0000000300000005000000010000000000000046\
                  000000020000000000000047cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd0000000400000009";
    let fields = "000000000000001400000000000000120000000000000006000000000000000501";
    assert_eq!(hex, [head, stamps, fields].concat());
    assert_eq!(STREAM_HEAD_BYTES, (head.len() + stamps.len()) / 2);
    let push = messages().remove(6).encode();
    assert_eq!(push[1], PUSH);
    assert_eq!(push[STREAM_HEAD_BYTES..STREAM_HEAD_BYTES + 8], 8u64.to_be_bytes());
    assert!(push.ends_with(b"whole batches"));
    let fields_of = |kind: u8| {
        let message = messages().into_iter().map(|message| message.encode()).find(|bytes| bytes[1] == kind);
        let bytes = message.expect("there is one of each");
        bytes[STREAM_HEAD_BYTES..].iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    assert_eq!(fields_of(OPENED), "00000000000000110000000000000002000000000000000701".to_owned() + "01");
    assert_eq!(fields_of(REPAIR), "000000000000000c000000000000000500000000000000090000000000000006");
    assert_eq!(
        fields_of(FILLED),
        ["000000000000000c000000000000000500000000000000080000000000000006", "736f6d65"].concat()
    );
}

#[test]
fn a_message_cut_anywhere_is_refused() {
    for message in messages() {
        let bytes = message.encode();
        let least = bytes.len() - message.batches().iter().map(Bytes::len).sum::<usize>();
        let may_be_empty = matches!(message.body, StreamBody::Filled(_));
        for len in 0..=least {
            let is_whole = len == bytes.len() || (len == least && may_be_empty);
            assert_eq!(StreamMessage::decode(bytes.slice(..len)).is_ok(), is_whole, "{message:?} cut to {len}");
        }
    }
}

#[test]
fn bytes_behind_a_message_are_refused() {
    for message in messages().into_iter().filter(|message| message.batches().is_empty()) {
        let mut bytes = BytesMut::from(&message.encode()[..]);
        bytes.extend_from_slice(&[0]);
        assert_eq!(StreamMessage::decode(bytes.freeze()), Err(StreamDecodeError::Trailing(1)));
    }
}

#[test]
fn hostile_bytes_are_refused_and_never_believed() {
    let with = |at: usize, value: &[u8]| {
        let mut bytes = BytesMut::from(&messages().remove(1).encode()[..]);
        bytes[at..at + value.len()].copy_from_slice(value);
        StreamMessage::decode(bytes.freeze())
    };
    for other in [STREAM_VERSION - 1, STREAM_VERSION + 1] {
        assert_eq!(with(0, &[other]), Err(StreamDecodeError::UnknownVersion(other)));
    }
    for other in [0, FILLED + 1] {
        assert_eq!(with(1, &[other]), Err(StreamDecodeError::UnknownKind(other)));
    }
    let fields = STREAM_HEAD_BYTES;
    let negative = (-1i64).to_be_bytes();
    assert_eq!(with(fields, &negative), Err(StreamDecodeError::Invalid("a written position")));
    assert_eq!(with(fields + 8, &negative), Err(StreamDecodeError::Invalid("a durable position")));
    assert_eq!(with(fields + 24, &negative), Err(StreamDecodeError::Invalid("a log start")));
    assert_eq!(with(fields + 32, &[2]), Err(StreamDecodeError::Invalid("whether a log is whole")));
    let ahead = StreamDecodeError::Invalid("a durable position above the written one");
    assert_eq!(with(fields + 8, &21i64.to_be_bytes()), Err(ahead));
    // Every flipped bit of every message is another message or an error, and never a panic.
    for message in messages() {
        let bytes = message.encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = BytesMut::from(&bytes[..]);
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(StreamMessage::decode(flipped.freeze()).as_ref(), Ok(&message));
        }
    }
}
