//! The newest offset of each key, in a fixed amount of memory.
//!
//! A key is kept as 128 bits of two keyed hashes (SipHash under seeds that no client knows): two keys that collide would
//! count as one, which happens by chance less than once in 2^64 for billions of keys. Open addressing, 24 bytes a slot.
//! Source: `org.apache.kafka.storage.internals.log.SkimpyOffsetMap`, which hashes with MD5.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher as _;

use stonelog_protocol::Offset;

/// Bytes of one slot.
pub const SLOT_BYTES: u64 = 24;

/// Fewer slots than this are not worth bounding.
const SLOTS_COUNT_MIN: u64 = 16;

/// See the module's comment.
pub struct OffsetMap {
    /// Two hashes, and the offset plus one; 0 is an empty slot.
    slots: Vec<[u64; 3]>,
    keys_count: usize,
    keys_count_max: usize,
    seeds: [u64; 2],
}

impl OffsetMap {
    /// A map of at most `bytes_max`, filled up to `load_factor`, and no larger than `keys_expected` distinct keys need.
    pub fn new(bytes_max: u64, load_factor: f64, keys_expected: u64, seeds: [u64; 2]) -> OffsetMap {
        let load_factor = load_factor.clamp(0.01, 0.99);
        let wanted = (keys_expected as f64 / load_factor) as u64 + 2;
        let slots_count = (bytes_max / SLOT_BYTES).min(wanted).max(SLOTS_COUNT_MIN);
        let slots_count = usize::try_from(slots_count).unwrap_or(usize::MAX / SLOT_BYTES as usize);
        let keys_count_max = ((slots_count as f64 * load_factor) as usize).clamp(1, slots_count - 1);
        OffsetMap { slots: vec![[0; 3]; slots_count], keys_count: 0, keys_count_max, seeds }
    }

    /// Distinct keys.
    pub fn keys_count(&self) -> usize {
        self.keys_count
    }

    /// Notes that `key` occurs at `offset`; the largest one counts. `false` when the key is new and there is no room.
    #[must_use]
    pub fn put(&mut self, key: &[u8], offset: Offset) -> bool {
        let value = u64::try_from(offset.0).expect("offsets are not negative") + 1;
        let hashes = self.hashes(key);
        let at = self.find(hashes);
        let slot = &mut self.slots[at];
        if slot[2] != 0 {
            slot[2] = slot[2].max(value);
            return true;
        }
        if self.keys_count == self.keys_count_max {
            return false;
        }
        *slot = [hashes[0], hashes[1], value];
        self.keys_count += 1;
        true
    }

    /// The largest offset noted for `key`.
    pub fn get(&self, key: &[u8]) -> Option<Offset> {
        let value = self.slots[self.find(self.hashes(key))][2];
        value.checked_sub(1).map(|offset| Offset(offset as i64))
    }

    /// The slot that holds the key or would.
    fn find(&self, hashes: [u64; 2]) -> usize {
        let count = self.slots.len();
        let mut at = (hashes[0] % count as u64) as usize;
        // There is always an empty slot: the map is never filled to the last one.
        while self.slots[at][2] != 0 && self.slots[at][..2] != hashes {
            at = (at + 1) % count;
        }
        at
    }

    fn hashes(&self, key: &[u8]) -> [u64; 2] {
        self.seeds.map(|seed| {
            let mut hasher = DefaultHasher::new();
            hasher.write_u64(seed);
            hasher.write(key);
            hasher.finish()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn the_largest_offset_of_each_key_is_found() {
        let mut map = OffsetMap::new(1 << 20, 0.9, 1_000, [1, 2]);
        let mut model = HashMap::new();
        for n in 0..5_000_i64 {
            let key = (n * n % 701).to_be_bytes();
            let offset = Offset((n * 37) % 4_999);
            assert!(map.put(&key, offset));
            let largest = model.entry(key).or_insert(offset);
            *largest = (*largest).max(offset);
        }
        assert_eq!(map.keys_count(), model.len());
        for (key, offset) in model {
            assert_eq!(map.get(&key), Some(offset));
        }
        assert_eq!(map.get(b"never"), None);
        assert_eq!(map.get(b""), None, "an empty key is a key");
    }

    #[test]
    fn a_full_map_takes_no_new_key_and_still_renews_old_ones() {
        let mut map = OffsetMap::new(100 * SLOT_BYTES, 0.5, u64::MAX / 4, [1, 2]);
        let taken = (0..1_000_i64).take_while(|n| map.put(&n.to_be_bytes(), Offset(*n))).count();
        assert_eq!((taken, map.keys_count()), (50, 50));
        assert!(map.put(&7_i64.to_be_bytes(), Offset(900)));
        assert_eq!((map.get(&7_i64.to_be_bytes()), map.get(&50_i64.to_be_bytes())), (Some(Offset(900)), None));
    }

    #[test]
    fn memory_follows_what_is_expected_up_to_the_limit() {
        assert!(OffsetMap::new(128 << 20, 0.9, 10, [0, 0]).slots.len() <= 16);
        assert_eq!(OffsetMap::new(2_400, 0.9, 1 << 40, [0, 0]).slots.len(), 100);
    }

    #[test]
    fn other_seeds_give_other_hashes() {
        let hashes = |seeds| OffsetMap::new(1_000, 0.9, 10, seeds).hashes(b"key");
        assert_ne!(hashes([1, 2]), hashes([3, 4]));
        let [first, second] = hashes([1, 2]);
        assert_ne!(first, second);
    }
}
