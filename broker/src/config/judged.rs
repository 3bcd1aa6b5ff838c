//! Each setting judged alone: accepted, complained about, or set aside with a word on why.
//!
//! What is close to a known key is taken for a slip and stops the start; what is close to none is listed and ignored,
//! since a file may hold settings of plug-ins nobody here has heard of.

use std::collections::BTreeMap;

use stonelog_replication::settings::nearest::nearest;
use stonelog_replication::settings::{Definition, Honour, topic_key, value};

use super::broker_keys::security::LATER;
use super::broker_keys::{REMOVED, all, broker_key, foreign_prefix};
use super::report::{Code, Part, Report};
use super::setting::Setting;

/// Settings that stand on their own, and what is said about the rest.
#[derive(Default)]
pub(super) struct Judged {
    /// What passed, by key.
    pub(super) accepted: BTreeMap<String, Setting>,
    /// Keys without effect or with another one, by the reason.
    by_reason: BTreeMap<&'static str, Vec<String>>,
    foreign: Vec<String>,
    unknown: Vec<String>,
    notes: Vec<String>,
}

impl Judged {
    pub(super) fn with_notes(notes: Vec<String>) -> Judged {
        Judged { notes, ..Judged::default() }
    }

    pub(super) fn judge(&mut self, setting: Setting, report: &mut Report) {
        match broker_key(&setting.key) {
            Some(definition) => self.judge_known(definition, setting, report),
            None => self.judge_unknown(&setting, report),
        }
    }

    fn judge_known(&mut self, definition: &'static Definition, setting: Setting, report: &mut Report) {
        // Kafka takes an empty text, list or class as it takes null.
        let empty = setting.value.trim().is_empty() && definition.default.unwrap_or("").is_empty();
        if !empty && let Err(problem) = value::accept(definition, &setting.value) {
            let code = match definition.honour {
                Honour::Refused(_) if value::check(definition, &setting.value).is_ok() => Code::Refused,
                _ => Code::InvalidValue,
            };
            let part = if definition.is_sensitive() { Part::Secret } else { Part::Value };
            report.at(&setting, part, code, problem.to_string(), None);
            return;
        }
        if let Honour::Inert(why) | Honour::Mapped(why) = definition.honour
            && !value::is_default(definition, &setting.value)
        {
            self.by_reason.entry(why).or_default().push(setting.key.clone());
        }
        self.accepted.insert(setting.key.clone(), setting);
    }

    fn judge_unknown(&mut self, setting: &Setting, report: &mut Report) {
        let key = setting.key.as_str();
        if key.starts_with("zookeeper.") {
            report.at(
                setting,
                Part::Key,
                Code::Refused,
                format!("{key} is refused: there is no ZooKeeper here; the metadata is in Stonelog's own quorum"),
                Some(
                    "to move: start Stonelog on an empty directory without any zookeeper.* line, copy the topics with \
                     MirrorMaker 2, then switch the clients' bootstrap.servers"
                        .to_owned(),
                ),
            );
        } else if let Some(rest) = key.strip_prefix("listener.name.") {
            self.judge_listener_key(setting, rest, report);
        } else if REMOVED.contains(&key) {
            self.by_reason.entry("Kafka 4 removed it").or_default().push(key.to_owned());
        } else if let Some(definition) = topic_key(key) {
            let help = match definition.broker_keys().first() {
                Some(broker) => format!("the broker's default for it is `{broker}`"),
                None => "set it on the topic".to_owned(),
            };
            report.at(
                setting,
                Part::Key,
                Code::UnknownKey,
                format!("{key} is a topic's key, not a broker's"),
                Some(help),
            );
        } else if foreign_prefix(key).is_some() {
            self.foreign.push(key.to_owned());
        } else if let Some(known) =
            nearest(key, all().iter().map(|definition| definition.name).chain(REMOVED.iter().copied()))
        {
            let help = match broker_key(known).map(|definition| definition.honour) {
                Some(Honour::Refused(why) | Honour::Inert(why)) => format!("did you mean `{known}`? ({why})"),
                _ => format!("did you mean `{known}`?"),
            };
            report.at(
                setting,
                Part::Key,
                Code::UnknownKey,
                format!("{key} is no setting of Kafka or Stonelog"),
                Some(help),
            );
        } else if key.starts_with("sasl.") || key.starts_with("ssl.") {
            // Kafka's newer security keys: to ignore one would be to pretend.
            report.at(setting, Part::Key, Code::Refused, format!("{key} is refused: {LATER}"), None);
        } else {
            self.unknown.push(key.to_owned());
        }
    }

    /// `listener.name.<listener>.<key>`: nothing differs per listener yet.
    fn judge_listener_key(&mut self, setting: &Setting, rest: &str, report: &mut Report) {
        let base = all().iter().find(|definition| rest.ends_with(&format!(".{}", definition.name)));
        match base.map(|definition| (definition, definition.honour)) {
            Some((definition, Honour::Refused(why))) => {
                let part = if definition.is_sensitive() { Part::Secret } else { Part::Value };
                report.at(setting, part, Code::Refused, format!("{} is refused: {why}", setting.key), None);
            }
            Some((_, Honour::Inert(why))) => self.by_reason.entry(why).or_default().push(setting.key.clone()),
            Some((definition, _)) => report.at(
                setting,
                Part::Key,
                Code::Refused,
                format!("{} is refused: settings for one listener alone are not built yet", setting.key),
                Some(format!("use `{}` for all listeners", definition.name)),
            ),
            None => self.unknown.push(setting.key.clone()),
        }
    }

    /// Everything that is said once.
    pub(super) fn notes(&mut self) -> Vec<String> {
        let mut notes = std::mem::take(&mut self.notes);
        for (reason, keys) in &self.by_reason {
            notes.push(format!("{}: {reason}", keys.join(", ")));
        }
        if !self.foreign.is_empty() {
            notes.push(format!("skipped, they belong to other products: {}", self.foreign.join(", ")));
        }
        if !self.unknown.is_empty() {
            notes.push(format!("ignored, neither Kafka nor Stonelog has such keys: {}", self.unknown.join(", ")));
        }
        notes
    }
}
