//! Whether replicas hold the same bytes at the same offsets, as far as their segments on disk go.
//!
//! Segments need not begin at the same offsets, so batches are compared, headers and all. Not for compacted topics:
//! brokers compact by themselves.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::NODES;
use super::bits::names;

/// Base offset and length of a batch, which are not counted by that length.
const PREFIX_BYTES: usize = 12;

/// What was compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compared {
    /// Partitions.
    pub partitions: u64,
    /// Batches of each replica.
    pub batches: u64,
    /// Bytes of each replica.
    pub bytes: u64,
}

/// A replica's batches: what lies at each base offset, as length and checksum.
type Batches = BTreeMap<i64, (usize, u32)>;

/// Compares these partitions, named by their directories, of nodes that do not run.
pub fn replicas(data: [&Path; NODES], partitions: &[String]) -> Result<Compared> {
    let mut compared = Compared::default();
    for partition in partitions {
        let [first, others @ ..] = data.map(|data| batches(&data.join(partition)));
        let first = first?;
        for other in others {
            let other = other?;
            // What the one has in segments already may be in the journal of the other.
            let end = first.last_key_value().min(other.last_key_value()).map_or(-1, |(base, _)| *base);
            if !first.range(..=end).eq(other.range(..=end)) {
                let differs = first.range(..=end).zip(other.range(..=end)).find(|(one, other)| one != other);
                bail!("replicas of {partition} differ, first at {differs:?}");
            }
        }
        compared.partitions += 1;
        compared.batches += first.len() as u64;
        compared.bytes += first.values().map(|(bytes, _)| *bytes as u64).sum::<u64>();
    }
    Ok(compared)
}

fn batches(directory: &Path) -> Result<Batches> {
    let mut batches = Batches::new();
    for name in names(directory)?.iter().filter(|name| name.ends_with(".log")) {
        let bytes = std::fs::read(directory.join(name))?;
        let mut rest = bytes.as_slice();
        while let Some((prefix, _)) = rest.split_first_chunk::<PREFIX_BYTES>() {
            let [o0, o1, o2, o3, o4, o5, o6, o7, l0, l1, l2, l3] = *prefix;
            let base = i64::from_be_bytes([o0, o1, o2, o3, o4, o5, o6, o7]);
            let length = PREFIX_BYTES + usize::try_from(i32::from_be_bytes([l0, l1, l2, l3]))?;
            if length == PREFIX_BYTES {
                // Allocated, and not written yet.
                break;
            }
            let batch = rest.get(..length).with_context(|| format!("a batch of {name} is cut off at offset {base}"))?;
            batches.insert(base, (length, crc32c::crc32c(batch)));
            rest = &rest[length..];
        }
    }
    Ok(batches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(base: i64, content: &[u8]) -> Vec<u8> {
        [&base.to_be_bytes()[..], &(content.len() as i32).to_be_bytes(), content].concat()
    }

    #[test]
    fn the_same_batches_in_other_segments_are_equal_and_a_changed_bit_is_not() {
        let root = tempfile::tempdir().unwrap();
        let nodes = ["a", "b", "c"].map(|name| root.path().join(name));
        for node in &nodes {
            std::fs::create_dir_all(node.join("t-0")).unwrap();
        }
        let write = |node: usize, name: &str, bytes: Vec<u8>| {
            std::fs::write(nodes[node].join("t-0").join(name), bytes).unwrap();
        };
        write(0, "0.log", [batch(0, b"one"), batch(5, b"two"), vec![0; 40]].concat());
        write(1, "0.log", batch(0, b"one"));
        write(1, "5.log", batch(5, b"two"));
        write(2, "0.log", batch(0, b"one"));
        let compare = || replicas([&nodes[0], &nodes[1], &nodes[2]], &["t-0".to_owned()]);
        assert_eq!(compare().unwrap().batches, 2);
        write(2, "0.log", batch(0, b"oni"));
        assert!(compare().is_err());
    }
}
