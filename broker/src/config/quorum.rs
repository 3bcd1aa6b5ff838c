//! Roles and the metadata quorum: a node that is its own only voter, or one of several.
//!
//! Kafka's own single-node files say the first in three ways (`controller.quorum.voters=1@localhost:9093`,
//! `controller.quorum.bootstrap.servers=localhost:9093`, or nothing); all are understood. Of several, those that are to
//! form a cluster name its voters by `controller.quorum.voters`; one that is to find a cluster may name servers instead,
//! and hears from them who votes.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use stonelog_protocol::BrokerId;

use super::broker_config::{ClusterSettings, QuorumVoter};
use super::listeners::{Endpoint, Listeners};
use super::reader::Reader;
use super::report::{Code, Report};
use super::roles::Roles;
use super::setting::Setting;
use super::surroundings::Surroundings;

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
    let roles = Roles::read(reader);
    // A node that is not both is one of several, also where a single one votes.
    let is_of_several =
        |listed: &[QuorumVoter]| listed.len() > 1 || listed.len() == 1 && roles.broker != roles.controller;
    if let Some((setting, listed)) = &listed
        && is_of_several(listed)
    {
        return several(reader, node_id, listeners, (setting, listed), report);
    }
    if listed.is_none()
        && let Some(setting) = reader.set("controller.quorum.bootstrap.servers")
    {
        let servers = servers(setting, report);
        let is_alone = roles.broker && roles.controller && is_here(&servers, &listeners.controllers, surroundings);
        return if is_alone { None } else { by_servers(reader, roles, listeners, (setting, servers), report) };
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
    if let (Some(servers), Some(_)) = (reader.set("controller.quorum.bootstrap.servers"), &listed) {
        refuse_both(servers, report);
    }
    None
}

fn refuse_both(servers: &Setting, report: &mut Report) {
    let message = "controller.quorum.bootstrap.servers and controller.quorum.voters are both set";
    report.in_value(servers, Code::Conflict, message, Some("keep controller.quorum.voters"));
}

fn check_roles(setting: &Setting, report: &mut Report) {
    let roles = roles(setting);
    for role in ["broker", "controller"] {
        if !roles.contains(&role) {
            let message = format!("process.roles={} leaves out `{role}`, and this node is alone", setting.value.trim());
            let help = "a lone node is both; in a cluster of several each node names the voters with \
                        controller.quorum.voters, or where to ask with controller.quorum.bootstrap.servers";
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
        refuse_both(servers, report);
    }
    let own = voters.iter().find(|voter| voter.node.0 == node_id);
    check_part(reader, node_id, own, &listeners.controllers, setting, report);
    let hosts: Vec<&str> = voters.iter().map(|voter| voter.host.as_str()).collect();
    let settings = of_several(reader, &hosts, listeners, setting, report);
    Some(ClusterSettings { voters: voters.to_vec(), may_vote: own.is_some(), ..settings })
}

/// A node that asks where the cluster is. It never forms one: those that do name its voters.
fn by_servers(
    reader: &Reader<'_>,
    roles: Roles,
    listeners: &Listeners,
    (setting, servers): (&Setting, Vec<(String, u16)>),
    report: &mut Report,
) -> Option<ClusterSettings> {
    if !roles.broker && !roles.controller {
        check_roles(reader.set("process.roles")?, report);
    }
    if roles.controller && listeners.controllers.is_empty() {
        let message = "this node may vote, and has no listener for controllers";
        let help = "add CONTROLLER://:9093 to `listeners`, and controller.listener.names=CONTROLLER; or use \
                    process.roles=broker";
        report.in_value(setting, Code::Conflict, message, Some(help));
    }
    let hosts: Vec<&str> = servers.iter().map(|(host, _)| host.as_str()).collect();
    let settings = of_several(reader, &hosts, listeners, setting, report);
    Some(ClusterSettings { may_vote: roles.controller, servers, ..settings })
}

/// What is the same for every node of several; `hosts` are those of the quorum.
fn of_several(
    reader: &Reader<'_>,
    hosts: &[&str],
    listeners: &Listeners,
    setting: &Setting,
    report: &mut Report,
) -> ClusterSettings {
    let secret_file = reader.set("stonelog.cluster.secret.file").map(|file| PathBuf::from(file.value.trim()));
    if secret_file.is_none() {
        check_loopback(hosts, listeners, setting, report);
    } else {
        check_reachable(hosts, listeners, reader.set("advertised.listeners").unwrap_or(setting), report);
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
    ClusterSettings {
        voters: Vec::new(),
        servers: Vec::new(),
        may_vote: false,
        secret_file,
        session_timeout,
        heartbeat_interval,
        balance_every: reader.boolean("auto.leader.rebalance.enable").then_some(balance_every),
        request_timeout: reader.millis("controller.quorum.request.timeout.ms"),
    }
}

/// A voter is a controller, and is reached at a listener for controllers.
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
fn check_loopback(hosts: &[&str], listeners: &Listeners, setting: &Setting, report: &mut Report) {
    let advertised = listeners.clients.iter().filter(|listener| listener.name == listeners.inter_broker_name);
    let mut hosts = hosts.iter().copied().chain(advertised.map(|listener| listener.advertised_host.as_str()));
    if let Some(host) = hosts.find(|host| !is_loopback(host)) {
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
fn check_reachable(hosts: &[&str], listeners: &Listeners, setting: &Setting, report: &mut Report) {
    let Some(elsewhere) = hosts.iter().find(|host| !is_loopback(host)) else { return };
    let brokers = listeners.clients.iter().find(|listener| listener.name == listeners.inter_broker_name);
    if let Some(listener) = brokers.filter(|listener| is_loopback(&listener.advertised_host)) {
        let message = format!(
            "the other brokers are told to reach this one at {}, which each of them takes for itself; voters are on other \
             machines ({})",
            listener.advertised_host, elsewhere
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

fn servers(setting: &Setting, report: &mut Report) -> Vec<(String, u16)> {
    let mut servers = Vec::new();
    for server in setting.value.split(',').map(str::trim).filter(|server| !server.is_empty()) {
        match host_and_port(server) {
            Some((host, port)) => servers.push((host.to_owned(), port)),
            None => {
                let message = format!("`{server}` is not an address");
                report.in_value(setting, Code::InvalidValue, message, Some("write it as host:port"));
            }
        }
    }
    if servers.is_empty() && report.is_empty() {
        report.in_value(setting, Code::InvalidValue, "no server is named", Some("write each as host:port"));
    }
    servers
}

/// Whether the only server is this node itself: then it is alone.
fn is_here(servers: &[(String, u16)], controllers: &[Endpoint], surroundings: &Surroundings<'_>) -> bool {
    let [(host, port)] = servers else { return false };
    let is_here = matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1")
        || host.eq_ignore_ascii_case(&surroundings.hostname)
        || controllers.iter().any(|endpoint| !endpoint.host.is_empty() && endpoint.host == *host);
    is_here && (controllers.is_empty() || controllers.iter().any(|endpoint| endpoint.port == *port))
}
