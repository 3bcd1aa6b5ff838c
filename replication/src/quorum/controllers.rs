//! Where the active controller may be: at any voter, by configuration or by the membership.
//!
//! A node's own list may be an older one. A broker that is configured with the lone voter of before knows two more from the
//! membership it follows, and one of those may lead. What servers said once is nobody's list: it holds until the membership
//! is known, which names other voters and places as these change.

use std::collections::BTreeMap;

use stonelog_protocol::BrokerId;
use tokio::sync::watch;

use super::link::Target;

/// The nodes that may be asked, as whoever asks hears of them.
pub struct Controllers {
    listed: BTreeMap<BrokerId, Target>,
    known: watch::Sender<BTreeMap<BrokerId, Target>>,
}

impl Controllers {
    /// The voters by configuration.
    pub fn new(listed: impl IntoIterator<Item = Target>) -> Controllers {
        let listed: BTreeMap<_, _> = listed.into_iter().map(|target| (target.node, target)).collect();
        Controllers { known: watch::Sender::new(listed.clone()), listed }
    }

    /// The voters as servers have named them; nobody has configured any.
    pub fn said(said: impl IntoIterator<Item = Target>) -> Controllers {
        let said: BTreeMap<_, _> = said.into_iter().map(|target| (target.node, target)).collect();
        Controllers { known: watch::Sender::new(said), listed: BTreeMap::new() }
    }

    /// Those that may be asked, and whenever they change.
    pub fn subscribe(&self) -> watch::Receiver<BTreeMap<BrokerId, Target>> {
        self.known.subscribe()
    }

    /// Who votes, and where, by the membership. Where the configuration says another place, that is right.
    pub(super) fn on_voters<'a>(&self, voters: impl IntoIterator<Item = (BrokerId, &'a str, u16)>) {
        let mut all = self.listed.clone();
        for (node, host, port) in voters {
            if off!(VotersAreAsked) {
                continue;
            }
            // A voter that was alone has said no place yet.
            if !host.is_empty() {
                all.entry(node).or_insert(Target { node, directory: None, host: host.to_owned(), port });
            } else if let Some(said) = self.known.borrow().get(&node) {
                all.entry(node).or_insert(said.clone());
            }
        }
        self.known.send_if_modified(|known| {
            // A node that follows knows no membership at first.
            let is_news = *known != all && !all.is_empty();
            if is_news {
                *known = all;
            }
            is_news
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(node: i32, host: &str) -> Target {
        Target { node: BrokerId(node), directory: None, host: host.to_owned(), port: 1 }
    }

    /// What is known when the membership names voters 1 and 2, and then 1 elsewhere, 2 and 4.
    fn after_a_move(controllers: Controllers) -> Vec<Target> {
        controllers.on_voters([]);
        controllers.on_voters([(BrokerId(1), "a", 1), (BrokerId(2), "", 0)]);
        controllers.on_voters([(BrokerId(1), "moved", 1), (BrokerId(2), "b", 1), (BrokerId(4), "d", 1)]);
        controllers.subscribe().borrow().values().cloned().collect()
    }

    #[test]
    fn voter_that_moved_is_asked_at_its_new_place_unless_another_is_configured() {
        let before = [at(1, "a"), at(2, "b"), at(3, "c")];
        let said = after_a_move(Controllers::said(before.clone()));
        assert_eq!(said, [at(1, "moved"), at(2, "b"), at(4, "d")]);
        let listed = after_a_move(Controllers::new(before));
        assert_eq!(listed, [at(1, "a"), at(2, "b"), at(3, "c"), at(4, "d")]);
    }

    #[test]
    fn what_servers_said_holds_until_the_membership_names_a_place() {
        let controllers = Controllers::said([at(1, "a"), at(2, "b")]);
        let known = controllers.subscribe();
        controllers.on_voters([]);
        assert_eq!(known.borrow().values().cloned().collect::<Vec<_>>(), [at(1, "a"), at(2, "b")]);
        controllers.on_voters([(BrokerId(1), "", 0)]);
        assert_eq!(known.borrow().values().cloned().collect::<Vec<_>>(), [at(1, "a")]);
    }
}
