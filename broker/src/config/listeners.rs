//! Listeners: where the broker listens, and what it tells clients to connect to.
//!
//! Kafka's rules (`KafkaConfig.validateValues`): names are unique and have a protocol, ports are unique, an advertised
//! name is a listener's, nothing advertises "all interfaces". A listener on all interfaces without an advertised
//! address is advertised under the host's name, or as `localhost` when that name does not resolve here.

use std::net::Ipv6Addr;

use super::broker_keys::network::PROTOCOLS;
use super::broker_keys::security::LATER;
use super::reader::Reader;
use super::report::{Code, Report};
use super::roles::Roles;
use super::setting::{Origin, Setting};
use super::surroundings::Surroundings;

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityProtocol {
    /// Kafka's protocol as it is.
    Plaintext,
}

impl SecurityProtocol {
    /// The code brokers register with (`SecurityProtocol.id`).
    pub fn code(self) -> i16 {
        match self {
            SecurityProtocol::Plaintext => 0,
        }
    }
}

/// A named address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The listener's name, in capitals.
    pub name: String,
    /// A host name or address without brackets; empty for all interfaces.
    pub host: String,
    /// 0 lets the kernel choose.
    pub port: u16,
}

/// A listener clients use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The name, in capitals.
    pub name: String,
    /// What it speaks.
    pub protocol: SecurityProtocol,
    /// The interface's address or name; `None` for all interfaces with IPv4, and `::` for all.
    pub host: Option<String>,
    /// 0 lets the kernel choose.
    pub port: u16,
    /// What clients are told.
    pub advertised_host: String,
    /// What clients are told; 0 stands for the port that was bound.
    pub advertised_port: u16,
}

/// All listeners, checked.
pub(super) struct Listeners {
    pub(super) clients: Vec<Listener>,
    pub(super) controllers: Vec<Endpoint>,
    pub(super) inter_broker_name: String,
    pub(super) warnings: Vec<String>,
}

pub(super) fn listeners(
    reader: &Reader<'_>,
    roles: Roles,
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) -> Listeners {
    let controller_names: Vec<String> =
        reader.text("controller.listener.names").split(',').map(|name| name.trim().to_uppercase()).collect();
    let setting = reader.set("listeners").cloned().unwrap_or_else(default_setting);
    let bound = endpoints(&setting, report);
    check_unique(&setting, &bound, report);
    let advertised = reader.set("advertised.listeners").map(|setting| (setting, endpoints(setting, report)));
    if let Some((setting, advertised)) = &advertised {
        check_advertised(setting, advertised, &bound, report);
    }
    let protocols = protocol_map(reader, report);
    let (controllers, clients): (Vec<Endpoint>, Vec<Endpoint>) =
        bound.into_iter().partition(|endpoint| controller_names.contains(&endpoint.name));
    let mut warnings = Vec::new();
    for endpoint in &clients {
        check_protocol(&setting, endpoint, &protocols, report);
    }
    if roles.is_controller_alone() {
        check_controllers_alone(&setting, &controllers, &clients, report);
        return Listeners { clients: Vec::new(), controllers, inter_broker_name: String::new(), warnings };
    }
    if clients.is_empty() && report.is_empty() {
        report.in_value(&setting, Code::Conflict, "no listener is left for clients", Some("add PLAINTEXT://host:9092"));
    }
    let clients: Vec<Listener> = clients
        .into_iter()
        .map(|endpoint| {
            let (advertised_host, advertised_port) =
                advertise(&endpoint, advertised.as_ref(), surroundings, &mut warnings, report);
            Listener {
                protocol: SecurityProtocol::Plaintext,
                host: Some(endpoint.host).filter(|host| !host.is_empty() && host != "0.0.0.0"),
                name: endpoint.name,
                port: endpoint.port,
                advertised_host,
                advertised_port,
            }
        })
        .collect();
    let inter_broker_name = inter_broker_name(reader, &clients, &controller_names, report);
    Listeners { clients, controllers, inter_broker_name, warnings }
}

/// Clients find no broker at a controller: as in Kafka, it has no listener for them.
fn check_controllers_alone(setting: &Setting, controllers: &[Endpoint], clients: &[Endpoint], report: &mut Report) {
    const HELP: &str = "use listeners=CONTROLLER://:9093 and controller.listener.names=CONTROLLER";
    if let Some(endpoint) = clients.first().filter(|_| setting.origin != Origin::Default) {
        let message =
            format!("process.roles=controller, and listener {} is none of controller.listener.names", endpoint.name);
        report.in_value(setting, Code::Conflict, message, Some(HELP));
    } else if controllers.is_empty() {
        report.add(
            Code::Conflict,
            "process.roles=controller, and no listener is left for controllers",
            Some(HELP.into()),
        );
    }
}

fn default_setting() -> Setting {
    let value = "PLAINTEXT://127.0.0.1:9092".to_owned();
    Setting { key: "listeners".to_owned(), value, origin: Origin::Default }
}

fn endpoints(setting: &Setting, report: &mut Report) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for text in setting.value.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        match endpoint(text) {
            Some(endpoint) => endpoints.push(endpoint),
            None => report.in_value(
                setting,
                Code::InvalidValue,
                format!("`{text}` in {} is not a listener", setting.key),
                Some("write it as NAME://host:port, for example PLAINTEXT://127.0.0.1:9092"),
            ),
        }
    }
    endpoints
}

fn endpoint(text: &str) -> Option<Endpoint> {
    let (name, address) = text.split_once("://")?;
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let legal_name = !name.is_empty()
        && name.chars().all(|character| character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.'));
    let legal_host = host
        .chars()
        .all(|character| character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.' | ':' | '%'));
    if !legal_name || !legal_host {
        return None;
    }
    Some(Endpoint { name: name.to_uppercase(), host: host.to_owned(), port: port.parse().ok()? })
}

/// Whether this address means all interfaces.
fn is_wildcard(host: &str) -> bool {
    host.is_empty() || host == "0.0.0.0" || host.parse::<Ipv6Addr>().is_ok_and(|address| address.is_unspecified())
}

fn check_unique(setting: &Setting, endpoints: &[Endpoint], report: &mut Report) {
    for (index, endpoint) in endpoints.iter().enumerate() {
        let earlier = &endpoints[..index];
        if earlier.iter().any(|other| other.name == endpoint.name) {
            let message = format!("the listener name {} is used twice", endpoint.name);
            report.in_value(setting, Code::Conflict, message, Some("give each listener its own name"));
        }
        let clash = |other: &Endpoint| {
            let overlapping = other.host == endpoint.host || is_wildcard(&other.host) || is_wildcard(&endpoint.host);
            endpoint.port != 0 && other.port == endpoint.port && overlapping
        };
        if let Some(other) = earlier.iter().find(|other| clash(other)) {
            let message = format!("{} and {} listen on the same port {}", other.name, endpoint.name, endpoint.port);
            report.in_value(setting, Code::Conflict, message, Some("give each listener its own port"));
        }
    }
}

fn check_advertised(setting: &Setting, advertised: &[Endpoint], bound: &[Endpoint], report: &mut Report) {
    for endpoint in advertised {
        if is_wildcard(&endpoint.host) {
            let shown = if endpoint.host.is_empty() { "an empty host" } else { endpoint.host.as_str() };
            report.in_value(
                setting,
                Code::Refused,
                format!("advertised.listeners cannot use {shown}: clients could not connect to it"),
                Some(
                    "name an address the clients can reach, for example this host's name; keep 0.0.0.0 in `listeners`",
                ),
            );
        }
        if !bound.iter().any(|other| other.name == endpoint.name) {
            let message = format!("advertised.listeners names {}, which is not in `listeners`", endpoint.name);
            report.in_value(
                setting,
                Code::Conflict,
                message,
                Some("advertise only listeners that exist, by their name"),
            );
        }
    }
}

fn protocol_map(reader: &Reader<'_>, report: &mut Report) -> Vec<(String, String)> {
    let mut map = Vec::new();
    for entry in
        reader.text("listener.security.protocol.map").split(',').map(str::trim).filter(|entry| !entry.is_empty())
    {
        match entry.split_once(':') {
            Some((name, protocol)) if PROTOCOLS.contains(&protocol.trim().to_uppercase().as_str()) => {
                map.push((name.trim().to_uppercase(), protocol.trim().to_uppercase()));
            }
            _ => {
                if let Some(setting) = reader.set("listener.security.protocol.map") {
                    let message = format!("`{entry}` is not a listener name and one of {}", PROTOCOLS.join(", "));
                    report.in_value(setting, Code::InvalidValue, message, Some("write it as NAME:PROTOCOL"));
                }
            }
        }
    }
    map
}

fn check_protocol(setting: &Setting, endpoint: &Endpoint, protocols: &[(String, String)], report: &mut Report) {
    let name = &endpoint.name;
    match protocols.iter().find(|(other, _)| other == name).map(|(_, protocol)| protocol.as_str()) {
        Some("PLAINTEXT") => {}
        Some(protocol) => {
            let message = format!("listener {name} asks for {protocol}: {LATER}");
            report.in_value(
                setting,
                Code::Refused,
                message,
                Some("use PLAINTEXT for this listener, inside a trusted network"),
            );
        }
        None => report.in_value(
            setting,
            Code::Conflict,
            format!("listener.security.protocol.map does not say which protocol {name} speaks"),
            Some(&format!("add {name}:PLAINTEXT to it")),
        ),
    }
}

fn advertise(
    endpoint: &Endpoint,
    advertised: Option<&(&Setting, Vec<Endpoint>)>,
    surroundings: &Surroundings<'_>,
    warnings: &mut Vec<String>,
    report: &mut Report,
) -> (String, u16) {
    if let Some((setting, advertised)) = advertised {
        return match advertised.iter().find(|other| other.name == endpoint.name) {
            Some(other) => {
                if (surroundings.resolves)(&other.host) == Some(false) {
                    warnings.push(format!(
                        "{}: {} does not resolve on this host; that is fine if it does where the clients are",
                        setting.cited(),
                        other.host
                    ));
                }
                (other.host.clone(), other.port)
            }
            None => {
                let message = format!("advertised.listeners leaves out {}", endpoint.name);
                let help = format!("add {}://host:{}", endpoint.name, endpoint.port);
                report.in_value(setting, Code::Conflict, message, Some(&help));
                (endpoint.host.clone(), endpoint.port)
            }
        };
    }
    if !is_wildcard(&endpoint.host) {
        return (endpoint.host.clone(), endpoint.port);
    }
    let host = &surroundings.hostname;
    if !host.is_empty() && (surroundings.resolves)(host) != Some(false) {
        return (host.clone(), endpoint.port);
    }
    warnings.push(format!(
        "listener {} is on all interfaces and this host's name `{host}` does not resolve: clients are told \
         `localhost`; set advertised.listeners to what they can reach",
        endpoint.name
    ));
    ("localhost".to_owned(), endpoint.port)
}

fn inter_broker_name(
    reader: &Reader<'_>,
    clients: &[Listener],
    controller_names: &[String],
    report: &mut Report,
) -> String {
    let fallback = clients.first().map(|listener| listener.name.clone()).unwrap_or_default();
    let Some(setting) = reader.set("inter.broker.listener.name") else { return fallback };
    let name = setting.value.trim().to_uppercase();
    if reader.set("security.inter.broker.protocol").is_some() {
        let message = "only one of inter.broker.listener.name and security.inter.broker.protocol may be set";
        report.in_value(setting, Code::Conflict, message, Some("keep inter.broker.listener.name"));
    }
    if controller_names.contains(&name) {
        let message = format!("inter.broker.listener.name={name} is a controller listener");
        report.in_value(setting, Code::Conflict, message, Some("name a listener that brokers serve"));
    } else if !clients.iter().any(|listener| listener.name == name) {
        let message = format!("inter.broker.listener.name={name} is not in `listeners`");
        report.in_value(setting, Code::Conflict, message, Some("name one of the listeners"));
    }
    name
}
