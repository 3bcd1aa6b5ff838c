//! Progress of long work, on standard error and only when that is a terminal.

use std::io::IsTerminal as _;

use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};

/// A bar towards `total`, or a spinner when the total is not known.
pub(super) fn bar(what: &str, total: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{prefix} {wide_bar} {human_pos}/{human_len} {rate} {eta}"),
        None => (ProgressBar::new_spinner(), "{prefix} {spinner} {human_pos} {rate} {elapsed}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.with_key("rate", rate));
    }
    bar.with_prefix(what.to_owned())
}

/// A bar towards `total` bytes.
pub(super) fn bytes(what: &str, total: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total);
    let template = "{prefix} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.with_prefix(what.to_owned())
}

/// Whole things per second.
fn rate(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    let _ = write!(out, "{}/s", HumanCount(state.per_sec() as u64));
}
