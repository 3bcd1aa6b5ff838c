//! What a broker asks the active controller, and what it is told.
//!
//! What is asked is bytes here: the controller's requests belong to `replication`. An answer with content is given only
//! after what it says is committed and applied.

use std::sync::Arc;

use bytes::Bytes;

use super::wire::{Reader, WireError, Writer};
use crate::{BrokerId, ErrorCode};

/// The longest explanation of a refusal, in bytes; longer ones are cut.
pub const MESSAGE_BYTES_MAX: usize = 4 << 10;
/// The longest encoded request, in bytes.
pub const REQUEST_BYTES_MAX: usize = 8 << 20;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// How long the asker waits, in milliseconds; after that nobody is there for the answer.
    pub within_ms: u32,
    /// The request.
    pub request: Bytes,
}

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was decided; what it came to is committed and applied.
    Decided(Bytes),
    /// It was refused, and nothing has changed.
    Rejected {
        /// Kafka's code.
        code: ErrorCode,
        /// Why, in words.
        message: Arc<str>,
    },
    /// The node does not lead. Nothing was written; who leads, as far as it knows.
    NotController(Option<BrokerId>),
    /// It may or may not have had its effect.
    Unknown,
}

impl Ask {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        out.u32(self.within_ms);
        out.raw(&self.request);
        out.finish()
    }

    /// Reads what [`Ask::encode`] wrote.
    pub fn decode(bytes: Bytes) -> Result<Ask, WireError> {
        let mut input = Reader::new(bytes);
        let within_ms = input.u32()?;
        let request = input.rest();
        if request.len() > REQUEST_BYTES_MAX {
            return Err(WireError::Invalid("length of a request"));
        }
        Ok(Ask { within_ms, request })
    }
}

impl Answer {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        match self {
            Answer::Decided(response) => {
                out.u8(0);
                out.raw(response);
            }
            Answer::Rejected { code, message } => {
                out.u8(1);
                out.i16(code.code());
                out.text(message, MESSAGE_BYTES_MAX);
            }
            Answer::NotController(leader) => {
                out.u8(2);
                out.option(*leader, Writer::node);
            }
            Answer::Unknown => out.u8(3),
        }
        out.finish()
    }

    /// Reads what [`Answer::encode`] wrote; every byte must belong.
    pub fn decode(bytes: Bytes) -> Result<Answer, WireError> {
        let mut input = Reader::new(bytes);
        let answer = match input.u8()? {
            0 => return Ok(Answer::Decided(input.rest())),
            1 => {
                let code = ErrorCode::from_code(input.i16()?).ok_or(WireError::Invalid("error code"))?;
                Answer::Rejected { code, message: input.text(MESSAGE_BYTES_MAX)? }
            }
            2 => Answer::NotController(input.option(Reader::node)?),
            3 => Answer::Unknown,
            _ => return Err(WireError::Invalid("answer")),
        };
        input.end()?;
        Ok(answer)
    }
}
