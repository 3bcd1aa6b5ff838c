//! Values on the link between nodes: big-endian numbers, counted bytes and lists.
//!
//! A count is believed only as far as the bytes at hand could hold that many elements.

use std::sync::Arc;

use bytes::{Buf as _, Bytes};

use crate::{BrokerId, ClusterId, Uuid};

/// The longest cluster id, in bytes of UTF-8.
pub const CLUSTER_ID_BYTES_MAX: usize = 256;
/// The longest host name, in bytes.
pub const HOST_BYTES_MAX: usize = 255;

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end inside a value, or a count promises more than there is.
    #[error("the message ends early")]
    Truncated,
    /// Bytes are left behind the last value.
    #[error("{0} bytes too many behind the message")]
    Trailing(usize),
    /// A value outside what it may be.
    #[error("{0} has an impossible value")]
    Invalid(&'static str),
}

/// Collects the values of one message.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

/// Takes values off the front of one message. Bytes taken share the message's memory.
#[derive(Debug)]
pub struct Reader {
    rest: Bytes,
}

macro_rules! numbers {
    ($($name:ident: $type:ty),*) => {
        impl Writer {
            $(
                /// Appends one big-endian number.
                pub fn $name(&mut self, value: $type) {
                    self.bytes.extend_from_slice(&value.to_be_bytes());
                }
            )*
        }

        impl Reader {
            $(
                /// Reads one big-endian number.
                pub fn $name(&mut self) -> Result<$type, WireError> {
                    Ok(<$type>::from_be_bytes(self.array()?))
                }
            )*
        }
    };
}

numbers!(u8: u8, u16: u16, i16: i16, u32: u32, i32: i32, u64: u64, i64: i64);

impl Writer {
    /// Starts empty.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// The bytes written.
    pub fn finish(self) -> Bytes {
        self.bytes.into()
    }

    /// Bytes as they are, without a length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// A length of 32 bits and that many bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).expect("what is sent in one piece is shorter than 4 GiB"));
        self.raw(bytes);
    }

    /// A length of 16 bits and the text in UTF-8. Cut to `bytes_max`, at a character's edge.
    pub fn text(&mut self, text: &str, bytes_max: usize) {
        let end = text.floor_char_boundary(bytes_max.min(usize::from(u16::MAX)));
        self.u16(end as u16);
        self.raw(&text.as_bytes()[..end]);
    }

    /// 0 or 1.
    pub fn flag(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// A presence flag, then the value if there is one.
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Writer, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// A count of 32 bits, then the elements.
    pub fn list<T>(&mut self, items: &[T], write: impl Fn(&mut Writer, &T)) {
        self.u32(u32::try_from(items.len()).expect("a list has fewer than 2^32 elements"));
        for item in items {
            write(self, item);
        }
    }

    /// The sixteen bytes of an identifier.
    pub fn uuid(&mut self, uuid: Uuid) {
        self.raw(&uuid.0);
    }

    /// A node's number.
    pub fn node(&mut self, node: BrokerId) {
        self.i32(node.0);
    }

    /// A cluster's identifier. It has been judged where it was configured; what is too long is no cluster's.
    pub fn cluster(&mut self, cluster: &ClusterId) {
        assert!(cluster.0.len() <= CLUSTER_ID_BYTES_MAX, "a cluster id of {} bytes", cluster.0.len());
        self.text(&cluster.0, CLUSTER_ID_BYTES_MAX);
    }
}

impl Reader {
    /// Reads from the front of `message`.
    pub fn new(message: Bytes) -> Reader {
        Reader { rest: message }
    }

    /// That many bytes.
    pub fn take(&mut self, len: usize) -> Result<Bytes, WireError> {
        if len > self.rest.len() {
            return Err(WireError::Truncated);
        }
        Ok(self.rest.split_to(len))
    }

    /// As many bytes as the array has.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let array = *self.rest.first_chunk::<N>().ok_or(WireError::Truncated)?;
        self.rest.advance(N);
        Ok(array)
    }

    /// Fails unless everything has been read.
    pub fn end(&self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::Trailing(self.rest.len())) }
    }

    /// Everything that is left.
    pub fn rest(self) -> Bytes {
        self.rest
    }

    /// A length of 32 bits and that many bytes.
    pub fn bytes(&mut self) -> Result<Bytes, WireError> {
        let len = self.u32()? as usize;
        self.take(len)
    }

    /// A length of 16 bits and that many bytes of UTF-8, at most `bytes_max`.
    pub fn text(&mut self, bytes_max: usize) -> Result<Arc<str>, WireError> {
        let len = usize::from(self.u16()?);
        if len > bytes_max {
            return Err(WireError::Invalid("length of a text"));
        }
        let bytes = self.take(len)?;
        str::from_utf8(&bytes).map(Arc::from).map_err(|_| WireError::Invalid("text"))
    }

    /// 0 or 1.
    pub fn flag(&mut self) -> Result<bool, WireError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Invalid("flag")),
        }
    }

    /// A presence flag, then the value if there is one.
    pub fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Reader) -> Result<T, WireError>,
    ) -> Result<Option<T>, WireError> {
        if self.flag()? { Ok(Some(read(self)?)) } else { Ok(None) }
    }

    /// A count of 32 bits, then the elements, each of at least `element_bytes_min` bytes, at most `count_max` of them.
    pub fn list<T>(
        &mut self,
        element_bytes_min: usize,
        count_max: usize,
        read: impl Fn(&mut Reader) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let count = self.u32()? as usize;
        if count > self.rest.len() / element_bytes_min.max(1) {
            return Err(WireError::Truncated);
        }
        if count > count_max {
            return Err(WireError::Invalid("length of a list"));
        }
        (0..count).map(|_| read(self)).collect()
    }

    /// The sixteen bytes of an identifier.
    pub fn uuid(&mut self) -> Result<Uuid, WireError> {
        self.array().map(Uuid)
    }

    /// A node's number, which is not negative.
    pub fn node(&mut self) -> Result<BrokerId, WireError> {
        match self.i32()? {
            id if id >= 0 => Ok(BrokerId(id)),
            _ => Err(WireError::Invalid("node id")),
        }
    }

    /// A cluster's identifier.
    pub fn cluster(&mut self) -> Result<ClusterId, WireError> {
        let text = self.text(CLUSTER_ID_BYTES_MAX)?;
        if text.is_empty() { Err(WireError::Invalid("cluster id")) } else { Ok(ClusterId(text)) }
    }
}
