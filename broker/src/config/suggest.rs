//! "Did you mean": the nearest known key by edit distance, when it is near enough to be a slip of the finger.

/// The nearest of `known` to `written`, if it is close.
///
/// Close means a Damerau-Levenshtein distance of at most 1 for every seven characters, never more than 3; that keeps
/// unrelated names (`brokers`, `topic`) from being taken for misspelt keys.
pub(super) fn closest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (written.chars().count() / 7).min(3);
    let folded = fold(written);
    known
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(written.len()) <= limit.max(1) + 2)
        .map(|candidate| (strsim::damerau_levenshtein(&folded, &fold(candidate)), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Case and the choice of separator are no distance.
fn fold(key: &str) -> String {
    key.chars()
        .map(|character| if matches!(character, '_' | '-') { '.' } else { character })
        .collect::<String>()
        .to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 5] = ["log.retention.hours", "log.retention.ms", "broker.id", "listeners", "num.partitions"];

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        assert_eq!(closest("log.retention.hour", KNOWN), Some("log.retention.hours"));
        assert_eq!(closest("log.retnetion.ms", KNOWN), Some("log.retention.ms"));
        assert_eq!(closest("Listeners", KNOWN), Some("listeners"));
        assert_eq!(closest("num_partitions", KNOWN), Some("num.partitions"));
        assert_eq!(closest("listener", KNOWN), Some("listeners"));
    }

    #[test]
    fn an_unrelated_name_is_left_alone() {
        assert_eq!(closest("brokers", KNOWN), None);
        assert_eq!(closest("topic", KNOWN), None);
        assert_eq!(closest("my.company.plugin.setting", KNOWN), None);
    }
}
