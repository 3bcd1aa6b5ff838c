//! Checks small files that are replaced whole: every copy by itself, and both against each other. Repairs nothing.

use std::fmt::Display;
use std::path::Path;

use super::finding::{FileKind, Finding, Report, Severity};
use crate::disk::Disk;
use crate::small_file::{Envelope, EnvelopeKind, copy_name, read_small_file};

/// Checks both copies of a file, and returns the newest intact contents, as a start would take them.
///
/// `decode` checks one copy's bytes and returns its version and contents, or what is wrong with it.
pub fn check_two_copies<T, E: Display>(
    disk: &dyn Disk,
    directory: &Path,
    name: &str,
    kind: FileKind,
    decode: impl Fn(&[u8]) -> Result<(u64, T), E>,
    report: &mut Report,
) -> Option<T> {
    let mut copies: Vec<(u64, T)> = Vec::new();
    let mut missing = Vec::new();
    let mut damaged = Vec::new();
    for name in [name.to_owned(), copy_name(name)] {
        let path = directory.join(&name);
        match read_small_file(disk, &path) {
            Ok(None) => missing.push(path),
            Ok(Some(bytes)) => {
                report.count(bytes.len() as u64);
                match decode(&bytes) {
                    Ok(copy) => copies.push(copy),
                    Err(error) => damaged.push((path, error.to_string())),
                }
            }
            Err(fault) => damaged.push((path, fault.to_string())),
        }
    }
    let is_lost = copies.is_empty();
    for (path, what) in damaged {
        let (severity, follows) = if is_lost {
            (Severity::Damage, "and no other copy is intact")
        } else {
            (Severity::Repairable, "the other copy is intact, and the next start writes this one anew")
        };
        report.add(Finding::of(severity, kind, &path, format!("{what}; {follows}")));
    }
    if !is_lost {
        for path in missing {
            let detail = "the second copy is not there: the process ended between the two; the next start writes it";
            report.add(Finding::of(Severity::Note, kind, &path, detail));
        }
    }
    copies.into_iter().reduce(|one, other| if other.0 > one.0 { other } else { one }).map(|(_, value)| value)
}

/// Checks the envelope of each file of `directory` that `is_one` picks; `contents` judges what is inside.
pub fn check_envelopes(
    disk: &dyn Disk,
    paths: &[std::path::PathBuf],
    envelope: &EnvelopeKind,
    (kind, severity, follows): (FileKind, Severity, &str),
    contents: impl Fn(&[u8]) -> Result<(), String>,
    report: &mut Report,
) {
    for path in paths {
        let bytes = match read_small_file(disk, path) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => continue,
            Err(fault) => {
                report.add(Finding { severity, ..Finding::of_fault(kind, &fault) });
                continue;
            }
        };
        report.count(bytes.len() as u64);
        let judged = Envelope::open(envelope, &bytes).map_err(|error| error.to_string());
        if let Err(what) = judged.and_then(|(_, payload)| contents(payload)) {
            report.add(Finding::of(severity, kind, path, format!("{what}; {follows}")));
        }
    }
}
