//! Values that requests and responses share.

use std::sync::Arc;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::{BrokerEpoch, BrokerId, PartitionIndex, TopicPartition};

use crate::controller::Reject;
use crate::metadata::codec::{DecodeError, Reader, Writer};
use crate::metadata::{ConfigResource, RecoveryState, Verdict};

/// The longest text, in bytes of UTF-8. Kafka's strings end at 32,767.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// The longest list of what a client asks for in one request, and of anything within it.
pub const ELEMENTS_MAX: usize = 1 << 16;
/// The longest explanation of a refusal, and the longest warning, in bytes; longer ones are cut.
pub(super) const MESSAGE_BYTES_MAX: usize = stonelog_protocol::peer::control::MESSAGE_BYTES_MAX;

/// A text of bounded length.
pub(super) fn read_text<'a>(input: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let text = input.text()?;
    if text.len() > TEXT_BYTES_MAX { Err(DecodeError::Invalid("length of a text")) } else { Ok(text) }
}

pub(super) fn read_string(input: &mut Reader<'_>) -> Result<String, DecodeError> {
    read_text(input).map(str::to_owned)
}

pub(super) fn read_shared(input: &mut Reader<'_>) -> Result<Arc<str>, DecodeError> {
    read_text(input).map(Arc::from)
}

/// A list within what a client asked, or of the answers to it.
pub(super) fn read_list<T>(
    input: &mut Reader<'_>,
    element_len_min: usize,
    read: impl Fn(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = input.count(element_len_min)?;
    if count > ELEMENTS_MAX {
        return Err(DecodeError::Invalid("length of a list"));
    }
    (0..count).map(|_| read(input)).collect()
}

pub(super) fn write_partition(out: &mut Writer, partition: &TopicPartition) {
    let TopicPartition { topic_id, partition } = partition;
    out.uuid(*topic_id);
    out.i32(partition.0);
}

/// How long [`write_partition`]'s is.
pub(super) const PARTITION_LEN: usize = 20;

pub(super) fn read_partition(input: &mut Reader<'_>) -> Result<TopicPartition, DecodeError> {
    Ok(TopicPartition { topic_id: input.uuid()?, partition: PartitionIndex(input.i32()?) })
}

pub(super) fn write_epoch(out: &mut Writer, epoch: &Option<BrokerEpoch>) {
    out.option(epoch.as_ref(), |out, epoch| out.i64(epoch.0));
}

pub(super) fn read_epoch(input: &mut Reader<'_>) -> Result<Option<BrokerEpoch>, DecodeError> {
    input.option(|input| input.i64().map(BrokerEpoch))
}

pub(super) fn write_verdict(out: &mut Writer, verdict: Verdict) {
    out.u8(match verdict {
        Verdict::Proved => 0,
        Verdict::Cut => 1,
        Verdict::Lost => 2,
        Verdict::Damaged => 3,
    });
}

pub(super) fn read_verdict(input: &mut Reader<'_>) -> Result<Verdict, DecodeError> {
    match input.u8()? {
        0 => Ok(Verdict::Proved),
        1 => Ok(Verdict::Cut),
        2 => Ok(Verdict::Lost),
        3 => Ok(Verdict::Damaged),
        _ => Err(DecodeError::Invalid("verdict")),
    }
}

pub(super) fn write_recovering(out: &mut Writer, state: RecoveryState) {
    out.flag(match state {
        RecoveryState::Recovered => false,
        RecoveryState::Recovering => true,
    });
}

pub(super) fn read_recovering(input: &mut Reader<'_>) -> Result<RecoveryState, DecodeError> {
    Ok(if input.flag()? { RecoveryState::Recovering } else { RecoveryState::Recovered })
}

/// The resource's number as in Kafka's `ConfigResource.Type`.
pub(super) fn write_resource(out: &mut Writer, resource: &ConfigResource) {
    match resource {
        ConfigResource::Topic(name) => {
            out.u8(2);
            out.text(name);
        }
        ConfigResource::Broker(id) => {
            out.u8(4);
            out.option(id.as_ref(), |out, id| out.i32(id.0));
        }
        ConfigResource::Group(id) => {
            out.u8(32);
            out.text(id);
        }
        // Nobody asks for it; whoever does is refused by the controller, not by the link.
        ConfigResource::Recorded => out.u8(64),
    }
}

pub(super) fn read_resource(input: &mut Reader<'_>) -> Result<ConfigResource, DecodeError> {
    Ok(match input.u8()? {
        2 => ConfigResource::Topic(read_shared(input)?),
        4 => ConfigResource::Broker(input.option(|input| input.i32().map(BrokerId))?),
        32 => ConfigResource::Group(read_shared(input)?),
        64 => ConfigResource::Recorded,
        _ => return Err(DecodeError::Invalid("configuration resource")),
    })
}

/// Words for a human, cut at a character's edge.
pub(super) fn write_message(out: &mut Writer, message: &str, bytes_max: usize) {
    out.text(&message[..message.floor_char_boundary(bytes_max)]);
}

pub(super) fn read_message(input: &mut Reader<'_>) -> Result<String, DecodeError> {
    let text = input.text()?;
    if text.len() > MESSAGE_BYTES_MAX { Err(DecodeError::Invalid("length of a message")) } else { Ok(text.to_owned()) }
}

/// 0 and the value, or 1, the code and the message.
pub(super) fn write_result<T>(
    out: &mut Writer,
    result: &Result<T, Reject>,
    message_bytes_max: usize,
    write: impl FnOnce(&mut Writer, &T),
) {
    match result {
        Ok(value) => {
            out.u8(0);
            write(out, value);
        }
        Err(Reject { code, message }) => {
            out.u8(1);
            out.i16(code.code());
            write_message(out, message, message_bytes_max);
        }
    }
}

pub(super) fn read_result<T>(
    input: &mut Reader<'_>,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Result<T, Reject>, DecodeError> {
    match input.u8()? {
        0 => Ok(Ok(read(input)?)),
        1 => {
            let code = ErrorCode::from_code(input.i16()?).ok_or(DecodeError::Invalid("error code"))?;
            Ok(Err(Reject { code, message: read_message(input)? }))
        }
        _ => Err(DecodeError::Invalid("result")),
    }
}
