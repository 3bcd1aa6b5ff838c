//! Where to start reading: the words of `--offset`.

use crate::client::offsets::At;
use crate::client::{Cluster, Error};

/// A point in every partition of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// The first record that is still there.
    Start,
    /// After the last record.
    End,
    /// So many records after the start.
    AfterStart(i64),
    /// So many records before the end.
    BeforeEnd(i64),
    /// Exactly this offset.
    Exactly(i64),
    /// The first record not older than this, in milliseconds since 1970.
    Time(i64),
}

/// Reads a position; `now_ms` is what `@-1h` is relative to.
pub(super) fn parse_position(text: &str, now_ms: i64) -> Result<Position, String> {
    let wrong = || {
        format!(
            "`{text}` is no offset; write start, end, 42, +10 (after the start), -10 (before the end), @-1h, @2026-01-31T12:00:00Z or @MILLISECONDS"
        )
    };
    let number = |digits: &str| digits.parse::<u32>().map(i64::from).map_err(|_| wrong());
    if let Some(digits) = text.strip_prefix('+') {
        return number(digits).map(Position::AfterStart);
    }
    if let Some(digits) = text.strip_prefix('-') {
        return number(digits).map(Position::BeforeEnd);
    }
    if let Some(time) = text.strip_prefix('@') {
        return parse_time(time, now_ms).map(Position::Time).ok_or_else(wrong);
    }
    match text {
        "start" | "beginning" | "earliest" => Ok(Position::Start),
        "end" | "latest" => Ok(Position::End),
        digits => digits.parse().ok().filter(|offset: &i64| *offset >= 0).map(Position::Exactly).ok_or_else(wrong),
    }
}

/// A duration ago (`-1h`), milliseconds since 1970, or a date and time in UTC.
fn parse_time(text: &str, now_ms: i64) -> Option<i64> {
    if let Some(ago) = text.strip_prefix('-') {
        let ago = i64::try_from(super::args::parse_duration(ago).ok()?.as_millis()).ok()?;
        return now_ms.checked_sub(ago).filter(|ms| *ms >= 0);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    parse_date_time(text)
}

/// `2026-01-31`, `2026-01-31T12:30`, `2026-01-31T12:30:15`, each with or without a final `Z`; always UTC.
fn parse_date_time(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00"));
    let mut date = date.splitn(3, '-');
    let year: i64 = date.next()?.parse().ok().filter(|year| (1970..10_000).contains(year))?;
    let month: i64 = date.next()?.parse().ok().filter(|month| (1..=12).contains(month))?;
    let day: i64 = date.next()?.parse().ok().filter(|day| (1..=days_in_month(year, month)).contains(day))?;
    let mut time = time.splitn(3, ':');
    let hour: i64 = time.next()?.parse().ok().filter(|hour| (0..24).contains(hour))?;
    let minute: i64 = time.next()?.parse().ok().filter(|minute| (0..60).contains(minute))?;
    let second: i64 = time.next().unwrap_or("0").parse().ok().filter(|second| (0..60).contains(second))?;
    let days: i64 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum::<i64>()
        + (1..month).map(|month| days_in_month(year, month)).sum::<i64>()
        + day
        - 1;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl Position {
    /// The offset of this point in one partition.
    pub(super) async fn resolve(self, cluster: &mut Cluster, topic: &str, partition: i32) -> Result<i64, Error> {
        let mut at = async |at: At| -> Result<Option<i64>, Error> {
            Ok(cluster.list_offsets(topic, &[partition], at).await?.remove(&partition).flatten())
        };
        Ok(match self {
            Position::Exactly(offset) => offset,
            Position::Start => at(At::Start).await?.unwrap_or(0),
            Position::End => at(At::End).await?.unwrap_or(0),
            Position::AfterStart(count) => {
                let end = at(At::End).await?.unwrap_or(0);
                (at(At::Start).await?.unwrap_or(0) + count).min(end)
            }
            Position::BeforeEnd(count) => {
                let start = at(At::Start).await?.unwrap_or(0);
                (at(At::End).await?.unwrap_or(0) - count).max(start)
            }
            Position::Time(ms) => match at(At::Time(ms)).await? {
                Some(offset) => offset,
                None => at(At::End).await?.unwrap_or(0),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000_000_000;

    #[test]
    fn every_form_of_the_language_is_read() {
        for (text, position) in [
            ("start", Position::Start),
            ("end", Position::End),
            ("+10", Position::AfterStart(10)),
            ("-3", Position::BeforeEnd(3)),
            ("42", Position::Exactly(42)),
            ("@-1h", Position::Time(NOW - 3_600_000)),
            ("@1700000000000", Position::Time(1_700_000_000_000)),
            ("@1970-01-02", Position::Time(86_400_000)),
            ("@2000-03-01T00:00:01Z", Position::Time(951_868_801_000)),
            ("@2026-11-21 08:00", Position::Time(1_795_248_000_000)),
        ] {
            assert_eq!(parse_position(text, NOW), Ok(position), "{text}");
        }
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for text in
            ["", "begin", "+", "-x", "@", "@tomorrow", "@2026-02-30", "@2026-13-01", "@-1y", "@2026-01-01T24:00"]
        {
            assert!(parse_position(text, NOW).is_err(), "{text}");
        }
    }
}
