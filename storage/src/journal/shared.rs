//! What the journal's parts share: which files are live, what is written, what is durable, and the fault that ends all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::JournalPosition;
use super::file::LiveFile;
use super::flusher::Durable;
use super::options::JournalOptions;
use super::spare::Spare;
use crate::Fault;
use crate::disk::Disk;

/// One per open journal. The lock is held for bookkeeping only, never during I/O.
pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: PathBuf,
    pub(super) options: JournalOptions,
    /// The newest durable sequence, named by the next commit's header.
    pub(super) durable_sequence: AtomicU64,
    state: Mutex<State>,
}

pub(super) struct State {
    /// By the position of their first byte; the last one is being written.
    pub(super) live: BTreeMap<u64, Arc<LiveFile>>,
    /// Zero-written or recycled files, ready to be put into use; with the live files at most the journal's limit, but
    /// for [`super::spare::SPARES_WANTED`].
    pub(super) spares: Vec<Spare>,
    /// Files with commits that no sync has covered, oldest first.
    pub(super) dirty: Vec<Arc<LiveFile>>,
    /// The last commit written.
    pub(super) written: Durable,
    /// The last commit made durable; `durable <= written`.
    pub(super) durable: Durable,
    /// Live files, by their base, that somebody removed: what they hold is here as long as this process is.
    pub(super) missing: BTreeSet<u64>,
    /// Files that recovery could not read. Once a checkpoint covers the position, where what could be read ended, the
    /// verdicts on what they held are known and they are put aside.
    pub(super) damaged: Option<(JournalPosition, Vec<PathBuf>)>,
    /// The greatest number in a file's name.
    pub(super) last_file_number: u64,
    /// The first failure; all parts refuse from then on (rule 8).
    fault: Option<Fault>,
}

impl Shared {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        options: JournalOptions,
        live: BTreeMap<u64, Arc<LiveFile>>,
        spares: Vec<Spare>,
        recovered: Durable,
    ) -> Shared {
        let state = State {
            live,
            spares,
            dirty: Vec::new(),
            written: recovered,
            durable: recovered,
            missing: BTreeSet::new(),
            damaged: None,
            last_file_number: 0,
            fault: None,
        };
        Shared {
            disk,
            directory,
            options,
            durable_sequence: AtomicU64::new(recovered.sequence),
            state: Mutex::new(state),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the journal's state")
    }

    pub(super) fn durable_sequence(&self) -> u64 {
        self.durable_sequence.load(Ordering::Acquire)
    }

    /// Refuses once anything has failed.
    pub(super) fn check(&self) -> Result<(), Fault> {
        #[cfg(feature = "mutants")]
        if crate::mutants::Guard::FaultSticks.is_off() {
            return Ok(());
        }
        match &self.state().fault {
            Some(fault) => Err(fault.repeat()),
            None => Ok(()),
        }
    }

    /// Makes a failure stick, unless it is only that space ran out while allocating.
    pub(super) fn stick<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        if let Err(fault) = &result
            && !fault.is_out_of_space()
        {
            self.state().fault.get_or_insert_with(|| fault.repeat());
        }
        result
    }
}

impl State {
    pub(super) fn bytes_live(&self) -> u64 {
        self.live.values().map(|file| file.header.len).sum()
    }

    /// Length of the files in use and of those kept for use.
    pub(super) fn bytes_held(&self) -> u64 {
        self.bytes_live() + self.spares.iter().map(|spare| spare.len).sum::<u64>()
    }
}
