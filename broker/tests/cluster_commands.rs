//! The commands for a cluster against three broker processes: what they say, what they do, and how they end.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use serde_json::Value;
use stonelog_protocol::messages::DescribeClusterRequest;

use support::cluster::Cluster;

/// What a command prints as JSON; it must end with this code.
fn json(cluster: &Cluster, node: usize, arguments: &[&str], code: i32) -> Value {
    let output = cluster.run(node, &[arguments, &["--json"]].concat(), "");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {errors}"))
}

/// A command that must end with this code; what it said about it.
fn refused(cluster: &Cluster, node: usize, arguments: &[&str], code: i32) -> String {
    let output = cluster.run(node, arguments, "");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    errors
}

/// Leader and replicas of the partitions of topic `t`.
fn placed(cluster: &Cluster) -> Vec<(i64, Vec<i64>)> {
    let output = cluster.succeed(0, &["topic", "describe", "t", "--output", "json"], "");
    let described: Value = serde_json::from_str(&output).unwrap();
    let partitions = described["partitions"].as_array().unwrap();
    let ids = |value: &Value| value.as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
    partitions.iter().map(|one| (one["leader"].as_i64().unwrap(), ids(&one["replicas"]))).collect()
}

fn brokers_up(cluster: &Cluster, node: usize, count: usize) {
    let request = DescribeClusterRequest::default().with_endpoint_type(1);
    cluster.ask_until(node, 1, &request, |response| response.brokers.len() == count);
}

#[test]
fn a_cluster_is_described_and_its_partitions_are_moved_by_commands() {
    let mut cluster = Cluster::started();
    for node in 0..3 {
        brokers_up(&cluster, node, 3);
    }
    cluster.succeed(1, &["topic", "create", "t", "--partitions", "3", "--replicas", "2"], "");
    let records: String = (0..30).map(|number| format!("{number}\n")).collect();
    cluster.succeed(2, &["produce", "t"], &records);

    let info = json(&cluster, 0, &["cluster", "info"], 0);
    assert_eq!((&info["brokers"], &info["fenced"], &info["partitions"]), (&3.into(), &0.into(), &3.into()));
    assert_eq!(info["replicas"], 6);
    let brokers = json(&cluster, 1, &["cluster", "brokers"], 0);
    let leads: i64 =
        brokers["brokers"].as_array().unwrap().iter().map(|broker| broker["leaders"].as_i64().unwrap()).sum();
    assert_eq!(leads, 3);
    let quorum = json(&cluster, 2, &["cluster", "quorum"], 0);
    assert_eq!(quorum["leader"], info["controller"]);
    assert_eq!(quorum["voters"].as_array().unwrap().len(), 3);
    assert_eq!(json(&cluster, 0, &["cluster", "health"], 0)["healthy"], true);

    // Moved, led by another, with more replicas.
    cluster.succeed(0, &["partition", "move", "t:0", "--to", "3,1", "--wait"], "");
    assert!(cluster.succeed(1, &["partition", "status"], "").contains("nothing is being moved"));
    assert_eq!(placed(&cluster)[0].1, [3, 1]);
    cluster.succeed(2, &["leader", "transfer", "t:0", "--to", "1"], "");
    assert_eq!(placed(&cluster)[0], (1, vec![1, 3]));
    let said = refused(&cluster, 0, &["leader", "transfer", "t:0", "--to", "2"], 8);
    assert!(said.contains("it holds no replica; 1,3 do"), "{said}");
    assert!(refused(&cluster, 0, &["leader", "transfer", "t:9", "--to", "2"], 3).contains("no partition 9"));
    assert!(refused(&cluster, 0, &["topic", "rf", "t", "4"], 8).contains("3 are up"));
    refused(&cluster, 0, &["topic", "rf", "nothing", "2"], 3);
    cluster.succeed(1, &["topic", "rf", "t", "3", "--wait"], "");
    assert!(placed(&cluster).iter().all(|(_, replicas)| replicas.len() == 3));

    // One may stop, two may not; none can be drained of what all hold.
    let verdict = json(&cluster, 0, &["node", "safe-to-stop", "3"], 0);
    assert_eq!((&verdict["safe"], verdict["at_min_isr"].as_array().unwrap().len()), (&true.into(), 3));
    let verdict = json(&cluster, 0, &["node", "safe-to-stop", "2", "3"], 8);
    assert_eq!((verdict["below_min_isr"].as_array().unwrap().len(), &verdict["quorum"]), (3, &false.into()));
    refused(&cluster, 0, &["node", "safe-to-stop", "9"], 3);
    assert!(refused(&cluster, 0, &["node", "drain", "3"], 8).contains("nothing was moved"));
    cluster.succeed(1, &["topic", "rf", "t", "2", "--wait"], "");
    cluster.succeed(1, &["node", "drain", "3", "--wait"], "");
    assert!(placed(&cluster).iter().all(|(_, replicas)| !replicas.contains(&3)));
    assert_eq!(cluster.succeed(0, &["consume", "t", "-n", "30"], "").lines().count(), 30);

    // A broker that is gone, and a move towards it.
    cluster.kill(2);
    brokers_up(&cluster, 0, 2);
    let health = json(&cluster, 0, &["cluster", "health"], 10);
    let kinds: Vec<&str> =
        health["findings"].as_array().unwrap().iter().map(|finding| finding["kind"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"broker_fenced"), "{health}");
    let moved = json(&cluster, 0, &["partition", "move", "t:1", "t:7", "--to", "3,2"], 7);
    assert_eq!(moved["partitions"][0]["error"], Value::Null);
    assert!(moved["partitions"][1]["error"].as_str().unwrap().contains("UNKNOWN_TOPIC_OR_PARTITION"));
    let status = json(&cluster, 0, &["partition", "status", "t"], 0);
    assert_eq!(
        (&status["moving"][0]["partition"], &status["moving"][0]["to"]),
        (&1.into(), &serde_json::json!([3, 2]))
    );
    // What is on its way is left alone: its replicas are those of before and those of after.
    for asked in [["leader", "transfer", "t:1", "--to", "2"].as_slice(), &["topic", "rf", "t", "3"]] {
        assert!(refused(&cluster, 0, asked, 8).contains("t:1 is being moved"));
    }
    // Two are left of three, with the quorum's majority: neither may stop.
    assert_eq!(json(&cluster, 0, &["node", "safe-to-stop", "2"], 8)["quorum"], false);
    cluster.succeed(1, &["partition", "cancel", "--all"], "");
    assert!(json(&cluster, 1, &["partition", "status"], 0)["moving"].as_array().unwrap().is_empty());
}
