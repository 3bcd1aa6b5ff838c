//! Appending to and subtracting from LIST values: IncrementalAlterConfigs (KIP-339).

use super::definition::{Definition, Kind};
use super::problem::Problem;
use super::value::elements;

/// The list with the new elements at its end; one that is there already is not added again.
pub fn append(definition: &Definition, current: &str, added: &str) -> Result<String, Problem> {
    expect_list(definition, "APPEND")?;
    let mut list = elements(current);
    for element in elements(added) {
        if !list.contains(&element) {
            list.push(element);
        }
    }
    Ok(list.join(","))
}

/// The list without these elements; one that is not there is no error.
pub fn subtract(definition: &Definition, current: &str, removed: &str) -> Result<String, Problem> {
    expect_list(definition, "SUBTRACT")?;
    let removed = elements(removed);
    let left: Vec<&str> = elements(current).into_iter().filter(|element| !removed.contains(element)).collect();
    Ok(left.join(","))
}

fn expect_list(definition: &Definition, operation: &'static str) -> Result<(), Problem> {
    if definition.kind == Kind::List {
        Ok(())
    } else {
        Err(Problem::NotAList { key: definition.name.to_owned(), operation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::topic_key;

    #[test]
    fn append_adds_once_and_at_the_end() {
        let policy = topic_key("cleanup.policy").unwrap();
        assert_eq!(append(policy, "delete", "compact, delete"), Ok("delete,compact".to_owned()));
        assert_eq!(append(policy, "", "compact"), Ok("compact".to_owned()));
    }

    #[test]
    fn subtract_removes_what_is_there() {
        let policy = topic_key("cleanup.policy").unwrap();
        assert_eq!(subtract(policy, "delete,compact", "delete,other"), Ok("compact".to_owned()));
        assert_eq!(subtract(policy, "delete", "delete"), Ok(String::new()));
    }

    #[test]
    fn only_lists_take_part() {
        let error = append(topic_key("retention.ms").unwrap(), "1", "2").unwrap_err();
        assert_eq!(error.to_string(), "Can't APPEND to key retention.ms because its type is not LIST.");
    }
}
