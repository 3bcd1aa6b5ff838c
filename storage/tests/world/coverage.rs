//! Situations a run has to come to; one that it never did fails the run.

use std::collections::BTreeMap;

/// How often each situation came up.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    counts: BTreeMap<&'static str, u64>,
}

impl Coverage {
    /// It came up.
    pub fn hit(&mut self, mark: &'static str) {
        *self.counts.entry(mark).or_default() += 1;
    }

    pub fn hit_if(&mut self, condition: bool, mark: &'static str) {
        if condition {
            self.hit(mark);
        }
    }

    pub fn count(&self, mark: &str) -> u64 {
        self.counts.get(mark).copied().unwrap_or(0)
    }

    pub fn add(&mut self, mark: &'static str, count: u64) {
        *self.counts.entry(mark).or_default() += count;
    }

    /// Everything that came up, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.counts.iter().map(|(mark, count)| (*mark, *count))
    }

    pub fn merge(&mut self, other: &Coverage) {
        other.iter().for_each(|(mark, count)| self.add(mark, count));
    }
}
