//! What the command line says about the configuration.

use std::path::PathBuf;

/// The arguments that name settings or where they are.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// Each `--set`, as `key=value`.
    pub set: Vec<String>,
}
