//! `stonelog serve`: its options. The server itself is [`crate::server`].

use std::path::PathBuf;

use clap::Args;

/// Options of `stonelog serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Kafka's `server.properties`, or a file of that form.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory for data, or several separated by commas; the same as `--set log.dirs=DIR`.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// A setting that overrides the file and the environment. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// The process that this one ends with, at once and however that ends: its parent. For `stonelog dev`.
    #[arg(long, value_name = "PID", hide = true)]
    pub ends_with: Option<u32>,
}
