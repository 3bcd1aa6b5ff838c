//! `stonelog cluster health`: what is wrong, worst first, and what to do about it.

use clap::Args;
use serde::Serialize;

use super::super::exit::{Exit, Failure};
use super::super::output::Output;
use super::findings::{self, Finding, Severity};
use crate::client::Cluster;

/// Subjects of one kind of finding that are printed for people.
const SHOWN_MAX: usize = 10;

#[derive(Debug, Args)]
pub(super) struct Health {
    /// Print every partition and topic concerned, however many there are.
    #[arg(long)]
    all: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    cluster: &'a str,
    healthy: bool,
    findings: &'a [Finding],
}

impl Health {
    /// Asks, judges, prints. Warnings alone are healthy.
    pub(super) async fn run(self, cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
        let survey = cluster.survey().await?;
        let mut directories = Vec::new();
        for broker in survey.up() {
            directories.push((broker, cluster.log_dirs(broker).await));
        }
        let found = findings::judge(&survey, &directories);
        let healthy = found.iter().all(|finding| finding.severity != Severity::Problem);
        if output.is_json() {
            output.document("cluster.health/1", &Report { cluster: &survey.state.id, healthy, findings: &found })?;
        } else {
            self.print(&found, healthy, output)?;
        }
        Ok(if healthy { Exit::Done } else { Exit::Unhealthy })
    }

    fn print(&self, found: &[Finding], healthy: bool, output: Output) -> Result<(), Failure> {
        let mut rest = found;
        while let Some(first) = rest.first() {
            let count = rest.iter().take_while(|finding| finding.kind == first.kind).count();
            let (same, others) = rest.split_at(count);
            rest = others;
            output.line(&format!("{}: {} ({count})", first.severity.word(), first.kind.meaning()))?;
            let shown = if self.all { count } else { SHOWN_MAX.min(count) };
            for finding in &same[..shown] {
                output.line(&format!("  {}: {}", finding.subject, finding.detail))?;
            }
            if shown < count {
                output.line(&format!("  and {} more; --all shows them", count - shown))?;
            }
        }
        let word = if healthy { "healthy" } else { "unhealthy" };
        Ok(output.line(word)?)
    }
}
