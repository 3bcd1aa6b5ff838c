//! Options that every command takes, and how their values are read.

use std::time::Duration;

use clap::{Args, ValueEnum};

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub(super) struct Global {
    /// Brokers to start from, separated by commas.
    #[arg(
        short,
        long,
        global = true,
        visible_alias = "bootstrap-server",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        value_parser = parse_address,
        default_value = "127.0.0.1:9092"
    )]
    pub(super) brokers: Vec<String>,

    /// How results are printed.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(super) output: Format,

    /// How long one operation may take: 500ms, 30s, 2m.
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_duration, default_value = "30s")]
    pub(super) timeout: Duration,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// For programs: one document per command, or one per record.
    Json,
}

/// Reads a time such as `500ms`, `30s`, `2m`, `3h`, `1d`; a bare number is seconds.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is no time; write 500ms, 30s, 2m, 3h or 1d"))?;
    let unit_ms = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("`{unit}` is no unit of time; write ms, s, m, h or d")),
    };
    let total = number.checked_mul(unit_ms).ok_or_else(|| format!("`{text}` is too long"))?;
    Ok(Duration::from_millis(total))
}

/// Adds the port where it is left out. An address of several colons is IPv6, and has a port only after brackets.
fn parse_address(text: &str) -> Result<String, String> {
    const PORT: u16 = 9092;
    let is_bare_ipv6 = text.matches(':').count() > 1 && !text.starts_with('[');
    if is_bare_ipv6 {
        return Ok(format!("[{text}]:{PORT}"));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| format!("`{port}` is no port"))?),
        _ => (text, PORT),
    };
    if host.is_empty() { Err(format!("`{text}` names no host")) } else { Ok(format!("{host}:{port}")) }
}

/// Splits `name=value`.
pub(super) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not of the form name=value")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("7"), Ok(Duration::from_secs(7)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7_200)));
        for wrong in ["", "s", "-1s", "3 weeks", "99999999999999999999d", "18446744073709551615d"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_get_the_usual_port() {
        assert_eq!(parse_address("kafka"), Ok("kafka:9092".to_owned()));
        assert_eq!(parse_address("kafka:1"), Ok("kafka:1".to_owned()));
        assert_eq!(parse_address("::1"), Ok("[::1]:9092".to_owned()));
        assert_eq!(parse_address("[::1]:5"), Ok("[::1]:5".to_owned()));
        assert_eq!(parse_address("[::1]"), Ok("[::1]:9092".to_owned()));
        assert!(parse_address(":9092").is_err());
        assert!(parse_address("kafka:port").is_err());
    }

    #[test]
    fn pairs_keep_later_equal_signs() {
        assert_eq!(parse_pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(parse_pair("=b").is_err());
        assert!(parse_pair("a").is_err());
    }
}
