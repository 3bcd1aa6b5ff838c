//! `stonelog storage`: looks at data directories and their files. Prints what `stonelog_storage::scrub` finds; changes
//! nothing on disk, save that `reopen` puts a failed directory back into use.

mod check;
mod dump;
mod reopen;
mod scrub_status;

use std::io;
use std::path::Path;

use clap::Subcommand;
use stonelog_storage::disk::real::LOCK_NAME;
use stonelog_storage::disk::{DirLock, Disk, RealDisk};

use super::args::Format;
use super::exit::{Exit, Failure};
use super::output::Output;

/// `stonelog storage …`
#[derive(Debug, Subcommand)]
pub(super) enum Storage {
    /// Read everything in data directories and report what is damaged.
    Check(check::Check),
    /// Show what files of a data directory hold.
    Dump(dump::Dump),
    /// Read log directories that have failed once more from their device, and put them back into use.
    Reopen(reopen::Reopen),
    /// Show how far the background scrub of a broker is, and what it found.
    ScrubStatus(scrub_status::ScrubStatus),
}

/// Runs in the calling thread, so that an interrupt ends the process at once: there is nothing to finish.
pub(super) fn run(command: Storage, output: Output) -> Result<Exit, Failure> {
    match command {
        Storage::Check(check) => check.run(output),
        Storage::Dump(dump) => dump.run(output),
        Storage::Reopen(reopen) => reopen.run(output),
        Storage::ScrubStatus(status) => status.run(output),
    }
}

/// The output that `--json` asks for.
fn output_of(output: Output, json: bool) -> Output {
    if json { Output::new(Format::Json) } else { output }
}

/// Whether a directory is in use.
enum Holder {
    /// By this process from here on.
    Us(#[expect(dead_code, reason = "holds the lock")] Box<dyn DirLock>),
    /// By nobody: no process has ever locked it.
    Nobody,
    /// By another one: a broker.
    Another,
    /// Nobody can tell: there is no right to write here, so no lock either.
    Unknown,
}

fn hold(directory: &Path) -> Result<Holder, Failure> {
    if !RealDisk.exists(directory)? {
        return Err(Failure::new(Exit::NotFound, format!("{} does not exist", directory.display())));
    }
    // Locking would make the lock file, and nothing is to be written here.
    if !RealDisk.exists(&directory.join(LOCK_NAME))? {
        return Ok(Holder::Nobody);
    }
    match RealDisk.lock_dir(directory) {
        Ok(lock) => Ok(Holder::Us(lock)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Holder::Another),
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            Ok(Holder::Unknown)
        }
        Err(error) => Err(Failure::new(Exit::Failed, format!("cannot lock {}: {error}", directory.display()))),
    }
}
