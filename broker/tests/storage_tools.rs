//! `stonelog storage` against the directory of a real broker process: while it runs, after kill -9 under load, and with
//! bits flipped in it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use serde_json::Value;
use support::{BINARY, Broker, LIMIT};

/// A scrub without rest.
const SETTINGS: [&str; 1] = ["stonelog.scrub.interval.ms=500"];

fn cli(broker: &Broker, arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).args(["--brokers", &broker.address]).output().unwrap()
}

fn storage(arguments: &[&str], path: &Path) -> (i32, String, String) {
    let output = Command::new(BINARY).arg("storage").args(arguments).arg(path).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn json(arguments: &[&str], path: &Path) -> (i32, Vec<Value>) {
    let arguments = [arguments, &["--json"]].concat();
    let (code, out, _) = storage(&arguments, path);
    (code, out.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// Asks again until the answer satisfies.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(now() - begun < LIMIT, "{what} has not come about");
        std::thread::yield_now();
    }
}

#[allow(clippy::disallowed_methods, reason = "a limit for what never comes")]
fn now() -> Instant {
    Instant::now()
}

fn checkpointed_segments(data_dir: &Path) -> usize {
    let (code, lines) = json(&["dump"], &data_dir.join("checkpoint"));
    if code == 0 { lines.iter().filter(|line| line["what"] == "segment").count() } else { 0 }
}

fn logs(data_dir: &Path) -> Vec<PathBuf> {
    let directories = fs::read_dir(data_dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let mut logs: Vec<PathBuf> =
        directories.flat_map(|path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path())).collect();
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.sort();
    logs
}

fn flip(path: &Path, byte: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[byte] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn value(number: u64) -> String {
    format!("value {number:08} {}", "x".repeat(1_000))
}

/// Writes records for as long as the broker takes them.
fn produce(address: &str) -> Child {
    let mut producer = Command::new(BINARY)
        .args(["produce", "tools", "--brokers", address])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = producer.stdin.take().unwrap();
    std::thread::spawn(move || {
        for number in 0.. {
            if writeln!(input, "{}", value(number)).is_err() {
                return;
            }
        }
    });
    producer
}

#[test]
fn a_directory_is_whole_under_load_and_after_kill_9_and_damage_in_it_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let broker = Broker::start(&data_dir, &SETTINGS);
    let created = cli(&broker, &["topic", "create", "tools", "-p", "1", "--config", "segment.bytes=1048576"]);
    assert!(created.status.success(), "{created:?}");
    let mut producer = produce(&broker.address);
    wait_for("a checkpoint of three segments", || (checkpointed_segments(&data_dir) >= 3).then_some(()));

    // While it runs.
    let (code, _, told) = storage(&["check"], &data_dir);
    assert_eq!(code, 8);
    assert!(told.contains("running broker") && told.contains("--online"), "{told}");
    let (code, checked) = json(&["check", "--online"], &data_dir);
    let found = &checked[0]["directories"][0];
    assert_eq!((code, &found["whole"], &found["online"]), (0, &Value::Bool(true), &Value::Bool(true)), "{found}");
    let status = wait_for("a round of the scrub over some segments", || {
        let (_, status) = json(&["scrub-status"], &data_dir);
        let status = status.first()?["directories"][0].clone();
        status["last_round"]["segments"].as_u64().filter(|segments| *segments > 0).map(|_| status)
    });
    assert_eq!((&status["broker_running"], &status["damage"]), (&Value::Bool(true), &Value::Array(Vec::new())));

    drop(broker);
    producer.kill().unwrap();
    producer.wait().unwrap();
    let (code, checked) = json(&["check", "--records"], &data_dir);
    let found = &checked[0]["directories"][0];
    assert_eq!((code, &found["whole"], &found["online"]), (0, &Value::Bool(true), &Value::Bool(false)), "{found}");
    let replica = found["replicas"].as_array().unwrap().iter().max_by_key(|replica| replica["bytes"].as_u64()).unwrap();
    assert!(replica["segments"].as_u64().unwrap() >= 3, "{replica}");

    // What was written is what is shown.
    let (code, lines) = json(&["dump", "--records"], &logs(&data_dir)[0]);
    let records: Vec<&Value> = lines.iter().filter(|line| line["what"] == "record").collect();
    assert_eq!(code, 0);
    assert!(records.len() > 500, "{}", records.len());
    for (number, record) in (0_u64..).zip(&records) {
        assert_eq!(record["offset"].as_u64(), Some(number));
        assert_eq!(record["value"].as_str(), Some(&*value(number)));
    }
    assert!(lines.iter().filter(|line| line["what"] == "batch").all(|batch| batch["intact"] == true));
    dump_shows_every_kind(&data_dir);

    // A flipped bit, found offline and by the next broker's scrub.
    let sealed = logs(&data_dir)[1].clone();
    flip(&sealed, 300_000);
    let (code, checked) = json(&["check"], &data_dir);
    assert_eq!(code, 1);
    let damage = damage_in(&checked);
    assert_eq!((&damage["kind"], damage["path"].as_str()), (&"segment".into(), sealed.to_str()));
    let first = damage["first_offset"].as_i64().unwrap();
    let end = damage["end_offset"].as_i64().unwrap();
    assert!(first < end);
    let broker = Broker::start(&data_dir, &SETTINGS);
    let damage = wait_for("the scrub's finding", || {
        let (code, status) = json(&["scrub-status"], &data_dir);
        let damage = status.first()?["directories"][0]["damage"].as_array()?.first()?.clone();
        assert_eq!(code, 1);
        Some(damage)
    });
    assert_eq!(damage["path"].as_str(), sealed.to_str());
    assert_eq!((damage["first_offset"].as_i64(), damage["end_offset"].as_i64()), (Some(first), Some(end)));
    // Nobody has read it, and it is quarantined all the same.
    let hole = wait_for("a checkpoint that names the hole", || {
        let (_, lines) = json(&["dump"], &data_dir.join("checkpoint"));
        lines.into_iter().find(|line| line["what"] == "hole")
    });
    assert!(hole["first_offset"].as_i64() >= Some(first) && hole["end_offset"].as_i64() <= Some(end), "{hole}");
    drop(broker);
}

/// The one finding of damage. The sudden end may have left a torn tail and the like beside it.
fn damage_in(checked: &[Value]) -> &Value {
    let findings = checked[0]["directories"][0]["findings"].as_array().unwrap();
    let mut damage = findings.iter().filter(|finding| finding["severity"] == "damage");
    match (damage.next(), damage.next()) {
        (Some(damage), None) => damage,
        _ => panic!("{findings:?}"),
    }
}

/// The files of a journal that were put into use, oldest first.
fn journals(directory: &Path) -> Vec<PathBuf> {
    let generation = |path: &PathBuf| u64::from_le_bytes(fs::read(path).unwrap()[8..16].try_into().unwrap());
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "journal")).collect();
    files.retain(|path| generation(path) > 0);
    files.sort_by_key(generation);
    files
}

/// One file of each kind, for people and for programs.
fn dump_shows_every_kind(data_dir: &Path) {
    let log = logs(data_dir)[0].clone();
    let journal = journals(&data_dir.join("journal")).pop().unwrap();
    let metadata = journals(&data_dir.join("metadata")).pop().unwrap();
    let kinds: &[(PathBuf, &[&str])] = &[
        (log.with_extension("sum"), &["sum"]),
        (journal, &["journal_file", "commit", "entry", "end"]),
        (metadata, &["journal_file", "commit", "entry", "end"]),
        (data_dir.join("checkpoint.copy"), &["checkpoint", "replica", "segment", "epoch"]),
        (data_dir.join("meta.properties"), &["identity"]),
        (data_dir.join(".stonelog_tenure"), &["tenure"]),
        (data_dir.join(".stonelog_scrub"), &["scrub", "last_round"]),
    ];
    for (path, whats) in kinds {
        let (code, lines) = json(&["dump"], path);
        assert_eq!(code, 0, "{}", path.display());
        for what in *whats {
            assert!(lines.iter().any(|line| line["what"] == *what), "{what} in {}", path.display());
        }
        let (code, text, _) = storage(&["dump"], path);
        assert_eq!((code, text.lines().count()), (0, lines.len()), "{}", path.display());
    }
    let entries = json(&["dump"], &kinds[2].0).1;
    assert!(entries.iter().any(|line| line["metadata"].as_str().is_some_and(|record| record.contains("tools"))));
    let (code, _, told) = storage(&["dump"], Path::new(BINARY));
    assert_eq!(code, 1);
    assert!(told.contains("no file of ours"), "{told}");
}

#[test]
fn damage_in_the_metadata_log_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let broker = Broker::start(&data_dir, &SETTINGS);
    assert!(cli(&broker, &["topic", "create", "one"]).status.success());
    drop(broker);
    let (code, checked) = json(&["check"], &data_dir);
    assert_eq!(code, 0, "{checked:?}");
    let journal = journals(&data_dir.join("metadata")).remove(0);
    // In the first commit, behind which there are others.
    flip(&journal, 8_192 + 70);
    let (code, checked) = json(&["check"], &data_dir);
    assert_eq!(code, 1);
    let damage = damage_in(&checked);
    assert_eq!((&damage["kind"], damage["path"].as_str()), (&"metadata-journal".into(), journal.to_str()));
}

#[test]
fn what_cannot_be_checked_is_said() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(storage(&["check"], &directory.path().join("none")).0, 3);
    assert_eq!(storage(&["check"], directory.path()).0, 1);
    assert_eq!(storage(&["scrub-status"], directory.path()).0, 3);
    assert_eq!(storage(&["check", "--nonsense"], directory.path()).0, 2);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing was written");
}
