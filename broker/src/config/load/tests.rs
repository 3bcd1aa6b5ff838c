//! Loading, from text to configuration or report: whole files as people write them.

use std::io::Write as _;

use super::*;
use crate::config::{Complaint, Endpoint, Listener, SecurityProtocol};

/// The settings of the `config/server.properties` that Apache Kafka 4.1 ships, in its order.
const KAFKA_4: &str = "\
############################# Server Basics #############################
# The role of this server.
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093

listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,\
SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL

num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600

log.dirs=/tmp/kraft-combined-logs
num.partitions=1
num.recovery.threads.per.data.dir=1

offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1

#log.flush.interval.messages=10000
#log.flush.interval.ms=1000
log.retention.hours=168
#log.retention.bytes=1073741824
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
";

struct Given {
    request: Request,
    variables: Vec<(String, String)>,
    _file: Option<tempfile::NamedTempFile>,
}

fn given() -> Given {
    Given { request: Request::default(), variables: Vec::new(), _file: None }
}

impl Given {
    fn file(mut self, text: &str) -> Given {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        self.request.config = Some(file.path().to_owned());
        self._file = Some(file);
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Given {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn set(mut self, argument: &str) -> Given {
        self.request.set.push(argument.to_owned());
        self
    }

    fn load(&self) -> Result<BrokerConfig, Report> {
        let resolves = |host: &str| Some(!host.starts_with("nowhere"));
        let surroundings =
            Surroundings { variables: self.variables.clone(), hostname: "here".to_owned(), resolves: &resolves };
        load(&self.request, &surroundings)
    }

    fn complaints(&self) -> Vec<Complaint> {
        self.load().unwrap_err().complaints
    }

    /// The one complaint there is, as text.
    fn complaint(&self) -> (Code, String) {
        let complaints = self.complaints();
        assert_eq!(complaints.len(), 1, "{complaints:#?}");
        (complaints[0].code, complaints[0].to_string())
    }
}

#[test]
fn nothing_set_gives_a_broker_on_loopback() {
    let config = given().load().unwrap();
    assert_eq!(config.node_id, BrokerId(1));
    assert_eq!(
        config.listeners,
        [Listener {
            name: "PLAINTEXT".into(),
            protocol: SecurityProtocol::Plaintext,
            host: Some("127.0.0.1".into()),
            port: 9092,
            advertised_host: "127.0.0.1".into(),
            advertised_port: 9092,
        }]
    );
    assert_eq!(config.log_dirs, [PathBuf::from("stonelog-data")]);
    assert_eq!(config.groups.session_timeout_min, Duration::from_secs(6));
    assert_eq!(config.topics.default_replication_factor, None);
    assert_eq!(config.network.queued_request_bytes_max, 256 << 20);
    assert_eq!(config.storage.lanes, None);
    assert!(config.static_settings.is_empty());
    assert!(config.relaxations.is_empty() && config.notes.is_empty() && config.warnings.is_empty());
}

#[test]
fn the_file_apache_kafka_ships_starts_unchanged() {
    let config = given().file(KAFKA_4).load().unwrap();
    assert_eq!(config.listeners.len(), 1);
    assert_eq!((config.listeners[0].host.as_deref(), config.listeners[0].port), (None, 9092));
    assert_eq!(config.listeners[0].advertised_host, "localhost");
    assert_eq!(config.controller_listeners, [Endpoint { name: "CONTROLLER".into(), host: String::new(), port: 9093 }]);
    assert_eq!(config.inter_broker_listener_name, "PLAINTEXT");
    assert_eq!(config.log_dirs, [PathBuf::from("/tmp/kraft-combined-logs")]);
    assert_eq!(config.static_settings.get("log.retention.hours").map(String::as_str), Some("168"));
    assert_eq!(config.warnings, Vec::<String>::new());
    let said = config.notes.join("\n");
    assert!(
        said.contains("num.recovery.threads.per.data.dir") && said.contains("transactions are not built yet"),
        "{said}"
    );
    assert_eq!(config.relaxations.len(), 1, "{:?}", config.relaxations);
    assert!(config.relaxations[0].contains("offsets.topic.replication.factor=1"));
}

#[test]
fn the_older_form_with_voters_starts_too() {
    let file = KAFKA_4
        .replace("controller.quorum.bootstrap.servers=localhost:9093", "controller.quorum.voters=1@localhost:9093");
    assert!(given().file(&file).load().is_ok());
}

#[test]
fn command_line_goes_before_environment_before_file() {
    let given = given().file("num.partitions=2\nnode.id=2\nbroker.rack=a\n");
    let given = given.variable("KAFKA_NODE_ID", "3").variable("KAFKA_NUM_PARTITIONS", "3").set("num.partitions=4");
    let config = given.load().unwrap();
    assert_eq!(config.topics.default_partitions, 4);
    assert_eq!(config.node_id, BrokerId(3));
    assert_eq!(config.rack.as_deref(), Some("a"));
}

#[test]
fn consumers_read_in_their_rack_by_kafkas_own_selectors_name() {
    let given = |class: &str| given().set(&format!("replica.selector.class=org.apache.kafka.common.replica.{class}"));
    assert!(given("RackAwareReplicaSelector").load().unwrap().fetch.from_same_rack);
    assert!(!given("LeaderSelector").load().unwrap().fetch.from_same_rack);
    assert!(given("MySelector").load().is_err());
}

#[test]
fn data_dir_is_log_dirs() {
    let mut given = given().file("log.dirs=/from/file\n");
    given.request.data_dir = Some(PathBuf::from("/from/argument"));
    let config = given.load().unwrap();
    assert_eq!(config.log_dirs, [PathBuf::from("/from/argument")]);
    assert_eq!(config.static_settings.get("log.dirs").map(String::as_str), Some("/from/argument"));
}

#[test]
fn several_log_dirs_are_taken_in_their_order_and_one_of_them_holds_the_metadata() {
    let config = given().file("log.dirs=/b, /a,/c,\nmetadata.log.dir=/a\n").load().unwrap();
    assert_eq!(config.log_dirs, [PathBuf::from("/b"), PathBuf::from("/a"), PathBuf::from("/c")]);
    assert_eq!(config.metadata_place, 1);
    let (code, text) = given().file("log.dirs=/b,/a\n").set("metadata.log.dir=/c").complaint();
    assert!(code == Code::Refused && text.contains("none of log.dirs"), "{text}");
}

#[test]
fn all_problems_are_reported_at_once_with_their_lines() {
    let given = given()
        .file("# comment\nlog.retention.hour=24\nnum.partitions=none\nzookeeper.connect=zk:2181\nlog.dirs=/a,/a\n")
        .variable("KAFKA_SSL_KEYSTORE_PASSWORD", "hunter2")
        .set("default.replication.facto=1")
        .set("oops");
    let report = given.load().unwrap_err();
    let shown = report.to_string();
    assert_eq!(report.complaints.len(), 7, "{shown}");
    assert!(
        shown.contains(
            ":2:1\n2 | log.retention.hour=24\n  | ^^^^^^^^^^^^^^^^^^\n  = did you mean `log.retention.hours`?"
        ),
        "{shown}"
    );
    assert!(shown.contains("Invalid value none for configuration num.partitions: Not a number of type INT"), "{shown}");
    assert!(shown.contains(":3:16\n3 | num.partitions=none\n  |                ^^^^\n"), "{shown}");
    assert!(shown.contains("MirrorMaker 2"), "{shown}");
    assert!(shown.contains("log.dirs names /a twice"), "{shown}");
    assert!(shown.contains("did you mean `default.replication.factor`?"), "{shown}");
    assert!(shown.contains("--set oops has no `=`"), "{shown}");
    assert!(shown.contains("KAFKA_SSL_KEYSTORE_PASSWORD=[hidden]") && !shown.contains("hunter2"), "{shown}");
    assert!(shown.ends_with("7 problems in the configuration; nothing was started"), "{shown}");
}

#[test]
fn a_misspelt_variable_stops_the_start() {
    let (code, text) = given().variable("KAFKA_LOG_RETENTION_HUORS", "1").complaint();
    assert_eq!(code, Code::UnknownKey);
    assert!(text.contains("KAFKA_LOG_RETENTION_HUORS=1") && text.contains("`log.retention.hours`"), "{text}");
}

#[test]
fn a_topics_key_in_the_brokers_file_names_the_brokers_key() {
    let (code, text) = given().set("retention.ms=5").complaint();
    assert_eq!(code, Code::UnknownKey);
    assert!(text.contains("`log.retention.ms`"), "{text}");
}

#[test]
fn keys_of_other_products_and_unknown_ones_are_listed_once() {
    let given = given()
        .file("confluent.license.topic=x\nconfluent.balancer.enable=true\nmy.company.setting=1\n")
        .set("log.message.format.version=2.8")
        .variable("KAFKA_HEAP_OPTS", "-Xmx1G")
        .variable("KAFKA_JMX_PORT", "9999")
        .variable("STONELOG_SOMETHING", "1")
        .variable("KAFKA_CFG_BROKER_RACK", "");
    let config = given.load().unwrap();
    assert_eq!(
        config.notes,
        [
            "skipped variables of the images' start scripts and of Java: KAFKA_HEAP_OPTS, KAFKA_JMX_PORT",
            "no meaning is given to STONELOG_SOMETHING (a setting is passed as KAFKA_…, or with --set)",
            "log.message.format.version: Kafka 4 removed it",
            "skipped, they belong to other products: confluent.balancer.enable, confluent.license.topic",
            "ignored, neither Kafka nor Stonelog has such keys: my.company.setting",
        ]
    );
    assert_eq!(config.rack, None);
}

#[test]
fn a_bitnami_compose_file_works() {
    let config = given()
        .variable("KAFKA_CFG_NODE_ID", "0")
        .variable("KAFKA_CFG_PROCESS_ROLES", "controller,broker")
        .variable("KAFKA_CFG_LISTENERS", "PLAINTEXT://:9092,CONTROLLER://:9093")
        .variable("KAFKA_CFG_LISTENER_SECURITY_PROTOCOL_MAP", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT")
        .variable("KAFKA_CFG_CONTROLLER_QUORUM_VOTERS", "0@kafka:9093")
        .variable("KAFKA_CFG_CONTROLLER_LISTENER_NAMES", "CONTROLLER")
        .variable("KAFKA_KRAFT_CLUSTER_ID", "MkU3OEVBNTcwNTJENDM2Qk")
        .load()
        .unwrap();
    assert_eq!(config.node_id, BrokerId(0));
    assert_eq!(config.cluster_id, Some(ClusterId("MkU3OEVBNTcwNTJENDM2Qk".into())));
    assert_eq!(config.listeners[0].advertised_host, "here");
}

#[test]
fn an_illegal_cluster_id_is_refused() {
    assert_eq!(given().variable("CLUSTER_ID", "my cluster").complaint().0, Code::InvalidValue);
}

#[test]
fn advertising_all_interfaces_is_refused_with_the_fix() {
    let given = given().set("listeners=PLAINTEXT://0.0.0.0:9092").set("advertised.listeners=PLAINTEXT://0.0.0.0:9092");
    let (code, text) = given.complaint();
    assert_eq!(code, Code::Refused);
    assert!(text.contains("name an address the clients can reach"), "{text}");
}

#[test]
fn a_listener_on_all_interfaces_is_advertised_under_the_hosts_name() {
    let config = given().set("listeners=PLAINTEXT://:0").load().unwrap();
    assert_eq!(config.listeners[0].host, None);
    assert_eq!((config.listeners[0].advertised_host.as_str(), config.listeners[0].advertised_port), ("here", 0));
}

#[test]
fn an_advertised_name_that_does_not_resolve_here_is_a_warning() {
    let config = given().set("advertised.listeners=PLAINTEXT://nowhere.example:9092").load().unwrap();
    assert_eq!(config.listeners[0].advertised_host, "nowhere.example");
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings[0].contains("nowhere.example does not resolve on this host"), "{:?}", config.warnings);
}

#[test]
fn addresses_of_ipv6_lose_their_brackets() {
    let config = given().set("listeners=PLAINTEXT://[::1]:9092").load().unwrap();
    assert_eq!(config.listeners[0].host.as_deref(), Some("::1"));
    let wildcard = given().set("listeners=PLAINTEXT://[::]:9092").load().unwrap();
    assert_eq!(wildcard.listeners[0].host.as_deref(), Some("::"), "not those of IPv4 alone");
}

#[test]
fn listeners_that_contradict_each_other_are_refused() {
    let codes = |arguments: &[&str]| {
        let given = arguments.iter().fold(given(), |given, argument| given.set(argument));
        given.complaints().iter().map(|complaint| complaint.code).collect::<Vec<_>>()
    };
    assert_eq!(codes(&["listeners=PLAINTEXT://a:1,PLAINTEXT://b:2"]), [Code::Conflict]);
    let map = "listener.security.protocol.map=A:PLAINTEXT,B:PLAINTEXT";
    assert_eq!(codes(&["listeners=A://:1,B://h:1", map]), [Code::Conflict]);
    assert_eq!(codes(&["listeners=A://:1,C://:2", map]), [Code::Conflict]);
    assert_eq!(codes(&["listeners=A://x:1,B://x:2", map, "advertised.listeners=A://x:1"]), [Code::Conflict]);
    assert_eq!(codes(&["listeners=SSL://:9093"]), [Code::Refused]);
    assert_eq!(codes(&["listeners=9092"]), [Code::InvalidValue]);
    assert_eq!(codes(&["inter.broker.listener.name=OTHER"]), [Code::Conflict]);
    assert_eq!(codes(&["controller.listener.names=PLAINTEXT"]), [Code::Conflict]);
}

#[test]
fn a_default_that_is_contradicted_is_shown_as_one() {
    let (_, text) = given().set("controller.listener.names=PLAINTEXT").complaint();
    assert!(text.contains("--> default\n  | listeners=PLAINTEXT://127.0.0.1:9092"), "{text}");
}

#[test]
fn a_lone_node_is_told_how_several_are_named() {
    for argument in ["process.roles=controller", "process.roles=broker"] {
        let complaints = given().set(argument).complaints();
        let refused = complaints.iter().find(|complaint| complaint.code == Code::Refused).expect(argument);
        assert!(refused.to_string().contains("controller.quorum.voters"), "{refused}");
    }
    let (code, text) = given().set("controller.quorum.voters=7@a:9093").complaint();
    assert!(
        code == Code::Conflict && !text.contains("the same number"),
        "who follows that begins a second cluster: {text}"
    );
}

/// A node of three.
fn of_three() -> Given {
    given()
        .set("controller.quorum.voters=1@127.0.0.1:9093,2@localhost:9193,3@[::1]:9293")
        .set("controller.listener.names=CONTROLLER")
        .set("listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://:9093")
}

#[test]
fn node_of_several_knows_its_voters() {
    let config = of_three().set("broker.session.timeout.ms=6000").load().unwrap();
    let cluster = config.cluster.unwrap();
    let voters: Vec<_> = cluster.voters.iter().map(|voter| (voter.node.0, &*voter.host, voter.port)).collect();
    assert_eq!(voters, [(1, "127.0.0.1", 9093), (2, "localhost", 9193), (3, "::1", 9293)]);
    assert_eq!((cluster.session_timeout, cluster.heartbeat_interval), (Duration::from_secs(6), Duration::from_secs(2)));
    assert_eq!(cluster.balance_every, Some(Duration::from_secs(300)));
    assert_eq!(cluster.request_timeout, Duration::from_secs(2));
    assert_eq!(config.controller_listeners.len(), 1);
    let broker_alone = of_three().set("node.id=4").set("process.roles=broker").load().unwrap();
    assert_eq!(broker_alone.cluster.map(|cluster| cluster.voters.len()), Some(3));
}

#[test]
fn controller_alone_has_no_listener_for_clients() {
    let controller = || {
        of_three()
            .set("process.roles=controller")
            .set("listeners=CONTROLLER://:9093")
            .set("inter.broker.listener.name=B")
    };
    let config = controller().load().unwrap();
    assert!(!config.is_broker && config.listeners.is_empty());
    assert_eq!(config.controller_listeners.len(), 1);
    assert!(config.cluster.unwrap().may_vote);
    let (code, text) = controller().set("listeners=PLAINTEXT://:9092,CONTROLLER://:9093").complaint();
    assert!(
        code == Code::Conflict && text.contains("listener PLAINTEXT is none of controller.listener.names"),
        "{text}"
    );
    let complaints = of_three().set("process.roles=controller").set("node.id=4").complaints();
    assert!(complaints.iter().any(|one| one.to_string().contains("is no voter")), "{complaints:?}");
    // A single one may vote for brokers elsewhere; a broker elsewhere names it.
    let one = "controller.quorum.voters=1@127.0.0.1:9093";
    assert_eq!(controller().set(one).load().unwrap().cluster.unwrap().voters.len(), 1);
    let broker = given().set(one).set("node.id=2").set("process.roles=broker").load().unwrap();
    assert!(broker.is_broker && !broker.cluster.unwrap().may_vote);
}

#[test]
fn servers_are_where_a_node_asks_and_name_no_voters() {
    let servers = "controller.quorum.bootstrap.servers=127.0.0.1:9093,[::1]:9193";
    let broker = given().set(servers).set("process.roles=broker").set("node.id=4").load().unwrap().cluster.unwrap();
    assert_eq!(broker.servers, [("127.0.0.1".to_owned(), 9093), ("::1".to_owned(), 9193)]);
    assert!(broker.voters.is_empty() && !broker.may_vote);
    let controller = "listeners=CONTROLLER://:9093";
    let controller = given().set(servers).set("controller.listener.names=CONTROLLER").set(controller);
    let config = controller.set("process.roles=controller").load().unwrap();
    assert!(config.cluster.unwrap().may_vote && !config.is_broker);
    // Kafka's file for a single node names itself.
    let alone = given().set("controller.quorum.bootstrap.servers=localhost:9093").load().unwrap();
    assert_eq!(alone.cluster, None);
    for (argument, says) in [
        ("controller.quorum.bootstrap.servers=a", "is not an address"),
        ("controller.quorum.bootstrap.servers=b:9093", "and b is not"),
    ] {
        let (_, text) = given().set("process.roles=broker").set(argument).complaint();
        assert!(text.contains(says), "{text}");
    }
    let (_, text) = given().set(servers).complaint();
    assert!(text.contains("has no listener for controllers"), "{text}");
}

#[test]
fn node_of_several_without_a_secret_stays_on_the_loopback_interface() {
    let elsewhere = || {
        let voters = "controller.quorum.voters=1@127.0.0.1:9093,2@b:9093,3@c:9093";
        of_three().set(voters)
    };
    let (code, text) = elsewhere().complaint();
    assert_eq!(code, Code::Conflict);
    assert!(text.contains("and b is not") && text.contains("stonelog.cluster.secret.file"), "{text}");
    let with_secret = || elsewhere().set("stonelog.cluster.secret.file=/etc/stonelog/secret");
    // What the others would take for themselves is no address among machines.
    let (code, text) = with_secret().complaint();
    assert_eq!(code, Code::Conflict);
    assert!(text.contains("takes for itself") && text.contains("advertised.listeners=PLAINTEXT://HOST:9092"), "{text}");
    let config = with_secret().set("advertised.listeners=PLAINTEXT://a:9092").load().unwrap();
    assert_eq!(config.cluster.unwrap().secret_file, Some(PathBuf::from("/etc/stonelog/secret")));
    // What other brokers dial counts as well.
    let (_, text) = of_three().set("advertised.listeners=PLAINTEXT://here:9092").complaint();
    assert!(text.contains("and here is not"), "{text}");
}

#[test]
fn lists_of_voters_that_contradict_the_node_are_refused() {
    for (argument, code, says) in [
        ("controller.quorum.voters=1@127.0.0.1:9093,2@127.0.0.1:9193", Code::Refused, "has 1, 3 or 5"),
        ("controller.quorum.voters=1@127.0.0.1:9093,2@127.0.0.1:1,2@127.0.0.1:2", Code::Conflict, "listed twice"),
        ("controller.quorum.voters=1@127.0.0.1:9094,2@127.0.0.1:1,3@127.0.0.1:2", Code::Conflict, "votes at port 9094"),
        ("process.roles=broker", Code::Conflict, "is a voter"),
        ("controller.quorum.bootstrap.servers=a:1", Code::Conflict, "both set"),
        ("broker.heartbeat.interval.ms=5000", Code::Conflict, "at most half"),
    ] {
        let (found, text) = of_three().set(argument).complaint();
        assert!(found == code && text.contains(says), "{argument}: {text}");
    }
    let (_, text) = of_three().set("node.id=4").set("process.roles=broker,controller").complaint();
    assert!(text.contains("is no voter"), "{text}");
}

#[test]
fn security_keys_are_refused_unless_they_hold_the_default() {
    assert!(given().set("ssl.client.auth=none").set("sasl.enabled.mechanisms=GSSAPI").load().is_ok());
    let (code, text) = given().set("sasl.enabled.mechanisms=PLAIN").complaint();
    assert_eq!(code, Code::Refused);
    assert!(text.contains("TLS, SASL and ACLs come later"), "{text}");
    let (_, text) = given().set("ssl.keystore.location=/k.jks").complaint();
    assert!(text.contains("PKCS12") && text.contains("openssl pkcs12"), "{text}");
    assert_eq!(given().set("sasl.oauthbearer.jwt.validator.class=x").complaint().0, Code::Refused);
    let (_, text) = given().set("listener.name.client.plain.sasl.jaas.config=secret;").complaint();
    assert!(text.contains("come later") && !text.contains("secret"), "{text}");
}

#[test]
fn the_value_of_a_misspelt_password_is_not_shown() {
    let (code, text) = given().file("ssl.keystore.pasword=hunter2\n").complaint();
    assert_eq!(code, Code::UnknownKey);
    assert!(text.contains("ssl.keystore.pasword=[hidden]") && !text.contains("hunter2"), "{text}");
}

#[test]
fn every_line_that_relaxes_a_default_is_named() {
    let config = given()
        .file("log.flush.interval.messages=10000\nunclean.leader.election.enable=true\nmin.insync.replicas=1\n")
        .load()
        .unwrap();
    assert_eq!(config.relaxations.len(), 3, "{:?}", config.relaxations);
    assert!(config.relaxations[0].starts_with("log.flush.interval.messages=10000 ("));
    assert!(config.relaxations[0].contains(" line 1): "), "{:?}", config.relaxations);
    let strict = given().set("log.flush.interval.messages=1").set("min.insync.replicas=2").load().unwrap();
    assert!(strict.relaxations.is_empty());
}

#[test]
fn contradictions_between_settings_are_found() {
    let code = |first: &str, second: &str| given().set(first).set(second).complaint().0;
    assert_eq!(code("group.min.session.timeout.ms=9000", "group.max.session.timeout.ms=8000"), Code::Conflict);
    assert_eq!(code("queued.max.request.bytes=1000", "socket.request.max.bytes=2000"), Code::Conflict);
    assert_eq!(code("node.id=1", "broker.id=2"), Code::Conflict);
    assert_eq!(code("stonelog.journal.bytes=16777216", "stonelog.journal.file.bytes=16777216"), Code::Conflict);
    assert_eq!(code("log.cleaner.min.compaction.lag.ms=10", "log.cleaner.max.compaction.lag.ms=5"), Code::Conflict);
    assert_eq!(given().set("max.connections.per.ip=0").complaint().0, Code::Conflict);
}

#[test]
fn two_variables_for_one_key_must_agree() {
    let given = given().variable("KAFKA_NODE_ID", "4").variable("KAFKA_CFG_NODE_ID", "4");
    assert_eq!(given.load().unwrap().node_id, BrokerId(4));
    assert_eq!(
        given.variable("KAFKA_CFG_NUM_PARTITIONS", "1").variable("KAFKA_NUM_PARTITIONS", "2").complaint().0,
        Code::Conflict
    );
}

#[test]
fn the_old_name_of_the_node_id_is_shown_under_both_names() {
    let config = given().set("broker.id=7").load().unwrap();
    assert_eq!(config.node_id, BrokerId(7));
    assert_eq!(config.static_settings.get("node.id").map(String::as_str), Some("7"));
}

#[test]
fn limits_per_address_are_read() {
    let config = given().set("max.connections.per.ip.overrides=10.0.0.1:5, ::1:7").load().unwrap();
    assert_eq!(config.network.connections_per_ip_overrides, [("10.0.0.1".to_owned(), 5), ("::1".to_owned(), 7)]);
    assert_eq!(given().set("max.connections.per.ip.overrides=host").complaint().0, Code::InvalidValue);
}

#[test]
fn a_line_set_twice_is_said_and_the_later_holds() {
    let config = given().file("num.partitions=1\n\nnum.partitions=5\n").load().unwrap();
    assert_eq!(config.topics.default_partitions, 5);
    assert!(config.notes[0].contains("line 3 holds, not line 1"), "{:?}", config.notes);
}

#[test]
fn a_file_that_is_not_there_is_a_problem() {
    let mut given = given();
    given.request.config = Some(PathBuf::from("/nonexistent/server.properties"));
    assert_eq!(given.complaint().0, Code::Unreadable);
}
