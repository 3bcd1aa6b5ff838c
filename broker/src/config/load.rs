//! From everything somebody set to one [`BrokerConfig`], or to one [`Report`] of everything that is wrong.
//!
//! Order: gather, then judge each key alone, then build and judge the whole. A setting that is wrong counts as not set
//! further on, so that all problems show at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stonelog_protocol::{BrokerId, ClusterId};
use stonelog_replication::settings::{TopicConfig, value};

use super::broker_config::{
    BrokerConfig, FetchSettings, GroupSettings, NetworkSettings, ProducerSettings, StorageSettings, TopicSettings,
};
use super::broker_keys::RACK_AWARE;
use super::gather::gather;
use super::judged::Judged;
use super::listeners::listeners;
use super::quorum;
use super::reader::Reader;
use super::relaxations::relaxations;
use super::report::{Code, Report};
use super::request::Request;
use super::roles::Roles;
use super::setting::Setting;
use super::surroundings::Surroundings;

/// Bytes of requests in flight when `queued.max.request.bytes` is -1.
const QUEUED_REQUEST_BYTES_DEFAULT: u64 = 256 << 20;

/// The longest cluster id; it is written into every directory and sent in every answer about the cluster.
const CLUSTER_ID_BYTES_MAX: usize = 64;

/// Loads the configuration. The only file it touches is the one named.
pub fn load(request: &Request, surroundings: &Surroundings<'_>) -> Result<BrokerConfig, Report> {
    let mut report = Report::default();
    let gathered = gather(request, surroundings, &mut report);
    let mut judged = Judged::with_notes(gathered.notes);
    for setting in gathered.settings.into_values() {
        judged.judge(setting, &mut report);
    }
    let cluster_id = gathered.cluster_id.and_then(|text| wished_cluster_id(&text, &mut report));
    let config = build(judged, cluster_id, surroundings, &mut report);
    if report.is_empty() { Ok(config) } else { Err(report) }
}

/// Kafka's own cluster ids are 22 characters of base64, and its tools take other texts too.
fn wished_cluster_id(text: &str, report: &mut Report) -> Option<ClusterId> {
    let legal = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.');
    if !text.is_empty() && text.len() <= CLUSTER_ID_BYTES_MAX && text.chars().all(legal) {
        return Some(ClusterId(Arc::from(text)));
    }
    let help = "make one with `kafka-storage.sh random-uuid`, or leave it out and Stonelog makes one";
    let message =
        format!("`{text}` is not a cluster id: letters, digits, `_`, `-` and `.`, at most {CLUSTER_ID_BYTES_MAX}");
    report.add(Code::InvalidValue, message, Some(help.to_owned()));
    None
}

fn build(
    mut judged: Judged,
    cluster_id: Option<ClusterId>,
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) -> BrokerConfig {
    let mut notes = judged.notes();
    let reader = Reader::new(&judged.accepted);
    let node_id = node_id(&reader, report);
    let roles = Roles::read(&reader);
    let found = listeners(&reader, roles, surroundings, report);
    let cluster = quorum::cluster(&reader, node_id, &found, surroundings, report);
    if cluster.is_none() && !found.controllers.is_empty() {
        notes
            .push("controller.listener.names: a lone node is its own controller and opens no socket for it".to_owned());
    }
    let mut static_settings: BTreeMap<String, String> = judged
        .accepted
        .values()
        .map(|setting| (setting.key.clone(), setting.value.trim().to_owned()))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    if reader.set("node.id").is_some() || reader.set("broker.id").is_some() {
        static_settings.extend(["node.id", "broker.id"].map(|key| (key.to_owned(), node_id.to_string())));
    }
    check_log_defaults(&static_settings, &judged.accepted, report);
    let network = network(&reader, report);
    let log_dirs = log_dirs(&reader, report);
    let mut warnings = found.warnings;
    warnings.extend(size_warnings(&reader));
    BrokerConfig {
        node_id: BrokerId(node_id),
        cluster_id,
        rack: reader.set("broker.rack").map(|setting| setting.value.trim().to_owned()),
        is_broker: !roles.is_controller_alone(),
        listeners: found.clients,
        inter_broker_listener_name: found.inter_broker_name,
        cluster,
        controller_listeners: found.controllers,
        metadata_place: metadata_place(&reader, &log_dirs, report),
        log_dirs,
        network,
        fetch: FetchSettings {
            response_bytes_max: reader.size("fetch.max.bytes"),
            session_slots: reader.size("max.incremental.fetch.session.cache.slots"),
            from_same_rack: reader.set("replica.selector.class").is_some_and(|set| set.value.trim() == RACK_AWARE),
        },
        topics: TopicSettings {
            auto_create: reader.boolean("auto.create.topics.enable"),
            deletable: reader.boolean("delete.topic.enable"),
            default_partitions: reader.int("num.partitions"),
            default_replication_factor: reader.factor("default.replication.factor"),
            retention_check_interval: reader.millis("log.retention.check.interval.ms"),
        },
        groups: groups(&reader, report),
        producers: ProducerSettings {
            id_expiration: reader.millis("producer.id.expiration.ms"),
            id_expiration_check_interval: reader.millis("producer.id.expiration.check.interval.ms"),
        },
        storage: storage(&reader, report),
        relaxations: relaxations(&reader),
        static_settings,
        warnings,
        notes,
    }
}

fn node_id(reader: &Reader<'_>, report: &mut Report) -> i32 {
    let old = reader.set("broker.id").filter(|setting| setting.value.trim() != "-1");
    let node_id = reader.int("node.id");
    match (old, reader.set("node.id")) {
        (Some(old), _) if reader.int("broker.id") < 0 => {
            report.in_value(old, Code::InvalidValue, "broker.id must not be negative", Some("use node.id=1"));
            node_id
        }
        (Some(old), Some(_)) if reader.int("broker.id") != node_id => {
            let message = format!("broker.id={} and node.id={node_id} differ", old.value.trim());
            report.in_value(old, Code::Conflict, message, Some("keep node.id alone"));
            node_id
        }
        (Some(_), None) => reader.int("broker.id"),
        _ => node_id,
    }
}

fn log_dirs(reader: &Reader<'_>, report: &mut Report) -> Vec<PathBuf> {
    let Some(setting) = reader.set("log.dirs").or_else(|| reader.set("log.dir")) else {
        return vec![PathBuf::from(reader.text("log.dir"))];
    };
    let mut directories: Vec<PathBuf> = Vec::new();
    for directory in setting.value.split(',').map(str::trim).filter(|directory| !directory.is_empty()) {
        if directories.iter().any(|known| known == Path::new(directory)) {
            let message = format!("{} names {directory} twice", setting.key);
            report.in_value(setting, Code::Conflict, message, Some("name each directory once"));
        } else {
            directories.push(PathBuf::from(directory));
        }
    }
    if directories.is_empty() {
        report.in_value(setting, Code::InvalidValue, format!("{} names no directory", setting.key), None);
    }
    directories
}

/// Kafka's `metadata.log.dir` may be anywhere; ours is one of the log directories.
fn metadata_place(reader: &Reader<'_>, log_dirs: &[PathBuf], report: &mut Report) -> usize {
    let Some(setting) = reader.set("metadata.log.dir") else { return 0 };
    let wanted = Path::new(setting.value.trim());
    log_dirs.iter().position(|directory| directory == wanted).unwrap_or_else(|| {
        let message = "metadata.log.dir is none of log.dirs";
        report.in_value(setting, Code::Refused, message, Some("name one of log.dirs, or leave it out for the first"));
        0
    })
}

/// Contradictions among the keys that topics inherit from, each value being legal alone.
fn check_log_defaults(
    static_settings: &BTreeMap<String, String>,
    accepted: &BTreeMap<String, Setting>,
    report: &mut Report,
) {
    let Err(problems) = TopicConfig::effective(&BTreeMap::new(), static_settings) else { return };
    for problem in problems {
        let culprit = ["log.cleaner.min.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms"]
            .iter()
            .find_map(|key| accepted.get(*key));
        match culprit {
            Some(setting) => report.in_value(setting, Code::Conflict, problem.to_string(), None),
            None => report.add(Code::Conflict, problem.to_string(), None),
        }
    }
}

fn network(reader: &Reader<'_>, report: &mut Report) -> NetworkSettings {
    let request_bytes_max = reader.size("socket.request.max.bytes");
    let queued = match u64::try_from(reader.whole("queued.max.request.bytes")) {
        Ok(queued) if queued > 0 => queued,
        _ => QUEUED_REQUEST_BYTES_DEFAULT.max(u64::from(request_bytes_max)),
    };
    if let Some(setting) = reader.set("queued.max.request.bytes")
        && queued < u64::from(request_bytes_max)
    {
        let message = format!("queued.max.request.bytes is below socket.request.max.bytes ({request_bytes_max})");
        report.in_value(setting, Code::Conflict, message, Some("a request of the greatest size must fit"));
    }
    let overrides = connection_overrides(reader, report);
    if let Some(setting) = reader.set("max.connections.per.ip")
        && reader.size("max.connections.per.ip") == 0
        && overrides.is_empty()
    {
        let message = "max.connections.per.ip=0 without max.connections.per.ip.overrides lets nobody in";
        report.in_value(setting, Code::Conflict, message, None);
    }
    NetworkSettings {
        request_bytes_max,
        connection_idle_max: u64::try_from(reader.whole("connections.max.idle.ms")).ok().map(Duration::from_millis),
        connections_max: reader.size("max.connections"),
        connections_per_ip_max: reader.size("max.connections.per.ip"),
        connections_per_ip_overrides: overrides,
        queued_request_bytes_max: queued,
        listen_backlog: reader.size("socket.listen.backlog.size"),
        request_timeout: reader.millis("request.timeout.ms"),
        described_partitions_max: reader.size("max.request.partition.size.limit"),
    }
}

fn connection_overrides(reader: &Reader<'_>, report: &mut Report) -> Vec<(String, u32)> {
    let Some(setting) = reader.set("max.connections.per.ip.overrides") else { return Vec::new() };
    let mut overrides = Vec::new();
    for entry in setting.value.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        match entry.rsplit_once(':').and_then(|(host, limit)| Some((host.trim(), limit.trim().parse().ok()?))) {
            Some((host, limit)) if !host.is_empty() => overrides.push((host.to_owned(), limit)),
            _ => {
                let message = format!("`{entry}` is not a host and a limit");
                report.in_value(setting, Code::InvalidValue, message, Some("write it as host:count"));
            }
        }
    }
    overrides
}

fn groups(reader: &Reader<'_>, report: &mut Report) -> GroupSettings {
    let (min, max) = ("group.min.session.timeout.ms", "group.max.session.timeout.ms");
    if reader.whole(min) > reader.whole(max)
        && let Some(setting) = reader.set(min).or_else(|| reader.set(max))
    {
        let message = format!("{min} ({}) is above {max} ({})", reader.whole(min), reader.whole(max));
        report.in_value(setting, Code::Conflict, message, None);
    }
    let protocols = reader.text("group.coordinator.rebalance.protocols");
    if let Some(setting) = reader.set("group.coordinator.rebalance.protocols")
        && !value::elements(protocols).contains(&"classic")
    {
        let message = "group.coordinator.rebalance.protocols leaves out `classic`, the only protocol served so far";
        report.in_value(setting, Code::Refused, message, Some("add classic"));
    }
    GroupSettings {
        session_timeout_min: reader.millis(min),
        session_timeout_max: reader.millis(max),
        initial_rebalance_delay: reader.millis("group.initial.rebalance.delay.ms"),
        members_max: reader.size("group.max.size"),
        offset_metadata_bytes_max: reader.size("offset.metadata.max.bytes"),
        commit_timeout: reader.millis("offsets.commit.timeout.ms"),
        offsets_retention: reader.minutes("offsets.retention.minutes"),
        offsets_retention_check_interval: reader.millis("offsets.retention.check.interval.ms"),
        offsets_topic_partitions: reader.int("offsets.topic.num.partitions"),
        offsets_topic_segment_bytes: reader.size("offsets.topic.segment.bytes"),
        offsets_topic_replication_factor: reader.factor("offsets.topic.replication.factor"),
    }
}

fn storage(reader: &Reader<'_>, report: &mut Report) -> StorageSettings {
    let journal_bytes_max = reader.size64("stonelog.journal.bytes");
    let journal_file_bytes = reader.size64("stonelog.journal.file.bytes");
    if journal_file_bytes > journal_bytes_max / 4
        && let Some(setting) =
            reader.set("stonelog.journal.file.bytes").or_else(|| reader.set("stonelog.journal.bytes"))
    {
        let message = format!(
            "journal files of {journal_file_bytes} bytes are more than a quarter of the journal ({journal_bytes_max})"
        );
        report.in_value(
            setting,
            Code::Conflict,
            message,
            Some("at least four files are needed to write and free in turn"),
        );
    }
    let batch_bytes_max = u64::from(reader.size("message.max.bytes"));
    if batch_bytes_max > journal_file_bytes / 2
        && let Some(setting) = reader.set("message.max.bytes").or_else(|| reader.set("stonelog.journal.file.bytes"))
    {
        let message = format!(
            "a batch of message.max.bytes ({batch_bytes_max}) must fit twice into a journal file ({journal_file_bytes})"
        );
        report.in_value(setting, Code::Conflict, message, Some("raise stonelog.journal.file.bytes"));
    }
    StorageSettings {
        journal_bytes_max,
        journal_file_bytes,
        free_bytes_min: match reader.set("stonelog.free.bytes.min") {
            Some(_) => reader.size64("stonelog.free.bytes.min"),
            None => 2 * journal_file_bytes,
        },
        hangs_after: reader.millis("replica.lag.time.max.ms"),
        tail_memory_bytes: reader.size64("stonelog.tail.memory.bytes"),
        scrub_interval: Some(reader.millis("stonelog.scrub.interval.ms")).filter(|interval| !interval.is_zero()),
        scrub_bytes_per_second_max: reader.size64("stonelog.scrub.max.bytes.per.second"),
        lanes: usize::try_from(reader.whole("stonelog.lanes")).ok().filter(|lanes| *lanes > 0),
    }
}

fn size_warnings(reader: &Reader<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    if reader.whole("message.max.bytes") > reader.whole("socket.request.max.bytes") {
        warnings
            .push("message.max.bytes is above socket.request.max.bytes: the largest batches cannot arrive".to_owned());
    }
    if let Some(setting) = reader.set("default.replication.factor")
        && reader.factor("default.replication.factor").is_some_and(|factor| factor > 1)
    {
        warnings.push(format!(
            "{}: on a lone node topics created without a number of replicas will be refused",
            setting.cited()
        ));
    }
    warnings
}

#[cfg(test)]
mod tests;
