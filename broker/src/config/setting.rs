//! One setting as somebody made it, and where: so that a complaint can point at it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A key, its value, and where it was set.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The key, in Kafka's spelling.
    pub key: String,
    /// The value as written.
    pub value: String,
    /// Where.
    pub origin: Origin,
}

/// Where a setting was made. Later kinds go before earlier ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of a properties file.
    File {
        /// The file as named on the command line.
        path: Arc<str>,
        /// From 1.
        line: usize,
        /// The line itself.
        text: String,
        /// Where the key stands in it, in characters.
        key_span: Range<usize>,
        /// Where the value stands in it, in characters.
        value_span: Range<usize>,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// `--set key=value`.
    Argument {
        /// What followed `--set`.
        text: String,
    },
    /// `--data-dir`.
    DataDir,
    /// Nobody set it: another setting contradicts the default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line, .. } => write!(f, "{path} line {line}"),
            Origin::Environment { variable } => f.write_str(variable),
            Origin::Argument { .. } => f.write_str("--set"),
            Origin::DataDir => f.write_str("--data-dir"),
            Origin::Default => f.write_str("default"),
        }
    }
}

impl Setting {
    /// The setting as one line, for banners: `key=value (where)`.
    pub fn cited(&self) -> String {
        format!("{}={} ({})", self.key, self.value.trim(), self.origin)
    }
}
