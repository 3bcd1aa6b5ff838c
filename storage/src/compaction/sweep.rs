//! Removing what a crash left of earlier compactions: files that neither log nor checkpoint name.
//!
//! Only before the first compaction since the start, and only when nothing waits for a checkpoint: what the log does not
//! name then no checkpoint names. Files above the last segment are left alone, a flush may be making one; a log that is
//! cut meanwhile flushes nothing until the sweep is over.

use std::io;

use stonelog_protocol::{Offset, TopicPartition};

use crate::job::FileAccess;
use crate::segment::{Segment, SegmentName, directory_of};
use crate::{Fault, ReplicaKey};

/// Planned by [`crate::log::Log::plan_sweep`], which is to hear of its end by [`crate::log::Log::on_swept`].
#[derive(Clone, Debug)]
pub struct SweepJob {
    /// Whose, in which generation.
    pub replica: ReplicaKey,
    /// All of the log's, the last one active.
    pub(crate) segments: Vec<Segment>,
}

impl SweepJob {
    /// Removes them; how many there were.
    pub fn run(&self, access: &FileAccess) -> Result<usize, Fault> {
        sweep(access, self.replica.partition, &self.segments)
    }
}

fn sweep(access: &FileAccess, partition: TopicPartition, segments: &[Segment]) -> Result<usize, Fault> {
    let (Some(first), Some(active)) = (segments.first(), segments.last()) else { return Ok(0) };
    let is_named = |name: SegmentName| segments.iter().any(|segment| segment.name() == name);
    let directory = directory_of(partition);
    let listed = match access.disk().list(&access.path(&directory)) {
        // The log was dropped meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        listed => listed.map_err(|source| access.fault("list", &directory, None, source))?,
    };
    let mut removed = 0;
    for entry in listed {
        let Some((name, is_deleted)) = parse(&entry.name) else { continue };
        let is_replaced = name.base >= first.base && name.base < active.base;
        if is_deleted || (!is_named(name) && (name.version > 0 || is_replaced)) {
            let path = directory.join(&entry.name);
            tracing::info!(file = %path.display(), "left by a crash, named by nobody: removed");
            match access.disk().remove_file(&access.path(&path)) {
                Ok(()) => removed += 1,
                // A deletion under way was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(access.fault("unlink", &path, None, source)),
            }
        }
    }
    Ok(removed)
}

/// What a segment's file is named after, and whether it is one that was being deleted.
fn parse(file: &str) -> Option<(SegmentName, bool)> {
    let (stem, is_deleted) = match file.strip_suffix(".log.deleted") {
        Some(stem) => (stem, true),
        None => ([".log", ".sum", ".index"].iter().find_map(|extension| file.strip_suffix(extension))?, false),
    };
    let (base, version) = match stem.split_once('.') {
        Some((base, version)) => (base, version.parse().ok().filter(|version| *version > 0)?),
        None => (stem, 0),
    };
    let is_base = base.len() == 20 && base.bytes().all(|byte| byte.is_ascii_digit());
    is_base.then(|| base.parse().ok()).flatten().map(|base| (SegmentName { base: Offset(base), version }, is_deleted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_segment_files_have_a_name() {
        let name = |base, version| SegmentName { base: Offset(base), version };
        assert_eq!(parse("00000000000000000042.log"), Some((name(42, 0), false)));
        assert_eq!(parse("00000000000000000042.7.sum"), Some((name(42, 7), false)));
        assert_eq!(parse("00000000000000000042.7.log.deleted"), Some((name(42, 7), true)));
        for other in
            ["42.log", "00000000000000000042.txt", "00000000000000000042.x.log", "00000000000000000042.0.log", ""]
        {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
