//! What an acknowledgement means holds for the whole cluster: recorded by the controller, read by all from the image.

use super::*;
use crate::settings::log_keys::log_key;

/// The rules of a controller whose own configuration says this.
fn rules_of(own: &[(&str, &str)]) -> SettingsRules {
    let static_broker = own.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    SettingsRules { static_broker, broker_key: log_key, group_key: |_| None }
}

fn recorded(key: &str, value: Option<&str>) -> MetadataRecord {
    let (key, value) = (key.to_owned(), value.map(str::to_owned));
    MetadataRecord::Config(ConfigRecord { resource: ConfigResource::Recorded, key, value })
}

fn activated(image: &MetadataImage, own: &[(&str, &str)]) -> MetadataImage {
    let Activation { records, goes_on, .. } = activation_records(image, &rules_of(own), true);
    assert!(!goes_on);
    after(image, image.index(), &records)
}

fn set(resource: ConfigResource, key: &str, value: &str) -> ControllerRequest {
    let (key, value) = (key.to_owned(), Some(value.to_owned()));
    let edits = vec![ConfigEdit { key, operation: ConfigOperation::Set, value }];
    let resources = vec![(resource, edits)];
    ControllerRequest::IncrementalAlterConfigs(IncrementalAlterConfigs { resources, validate_only: false })
}

fn asked(image: &MetadataImage, rules: &SettingsRules, request: &ControllerRequest) -> Result<Vec<String>, Reject> {
    let inputs = Inputs {
        cluster_id: &cluster(),
        now: Timestamp(0),
        next_index: image.index() + 1,
        topic_ids: &[],
        seed: 0,
        moves_are_known: true,
        previous_is_gone: true,
        brokers_to_come: 0,
        defaults: &Defaults::default(),
        rules,
    };
    match decide(image, request, &inputs)?.response {
        ControllerResponse::IncrementalAlterConfigs(mut results) => results.remove(0).result,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_controller_records_its_own_configuration_once_and_the_next_one_its_own() {
    let image = brokers(1);
    assert_eq!(activation_records(&image, &rules_of(&[]), true).records, [], "nothing set, nothing to record");
    let own = [("min.insync.replicas", " 2"), ("log.flush.interval.messages", "100"), ("log.retention.hours", "1")];
    let facts = [recorded("log.flush.interval.messages", Some("100")), recorded("min.insync.replicas", Some("2"))];
    assert_eq!(activation_records(&image, &rules_of(&own), true).records, facts);
    let image = activated(&image, &own);
    assert_eq!(activation_records(&image, &rules_of(&own), true).records, []);
    let facts = [
        recorded("log.flush.interval.messages", None),
        recorded("min.insync.replicas", Some("3")),
        recorded("unclean.leader.election.enable", Some("true")),
    ];
    let next = [("min.insync.replicas", "3"), ("unclean.leader.election.enable", "TRUE")];
    assert_eq!(activation_records(&image, &rules_of(&next), true).records, facts);
    let again = MetadataImage::from_records(image.index(), &image.to_records()).unwrap();
    assert_eq!(again.recorded_config(), image.recorded_config());
    assert_eq!(again.recorded_config().len(), 2);
}

#[test]
fn every_controller_judges_by_what_is_recorded_and_not_by_its_own_configuration() {
    let image = activated(&with_topic(3, &[1, 2, 3], &[]), &[("log.flush.interval.messages", "9")]);
    for own in [&[][..], &[("min.insync.replicas", "3"), ("log.flush.interval.messages", "1")]] {
        let rules = rules_of(own);
        assert!(!rules.is_strict(&image, "t"), "{own:?}");
        assert_eq!(rules.min_insync_replicas(&image, "t", 3), 2, "{own:?}");
    }
}

#[test]
fn a_value_set_for_all_brokers_lies_above_what_is_recorded() {
    let rules = rules_of(&[]);
    let all = |key, value| set(ConfigResource::Broker(None), key, value);
    let image = activated(&with_topic(3, &[1, 2, 3], &[]), &[("min.insync.replicas", "1")]);
    assert_eq!(rules.min_insync_replicas(&image, "t", 3), 1);
    let request = all("min.insync.replicas", "3");
    assert!(asked(&image, &rules, &request).is_ok());
    let value = ConfigRecord {
        resource: ConfigResource::Broker(None),
        key: "min.insync.replicas".to_owned(),
        value: Some("3".to_owned()),
    };
    let image = after(&image, image.index(), &[MetadataRecord::Config(value)]);
    assert_eq!(rules.min_insync_replicas(&image, "t", 3), 3);
    assert_eq!(rules.min_insync_replicas(&activated(&image, &[]), "t", 3), 3);
}

#[test]
fn a_value_for_one_broker_is_refused_with_the_way_to_set_it() {
    let image = brokers(1);
    let rules = rules_of(&[]);
    for key in crate::settings::CLUSTER_KEYS {
        let value = if key.starts_with("unclean") { "false" } else { "2" };
        let reject = asked(&image, &rules, &set(ConfigResource::Broker(Some(BrokerId(1))), key, value)).unwrap_err();
        assert_eq!(reject.code, ErrorCode::InvalidConfig);
        assert!(reject.message.starts_with(key) && reject.message.contains("Set it for all"), "{}", reject.message);
        assert!(asked(&image, &rules, &set(ConfigResource::Broker(None), key, value)).is_ok(), "{key}");
    }
    let other = set(ConfigResource::Broker(Some(BrokerId(1))), "log.retention.ms", "5");
    assert!(asked(&image, &rules, &other).is_ok());
    let reject = asked(&image, &rules, &set(ConfigResource::Recorded, "min.insync.replicas", "2")).unwrap_err();
    assert_eq!(reject.code, ErrorCode::InvalidRequest);
}

#[test]
fn a_lower_min_isr_clears_eligible_sets_before_it_is_recorded_and_in_the_same_entry() {
    let mut image = with_topic(3, &[1, 2, 3], &[]);
    for broker in [1, 2] {
        let request = BrokerHeartbeat { want_fence: true, ..heartbeat(&image, broker) };
        image = run(&image, ControllerRequest::Heartbeat(request)).0;
    }
    assert_eq!(p0(&image).elr, ids(&[2]));
    let cleared = PartitionChange { elr: Some(Vec::new()), ..change() };
    let expected = Activation {
        records: vec![MetadataRecord::PartitionChange(cleared), recorded("min.insync.replicas", Some("1"))],
        goes_on: false,
        kept: Vec::new(),
    };
    assert_eq!(activation_records(&image, &rules_of(&[("min.insync.replicas", "1")]), true), expected);
}

#[test]
fn one_controller_after_another_only_tightens_what_an_acknowledgement_means() {
    use crate::settings::cluster_keys::Overruled;
    let several = |image: &MetadataImage, own: &[(&str, &str)]| activation_records(image, &rules_of(own), false);
    let own = [("min.insync.replicas", "3"), ("log.flush.interval.ms", "500")];
    let empty = MetadataImage::from_records(INDEX, &bootstrap_records(&cluster())).unwrap();
    let relaxed = [("log.flush.interval.messages", "100")];
    assert_eq!(several(&empty, &relaxed).records, [recorded("log.flush.interval.messages", Some("100"))], "the first");
    let image = activated(&brokers(3), &own);
    // The file of another one still has what Kafka's had, or nothing.
    let weaker = [("log.flush.interval.messages", "10000"), ("unclean.leader.election.enable", "true")];
    let kept = |key: &'static str, own: &str, recorded: Option<&str>| Overruled {
        key,
        own: own.to_owned(),
        recorded: recorded.map(str::to_owned),
    };
    let expected = [
        kept("log.flush.interval.messages", "10000", None),
        kept("log.flush.interval.ms", "the default", Some("500")),
        kept("min.insync.replicas", "the default", Some("3")),
        kept("unclean.leader.election.enable", "true", None),
    ];
    let activation = several(&image, &weaker);
    assert_eq!((activation.records, activation.kept), (vec![], expected.to_vec()));
    let tighter = [("log.flush.interval.ms", "50"), ("min.insync.replicas", "3")];
    assert_eq!(several(&image, &tighter).records, [recorded("log.flush.interval.ms", Some("50"))]);
    // A lone node's file is its owner's word.
    assert_eq!(activation_records(&image, &rules_of(&weaker), true).records.len(), 4);
}
