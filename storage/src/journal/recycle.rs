//! The journal's housekeeping, for a background thread: prepares spare files and takes back covered ones.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::JournalPosition;
use super::file::file_name;
use super::shared::Shared;
use super::spare::{SPARES_WANTED, Spare, make_spare};
use crate::Fault;
use crate::fault::is_no_space;

/// Ends the name of a damaged file that a checkpoint has made superfluous; it is kept for whoever wants to look at it.
const DAMAGED_SUFFIX: &str = ".damaged";

/// How full the journal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalUsage {
    /// Length of the files in use, the one being written included.
    pub bytes_live: u64,
    /// The limit of that; a write that needs a file beyond it is refused as out of space.
    pub bytes_max: u64,
}

/// The journal's housekeeping end.
pub struct JournalMaintenance {
    pub(super) shared: Arc<Shared>,
}

impl JournalMaintenance {
    /// Whether [`JournalMaintenance::prepare_spare`] has something to do.
    pub fn spare_wanted(&self) -> bool {
        self.shared.state().spares.len() < SPARES_WANTED
    }

    /// Makes one spare file if one is wanted; whether it did. Takes as long as writing the file once.
    /// Out of space is no fault: the journal goes on, and the call may be repeated later.
    pub fn prepare_spare(&self) -> Result<bool, Fault> {
        self.prepare_spare_telling(&mut || ())
    }

    /// As [`JournalMaintenance::prepare_spare`]; `goes_on` is called whenever the device has taken another part, so that a
    /// file that is large can be told from a device that hangs.
    pub fn prepare_spare_telling(&self, goes_on: &mut dyn FnMut()) -> Result<bool, Fault> {
        self.shared.check()?;
        if !self.spare_wanted() {
            return Ok(false);
        }
        let spare = make_numbered(&self.shared, goes_on)?;
        self.shared.state().spares.push(spare);
        Ok(true)
    }

    /// Frees the files that lie wholly before `covered`: durable segments and a durable checkpoint hold all that their
    /// entries said. Returns how many. `covered` is at most the durable position.
    ///
    /// A freed file is kept for its next use while the journal stays within its limit: a checkpoint frees several at
    /// once, and zeroes written anew for each would cost a third of the disk's throughput.
    pub fn recycle(&self, covered: JournalPosition) -> Result<usize, Fault> {
        self.shared.check()?;
        let mut removed = Vec::new();
        let mut count = 0;
        let damaged;
        {
            let mut state = self.shared.state();
            damaged = state.damaged.take_if(|(read_to, _)| *read_to <= covered);
            assert!(covered <= state.durable.position, "a checkpoint covers durable entries only");
            while state.live.len() > 1 {
                let Some(oldest) = state.live.first_entry().filter(|file| file.get().header.end() <= covered) else {
                    break;
                };
                let live = oldest.remove();
                count += 1;
                if state.missing.remove(&live.header.base.0) {
                    continue;
                }
                let is_whole = live.header.len == self.shared.options.file_bytes;
                let spare = Spare { file: live.file.clone(), path: live.path.clone(), len: live.header.len };
                if is_whole && state.bytes_held() + live.header.len <= self.shared.options.bytes_max {
                    state.spares.push(spare);
                } else {
                    removed.push(spare.path);
                }
            }
        }
        // Not synced: should the names come back, recovery sees that they are covered.
        for path in removed {
            match self.shared.disk.remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                gone => self.shared.stick(gone.map_err(|e| Fault::io("remove", &path, e)))?,
            }
        }
        if let Some((_, paths)) = damaged {
            let aside = self.put_aside(&paths);
            self.shared.stick(aside)?;
        }
        Ok(count)
    }

    /// Gives damaged files a name that no start reads: what they held is judged, and would be again at every start.
    fn put_aside(&self, paths: &[PathBuf]) -> Result<(), Fault> {
        for path in paths {
            let mut aside = path.clone().into_os_string();
            aside.push(DAMAGED_SUFFIX);
            match self.shared.disk.rename(path, Path::new(&aside)) {
                // Not for want of room, which is no fault: the next start tries again.
                Err(error) if error.kind() == io::ErrorKind::NotFound || is_no_space(&error) => {}
                moved => moved.map_err(|e| Fault::io("rename", path, e))?,
            }
        }
        let directory = &self.shared.directory;
        self.shared.disk.sync_dir(directory).map_err(|e| Fault::io("fsync", directory, e))
    }

    /// Sees whether every file is still there under its name. Somebody who removes one takes acknowledged records with it
    /// as soon as the process ends, and no write would ever notice. Returns the position up to which removed files reach
    /// that are still needed: until a checkpoint covers it they are read through what is open of them. The writer puts
    /// nothing more into a removed file, and a spare that was removed is forgotten.
    pub fn check_names(&self) -> Result<Option<JournalPosition>, Fault> {
        self.shared.check()?;
        let (live, spares) = {
            let state = self.shared.state();
            let live: Vec<_> = state.live.values().map(|file| (file.header.base.0, file.path.clone())).collect();
            let spares: Vec<_> = state.spares.iter().map(|spare| spare.path.clone()).collect();
            (live, spares)
        };
        let is_there = |path: &Path| self.shared.disk.exists(path).map_err(|e| Fault::io("stat", path, e));
        for path in spares {
            if !is_there(&path)? {
                self.shared.state().spares.retain(|spare| spare.path != path);
            }
        }
        for (base, path) in live {
            if is_there(&path)? {
                continue;
            }
            let mut state = self.shared.state();
            // It may have been recycled meanwhile: then it is not in use any more.
            if state.live.get(&base).is_some_and(|file| file.path == path) {
                state.missing.insert(base);
            }
        }
        let state = self.shared.state();
        let last = state.missing.last().and_then(|base| state.live.get(base));
        Ok(last.map(|file| file.header.end()))
    }

    /// Whether a further file would exceed the journal's own limit: room then comes from a checkpoint, not from the disk.
    pub fn is_at_limit(&self) -> bool {
        let options = &self.shared.options;
        self.shared.state().bytes_live() + options.file_bytes > options.bytes_max
    }

    /// How full the journal is, for back-pressure.
    pub fn usage(&self) -> JournalUsage {
        JournalUsage { bytes_live: self.shared.state().bytes_live(), bytes_max: self.shared.options.bytes_max }
    }
}

/// Makes a file of the usual length under a name of its own.
pub(super) fn make_numbered(shared: &Shared, goes_on: &mut dyn FnMut()) -> Result<Spare, Fault> {
    let number = {
        let mut state = shared.state();
        state.last_file_number += 1;
        state.last_file_number
    };
    let made = make_spare(&*shared.disk, &shared.directory, &file_name(number), shared.options.file_bytes, goes_on);
    match made {
        // Nobody knows of the file yet.
        Err(fault) if fault.is_temporary() => Err(fault),
        made => shared.stick(made),
    }
}
