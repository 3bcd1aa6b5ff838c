//! What clippy cannot see: headers, purity by directory, names in their places, lengths, and tables that are derived.
//!
//! A rule that has exceptions names them here, each with its reason.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use stonelog_protocol::api::APIS;
use stonelog_tests::binary::repository;

/// Sources of ours, by path within the repository: everything that git knows or would take.
fn sources() -> Vec<(String, String)> {
    let paths = listed(&["*.rs"]);
    assert!(paths.len() > 200, "only {} sources: the list is wrong", paths.len());
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

/// Paths within the repository that match, of files that are there. Outside a checkout: of all files but build output.
fn listed(patterns: &[&str]) -> Vec<String> {
    let arguments = ["ls-files", "--cached", "--others", "--exclude-standard", "--"];
    let output = Command::new("git").current_dir(repository()).args(arguments).args(patterns).output();
    let paths: Vec<String> = match output {
        Ok(output) if output.status.success() => {
            String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
        }
        _ => walked(&repository()).into_iter().filter(|path| path.ends_with(".rs")).collect(),
    };
    let mut paths: Vec<String> = paths.into_iter().filter(|path| repository().join(path).is_file()).collect();
    paths.sort();
    paths.dedup();
    paths
}

fn walked(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap_or_default().to_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(walked(&path));
        } else if path.is_file() {
            found.push(path.strip_prefix(repository()).unwrap().to_str().unwrap_or_default().to_owned());
        }
    }
    found
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap()
}

/// Lines of code with their numbers: no comments, and nothing from the tests at the end of the file.
fn code(source: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = source.lines().collect();
    let opens_tests =
        |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{');
    let end = lines.windows(2).position(opens_tests).unwrap_or(lines.len());
    lines.into_iter().take(end).enumerate().map(|(index, line)| {
        let code = line.find("//").map_or(line, |at| &line[..at]);
        (index + 1, code)
    })
}

/// A module of tests that has a file of its own.
fn is_test_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    path.contains("/tests/") || ["tests.rs", "testing.rs", "simulation.rs", "random.rs"].contains(&name)
}

/// Whether `path` is the module `module` or lies within it.
fn lies_in(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

fn judge(rule: &str, findings: Vec<String>) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

#[test]
fn every_source_begins_with_what_it_is() {
    let bare = sources().into_iter().filter(|(_, source)| !source.starts_with("//! ")).map(|(path, _)| path);
    judge("a source begins with `//! ` and says what it is", bare.collect());
}

#[test]
fn deciders_and_keepers_stay_pure() {
    const PURE: &[&str] = &[
        "storage/src/log",
        "storage/src/index",
        "storage/src/recovery",
        "storage/src/segment",
        "storage/src/journal",
        "replication/src/partition",
        "replication/src/replica",
        "replication/src/isr_proposal",
        "replication/src/homes",
        "replication/src/presence",
        "replication/src/metadata",
        "replication/src/controller",
        "replication/src/settings",
        "replication/src/quorum/bootstrap",
        "replication/src/quorum/feed_position",
        "replication/src/quorum/forwarding",
        "replication/src/quorum/processes",
        "replication/src/quorum/saying",
        "replication/src/runtime/peers/backoff",
        "protocol/src/peer",
        "broker/src/coordinator/group",
        "broker/src/coordinator/record",
        "broker/src/fetch",
    ];
    const FORBIDDEN: &[&str] = &[
        "tokio",
        "async fn",
        ".await",
        "Instant::now",
        "SystemTime::now",
        "std::fs",
        "std::net",
        "std::thread",
        "thread::spawn",
        "getrandom",
    ];
    // The controller's carrier: the queue in front of its pure core.
    const EXCEPT: &[&str] = &["replication/src/controller/active"];
    let mut findings = Vec::new();
    for module in PURE {
        let mut files = 0;
        for (path, source) in sources() {
            if !lies_in(&path, module) || is_test_file(&path) || EXCEPT.iter().any(|except| lies_in(&path, except)) {
                continue;
            }
            files += 1;
            for (number, line) in code(&source) {
                if let Some(word) = FORBIDDEN.iter().find(|word| line.contains(*word)) {
                    findings.push(format!("{path}:{number}: {word}"));
                }
            }
        }
        assert!(files > 0, "{module} holds no source: the list is out of date");
    }
    judge("time, files, threads and randomness are arguments here, and nothing waits", findings);
}

#[test]
fn the_codec_crate_is_named_only_where_messages_become_domain_types() {
    const PLACES: &[&str] = &[
        "protocol/src/",
        "protocol/tests/",
        "broker/src/handlers",
        "broker/src/client",
        "broker/src/dispatch",
        "broker/src/cli",
        // Tests that speak to a broker as clients do.
        "broker/tests/",
        "tests/",
        "compat-tests/",
    ];
    // Message types are passed on by `stonelog_protocol::messages`; taking them from there is naming them as well.
    const NAMES: &[&str] = &["kafka_protocol", "stonelog_protocol::messages", "codec::RequestKind"];
    judge("request and response types end at the handler", named_outside(NAMES, PLACES));
}

#[test]
fn openraft_is_named_in_the_quorum_only() {
    judge(
        "openraft stays in quorum/",
        named_outside(&["openraft::"], &["replication/src/quorum", "tests/tests/tidy.rs"]),
    );
}

#[test]
fn tokio_stays_out_of_the_lower_crates() {
    let lower = |path: &String| path.starts_with("protocol/src/") || path.starts_with("storage/src/");
    let found = named_outside(&["tokio::"], &["replication/", "broker/", "tests/", "compat-tests/"]);
    judge("protocol and storage know no runtime", found.into_iter().filter(lower).collect());
}

fn named_outside(names: &[&str], places: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    for (path, source) in sources() {
        if places.iter().any(|place| path.starts_with(place)) {
            continue;
        }
        for (number, line) in code(&source) {
            if let Some(name) = names.iter().find(|name| line.contains(*name)) {
                findings.push(format!("{path}:{number}: {name}"));
            }
        }
    }
    findings
}

#[test]
fn nothing_is_left_undone_or_left_out() {
    // In pieces, so that this file does not hold what it looks for.
    let words = [["to", "do!("], ["d", "bg!("], ["unimple", "mented!("], ["#[ig", "nore"]].map(|parts| parts.concat());
    let mut findings = Vec::new();
    for (path, source) in sources() {
        for (index, line) in source.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(word.as_str())) {
                findings.push(format!("{path}:{}: {word}", index + 1));
            }
        }
    }
    judge("no placeholder, no debugging output, no test that does not run", findings);
}

#[test]
fn every_allowed_lint_says_why() {
    let mut findings = Vec::new();
    for (path, source) in sources() {
        for opening in ["#[allow(", "#![allow("] {
            for (at, _) in source.match_indices(opening) {
                let attribute = source[at..].split(")]").next().unwrap_or_default();
                if source[..at].ends_with('"') || attribute.contains("reason =") {
                    continue;
                }
                findings.push(format!("{path}:{}", source[..at].lines().count()));
            }
        }
    }
    judge("#[allow] carries a reason", findings);
}

#[test]
fn files_past_six_hundred_lines_only_shrink() {
    const LINES_MAX: usize = 600;
    // What is longer today, and how long it is. A number here may be lowered, never raised, and no line added.
    const LONGER: &[(&str, usize)] = &[];
    let mut findings = Vec::new();
    for (path, source) in sources() {
        let lines = source.lines().count();
        let allowed = LONGER.iter().find(|(longer, _)| *longer == path).map_or(LINES_MAX, |(_, lines)| *lines);
        if lines > allowed {
            findings.push(format!("{path}: {lines} lines, at most {allowed}"));
        }
    }
    for (path, lines) in LONGER {
        let now = read(path).lines().count();
        if now + 20 < *lines {
            findings.push(format!("{path} has shrunk to {now} lines: write that down in place of {lines}"));
        }
    }
    judge("a long file hides a second noun; split it", findings);
}

#[test]
fn switches_of_guards_are_in_no_default_build() {
    for manifest in ["storage/Cargo.toml", "broker/Cargo.toml", "tests/Cargo.toml"] {
        let text = read(manifest);
        assert!(text.contains("\nmutants = ["), "{manifest} has no such feature: the list is out of date");
        assert!(!text.contains("\ndefault = "), "{manifest}: features are asked for by name");
    }
    let mut findings = Vec::new();
    for (path, source) in sources() {
        let lines: Vec<&str> = source.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let uses = line.contains("mutants::") || line.contains("mod mutants;");
            let guarded = index > 0 && lines[index - 1].trim() == r#"#[cfg(feature = "mutants")]"#;
            if uses && path.starts_with("storage/src/") && !guarded {
                findings.push(format!("{path}:{}", index + 1));
            }
        }
    }
    judge("a switch is compiled with the feature only", findings);
}

/// `cargo test -p stonelog-tests --test tidy` judges; with `UPDATE_DOCS=1` it writes.
#[test]
fn the_table_of_apis_in_the_documents_is_that_of_the_code() {
    let mut table = String::from("| key | name | accepted | advertised |\n|---|---|---|---|\n");
    for api in APIS {
        let range = |range: &std::ops::RangeInclusive<i16>| match (range.start(), range.end()) {
            (start, end) if start == end => start.to_string(),
            (start, end) => format!("{start}–{end}"),
        };
        let (accepted, advertised) = (range(&api.accepted), range(&api.advertised));
        writeln!(table, "| {} | {} | {accepted} | {advertised} |", api.key(), api.name).unwrap();
    }
    keep_fresh("docs/compatibility.md", "api", &table);
}

/// Holds what stands between the markers of `name` in `path` against `text`.
fn keep_fresh(path: &str, name: &str, text: &str) {
    let (begin, end) = (format!("<!-- {name}:begin -->\n"), format!("<!-- {name}:end -->"));
    let document = read(path);
    let (before, rest) = document.split_once(&begin).unwrap_or_else(|| panic!("{path} has no {begin}"));
    let (found, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{path} has no {end}"));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(repository().join(path), format!("{before}{begin}{text}{end}{after}")).unwrap();
        return;
    }
    assert!(found == text, "{path} is out of date; UPDATE_DOCS=1 cargo test -p stonelog-tests --test tidy writes it");
}
