//! Roles and the metadata quorum: a node that is its own only voter, or one of several.
//!
//! Kafka's own single-node files say the first in three ways (`controller.quorum.voters=1@localhost:9093`,
//! `controller.quorum.bootstrap.servers=localhost:9093`, or nothing); all are understood. Several voters are named by
//! `controller.quorum.voters`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use stonelog_protocol::BrokerId;

use super::broker_config::{ClusterSettings, QuorumVoter};
use super::listeners::{Endpoint, Listeners};
use super::reader::Reader;
use super::report::{Code, Report};
use super::setting::Setting;
use super::surroundings::Surroundings;

const SEVERAL: &str = "a cluster of several nodes names its voters with controller.quorum.voters";
const ALONE: &str = "name the voters with controller.quorum.voters; a lone node leaves this out";
/// A majority of more voters than these is no safer, and slower.
const VOTERS: &[usize] = &[1, 3, 5];

/// The cluster this node is to be part of; `None` for a node alone, and where something is wrong.
pub(super) fn cluster(
    reader: &Reader<'_>,
    node_id: i32,
    listeners: &Listeners,
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) -> Option<ClusterSettings> {
    let listed = reader.set("controller.quorum.voters").map(|setting| (setting, voters(setting, report)));
    if let Some((setting, listed)) = &listed
        && listed.len() > 1
    {
        return several(reader, node_id, listeners, (setting, listed), report);
    }
    if let Some(setting) = reader.set("process.roles") {
        check_roles(setting, report);
    }
    if let Some((setting, listed)) = &listed
        && let Some(QuorumVoter { node, .. }) = listed.first().filter(|voter| voter.node.0 != node_id)
    {
        let message = format!("the only voter is node {node}, and node.id is {node_id}");
        let help = "a cluster of several nodes has 3 or 5 voters; a lone node lists itself, or nobody";
        report.in_value(setting, Code::Conflict, message, Some(help));
    }
    if let Some(setting) = reader.set("controller.quorum.bootstrap.servers") {
        check_servers(setting, &listeners.controllers, surroundings, report);
    }
    None
}

fn check_roles(setting: &Setting, report: &mut Report) {
    let roles = roles(setting);
    for role in ["broker", "controller"] {
        if !roles.contains(&role) {
            let message = format!("process.roles={} leaves out `{role}`, and this node is alone", setting.value.trim());
            let help =
                "a lone node is both; in a cluster of several each node names the voters with controller.quorum.voters";
            report.in_value(setting, Code::Refused, message, Some(help));
        }
    }
}

fn roles(setting: &Setting) -> Vec<&str> {
    setting.value.split(',').map(str::trim).collect()
}

fn voters(setting: &Setting, report: &mut Report) -> Vec<QuorumVoter> {
    let mut voters = Vec::new();
    for text in setting.value.split(',').map(str::trim).filter(|voter| !voter.is_empty()) {
        let voter = text.split_once('@').and_then(|(id, address)| {
            let (host, port) = host_and_port(address)?;
            let node = BrokerId(id.parse().ok().filter(|id| *id >= 0)?);
            Some(QuorumVoter { node, host: host.to_owned(), port })
        });
        match voter {
            Some(voter) => voters.push(voter),
            None => report.in_value(
                setting,
                Code::InvalidValue,
                format!("`{text}` is not a voter"),
                Some("write it as id@host:port, for example 1@localhost:9093"),
            ),
        }
    }
    voters
}

fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    Some((host.trim_matches(['[', ']']), port.parse().ok()?))
}

/// What a node of several needs to know; what is wrong is reported.
fn several(
    reader: &Reader<'_>,
    node_id: i32,
    listeners: &Listeners,
    (setting, voters): (&Setting, &[QuorumVoter]),
    report: &mut Report,
) -> Option<ClusterSettings> {
    if !VOTERS.contains(&voters.len()) {
        let message = format!("{} voters are listed; a metadata quorum has 1, 3 or 5", voters.len());
        report.in_value(setting, Code::Refused, message, Some("list three nodes; the others are brokers alone"));
    }
    for (place, voter) in voters.iter().enumerate() {
        if voters[..place].iter().any(|other| other.node == voter.node) {
            let message = format!("node {} is listed twice", voter.node);
            report.in_value(setting, Code::Conflict, message, Some("list each voter once"));
        }
    }
    if let Some(servers) = reader.set("controller.quorum.bootstrap.servers") {
        let message = "controller.quorum.bootstrap.servers and controller.quorum.voters are both set";
        report.in_value(servers, Code::Conflict, message, Some("keep controller.quorum.voters"));
    }
    let own = voters.iter().find(|voter| voter.node.0 == node_id);
    check_part(reader, node_id, own, &listeners.controllers, setting, report);
    let secret_file = reader.set("stonelog.cluster.secret.file").map(|file| PathBuf::from(file.value.trim()));
    if secret_file.is_none() {
        check_loopback(voters, listeners, setting, report);
    } else {
        check_reachable(voters, listeners, reader.set("advertised.listeners").unwrap_or(setting), report);
    }
    let heartbeat_interval = reader.millis("broker.heartbeat.interval.ms");
    let session_timeout = reader.millis("broker.session.timeout.ms");
    if heartbeat_interval.is_zero() || heartbeat_interval * 2 > session_timeout {
        let message = format!(
            "broker.heartbeat.interval.ms ({}) must be above 0 and at most half of broker.session.timeout.ms ({})",
            heartbeat_interval.as_millis(),
            session_timeout.as_millis()
        );
        match reader.set("broker.heartbeat.interval.ms").or_else(|| reader.set("broker.session.timeout.ms")) {
            Some(setting) => report.in_value(setting, Code::Conflict, message, None),
            None => report.add(Code::Conflict, message, None),
        }
    }
    let balance_every = Duration::from_secs(reader.size64("leader.imbalance.check.interval.seconds"));
    Some(ClusterSettings {
        voters: voters.to_vec(),
        secret_file,
        session_timeout,
        heartbeat_interval,
        balance_every: reader.boolean("auto.leader.rebalance.enable").then_some(balance_every),
        request_timeout: reader.millis("controller.quorum.request.timeout.ms"),
    })
}

/// Every node is a broker; a voter is a controller too, and is reached at a listener for controllers.
fn check_part(
    reader: &Reader<'_>,
    node_id: i32,
    own: Option<&QuorumVoter>,
    controllers: &[Endpoint],
    voters: &Setting,
    report: &mut Report,
) {
    if let Some(setting) = reader.set("process.roles") {
        let roles = roles(setting);
        if !roles.contains(&"broker") {
            let message = "process.roles leaves out `broker`: nodes that are controllers alone are not built yet";
            report.in_value(setting, Code::Refused, message, Some("use process.roles=broker,controller"));
        }
        if roles.contains(&"controller") != own.is_some() {
            let (is, help) = match own {
                Some(_) => ("is a voter, and process.roles leaves out `controller`", "add controller"),
                None => ("is no voter, and process.roles names `controller`", "use process.roles=broker"),
            };
            report.in_value(setting, Code::Conflict, format!("node {node_id} {is}"), Some(help));
        }
    }
    let Some(own) = own else { return };
    if !controllers.iter().any(|endpoint| endpoint.port == own.port) {
        let message = format!("node {node_id} votes at port {}, and no controller listener has that port", own.port);
        let help = format!("add CONTROLLER://:{} to `listeners`, and controller.listener.names=CONTROLLER", own.port);
        report.in_value(voters, Code::Conflict, message, Some(&help));
    }
}

/// Without a secret nothing tells a node of the cluster from anybody else, so nobody else may reach it.
fn check_loopback(voters: &[QuorumVoter], listeners: &Listeners, setting: &Setting, report: &mut Report) {
    let advertised = listeners.clients.iter().filter(|listener| listener.name == listeners.inter_broker_name);
    let hosts = voters.iter().map(|voter| &voter.host).chain(advertised.map(|listener| &listener.advertised_host));
    let elsewhere: Vec<&str> = hosts.map(String::as_str).filter(|host| !is_loopback(host)).collect();
    if let Some(host) = elsewhere.first() {
        let message = format!(
            "nodes of a cluster prove themselves with a secret, and there is none; without one all addresses must be on \
             the loopback interface, and {host} is not"
        );
        let help = "write at least 16 random bytes into a file that every node gets, and name it with \
                    stonelog.cluster.secret.file";
        report.in_value(setting, Code::Conflict, message, Some(help));
    }
}

/// What a node on another machine would take for itself leads no other node here.
fn check_reachable(voters: &[QuorumVoter], listeners: &Listeners, setting: &Setting, report: &mut Report) {
    let Some(elsewhere) = voters.iter().find(|voter| !is_loopback(&voter.host)) else { return };
    let brokers = listeners.clients.iter().find(|listener| listener.name == listeners.inter_broker_name);
    if let Some(listener) = brokers.filter(|listener| is_loopback(&listener.advertised_host)) {
        let message = format!(
            "the other brokers are told to reach this one at {}, which each of them takes for itself; voters are on other \
             machines ({})",
            listener.advertised_host, elsewhere.host
        );
        let help = format!(
            "set advertised.listeners={}://HOST:{} with a name or address of this machine that the others can reach",
            listener.name, listener.advertised_port
        );
        report.in_value(setting, Code::Conflict, message, Some(&help));
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn check_servers(setting: &Setting, controllers: &[Endpoint], surroundings: &Surroundings<'_>, report: &mut Report) {
    for server in setting.value.split(',').map(str::trim).filter(|server| !server.is_empty()) {
        let Some((host, port)) = host_and_port(server) else {
            let message = format!("`{server}` is not an address");
            report.in_value(setting, Code::InvalidValue, message, Some("write it as host:port"));
            continue;
        };
        let is_here = matches!(host, "localhost" | "127.0.0.1" | "::1")
            || host.eq_ignore_ascii_case(&surroundings.hostname)
            || controllers.iter().any(|endpoint| !endpoint.host.is_empty() && endpoint.host == host);
        let port_is_ours = controllers.is_empty() || controllers.iter().any(|endpoint| endpoint.port == port);
        if !is_here || !port_is_ours {
            let message = format!("`{server}` is not a controller listener of this node: {SEVERAL}");
            report.in_value(setting, Code::Refused, message, Some(ALONE));
        }
    }
}
