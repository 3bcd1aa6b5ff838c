//! Which warnings of a node reach the terminal: so many in a while; the rest is in its file. Pure; the time is passed in.

use std::time::Duration;

/// In this time…
const WINDOW: Duration = Duration::from_secs(10);
/// …so many lines are shown.
const LINES_MAX: u32 = 8;

/// The warnings of one node.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    begun: Duration,
    shown: u32,
}

impl Warnings {
    /// What to show of a line that came `at` this time since the beginning, if anything.
    pub(super) fn on_line(&mut self, line: &str, at: Duration) -> Option<String> {
        if at.saturating_sub(self.begun) >= WINDOW {
            *self = Warnings { begun: at, shown: 0 };
        }
        self.shown = self.shown.saturating_add(1);
        if self.shown <= LINES_MAX {
            return Some(line.to_owned());
        }
        (self.shown == LINES_MAX + 1).then(|| "warns of more; see its output".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_warns_without_end_is_cut_short_for_a_while() {
        let mut warnings = Warnings::default();
        let shown: Vec<String> =
            (0..100).filter_map(|number| warnings.on_line("w", Duration::from_millis(number))).collect();
        assert_eq!(shown.len(), 9);
        assert!(shown[8].contains("see its output"));
        assert_eq!(warnings.on_line("again", Duration::from_secs(11)), Some("again".to_owned()));
    }
}
