//! A file that says what has been run on which code, so that long counts add up over several runs.
//!
//! One line of JSON for each finished part. Parts count together while the code of the product is the same: the last
//! commit that touched it, without changes on top.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::binary::repository;

/// What the product is made of.
const PRODUCT: [&str; 5] = ["protocol", "storage", "replication", "broker", "Cargo.lock"];

/// What a part is a part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// Rig, victim and file system, or the fault.
    pub name: String,
}

/// A finished part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its seed.
    pub seed: u64,
    /// Cuts or faults that counted.
    pub count: u32,
    /// Acknowledgements, of batches or records.
    pub acknowledged: u64,
}

/// The ledger; without a file it remembers nothing.
#[derive(Clone, Debug)]
pub struct Ledger {
    path: Option<PathBuf>,
    commit: String,
}

impl Ledger {
    /// The ledger at `path`, which need not exist yet.
    pub fn open(path: Option<PathBuf>) -> Result<Ledger> {
        let git = |arguments: &[&str]| -> Result<String> {
            let mut command = Command::new("git");
            command.current_dir(repository()).args(arguments).arg("--").args(PRODUCT);
            let output = command.output().context("cannot run git")?;
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let mut commit = git(&["log", "-1", "--format=%h"])?;
        if !git(&["status", "--porcelain"])?.is_empty() {
            commit.push_str("+changes");
        }
        Ok(Ledger { path, commit })
    }

    /// The code that this run tests.
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// How much of the series is done on this code.
    pub fn done(&self, series: &Series) -> Result<u32> {
        let Some(path) = &self.path else { return Ok(0) };
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
            other => other.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let mut done = 0;
        for line in text.lines() {
            let part: Value = serde_json::from_str(line).with_context(|| format!("no ledger line: {line}"))?;
            if part["commit"] == self.commit.as_str() && part["series"] == series.name.as_str() {
                done += part["count"].as_u64().context("no count in the ledger")?;
            }
        }
        Ok(u32::try_from(done)?)
    }

    /// Adds a finished part in which nothing was lost.
    pub fn add(&self, series: &Series, part: Part) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let line = json!({
            "commit": self.commit,
            "series": series.name,
            "seed": part.seed,
            "count": part.count,
            "acknowledged": part.acknowledged,
        });
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        writeln!(file, "{line}")?;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_within_a_series_and_a_commit() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger { path: Some(directory.path().join("ledger")), commit: "abc".to_owned() };
        let (one, other) = (Series { name: "one".to_owned() }, Series { name: "other".to_owned() });
        assert_eq!(ledger.done(&one).unwrap(), 0);
        ledger.add(&one, Part { seed: 1, count: 20, acknowledged: 5 }).unwrap();
        ledger.add(&one, Part { seed: 2, count: 3, acknowledged: 5 }).unwrap();
        ledger.add(&other, Part { seed: 3, count: 7, acknowledged: 5 }).unwrap();
        assert_eq!((ledger.done(&one).unwrap(), ledger.done(&other).unwrap()), (23, 7));
        ledger.commit = "def".to_owned();
        assert_eq!(ledger.done(&one).unwrap(), 0);
    }
}
