//! The configuration tables as a page of documentation: `docs/configuration.md` is what [`render_markdown`] returns,
//! and a test keeps it so.

use std::fmt::Write as _;

use stonelog_replication::settings::{Constraint, Definition, GROUP_KEYS, Honour, OBSOLETE_TOPIC_KEYS, TOPIC_KEYS};

use super::broker_keys::{FOREIGN_PREFIXES, REMOVED, all};

/// The whole page.
pub fn render_markdown() -> String {
    let mut page = String::from(INTRODUCTION);
    page.push_str("\n## Stonelog's own keys\n\n");
    table(&mut page, all().iter().copied().filter(|key| is_own(key)));
    page.push_str("\n## Topic keys\n\n");
    table(&mut page, TOPIC_KEYS.iter());
    let _infallible = writeln!(
        page,
        "\nAccepted from old tools, never shown, without effect: {}.",
        quoted(OBSOLETE_TOPIC_KEYS.iter().copied())
    );
    page.push_str("\n## Group keys\n\n");
    table(&mut page, GROUP_KEYS.iter());
    for (title, wanted) in SECTIONS {
        let _infallible = write!(page, "\n## {title}\n\n");
        table(&mut page, all().iter().copied().filter(|key| !is_own(key) && wanted(&key.honour)));
    }
    let _infallible = writeln!(
        page,
        "\n## Names that are known and are no keys here\n\nRemoved by Kafka 4, without effect: {}.\n\nOther products' \
         settings, listed once and skipped, begin with {}.",
        quoted(REMOVED.iter().copied()),
        quoted(FOREIGN_PREFIXES.iter().copied())
    );
    page
}

type Section = (&'static str, fn(&Honour) -> bool);

const SECTIONS: [Section; 3] = [
    ("Broker keys that have an effect", |honour| matches!(honour, Honour::Honoured | Honour::Mapped(_))),
    ("Broker keys that are refused unless they hold the default", |honour| matches!(honour, Honour::Refused(_))),
    ("Broker keys that are accepted without effect", |honour| matches!(honour, Honour::Inert(_))),
];

const INTRODUCTION: &str = "\
# Configuration

This page is made from the tables in the source (`UPDATE_DOCS=1 cargo test -p stonelog configuration_page_is_fresh`); \
do not edit it by hand.

Stonelog takes Kafka's keys from a `server.properties` file (`--config`), from environment variables as the common \
container images name them, and from `--set key=value`.
The command line goes before the environment, the environment before the file, the file before the default; a value \
set while the broker runs goes before all of them.
`--data-dir DIR` is the same as `--set log.dirs=DIR`; without either the data is kept in `./stonelog-data`.

In the environment `KAFKA_LOG_RETENTION_HOURS` and `KAFKA_CFG_LOG_RETENTION_HOURS` both mean `log.retention.hours`; \
`__` and `___` stand for a dash and an underscore, in whichever order gives a known key.
`CLUSTER_ID` is the cluster id an empty directory is formatted with.

All problems are reported at once and nothing is started: an illegal value, a key that is refused, a contradiction, or \
a key close to a known one.
A key that is close to none is listed once and ignored, as Kafka does.
";

fn is_own(definition: &Definition) -> bool {
    definition.name.starts_with("stonelog.")
}

fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn table<'a>(page: &mut String, definitions: impl Iterator<Item = &'a Definition>) {
    page.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
    for definition in definitions {
        let _infallible = writeln!(
            page,
            "| `{}` | {} | {} | {} |",
            definition.name,
            kind(definition),
            definition.default.map_or("unset".to_owned(), |default| {
                if default.is_empty() { "empty".to_owned() } else { format!("`{default}`") }
            }),
            meaning(definition).replace('|', "\\|"),
        );
    }
}

fn kind(definition: &Definition) -> String {
    let kind = definition.kind.name().to_lowercase();
    match definition.constraint {
        Constraint::AtLeast(low) => format!("{kind}, from {low}"),
        Constraint::Between(low, high) => format!("{kind}, {low} to {high}"),
        Constraint::Ratio(low, high) => format!("{kind}, {low} to {high}"),
        Constraint::OneOf(choices) => format!("one of {}", choices.join(", ")),
        Constraint::ListOf(choices) => format!("list of {}", choices.join(", ")),
        Constraint::GzipLevel => format!("{kind}, -1 or 1 to 9"),
        Constraint::ForeverOrAtLeastOne => format!("{kind}, -1 or from 1"),
        Constraint::ThrottledReplicas | Constraint::Any => kind,
    }
}

fn meaning(definition: &Definition) -> String {
    let mut meaning = definition.documentation.to_owned();
    match definition.honour {
        Honour::Honoured => {}
        Honour::Mapped(how) => meaning.push_str(&format!(" *Here: {how}.*")),
        Honour::Refused(why) => meaning.push_str(&format!(" *Refused: {why}.*")),
        Honour::Inert(why) => meaning.push_str(&format!(" *No effect: {why}.*")),
    }
    let synonyms = definition.broker_keys();
    if !synonyms.is_empty() {
        meaning.push_str(&format!(" Broker's default: {}.", quoted(synonyms.iter().copied())));
    }
    meaning
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_page_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        let page = render_markdown();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let stored = std::fs::read_to_string(path).unwrap_or_default();
        assert!(stored == page, "docs/configuration.md is stale: run this test with UPDATE_DOCS=1");
    }

    #[test]
    fn every_key_is_on_the_page() {
        let page = render_markdown();
        for definition in TOPIC_KEYS.iter().chain(GROUP_KEYS).chain(all().iter().copied()) {
            assert!(page.contains(&format!("| `{}` |", definition.name)), "{}", definition.name);
        }
    }
}
