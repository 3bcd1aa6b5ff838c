//! What was asked of a cluster and what it answered, in order: the evidence that the checker judges.
//!
//! One process writes a history, one line of JSON per event, each before what it tells of can have consequences: a
//! `send` before the request leaves, an answer when it has arrived. So the order of the lines is an order in real time:
//! an acknowledgement above a `send` means that the one was over before the other began. A last line that was cut off
//! is left out when a history is read.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::client::clock;

/// Shape of the file, in its first line.
const SCHEMA: &str = "verify.history/1";

/// The first line: what the run is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// `verify.history/1`.
    pub schema: String,
    /// Identifier of the run, in every value it writes.
    pub run: String,
    /// The topic written to.
    pub topic: String,
    /// Its partitions, from 0.
    pub partitions: i32,
    /// Whether the run created the topic: then nobody else writes there, and nothing there expires.
    pub exclusive: bool,
    /// Consumer groups that read.
    pub groups: Vec<String>,
}

impl Header {
    /// A header of the present shape.
    pub fn new(run: String, topic: String, partitions: i32, exclusive: bool, groups: Vec<String>) -> Header {
        Header { schema: SCHEMA.to_owned(), run, topic, partitions, exclusive, groups }
    }
}

/// Records of one producer with consecutive sequence numbers at consecutive offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Offset of the first.
    pub offset: i64,
    /// How many.
    pub count: u32,
    /// The producer.
    pub producer: u32,
    /// Sequence number of the first.
    pub sequence: u64,
}

/// One thing that happened. Partitions are those of the run's topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A batch is about to be sent, in order after all earlier ones of its producer and partition.
    Send {
        /// Number of the batch within the run, from 0, without gaps.
        id: u64,
        /// The producer.
        producer: u32,
        /// The partition.
        partition: i32,
        /// Sequence number of the first record.
        first: u64,
        /// Records.
        count: u32,
    },
    /// The batch was acknowledged.
    Acked {
        /// Of which `send`.
        id: u64,
        /// Offset of the first record; `None` when the broker has forgotten it.
        offset: Option<i64>,
    },
    /// The batch was refused: it must never be read.
    Failed {
        /// Of which `send`.
        id: u64,
        /// Why.
        error: String,
    },
    /// Nobody knows whether the batch was stored.
    Unknown {
        /// Of which `send`.
        id: u64,
        /// Why.
        error: String,
    },
    /// A member of a group starts to read partitions.
    Joined {
        /// The group.
        group: String,
        /// Number of the member within the run.
        member: u32,
        /// Generation of the group.
        generation: i32,
        /// Partition and position of everything it is to read.
        positions: Vec<(i32, i64)>,
        /// Partition and committed offset, of those that have one.
        committed: Vec<(i32, i64)>,
    },
    /// A member reads on from another position because the old one no longer exists.
    Repositioned {
        /// The group.
        group: String,
        /// The member.
        member: u32,
        /// The partition.
        partition: i32,
        /// The new position.
        position: i64,
    },
    /// A member has read records of one partition.
    Polled {
        /// The group.
        group: String,
        /// The member.
        member: u32,
        /// The partition.
        partition: i32,
        /// Values of this run.
        runs: Vec<Run>,
        /// Offsets of everything else.
        others: Vec<i64>,
    },
    /// A commit is about to be sent.
    CommitAsked {
        /// Number of the commit within the run, from 0, without gaps.
        id: u64,
        /// The group.
        group: String,
        /// Partition and offset.
        offsets: Vec<(i32, i64)>,
    },
    /// The commit was acknowledged.
    CommitAcked {
        /// Of which `commit_asked`.
        id: u64,
    },
    /// The commit was refused.
    CommitFailed {
        /// Of which `commit_asked`.
        id: u64,
        /// Why.
        error: String,
    },
    /// Nobody knows whether the commit was stored.
    CommitUnknown {
        /// Of which `commit_asked`.
        id: u64,
        /// Why.
        error: String,
    },
    /// The committed offsets of a group were read, with nobody committing meanwhile.
    CommitsRead {
        /// The group.
        group: String,
        /// Partition and committed offset, of those that have one.
        offsets: Vec<(i32, i64)>,
    },
    /// A group stopped reading.
    Drained {
        /// The group.
        group: String,
        /// Whether it had read up to the end.
        complete: bool,
    },
}

/// One line of the file.
#[derive(Serialize, Deserialize)]
struct Line<E> {
    /// Milliseconds since the run began, for people; the checker goes by the order of lines.
    at_ms: u64,
    #[serde(flatten)]
    event: E,
}

/// Writes a history to a file, event by event.
#[derive(Debug)]
pub struct HistoryWriter {
    file: File,
    started: Instant,
}

impl HistoryWriter {
    /// Starts a history. A file of that name must not exist: it may be the evidence of another run.
    pub fn create(path: &Path, header: &Header) -> io::Result<HistoryWriter> {
        let mut writer = HistoryWriter { file: File::create_new(path)?, started: clock::now() };
        writer.write_line(header)?;
        Ok(writer)
    }

    /// Appends one event; it is with the operating system when this returns.
    pub fn write(&mut self, event: &Event) -> io::Result<()> {
        self.write_line(&Line { at_ms: self.started.elapsed().as_millis() as u64, event })
    }

    fn write_line(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.file.write_all(&line)
    }
}

/// The events of a history that is read from a file, in order.
#[derive(Debug)]
pub struct HistoryReader {
    lines: BufReader<File>,
}

impl HistoryReader {
    /// Opens a history and reads its header.
    pub fn open(path: &Path) -> io::Result<(Header, HistoryReader)> {
        let mut lines = BufReader::new(File::open(path)?);
        let mut line = Vec::new();
        lines.read_until(b'\n', &mut line)?;
        let header: Header = serde_json::from_slice(&line)?;
        if header.schema != SCHEMA {
            let message = format!("this is a {} file, not {SCHEMA}", header.schema);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok((header, HistoryReader { lines }))
    }
}

impl Iterator for HistoryReader {
    type Item = io::Result<Event>;

    fn next(&mut self) -> Option<io::Result<Event>> {
        let mut line = Vec::new();
        match self.lines.read_until(b'\n', &mut line) {
            Ok(_) if line.last() != Some(&b'\n') => None,
            Ok(_) => {
                let line: serde_json::Result<Line<Event>> = serde_json::from_slice(&line);
                Some(line.map(|line| line.event).map_err(io::Error::from))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_reads_back_up_to_a_cut_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history");
        let header = Header::new("r".to_owned(), "t".to_owned(), 2, true, vec!["g".to_owned()]);
        let events = [
            Event::Send { id: 0, producer: 1, partition: 0, first: 0, count: 3 },
            Event::Acked { id: 0, offset: Some(7) },
            Event::CommitsRead { group: "g".to_owned(), offsets: vec![(0, 7)] },
        ];
        let mut writer = HistoryWriter::create(&path, &header).unwrap();
        events.iter().for_each(|event| writer.write(event).unwrap());
        writer.file.write_all(b"{\"event\":\"acked\",\"id\":").unwrap();
        assert!(HistoryWriter::create(&path, &header).is_err(), "evidence is not overwritten");

        let (read, events_read) = HistoryReader::open(&path).unwrap();
        assert_eq!(read, header);
        assert_eq!(events_read.map(Result::unwrap).collect::<Vec<_>>(), events);
    }
}
