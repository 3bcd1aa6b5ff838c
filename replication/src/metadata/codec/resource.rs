//! The bytes of whose settings a record is about; Kafka's numbers, and one of ours for what a controller has recorded.

use stonelog_protocol::BrokerId;

use super::{ConfigResource, DecodeError, Reader, Writer};

pub(super) fn encode_resource(out: &mut Writer, resource: &ConfigResource) {
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
        ConfigResource::Recorded => out.u8(64),
    }
}

pub(super) fn decode_resource(input: &mut Reader<'_>) -> Result<ConfigResource, DecodeError> {
    Ok(match input.u8()? {
        2 => ConfigResource::Topic(input.shared_text()?),
        4 => ConfigResource::Broker(input.option(|input| input.i32().map(BrokerId))?),
        32 => ConfigResource::Group(input.shared_text()?),
        64 => ConfigResource::Recorded,
        _ => return Err(DecodeError::Invalid("configuration resource")),
    })
}
