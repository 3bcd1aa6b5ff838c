//! What recovery found, in words: while it runs, if that takes a while, and in the banner.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use stonelog_replication::runtime::start::{DirectoryReport, HOLES_TOLD_MAX};
use stonelog_storage::journal::{Hurt, JournalDamage};
use stonelog_storage::recovery::RecoveryProgress;

/// A recovery that takes longer says how far it is.
const QUIET_FOR: Duration = Duration::from_millis(500);
/// Ranges of one damaged commit told one by one.
const RANGES_TOLD_MAX: usize = 20;

/// Says how far the recovery is for as long as this value lives, from [`QUIET_FOR`] on.
pub(super) struct Watch {
    _stop: Sender<()>,
}

/// Begins to watch. A system that gives no thread for it is not worth failing for.
pub(super) fn watch(progress: &Arc<RecoveryProgress>) -> Watch {
    let (stop, stopped) = mpsc::channel::<()>();
    let progress = Arc::clone(progress);
    let told = move || {
        while stopped.recv_timeout(QUIET_FOR) == Err(RecvTimeoutError::Timeout) {
            let counts = progress.counts();
            let mib = |bytes: u64| bytes >> 20;
            println!(
                "recovery  {} MiB of at most {} MiB of journal replayed, {} entries; {} of {} replicas checked",
                mib(counts.journal_bytes_read),
                mib(counts.journal_bytes),
                counts.entries_count,
                counts.replicas_checked,
                counts.replicas_count,
            );
        }
    };
    if let Err(error) = std::thread::Builder::new().name("recovery".to_owned()).spawn(told) {
        tracing::warn!("no progress of the recovery will be shown: {error}");
    }
    Watch { _stop: stop }
}

/// What one directory's recovery found that a person should know; nothing if all is proved.
pub(super) fn print(out: &mut impl Write, found: &DirectoryReport) -> io::Result<()> {
    let path = found.path.display();
    let verdicts = found.verdicts;
    if verdicts.cut + verdicts.damaged + verdicts.lost > 0 {
        writeln!(
            out,
            "recovery  {path}: {} replicas proved, {} cut, {} damaged, {} lost",
            verdicts.proved, verdicts.cut, verdicts.damaged, verdicts.lost
        )?;
    }
    if let Some(torn) = &found.journal_end.torn_tail {
        writeln!(
            out,
            "recovery  torn tail: {} bytes at journal position {} of {} were never acknowledged and are dropped",
            torn.bytes,
            torn.position.0,
            torn.path.display()
        )?;
    }
    for damage in &found.journal_end.damage {
        print_damage(out, damage)?;
    }
    for (partition, hole) in &found.holes {
        write!(out, "DAMAGE    {partition} {hole}")?;
        if let Some(bytes) = hole.bytes {
            let log = bytes.segment.of(*partition).path(stonelog_storage::segment::SegmentFile::Log);
            write!(out, " at bytes {}..{} of {}", bytes.from, bytes.to, found.path.join(log).display())?;
        }
        writeln!(out, ": reads there answer CORRUPT_MESSAGE, everything else is served")?;
    }
    for (partition, loss) in &found.lost {
        writeln!(out, "LOST      {partition} may lack records: {loss}")?;
    }
    if found.holes.len() == HOLES_TOLD_MAX || found.lost.len() == HOLES_TOLD_MAX {
        writeln!(out, "          and maybe more: {HOLES_TOLD_MAX} of each are told")?;
    }
    Ok(())
}

fn print_damage(out: &mut impl Write, damage: &JournalDamage) -> io::Result<()> {
    let place = match &damage.place {
        Some((path, byte)) => format!("{} is damaged at byte {byte}", path.display()),
        None => "the journal is damaged".to_owned(),
    };
    let position = damage.position.0;
    match &damage.hurt {
        Hurt::All => writeln!(
            out,
            "DAMAGE    {place} (journal position {position}), and nothing there says whose records it held: every \
             replica may lack some"
        ),
        Hurt::Ranges(ranges) => {
            writeln!(out, "DAMAGE    {place} (journal position {position}); it held:")?;
            for range in ranges.iter().take(RANGES_TOLD_MAX) {
                writeln!(out, "          {} offsets {}..{}", range.replica.partition, range.start, range.end)?;
            }
            match ranges.len().saturating_sub(RANGES_TOLD_MAX) {
                0 => Ok(()),
                more => writeln!(out, "          and {more} more"),
            }
        }
    }
}
