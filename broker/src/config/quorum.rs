//! Roles and the metadata quorum: until clusters of several nodes are built, a node must be its own only voter.
//!
//! Kafka's own single-node files say so in three ways (`controller.quorum.voters=1@localhost:9093`,
//! `controller.quorum.bootstrap.servers=localhost:9093`, or nothing); all are understood.

use super::listeners::Endpoint;
use super::reader::Reader;
use super::report::{Code, Report};
use super::setting::Setting;
use super::surroundings::Surroundings;

const SEVERAL: &str = "clusters of several nodes are not built yet";
const ALONE: &str = "leave it out, or name this node alone";

pub(super) fn check(
    reader: &Reader<'_>,
    node_id: i32,
    controllers: &[Endpoint],
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) {
    if let Some(setting) = reader.set("process.roles") {
        check_roles(setting, report);
    }
    if let Some(setting) = reader.set("controller.quorum.voters") {
        check_voters(setting, node_id, report);
    }
    if let Some(setting) = reader.set("controller.quorum.bootstrap.servers") {
        check_servers(setting, controllers, surroundings, report);
    }
}

fn check_roles(setting: &Setting, report: &mut Report) {
    let roles: Vec<&str> = setting.value.split(',').map(str::trim).collect();
    for role in ["broker", "controller"] {
        if !roles.contains(&role) {
            let message = format!("process.roles={} leaves out `{role}`: {SEVERAL}", setting.value.trim());
            report.in_value(setting, Code::Refused, message, Some("use process.roles=broker,controller"));
        }
    }
}

fn check_voters(setting: &Setting, node_id: i32, report: &mut Report) {
    let voters: Vec<&str> = setting.value.split(',').map(str::trim).filter(|voter| !voter.is_empty()).collect();
    for voter in &voters {
        let id = voter.split_once('@').and_then(|(id, address)| {
            let (_, port) = address.rsplit_once(':')?;
            port.parse::<u16>().ok()?;
            id.parse::<i32>().ok()
        });
        match id {
            None => report.in_value(
                setting,
                Code::InvalidValue,
                format!("`{voter}` is not a voter"),
                Some("write it as id@host:port, for example 1@localhost:9093"),
            ),
            Some(id) if id != node_id && voters.len() == 1 => {
                let message = format!("the only voter is node {id}, and node.id is {node_id}");
                report.in_value(setting, Code::Conflict, message, Some("give both the same number"));
            }
            Some(_) => {}
        }
    }
    if voters.len() > 1 {
        let message = format!("{} voters are listed: {SEVERAL}", voters.len());
        report.in_value(setting, Code::Refused, message, Some(ALONE));
    }
}

fn check_servers(setting: &Setting, controllers: &[Endpoint], surroundings: &Surroundings<'_>, report: &mut Report) {
    for server in setting.value.split(',').map(str::trim).filter(|server| !server.is_empty()) {
        let Some((host, port)) = server
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse::<u16>().ok()?)))
        else {
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
