//! The range assignor: each topic's partitions in contiguous ranges, members in order (Kafka's `RangeAssignor`).

use std::collections::BTreeMap;

/// What each member is to consume: topic and partition.
pub type Assignment = BTreeMap<String, Vec<(String, i32)>>;

/// Assigns every partition of every topic to exactly one of its subscribers.
///
/// `members` is each member's id with the topics it subscribes to; `partitions_count` is the number of partitions by
/// topic. A member without partitions is in the result with none; a topic without a count is nobody's.
pub fn assign_ranges(members: &[(String, Vec<String>)], partitions_count: &BTreeMap<String, i32>) -> Assignment {
    let mut assignment: Assignment = members.iter().map(|(id, _)| (id.clone(), Vec::new())).collect();
    for (topic, count) in partitions_count {
        let mut subscribers: Vec<&String> =
            members.iter().filter(|(_, topics)| topics.contains(topic)).map(|(id, _)| id).collect();
        subscribers.sort();
        let each = *count as usize / subscribers.len().max(1);
        let extra = *count as usize % subscribers.len().max(1);
        let mut next = 0;
        for (index, subscriber) in subscribers.iter().enumerate() {
            let share = each + usize::from(index < extra);
            let range = (next..next + share).map(|partition| (topic.clone(), partition as i32));
            assignment.entry((*subscriber).clone()).or_default().extend(range);
            next += share;
        }
    }
    assignment
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribed(id: &str, topics: &[&str]) -> (String, Vec<String>) {
        (id.to_owned(), topics.iter().map(|topic| (*topic).to_owned()).collect())
    }

    #[test]
    fn first_members_take_the_remainder() {
        let members = [subscribed("b", &["t"]), subscribed("a", &["t"]), subscribed("c", &["t"])];
        let assignment = assign_ranges(&members, &BTreeMap::from([("t".to_owned(), 5)]));
        let partitions = |id: &str| assignment[id].iter().map(|(_, partition)| *partition).collect::<Vec<_>>();
        assert_eq!((partitions("a"), partitions("b"), partitions("c")), (vec![0, 1], vec![2, 3], vec![4]));
    }

    #[test]
    fn only_subscribers_receive_a_topic() {
        let members = [subscribed("a", &["t"]), subscribed("b", &["u"]), subscribed("c", &[])];
        let counts = BTreeMap::from([("t".to_owned(), 2), ("u".to_owned(), 1), ("nobodys".to_owned(), 4)]);
        let assignment = assign_ranges(&members, &counts);
        assert_eq!(assignment["a"], [("t".to_owned(), 0), ("t".to_owned(), 1)]);
        assert_eq!(assignment["b"], [("u".to_owned(), 0)]);
        assert!(assignment["c"].is_empty());
        assert_eq!(assignment.values().map(Vec::len).sum::<usize>(), 3);
    }
}
