//! What both Rust suites share: the record set, the comparison, the step list and its deadline.
//!
//! Not a client and not a test. Every wait has a deadline; a step that did not run is either `fail` or `lacks`, never
//! silent; the process cannot outlive `WATCHDOG`.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Partitions of each topic that holds a record set.
pub const PARTITIONS: i32 = 3;
/// The longest wait inside one step.
pub const STEP: Duration = Duration::from_secs(40);

const WATCHDOG: Duration = Duration::from_secs(240);
/// Just below `max.message.bytes` (1,048,588), and incompressible.
const LARGE_BYTES: usize = 1_040_000;
const BATCH_RECORDS: usize = 120;
const SHOWN_BYTES: usize = 24;
const REASON_CHARACTERS: usize = 400;

/// What a step ends with.
pub type Outcome = Result<(), Box<dyn Error>>;

/// One record as it was sent, or as it came back; equality is byte for byte, null apart from empty.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub timestamp_ms: i64,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = |data: &Option<Vec<u8>>| match data {
            None => "null".to_owned(),
            Some(data) => {
                format!("{:?}({})", String::from_utf8_lossy(&data[..data.len().min(SHOWN_BYTES)]), data.len())
            }
        };
        write!(
            formatter,
            "p{} key={} value={} t={}",
            self.partition,
            short(&self.key),
            short(&self.value),
            self.timestamp_ms
        )?;
        self.headers.iter().try_for_each(|(name, data)| write!(formatter, " {name}={}", short(data)))
    }
}

/// What a client cannot express; the record set leaves it out.
#[derive(Clone, Copy, Default)]
pub struct Limits {
    /// Headers are a map.
    pub no_repeated_header: bool,
    /// Header values are never null.
    pub no_null_header: bool,
}

/// An hour ago in milliseconds, so that retention by time never touches the records.
pub fn base_timestamp_ms() -> i64 {
    (unix_time().as_secs() as i64 - 3600) * 1000
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Bytes that no codec can shrink, the same for the same seed (xorshift64*).
fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

/// Nulls, empties, headers, one large record and a batch of small ones, over all partitions.
pub fn record_set(seed: u64, base_ms: i64, limits: Limits) -> Vec<Record> {
    let bytes = |text: &str| Some(text.as_bytes().to_vec());
    let mut many = vec![("a".to_owned(), bytes("1")), ("empty".to_owned(), bytes(""))];
    if !limits.no_repeated_header {
        many.push(("a".to_owned(), bytes("2")));
    }
    if !limits.no_null_header {
        many.push(("null".to_owned(), None));
    }
    let mut rows = vec![
        (bytes("key"), bytes("value"), vec![("trace".to_owned(), Some(vec![0, 1, 254, 255]))]),
        (None, bytes("null key"), vec![]),
        (bytes("null value"), None, vec![]),
        (bytes("empty value"), bytes(""), vec![]),
        (bytes(""), bytes("empty key"), vec![]),
        (bytes("headers"), bytes("many"), many),
        (bytes("schlüssel-鍵"), bytes("wert-値-🪨"), vec![("ünicode".to_owned(), bytes("✓"))]),
        (bytes("large"), Some(noise(seed, LARGE_BYTES)), vec![]),
    ];
    for index in 0..BATCH_RECORDS {
        let value = format!("value-{index:06} {}", "compressible ".repeat(8));
        rows.push((bytes(&format!("key-{}", index % 7)), bytes(&value), vec![]));
    }
    let numbered = (0i32..).zip(rows);
    numbered
        .map(|(index, (key, value, headers))| Record {
            partition: index % PARTITIONS,
            key,
            value,
            headers,
            timestamp_ms: base_ms + i64::from(index) * 10,
        })
        .collect()
}

/// The records of one partition, in order.
pub fn of_partition(records: &[Record], partition: i32) -> Vec<&Record> {
    records.iter().filter(|record| record.partition == partition).collect()
}

/// Fails unless each partition holds exactly the records sent to it, in order, unchanged.
pub fn compare(sent: &[Record], received: &[Record]) -> Outcome {
    for partition in 0..PARTITIONS {
        let (want, have) = (of_partition(sent, partition), of_partition(received, partition));
        for (index, (left, right)) in want.iter().zip(&have).enumerate() {
            check(left == right, || {
                format!("partition {partition} record {index}: sent {left:?}, received {right:?}")
            })?;
        }
        check(want.len() == have.len(), || {
            format!("partition {partition}: sent {}, received {}", want.len(), have.len())
        })?;
    }
    Ok(())
}

/// An error with the message unless the condition holds.
pub fn check(condition: bool, message: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(message().into()) }
}

/// Returns when the runner kills no broker any more and all are back: before what is asked of a whole cluster.
pub fn whole() -> Outcome {
    let Some(path) = std::env::var_os("COMPAT_WHOLE") else { return Ok(()) };
    until("every broker is back", || {
        std::thread::sleep(Duration::from_millis(20));
        Ok(std::path::Path::new(&path).exists())
    })
}

/// Asks again until `attempt` answers true; it must block for at most a short poll.
pub fn until(what: &str, mut attempt: impl FnMut() -> Result<bool, Box<dyn Error>>) -> Outcome {
    let limit = Instant::now() + STEP;
    while !attempt()? {
        check(Instant::now() < limit, || format!("not reached within {STEP:?}: {what}"))?;
    }
    Ok(())
}

/// The list of steps of one client and their outcomes.
pub struct Suite {
    /// Where the broker is, from `BOOTSTRAP`.
    pub bootstrap: String,
    /// Brokers of the cluster under test, from `COMPAT_NODES`. With several, topics have as many replicas, and producers
    /// that can be are idempotent, because the runner kills leaders meanwhile.
    pub nodes: i16,
    client: String,
    version: String,
    prefix: String,
    steps: BTreeMap<String, String>,
}

impl Suite {
    /// Starts the watchdog and prints the client's version.
    pub fn new(client: &str, version: &str) -> Suite {
        std::thread::spawn(|| {
            std::thread::sleep(WATCHDOG);
            eprintln!("the suite took longer than {WATCHDOG:?}");
            std::process::exit(2);
        });
        println!("client {client} {version}");
        Suite {
            bootstrap: std::env::var("BOOTSTRAP").expect("BOOTSTRAP=host:port"),
            nodes: std::env::var("COMPAT_NODES").map_or(1, |nodes| nodes.parse().expect("COMPAT_NODES is a number")),
            client: client.to_owned(),
            version: version.to_owned(),
            prefix: format!("compat-{client}-{}-{:x}", std::process::id(), unix_time().as_nanos()),
            steps: BTreeMap::new(),
        }
    }

    /// A topic or group of this run only.
    pub fn name(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.prefix)
    }

    /// Runs one step; a failure is recorded and printed, and the suite goes on.
    pub fn step(&mut self, name: &str, body: impl FnOnce() -> Outcome) {
        let started = Instant::now();
        match body() {
            Ok(()) => {
                println!("  pass {name} ({:.1} s)", started.elapsed().as_secs_f64());
                self.steps.insert(name.to_owned(), "pass".to_owned());
            }
            Err(problem) => {
                println!("  FAIL {name}: {problem}");
                let reason: String = format!("fail: {problem}").chars().take(REASON_CHARACTERS).collect();
                self.steps.insert(name.to_owned(), reason);
            }
        }
    }

    /// Whether step `name` failed; if so, step `then` needs it and counts as failed too.
    pub fn failed(&mut self, name: &str, then: &str) -> bool {
        if !self.steps.get(name).is_some_and(|outcome| outcome.starts_with("fail")) {
            return false;
        }
        println!("  FAIL {then}: not run, {name} failed");
        self.steps.insert(then.to_owned(), format!("fail: not run, {name} failed"));
        true
    }

    /// Records that the client, not the broker, has no such feature.
    pub fn lacks(&mut self, name: &str, reason: &str) {
        println!("  lacks {name}: {reason}");
        self.steps.insert(name.to_owned(), "lacks".to_owned());
    }

    /// Prints the line that the runner collects and leaves the process.
    pub fn finish(self) -> ! {
        let steps: Vec<String> =
            self.steps.iter().map(|(name, outcome)| format!("{}:{}", quote(name), quote(outcome))).collect();
        let (client, version) = (quote(&self.client), quote(&self.version));
        println!("COMPAT {{\"client\":{client},\"version\":{version},\"steps\":{{{}}}}}", steps.join(","));
        let failed = self.steps.values().any(|outcome| outcome.starts_with("fail"));
        std::process::exit(i32::from(failed))
    }
}

/// A JSON string.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            letter if letter < ' ' => _ = write!(quoted, "\\u{:04x}", letter as u32),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}
