//! "Did you mean": the nearest known key by edit distance, when it is near enough to be a slip of the finger.

/// The nearest of `known` to `written`, if it is close.
///
/// Close means a distance of at most 1 for every seven characters, never more than 3; that keeps unrelated names
/// (`brokers`, `topic`) from being taken for misspelt keys. Case and the choice of separator are no distance.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = folded(written);
    let limit = (written.len() / 7).min(3);
    known
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(written.len()) <= limit)
        .map(|candidate| (distance(&written, &folded(candidate)), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn folded(key: &str) -> Vec<char> {
    key.to_lowercase().chars().map(|character| if matches!(character, '_' | '-') { '.' } else { character }).collect()
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one text into the other (optimal string
/// alignment). Three rows of the table are kept.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 5] = ["log.retention.hours", "log.retention.ms", "broker.id", "listeners", "num.partitions"];

    fn between(a: &str, b: &str) -> usize {
        distance(&folded(a), &folded(b))
    }

    #[test]
    fn distance_counts_edits_and_swaps() {
        assert_eq!(between("abc", "abc"), 0);
        assert_eq!(between("", "abc"), 3);
        assert_eq!(between("abc", "ac"), 1);
        assert_eq!(between("abcd", "acbd"), 1);
        assert_eq!(between("kitten", "sitting"), 3);
        assert_eq!(between("a_b", "A.b"), 0);
    }

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        assert_eq!(nearest("log.retention.hour", KNOWN), Some("log.retention.hours"));
        assert_eq!(nearest("log.retnetion.ms", KNOWN), Some("log.retention.ms"));
        assert_eq!(nearest("Listeners", KNOWN), Some("listeners"));
        assert_eq!(nearest("num_partitions", KNOWN), Some("num.partitions"));
        assert_eq!(nearest("listener", KNOWN), Some("listeners"));
    }

    #[test]
    fn an_unrelated_name_is_left_alone() {
        assert_eq!(nearest("brokers", KNOWN), None);
        assert_eq!(nearest("topic", KNOWN), None);
        assert_eq!(nearest("my.company.plugin.setting", KNOWN), None);
    }
}
