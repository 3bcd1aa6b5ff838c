//! Every group key of Kafka 4.x (`GroupConfig`, resource type GROUP). All belong to group protocols that are not built
//! yet: they are checked and kept, and have no effect.

use super::definition::{Constraint, Definition};

const CONSUMER: &str = "the consumer protocol (KIP-848) is not built yet";
const SHARE: &str = "share groups (KIP-932) are not built yet";
const STREAMS: &str = "streams groups (KIP-1071) are not built yet";

/// Every group key, in alphabetical order.
pub static GROUP_KEYS: &[Definition] = &[
    Definition::int("consumer.heartbeat.interval.ms", "5000")
        .at_least(1)
        .group()
        .inert(CONSUMER)
        .says("How often members of this consumer group report, in milliseconds."),
    Definition::int("consumer.session.timeout.ms", "45000")
        .at_least(1)
        .group()
        .inert(CONSUMER)
        .says("How long a silent member of this consumer group stays in it, in milliseconds."),
    Definition::text("share.auto.offset.reset", "latest")
        .group()
        .inert(SHARE)
        .says("Where this share group begins to read: earliest, latest, or by_duration with a duration."),
    Definition::int("share.heartbeat.interval.ms", "5000")
        .at_least(1)
        .group()
        .inert(SHARE)
        .says("How often members of this share group report, in milliseconds."),
    Definition::text("share.isolation.level", "read_uncommitted")
        .checked(Constraint::OneOf(&["read_committed", "read_uncommitted"]))
        .group()
        .inert(SHARE)
        .says("Whether this share group sees records of open transactions."),
    Definition::int("share.record.lock.duration.ms", "30000")
        .at_least(1000)
        .group()
        .inert(SHARE)
        .says("How long a delivered record stays locked in this share group, in milliseconds."),
    Definition::int("share.session.timeout.ms", "45000")
        .at_least(1)
        .group()
        .inert(SHARE)
        .says("How long a silent member of this share group stays in it, in milliseconds."),
    Definition::int("streams.heartbeat.interval.ms", "5000")
        .at_least(1)
        .group()
        .inert(STREAMS)
        .says("How often members of this streams group report, in milliseconds."),
    Definition::int("streams.initial.rebalance.delay.ms", "3000")
        .at_least(0)
        .group()
        .inert(STREAMS)
        .says("How long the first rebalance of this streams group waits, in milliseconds."),
    Definition::int("streams.num.standby.replicas", "0")
        .at_least(0)
        .group()
        .inert(STREAMS)
        .says("Standby replicas of this streams group's state."),
    Definition::int("streams.session.timeout.ms", "45000")
        .at_least(1)
        .group()
        .inert(STREAMS)
        .says("How long a silent member of this streams group stays in it, in milliseconds."),
];

/// Looks a group key up by name.
pub fn group_key(name: &str) -> Option<&'static Definition> {
    GROUP_KEYS.binary_search_by(|definition| definition.name.cmp(name)).ok().map(|index| &GROUP_KEYS[index])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::definition::Scope;
    use crate::settings::value::accept;

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_legal() {
        assert!(GROUP_KEYS.windows(2).all(|pair| pair[0].name < pair[1].name));
        for definition in GROUP_KEYS {
            assert_eq!(definition.scope, Scope::Group);
            assert_eq!(accept(definition, definition.default.unwrap_or("")), Ok(()), "{}", definition.name);
            assert!(group_key(definition.name).is_some());
        }
    }
}
