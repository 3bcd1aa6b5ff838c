//! `stonelog storage reopen`: a log directory that has failed, read again from the device and put back into use.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use stonelog_storage::disk::{Disk, RealDisk};
use stonelog_storage::log_dir::{DirectoryState, LogDir, Reread};

use super::super::exit::{Exit, Failure};
use super::super::output::Output;
use super::super::progress;
use super::output_of;

/// Reads every file past the page cache and writes one anew; if the device does all of it, the marker that keeps the
/// directory offline is removed. What the bytes are worth is seen at the next start, and by `stonelog storage check`.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes:
    0  read whole and put back into use: start the broker
    1  the device failed again; the directory stays offline
    2  wrong usage
    3  no such directory, or none of Stonelog's
    8  a running broker has the directory open; stop it first")]
pub(crate) struct Reopen {
    /// Log directories.
    #[arg(required = true, value_name = "DIR")]
    directories: Vec<PathBuf>,
    /// Print JSON; the same as `--output json`.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Done {
    directories: Vec<Reopened>,
}

#[derive(Serialize)]
struct Reopened {
    directory: String,
    files: u64,
    bytes: u64,
}

impl Reopen {
    /// Reads one directory after the other; the first failure ends it.
    pub(super) fn run(self, output: Output) -> Result<Exit, Failure> {
        let output = output_of(output, self.json);
        let mut all = Vec::new();
        for directory in &self.directories {
            let read = reopen(directory)?;
            if !output.is_json() {
                output.line(&format!(
                    "{}: {} files, {} bytes read from the device; back in use at the next start",
                    directory.display(),
                    read.files,
                    read.bytes
                ))?;
            }
            all.push(Reopened { directory: directory.display().to_string(), files: read.files, bytes: read.bytes });
        }
        if output.is_json() {
            output.document("storage-reopen", &Done { directories: all })?;
        }
        Ok(Exit::Done)
    }
}

fn reopen(path: &Path) -> Result<Reread, Failure> {
    let not_ours = || Failure::new(Exit::NotFound, format!("{} is no log directory of Stonelog's", path.display()));
    if !RealDisk.exists(path)? {
        return Err(not_ours());
    }
    let (directory, state) = LogDir::open(Arc::new(RealDisk), path).map_err(|fault| {
        let exit = if fault.to_string().contains("another process") { Exit::Precondition } else { Exit::Failed };
        Failure::new(exit, fault.to_string())
    })?;
    if state == DirectoryState::Empty {
        return Err(not_ours());
    }
    let bar = progress::bar("bytes", None);
    let read = directory.reread(&mut |at| bar.set_position(at.bytes));
    bar.finish_and_clear();
    let stays = |fault: stonelog_storage::Fault| {
        Failure::new(Exit::Failed, format!("{} stays offline: {fault}", path.display())).hint(
            "replace the device; with other replicas an empty directory is filled from them, without them restore a \
             backup",
        )
    };
    let read = read.map_err(stays)?;
    directory.settle_failure().map_err(stays)?;
    Ok(read)
}
