//! Whether the segment files that a log needs are there and long enough: two questions to the file system for each, and
//! none of what they hold.
//!
//! Longer files are normal, since a crash leaves bytes that no checkpoint names. What is missing becomes a hole.

use std::io;

use crate::Fault;
use crate::disk::Open;
use crate::job::FileAccess;
use crate::log::Log;
use crate::segment::{SegmentFile, SegmentId};

/// Quarantines what missing and short files take with them. Only of such a segment the bytes are looked at.
pub(super) fn check(log: &mut Log, access: &FileAccess) -> Result<(), Fault> {
    #[cfg(feature = "mutants")]
    if crate::mutants::Guard::SegmentLength.is_off() {
        return Ok(());
    }
    let partition = log.key().partition;
    let needed = log.segments().iter().filter(|segment| segment.end > log.log_start());
    let mut wrong = Vec::new();
    for segment in needed {
        let id = segment.id(partition);
        let found = length(access, id)?;
        if found.is_none_or(|len| len < segment.bytes) {
            wrong.push((id, found, segment.bytes));
        }
    }
    for (id, found, bytes) in wrong {
        let path = access.path(&id.path(SegmentFile::Log));
        let Some(survey) = log.plan_survey(id.base) else { continue };
        let surveyed = survey.run(access)?;
        for hole in log.on_surveyed(&surveyed) {
            match found {
                Some(len) => tracing::error!(%partition, path = %path.display(), len, bytes, "too short: {hole}"),
                None => tracing::error!(%partition, path = %path.display(), "missing: {hole}"),
            }
        }
    }
    Ok(())
}

fn length(access: &FileAccess, id: SegmentId) -> Result<Option<u64>, Fault> {
    let path = id.path(SegmentFile::Log);
    let file = match access.disk().open(&access.path(&path), Open::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(access.fault("open", &path, None, source)),
    };
    file.len().map(Some).map_err(|source| access.fault("fstat", &path, None, source))
}
