//! Everything that is wrong with a configuration, shown together: where it stands, what is wrong, how to fix it.

use std::fmt;
use std::ops::Range;

use super::setting::{Origin, Setting};

/// What kind of mistake a complaint is about; stable, so that people can search for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// A file cannot be read, or a line of it.
    Unreadable,
    /// No such key, and one that looks like it exists.
    UnknownKey,
    /// The value is not one the key takes.
    InvalidValue,
    /// Kafka can do it, and Stonelog does not.
    Refused,
    /// Two settings contradict each other.
    Conflict,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Code::Unreadable => "unreadable",
            Code::UnknownKey => "unknown-key",
            Code::InvalidValue => "invalid-value",
            Code::Refused => "refused",
            Code::Conflict => "conflict",
        })
    }
}

/// Which part of a setting a complaint points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The key.
    Key,
    /// The value.
    Value,
    /// The value, which must not be shown.
    Secret,
}

/// One mistake.
#[derive(Clone, Debug)]
pub struct Complaint {
    /// Its kind.
    pub code: Code,
    /// What is wrong, without the place.
    pub message: String,
    /// How to put it right.
    pub help: Option<String>,
    /// The place, when it has one.
    pub place: Option<Place>,
}

/// A place to point at.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where the setting was made.
    pub origin: Origin,
    /// The text shown, a secret value already replaced.
    pub text: String,
    /// What to underline in it, in characters.
    pub span: Range<usize>,
}

impl Place {
    /// A part of a setting.
    pub fn of(setting: &Setting, part: Part) -> Place {
        let (text, key, value) = match &setting.origin {
            Origin::File { text, key_span, value_span, .. } => (text.clone(), key_span.clone(), value_span.clone()),
            Origin::Environment { variable } => joined(variable, "=", &setting.value),
            Origin::Argument { .. } => joined(&format!("--set {}", setting.key), "=", &setting.value),
            Origin::DataDir => joined("--data-dir", " ", &setting.value),
            Origin::Default => joined(&setting.key, "=", &setting.value),
        };
        let (text, value) = if part == Part::Secret || looks_secret(&setting.key) {
            let hidden = text.chars().take(value.start).collect::<String>() + HIDDEN;
            (hidden, value.start..value.start + HIDDEN.len())
        } else {
            (text, value)
        };
        let span = if part == Part::Key { key } else { value };
        Place { origin: setting.origin.clone(), text, span }
    }
}

const HIDDEN: &str = "[hidden]";

/// Whether a key that may be in no table, being misspelt, could hold a secret.
fn looks_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    ["passw", "pasw", "secret", "jaas", "credential", "token"].iter().any(|word| key.contains(word))
}

fn joined(key: &str, separator: &str, value: &str) -> (String, Range<usize>, Range<usize>) {
    let key_len = key.chars().count();
    let value_start = key_len + separator.len();
    let text = format!("{key}{separator}{value}");
    (text, 0..key_len, value_start..value_start + value.chars().count())
}

/// All mistakes of one configuration.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order they were found.
    pub complaints: Vec<Complaint>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.complaints.is_empty()
    }

    /// Adds a mistake that stands nowhere in particular.
    pub(super) fn add(&mut self, code: Code, message: impl Into<String>, help: Option<String>) {
        self.complaints.push(Complaint { code, message: message.into(), help, place: None });
    }

    /// Adds a mistake in a setting.
    pub(super) fn at(
        &mut self,
        setting: &Setting,
        part: Part,
        code: Code,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        let place = Some(Place::of(setting, part));
        self.complaints.push(Complaint { code, message: message.into(), help, place });
    }

    /// Adds a mistake in a setting's value.
    pub(super) fn in_value(&mut self, setting: &Setting, code: Code, message: impl Into<String>, help: Option<&str>) {
        self.at(setting, Part::Value, code, message, help.map(str::to_owned));
    }
}

impl std::error::Error for Report {}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for complaint in &self.complaints {
            writeln!(f, "{complaint}")?;
        }
        match self.complaints.len() {
            1 => f.write_str("1 problem in the configuration; nothing was started"),
            count => write!(f, "{count} problems in the configuration; nothing was started"),
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error[{}]: {}", self.code, self.message)?;
        let gutter = match &self.place {
            Some(Place { origin: Origin::File { line, .. }, .. }) => line.to_string(),
            _ => String::new(),
        };
        let indent = " ".repeat(gutter.len().max(1));
        if let Some(place) = &self.place {
            let column = place.span.start + 1;
            match &place.origin {
                Origin::File { path, line, .. } => writeln!(f, "{indent}--> {path}:{line}:{column}")?,
                Origin::Environment { .. } => writeln!(f, "{indent}--> environment")?,
                Origin::Argument { .. } | Origin::DataDir => writeln!(f, "{indent}--> command line")?,
                Origin::Default => writeln!(f, "{indent}--> default")?,
            }
            // Tabs would move the carets: each is shown as one blank.
            writeln!(f, "{gutter:>width$} | {}", place.text.replace('\t', " "), width = indent.len())?;
            let carets = "^".repeat(place.span.len().max(1));
            writeln!(f, "{indent} | {}{carets}", " ".repeat(place.span.start))?;
        }
        if let Some(help) = &self.help {
            writeln!(f, "{indent} = {help}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_points_at_its_place() {
        let setting = Setting {
            key: "log.retention.hour".into(),
            value: "24".into(),
            origin: Origin::File {
                path: "server.properties".into(),
                line: 12,
                text: "log.retention.hour=24".into(),
                key_span: 0..18,
                value_span: 19..21,
            },
        };
        let mut report = Report::default();
        report.at(&setting, Part::Key, Code::UnknownKey, "unknown", Some("did you mean `log.retention.hours`?".into()));
        let expected = "error[unknown-key]: unknown\n  --> server.properties:12:1\n12 | log.retention.hour=24\n   | \
                        ^^^^^^^^^^^^^^^^^^\n   = did you mean `log.retention.hours`?\n\n1 problem in the \
                        configuration; nothing was started";
        assert_eq!(report.to_string(), expected);
    }

    #[test]
    fn a_secret_is_not_shown() {
        let setting = Setting {
            key: "ssl.key.password".into(),
            value: "hunter2".into(),
            origin: Origin::Environment { variable: "KAFKA_SSL_KEY_PASSWORD".into() },
        };
        let mut report = Report::default();
        report.at(&setting, Part::Secret, Code::Refused, "refused", None);
        let shown = report.to_string();
        assert!(shown.contains("KAFKA_SSL_KEY_PASSWORD=[hidden]") && !shown.contains("hunter2"), "{shown}");
    }
}
