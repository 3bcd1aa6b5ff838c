//! What a [`super::writer`] has promised, and whether what it finds after a cut keeps it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};

use super::writer::STRICT;

/// What was promised of one log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Promise {
    /// Everything below survives the power.
    end: i64,
    /// The stamp of the batch that ends there; `None` while that was not said.
    stamp: Option<i64>,
    /// Everything below survives the process.
    written: i64,
    /// Everything below may be gone.
    start: i64,
}

/// One line of what a log was found to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    at: usize,
    strict: bool,
    start: i64,
    end: i64,
    stamp_at_promise: Option<i64>,
    stamp_at_end: Option<i64>,
}

/// What must not have happened to the records before a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The process was killed: what it had written is there.
    Kill,
    /// The power went: what it had acknowledged is there.
    PowerCut,
}

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The partition, if it is one's.
    pub partition: Option<usize>,
    /// What is wrong.
    pub what: String,
}

/// The promises of one directory, over all lives of its writer.
#[derive(Debug)]
pub struct Promises {
    logs: Vec<Promise>,
    /// What one life's lines have said so far, until it is ready.
    found: Vec<Found>,
    broken: Vec<Broken>,
    wrong: Vec<String>,
    /// The verdicts of the present life.
    verdicts: BTreeMap<usize, String>,
    /// Acknowledgements heard.
    acknowledgements: u64,
    /// Verdicts and other things seen.
    seen: BTreeSet<String>,
    is_ready: bool,
    fault: Option<String>,
    full: u64,
    damage: Vec<String>,
    since: Event,
}

impl Default for Promises {
    fn default() -> Promises {
        Promises {
            logs: vec![Promise::default(); STRICT.len()],
            found: Vec::new(),
            broken: Vec::new(),
            wrong: Vec::new(),
            verdicts: BTreeMap::new(),
            acknowledgements: 0,
            seen: BTreeSet::new(),
            is_ready: false,
            fault: None,
            full: 0,
            damage: Vec::new(),
            since: Event::PowerCut,
        }
    }
}

impl Promises {
    /// A life begins, after `event`.
    pub fn begin(&mut self, event: Event) {
        self.found.clear();
        self.verdicts.clear();
        self.is_ready = false;
        self.fault = None;
        self.full = 0;
        // What a life did not live to look at may have gone with an earlier cut.
        if self.since != Event::PowerCut {
            self.since = event;
        }
    }

    /// Where each promise ends, for the next life to look at.
    pub fn ends(&self) -> String {
        self.logs.iter().map(|promise| promise.end.to_string()).collect::<Vec<_>>().join(",")
    }

    /// Hears one line.
    pub fn hear(&mut self, line: &str) -> Result<()> {
        let mut words = line.split(' ');
        let kind = words.next().unwrap_or_default();
        let rest: Vec<&str> = words.collect();
        let text = || rest.join(" ");
        match kind {
            "log" => self.found.push(parse_found(&rest).with_context(|| format!("what does {line:?} mean?"))?),
            "wrong" => self.wrong.push(text()),
            "damage" => self.damage.push(text()),
            "ready" => self.on_ready(),
            "full" => self.full += 1,
            "fault" => self.fault = Some(text()),
            "w" | "a" | "s" => {
                let numbers: Vec<i64> = rest.iter().map(|word| word.parse()).collect::<Result<_, _>>()?;
                let log = self.logs.get_mut(usize::try_from(numbers[0])?).context("an unknown partition")?;
                match (kind, &numbers[1..]) {
                    ("w", [end]) => log.written = *end,
                    ("s", [start]) => log.start = *start,
                    ("a", [end, stamp]) => {
                        (log.end, log.stamp, log.written) = (*end, Some(*stamp), log.written.max(*end));
                        self.acknowledgements += 1;
                    }
                    _ => bail!("what does {line:?} mean?"),
                }
            }
            _ => bail!("what does {line:?} mean?"),
        }
        if let (Some(verdict), Some(found)) = (rest.last().filter(|_| kind == "log"), self.found.last()) {
            self.seen.insert((*verdict).to_owned());
            self.verdicts.insert(found.at, (*verdict).to_owned());
        }
        Ok(())
    }

    /// All that this life found is known: holds it against what was promised, and makes it the new promise, for what
    /// recovery has found it has made durable.
    fn on_ready(&mut self) {
        self.is_ready = true;
        if self.found.iter().map(|found| found.at).ne(0..self.logs.len()) {
            let what = format!("the logs found are {:?}", self.found);
            self.broken.push(Broken { partition: None, what });
            return;
        }
        for found in &self.found {
            let promise = self.logs[found.at];
            let mut broken = |what: String| {
                let what = format!("{what}: {promise:?} {found:?}");
                self.broken.push(Broken { partition: Some(found.at), what });
            };
            let end = if self.since == Event::Kill { promise.written.max(promise.end) } else { promise.end };
            if found.strict != STRICT[found.at] {
                broken("it changed its mode".to_owned());
            }
            if found.end < end {
                broken(format!("{} offsets lost", end - found.end));
            }
            if found.start > promise.start {
                broken("more was deleted than was asked for".to_owned());
            }
            let is_empty = promise.end <= found.start;
            let as_promised = promise.stamp.is_none_or(|stamp| found.stamp_at_promise == Some(stamp));
            if self.damage.is_empty() && found.end >= promise.end && !is_empty && !as_promised {
                broken("an older batch came back, or another took its place".to_owned());
            }
            self.logs[found.at] = Promise {
                end: found.end,
                stamp: found.stamp_at_end,
                written: found.end,
                start: promise.start.max(found.start),
            };
        }
        self.since = Event::Kill;
    }

    /// Whether the present life has said all that it found.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Acknowledgements heard, over all lives.
    pub fn acknowledgements(&self) -> u64 {
        self.acknowledgements
    }

    /// The fault with which the present life ended, if it did.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// How often the present life had no space.
    pub fn full(&self) -> u64 {
        self.full
    }

    /// Reads that were refused because bytes were damaged, since the last call.
    pub fn take_damage(&mut self) -> Vec<String> {
        std::mem::take(&mut self.damage)
    }

    /// Promises that were broken, since the last call.
    pub fn take_broken(&mut self) -> Vec<Broken> {
        std::mem::take(&mut self.broken)
    }

    /// Bytes that were served and never written, and derived state that does not fit, since the last call.
    pub fn take_wrong(&mut self) -> Vec<String> {
        std::mem::take(&mut self.wrong)
    }

    /// The present life's verdict on a partition.
    pub fn verdict(&self, partition: usize) -> &str {
        self.verdicts.get(&partition).map_or("", String::as_str)
    }

    /// The verdicts that were seen.
    pub fn verdicts(&self) -> impl Iterator<Item = &str> {
        self.seen.iter().map(String::as_str)
    }
}

fn parse_found(words: &[&str]) -> Option<Found> {
    let [at, mode, start, end, at_promise, at_end, _verdict] = words else { return None };
    let stamp = |word: &str| if word == "-" { Some(None) } else { word.parse().ok().map(Some) };
    Some(Found {
        at: at.parse().ok()?,
        strict: *mode == "strict",
        start: start.parse().ok()?,
        end: end.parse().ok()?,
        stamp_at_promise: stamp(at_promise)?,
        stamp_at_end: stamp(at_end)?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;

    fn life(promises: &mut Promises, event: Event, first: &str) {
        promises.begin(event);
        promises.hear(first).unwrap();
        for (at, strict) in STRICT.iter().enumerate().skip(1) {
            let mode = if *strict { "strict" } else { "relaxed" };
            promises.hear(&format!("log {at} {mode} 0 0 - - proved")).unwrap();
        }
        promises.hear("ready").unwrap();
    }

    #[test]
    fn a_lost_end_and_another_batch_in_its_place_break_the_promise() {
        for (found, is_kept) in [
            ("log 0 strict 0 9 - 4 cut", false),
            ("log 0 strict 0 10 5 5 cut", true),
            ("log 0 strict 0 12 5 6 cut", true),
            ("log 0 strict 0 10 4 4 cut", false),
            ("log 0 strict 3 12 5 6 cut", false),
        ] {
            let mut promises = Promises::default();
            life(&mut promises, Event::PowerCut, "log 0 strict 0 0 - - proved");
            promises.hear("a 0 10 5").unwrap();
            life(&mut promises, Event::PowerCut, found);
            assert_eq!(promises.take_broken().is_empty(), is_kept, "{found}");
        }
    }

    #[test]
    fn a_relaxed_log_keeps_what_was_written_over_a_kill_and_may_lose_it_with_the_power() {
        for (events, is_kept) in [
            (vec![Event::Kill], false),
            (vec![Event::PowerCut], true),
            // The first start died before it had looked.
            (vec![Event::PowerCut, Event::Kill], true),
        ] {
            let mut promises = Promises::default();
            life(&mut promises, Event::PowerCut, "log 0 strict 0 0 - - proved");
            promises.hear("w 0 20").unwrap();
            promises.hear("a 0 10 5").unwrap();
            let (last, earlier) = events.split_last().unwrap();
            earlier.iter().for_each(|event| promises.begin(*event));
            life(&mut promises, *last, "log 0 strict 0 10 5 5 proved");
            assert_eq!(promises.take_broken().is_empty(), is_kept, "{events:?}");
        }
    }

    #[test]
    fn what_a_start_found_is_promised_from_then_on() {
        let mut promises = Promises::default();
        life(&mut promises, Event::PowerCut, "log 0 strict 0 7 - 3 cut");
        life(&mut promises, Event::PowerCut, "log 0 strict 0 6 - 2 cut");
        assert_eq!(promises.take_broken().len(), 1);
    }
}
