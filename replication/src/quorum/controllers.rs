//! Where the active controller may be: at any voter, by configuration or by the membership.
//!
//! A node's own list may be an older one. A broker that is configured with the lone voter of before knows two more from the
//! membership it follows, and one of those may lead.

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

    /// Those that may be asked, and whenever they change.
    pub fn subscribe(&self) -> watch::Receiver<BTreeMap<BrokerId, Target>> {
        self.known.subscribe()
    }

    /// Who votes, and where, by the membership. Where the configuration says another place, that is right.
    pub(super) fn on_voters<'a>(&self, voters: impl IntoIterator<Item = (BrokerId, &'a str, u16)>) {
        let mut all = self.listed.clone();
        for (node, host, port) in voters {
            // A voter that was alone has said no place yet.
            if !host.is_empty() && !off!(VotersAreAsked) {
                all.entry(node).or_insert(Target { node, directory: None, host: host.to_owned(), port });
            }
        }
        self.known.send_if_modified(|known| {
            let is_news = *known != all;
            *known = all;
            is_news
        });
    }
}
