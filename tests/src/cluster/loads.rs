//! What writes to a cluster and reads from it meanwhile: loads of our own, and a stock client where it is installed.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::load::{self, Load, Verdict};
use crate::stock::StockClient;

/// Loads under way. Dropping them kills their processes.
#[derive(Debug)]
pub struct Loads {
    own: Vec<Load>,
    stock: Option<StockClient>,
}

impl Loads {
    /// Starts `own`, and the stock client if its suite is installed, with its history in `directory`.
    pub fn start(own: Vec<load::Spec>, brokers: &str, directory: &Path) -> Result<Loads> {
        let own = own.into_iter().map(Load::start).collect::<Result<_>>()?;
        Ok(Loads { own, stock: StockClient::start(brokers, directory)? })
    }

    /// Names and versions of the stock client's parts; `None` where it is not installed.
    pub fn stock_version(&self) -> Option<&str> {
        self.stock.as_ref().map(StockClient::version)
    }

    /// Waits until everybody got on; the longest time that took.
    pub fn get_on(&mut self, batches: u64, commits: u64) -> Result<Duration> {
        let mut longest = Duration::ZERO;
        for load in &mut self.own {
            longest = longest.max(load.wait_for(batches, commits)?);
        }
        if let Some(client) = &mut self.stock {
            longest = longest.max(client.wait_for(batches, commits)?);
        }
        Ok(longest)
    }

    /// Ends them and judges what they did. All brokers are up.
    pub fn finish(self, binary: &Path, brokers: &str) -> Result<Vec<Verdict>> {
        let mut verdicts = Vec::new();
        for load in self.own {
            verdicts.push(load.finish()?);
        }
        if let Some(client) = self.stock {
            verdicts.push(client.finish(binary, brokers)?);
        }
        Ok(verdicts)
    }
}
