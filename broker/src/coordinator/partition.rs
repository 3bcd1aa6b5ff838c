//! Which coordinator partition a key hashes to (`GroupCoordinatorService.partitionFor`).
//!
//! Clients never compute this, but tools that read `__consumer_offsets` do, so the hash is Java's.

use stonelog_protocol::PartitionIndex;

/// The partition of a coordinator topic with `partitions_count` partitions that owns `key`.
///
/// # Panics
/// If `partitions_count` is not positive: a topic has at least one partition.
pub fn partition_for(key: &str, partitions_count: i32) -> PartitionIndex {
    assert!(partitions_count > 0, "a topic has at least one partition");
    // `Utils.abs`: the one value without a positive counterpart counts as zero.
    let positive = java_hash_code(key).checked_abs().unwrap_or(0);
    PartitionIndex(positive % partitions_count)
}

/// `java.lang.String.hashCode`: over UTF-16 code units, wrapping.
fn java_hash_code(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_that_of_java_strings() {
        assert_eq!(java_hash_code(""), 0);
        assert_eq!(java_hash_code("hello"), 99_162_322);
        assert_eq!(java_hash_code("polygenelubricants"), i32::MIN);
        assert_eq!(java_hash_code("ä😀"), 228 * 31 * 31 + 0xD83D * 31 + 0xDE00);
    }

    #[test]
    fn negative_hashes_still_name_a_partition() {
        assert_eq!(partition_for("polygenelubricants", 50), PartitionIndex(0));
        assert_eq!(partition_for("hello", 50), PartitionIndex(22));
        for key in ["console-consumer-1", "a", "zzzzzzzzzzz", "group-17"] {
            assert!((0..50).contains(&partition_for(key, 50).0));
        }
    }
}
