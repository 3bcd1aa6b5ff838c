//! One (key, value) pair against its definition: parsing, bounds, and the text DescribeConfigs shows.
//!
//! Kafka trims every value before it parses it (`ConfigDef.parseType`); so does this.

use super::definition::{Constraint, Definition, Honour, Kind};
use super::problem::{Problem, Reason};

/// A list's elements: trimmed, split at commas; empty text is the empty list.
pub fn elements(text: &str) -> Vec<&str> {
    let trimmed = text.trim();
    if trimmed.is_empty() { Vec::new() } else { trimmed.split(',').map(str::trim).collect() }
}

/// Checks a value's type and bounds, as Kafka would.
pub fn check(definition: &Definition, value: &str) -> Result<(), Problem> {
    reason(definition, value.trim()).map_or(Ok(()), |reason| {
        Err(Problem::Value { key: definition.name.to_owned(), value: shown(definition, value), reason })
    })
}

/// Checks a value as [`check`] does, and that Stonelog does what it asks.
pub fn accept(definition: &Definition, value: &str) -> Result<(), Problem> {
    check(definition, value)?;
    if let Honour::Refused(why) = definition.honour
        && !is_default(definition, value)
    {
        return Err(Problem::Refused { key: definition.name.to_owned(), value: shown(definition, value), why });
    }
    Ok(())
}

/// Whether a value says the same as the default. A null default equals empty text.
pub fn is_default(definition: &Definition, value: &str) -> bool {
    canonical(definition, value) == canonical(definition, definition.default.unwrap_or(""))
}

/// The value as Kafka's `ConfigDef.convertToString` shows it; text that does not parse is only trimmed.
pub fn canonical(definition: &Definition, value: &str) -> String {
    let trimmed = value.trim();
    match definition.kind {
        Kind::Boolean => trimmed.to_ascii_lowercase(),
        Kind::Int | Kind::Short | Kind::Long => {
            trimmed.parse::<i64>().map_or_else(|_| trimmed.to_owned(), |number| number.to_string())
        }
        Kind::List => elements(trimmed).join(","),
        Kind::Double | Kind::String | Kind::Class | Kind::Password => trimmed.to_owned(),
    }
}

/// The value, or `[hidden]` when it must not be shown.
pub fn shown(definition: &Definition, value: &str) -> String {
    if definition.is_sensitive() { "[hidden]".to_owned() } else { value.trim().to_owned() }
}

fn reason(definition: &Definition, value: &str) -> Option<Reason> {
    match definition.kind {
        Kind::Boolean if value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false") => None,
        Kind::Boolean => Some(Reason::NotABoolean),
        Kind::Int => whole(definition, value.parse::<i32>().ok().map(i64::from)),
        Kind::Short => whole(definition, value.parse::<i16>().ok().map(i64::from)),
        Kind::Long => whole(definition, value.parse::<i64>().ok()),
        Kind::Double => floating(definition, value.parse::<f64>().ok().filter(|number| !number.is_nan())),
        Kind::List => listed(definition.constraint, value),
        Kind::String => match definition.constraint {
            Constraint::OneOf(choices) if !choices.contains(&value) => Some(Reason::NotOneOf(choices)),
            _ => None,
        },
        Kind::Class | Kind::Password => None,
    }
}

fn whole(definition: &Definition, number: Option<i64>) -> Option<Reason> {
    let Some(number) = number else { return Some(Reason::NotANumber(definition.kind)) };
    match definition.constraint {
        Constraint::AtLeast(low) | Constraint::Between(low, _) if number < low => {
            Some(Reason::TooSmall(low.to_string()))
        }
        Constraint::Between(_, high) if number > high => Some(Reason::TooLarge(high.to_string())),
        Constraint::GzipLevel if number != -1 && !(1..=9).contains(&number) => Some(Reason::GzipLevel),
        Constraint::ForeverOrAtLeastOne if number != -1 && number < 1 => Some(Reason::NotForeverOrPositive),
        _ => None,
    }
}

fn floating(definition: &Definition, number: Option<f64>) -> Option<Reason> {
    let Some(number) = number else { return Some(Reason::NotANumber(definition.kind)) };
    match definition.constraint {
        Constraint::Ratio(low, _) if number < low => Some(Reason::TooSmall(low.to_string())),
        Constraint::Ratio(_, high) if number > high => Some(Reason::TooLarge(high.to_string())),
        _ => None,
    }
}

fn listed(constraint: Constraint, value: &str) -> Option<Reason> {
    match constraint {
        Constraint::ListOf(choices) => {
            elements(value).iter().any(|element| !choices.contains(element)).then_some(Reason::NotOneOf(choices))
        }
        Constraint::ThrottledReplicas => {
            let pair = |text: &&str| {
                text.split_once(':').is_some_and(|(partition, broker)| {
                    partition.parse::<u32>().is_ok() && broker.parse::<u32>().is_ok()
                })
            };
            let legal = matches!(value, "*" | "none") || elements(value).iter().all(pair);
            (!legal).then_some(Reason::ThrottledReplicas)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{LOG_KEYS, TOPIC_KEYS, topic_key};

    fn message(key: &str, value: &str) -> String {
        check(topic_key(key).unwrap(), value).unwrap_err().to_string()
    }

    #[test]
    fn every_default_passes_its_own_validation() {
        for definition in TOPIC_KEYS.iter().chain(LOG_KEYS) {
            if let Some(default) = definition.default {
                assert_eq!(accept(definition, default), Ok(()), "{}", definition.name);
            }
            assert!(definition.documentation.ends_with('.'), "{} is undocumented", definition.name);
        }
    }

    #[test]
    fn messages_are_those_of_kafka() {
        assert_eq!(
            message("retention.ms", "abc"),
            "Invalid value abc for configuration retention.ms: Not a number of type LONG"
        );
        assert_eq!(
            message("segment.bytes", "99999999999"),
            "Invalid value 99999999999 for configuration segment.bytes: Not a number of type INT"
        );
        assert_eq!(
            message("min.insync.replicas", "0"),
            "Invalid value 0 for configuration min.insync.replicas: Value must be at least 1"
        );
        assert_eq!(
            message("min.cleanable.dirty.ratio", "1.5"),
            "Invalid value 1.5 for configuration min.cleanable.dirty.ratio: Value must be no more than 1"
        );
        assert_eq!(
            message("preallocate", "yes"),
            "Invalid value yes for configuration preallocate: Expected value to be either true or false"
        );
        assert_eq!(
            message("cleanup.policy", "delete,erase"),
            "Invalid value delete,erase for configuration cleanup.policy: String must be one of: compact, delete"
        );
        assert!(message("compression.gzip.level", "0").ends_with("between 1 and 9 or equal to -1"));
        assert!(message("leader.replication.throttled.replicas", "1-2").contains("[partitionId]:[brokerId]"));
    }

    #[test]
    fn values_are_trimmed_and_booleans_take_any_case() {
        assert_eq!(check(topic_key("preallocate").unwrap(), " FALSE "), Ok(()));
        assert_eq!(check(topic_key("retention.ms").unwrap(), " -1 "), Ok(()));
        assert_eq!(canonical(topic_key("cleanup.policy").unwrap(), " compact , delete"), "compact,delete");
        assert_eq!(canonical(topic_key("retention.ms").unwrap(), "+007"), "7");
    }

    #[test]
    fn a_refused_key_accepts_its_default_only() {
        let remote = topic_key("remote.storage.enable").unwrap();
        assert_eq!(accept(remote, "False"), Ok(()));
        assert!(matches!(accept(remote, "true"), Err(Problem::Refused { .. })));
    }

    #[test]
    fn a_password_is_never_shown() {
        let secret = Definition::unset("some.password", Kind::Password);
        assert_eq!(shown(&secret, "hunter2"), "[hidden]");
    }
}
