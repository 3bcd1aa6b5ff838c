//! Which simulated operations fail, and when the power goes.

use std::io;
use std::path::Path;

/// Kinds of operation that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SimOperation {
    /// Opening an existing file, or locking a directory.
    Open,
    /// Creating a file or directory.
    Create,
    /// Listing, or asking for a length or whether a name exists.
    List,
    /// Reading through the cache.
    Read,
    /// Reading past the cache.
    ReadDevice,
    /// Writing.
    Write,
    /// Reserving space.
    Allocate,
    /// Making a file's bytes durable.
    SyncData,
    /// Making a directory's names durable.
    SyncDir,
    /// Setting a length.
    SetLen,
    /// Renaming.
    Rename,
    /// Removing a file or directory.
    Remove,
}

impl SimOperation {
    fn is_change(self) -> bool {
        !matches!(self, SimOperation::Open | SimOperation::List | SimOperation::Read | SimOperation::ReadDevice)
    }
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimFault {
    /// EIO; nothing happened.
    InputOutput,
    /// ENOSPC; nothing happened.
    StorageFull,
    /// EMFILE; nothing happened. Of operations that open something: also syncing a directory does.
    TooManyOpen,
    /// EIO from a sync, after which the kernel takes the un-synced pages for clean: the cache shows the new bytes, the
    /// device keeps the old ones, and the next sync says OK (fsyncgate).
    LosesBytes,
    /// A write that is done up to a block within it, then EIO.
    Short,
    /// A write that says OK, and so will its sync, and never reaches the device; the cache shows it until it is dropped.
    Lost,
    /// The same, and the device writes the bytes so many blocks further on in the file, as far as the file reaches.
    Misdirected {
        /// How far off.
        blocks: u64,
    },
    /// A sync that says OK and does nothing: a disk that lies.
    Ignored,
}

#[derive(Clone)]
struct Rule {
    operation: SimOperation,
    path_contains: String,
    skip: u32,
    fault: SimFault,
}

#[derive(Clone, Default)]
pub(super) struct FaultPlan {
    rules: Vec<Rule>,
    pub(super) changes: u64,
    pub(super) cut_power_at: Option<u64>,
    pub(super) is_dead: bool,
}

/// How an operation that may begin ends.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permit {
    /// As asked.
    Granted,
    /// The power goes while it is done.
    PowerCut,
    /// In one of the ways that need the operation's own help.
    Fails(SimFault),
}

pub(super) const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EMFILE: i32 = 24;

impl FaultPlan {
    /// Rules that have not struck yet.
    pub(super) fn waiting_count(&self) -> usize {
        self.rules.len()
    }

    pub(super) fn add(&mut self, operation: SimOperation, path_contains: &str, skip: u32, fault: SimFault) {
        self.rules.push(Rule { operation, path_contains: path_contains.to_owned(), skip, fault });
    }

    pub(super) fn reset(&mut self) {
        self.rules.clear();
        self.cut_power_at = None;
        self.is_dead = false;
    }

    /// Whether an operation may begin, and how it ends.
    pub(super) fn enter(&mut self, operation: SimOperation, path: &Path) -> io::Result<Permit> {
        if self.is_dead {
            return Err(power_is_cut());
        }
        if operation.is_change() {
            let number = self.changes;
            self.changes += 1;
            if self.cut_power_at == Some(number) {
                self.is_dead = true;
                return Ok(Permit::PowerCut);
            }
        }
        match self.matching(operation, path) {
            None => Ok(Permit::Granted),
            Some(SimFault::InputOutput) => Err(io::Error::from_raw_os_error(EIO)),
            Some(SimFault::StorageFull) => Err(io::Error::from_raw_os_error(ENOSPC)),
            Some(SimFault::TooManyOpen) => Err(io::Error::from_raw_os_error(EMFILE)),
            Some(fault) => Ok(Permit::Fails(fault)),
        }
    }

    fn matching(&mut self, operation: SimOperation, path: &Path) -> Option<SimFault> {
        if self.rules.is_empty() {
            return None;
        }
        let path = path.to_string_lossy();
        let mut fires = None;
        for (index, rule) in self.rules.iter_mut().enumerate() {
            if rule.operation != operation || !contains(&path, &rule.path_contains) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if fires.is_none() {
                fires = Some(index);
            }
        }
        fires.map(|index| self.rules.remove(index).fault)
    }
}

/// Whether the parts of a pattern, between its stars, occur in a path one behind the other.
fn contains(path: &str, pattern: &str) -> bool {
    let mut rest = path;
    pattern.split('*').all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

pub(super) fn power_is_cut() -> io::Error {
    io::Error::other("the power is cut")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_parts_of_a_path_in_their_order() {
        assert!(contains("/d/journal/1.journal.new", "/d/journal/*.new"));
        assert!(!contains("/d/metadata/1.journal.new", "/d/journal/*.new"));
        assert!(!contains("/d/journal/1.journal", "/d/journal/*.new"));
        assert!(contains("/d/journal/1.journal", ".journal"));
    }
}
