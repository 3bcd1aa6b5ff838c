//! How one record is printed: a printf-like format, or a line of JSON.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::client::batch::Record;

/// One piece of a format.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Key,
    Value,
    Headers,
    Timestamp,
}

/// A format that was read once and prints many records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RecordFormat {
    pieces: Vec<Piece>,
}

impl RecordFormat {
    /// Reads `%t %p %o %k %v %h %T %%` and `\n \t \r \0 \\`.
    pub(super) fn parse(text: &str) -> Result<RecordFormat, String> {
        let mut pieces = Vec::new();
        let mut literal = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let piece = match (c, if matches!(c, '%' | '\\') { chars.next() } else { None }) {
                ('%', Some('t')) => Piece::Topic,
                ('%', Some('p')) => Piece::Partition,
                ('%', Some('o')) => Piece::Offset,
                ('%', Some('k')) => Piece::Key,
                ('%', Some('v')) => Piece::Value,
                ('%', Some('h')) => Piece::Headers,
                ('%', Some('T')) => Piece::Timestamp,
                ('%', Some('%')) => Piece::Text(b"%".to_vec()),
                ('\\', Some('n')) => Piece::Text(b"\n".to_vec()),
                ('\\', Some('t')) => Piece::Text(b"\t".to_vec()),
                ('\\', Some('r')) => Piece::Text(b"\r".to_vec()),
                ('\\', Some('0')) => Piece::Text(b"\0".to_vec()),
                ('\\', Some('\\')) => Piece::Text(b"\\".to_vec()),
                ('%' | '\\', Some(unknown)) => {
                    return Err(format!(
                        "`{c}{unknown}` has no meaning; there are %t %p %o %k %v %h %T %% \\n \\t \\r \\0 \\\\"
                    ));
                }
                ('%' | '\\', None) => return Err(format!("`{c}` at the end has no meaning")),
                (plain, _) => Piece::Text(plain.to_string().into_bytes()),
            };
            match piece {
                Piece::Text(text) => literal.extend(text),
                piece => {
                    if !literal.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut literal)));
                    }
                    pieces.push(piece);
                }
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Ok(RecordFormat { pieces })
    }

    /// Appends one record; a null key or value prints nothing.
    pub(super) fn print(&self, topic: &str, partition: i32, record: &Record, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend(text),
                Piece::Topic => out.extend(topic.as_bytes()),
                Piece::Partition => out.extend(partition.to_string().as_bytes()),
                Piece::Offset => out.extend(record.offset.to_string().as_bytes()),
                Piece::Key => out.extend(record.key.iter().flatten()),
                Piece::Value => out.extend(record.value.iter().flatten()),
                Piece::Timestamp => out.extend(record.timestamp_ms.to_string().as_bytes()),
                Piece::Headers => print_headers(record, out),
            }
        }
    }
}

/// `name=value,name=value`; a null value leaves the equal sign out.
fn print_headers(record: &Record, out: &mut Vec<u8>) {
    for (index, (name, value)) in record.headers.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend(name);
        if let Some(value) = value {
            out.push(b'=');
            out.extend(value);
        }
    }
}

/// Bytes in JSON: text where they are text, else base64 under another name, so that both read back exactly.
#[derive(Serialize)]
struct RecordJson<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    timestamp: i64,
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    headers: Vec<HeaderJson<'a>>,
}

#[derive(Serialize)]
struct HeaderJson<'a> {
    key: String,
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

/// Appends one record as a line of JSON.
pub(super) fn print_json(topic: &str, partition: i32, record: &Record, out: &mut Vec<u8>) -> serde_json::Result<()> {
    let (key, key_base64) = text_or_base64(record.key.as_deref());
    let (value, value_base64) = text_or_base64(record.value.as_deref());
    let headers = record.headers.iter().map(|(name, value)| {
        let (value, value_base64) = text_or_base64(value.as_deref());
        HeaderJson { key: printable(name), value, value_base64 }
    });
    let (offset, timestamp, headers) = (record.offset, record.timestamp_ms, headers.collect());
    let json = RecordJson { topic, partition, offset, timestamp, key, key_base64, value, value_base64, headers };
    serde_json::to_writer(&mut *out, &json)?;
    out.push(b'\n');
    Ok(())
}

fn text_or_base64(bytes: Option<&[u8]>) -> (Option<&str>, Option<String>) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => (None, None),
        Some((_, Ok(text))) => (Some(text), None),
        Some((bytes, Err(_))) => (None, Some(STANDARD.encode(bytes))),
    }
}

/// A header's key, with bytes that are no text as `\xNN`.
fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn record() -> Record {
        Record {
            offset: 7,
            timestamp_ms: 1_000,
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::from_static(&[0xff, b'v'])),
            headers: vec![(b"a".to_vec(), Some(b"1".to_vec())), (b"a".to_vec(), None)],
        }
    }

    #[test]
    fn every_piece_prints_its_field() {
        let format = RecordFormat::parse("%t/%p@%o %T %k [%h] 100%%\\t%v\\n").unwrap();
        let mut out = Vec::new();
        format.print("topic", 2, &record(), &mut out);
        assert_eq!(out, b"topic/2@7 1000 k [a=1,a] 100%\t\xffv\n");
    }

    #[test]
    fn unknown_pieces_are_refused() {
        for text in ["%x", "%", "\\q", "\\"] {
            assert!(RecordFormat::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_base64_in_json() {
        let mut out = Vec::new();
        print_json("t", 0, &record(), &mut out).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json["key"], "k");
        assert_eq!(json["value"], serde_json::Value::Null);
        assert_eq!(json["value_base64"], "/3Y=");
        assert_eq!(json["headers"][1]["key"], "a");
        assert_eq!(json["headers"][1]["value"], serde_json::Value::Null);
    }
}
