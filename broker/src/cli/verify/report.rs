//! The verdict in words.

use std::io;

use super::super::output::Output;
use super::verdict::{Anomaly, Verdict};

/// Prints the verdict as a table, or as one JSON document.
pub(super) fn print(verdict: &Verdict, output: Output) -> io::Result<()> {
    if output.is_json() {
        return output.document("verify/1", verdict);
    }
    let count = |anomaly: Anomaly| verdict.count(anomaly);
    let row = |what: &str, count: u64| vec![what.to_owned(), count.to_string()];
    let mut rows = vec![
        row("sent", verdict.sent),
        row("acknowledged", verdict.acknowledged),
        row("refused", verdict.refused),
        row("never acknowledged, there", verdict.unknown_present),
        row("never acknowledged, not there", verdict.unknown_absent),
        row("read back", verdict.scanned),
        row("read by groups", verdict.polled),
        row("commits acknowledged", verdict.commits),
        row("lost", count(Anomaly::Lost)),
        row("duplicated", count(Anomaly::Duplicated)),
        row("reordered", count(Anomaly::Reordered)),
        row("corrupted", count(Anomaly::Corrupted)),
        row("commits gone back", count(Anomaly::CommitWentBack)),
    ];
    let always = [Anomaly::Lost, Anomaly::Duplicated, Anomaly::Reordered, Anomaly::Corrupted, Anomaly::CommitWentBack];
    for (anomaly, findings) in verdict.anomalies.iter().filter(|(anomaly, _)| !always.contains(anomaly)) {
        rows.push(row(name(*anomaly), findings.count));
    }
    if verdict.foreign > 0 {
        rows.push(row("of others", verdict.foreign));
    }
    if verdict.expired > 0 {
        rows.push(row("removed by retention", verdict.expired));
    }
    output.table(&["records", "count"], &[1], rows)?;
    for (anomaly, findings) in &verdict.anomalies {
        output.line("")?;
        output.line(&format!("{}: {}", name(*anomaly), findings.count))?;
        for example in &findings.examples {
            output.line(&format!("  {example}"))?;
        }
        if findings.count > findings.examples.len() as u64 {
            output.line("  …")?;
        }
    }
    for group in &verdict.undrained_groups {
        output.line(&format!("group {group} did not reach the end in time"))?;
    }
    output.line("")?;
    output.line(if verdict.is_sound() {
        "SOUND: every acknowledged record is there, once, in order, and no commit went back"
    } else {
        "DAMAGED: the cluster broke its promises"
    })
}

fn name(anomaly: Anomaly) -> &'static str {
    match anomaly {
        Anomaly::Lost => "lost",
        Anomaly::Duplicated => "duplicated",
        Anomaly::Reordered => "reordered",
        Anomaly::WrongOffset => "at another offset than acknowledged",
        Anomaly::Corrupted => "corrupted",
        Anomaly::Phantom => "never sent",
        Anomaly::RefusedButStored => "refused, yet there",
        Anomaly::Torn => "missing from a batch",
        Anomaly::Gap => "offsets without records",
        Anomaly::WentBackwards => "offsets given out of order",
        Anomaly::Skipped => "not given to a group member",
        Anomaly::Vanished => "read once, then gone",
        Anomaly::Changed => "read once, then elsewhere",
        Anomaly::CommitWentBack => "commits gone back",
        Anomaly::CommitPhantom => "commits nobody made",
    }
}
