//! Where replicas are placed.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::metadata::MetadataRecord;
use crate::metadata::record::RegisterBroker;
use stonelog_protocol::Uuid;

/// Brokers from 1, each with its rack and whether it is fenced.
fn image(brokers: &[(&str, bool)]) -> MetadataImage {
    let register = |(place, (rack, fenced)): (usize, &(&str, bool))| {
        MetadataRecord::RegisterBroker(RegisterBroker {
            id: BrokerId(place as i32 + 1),
            incarnation: Uuid([place as u8 + 1; 16]),
            epoch: None,
            endpoints: Vec::new(),
            rack: Some((*rack).into()),
            fenced: *fenced,
            in_controlled_shutdown: false,
            directories: Vec::new(),
            differing: Vec::new(),
            unfenced_with: Vec::new(),
        })
    };
    let records: Vec<_> = brokers.iter().enumerate().map(register).collect();
    MetadataImage::from_records(1, &records).unwrap()
}

fn rack_of(image: &MetadataImage, broker: BrokerId) -> String {
    image.broker(broker).unwrap().rack.as_deref().unwrap().to_owned()
}

#[test]
fn replicas_lie_on_different_racks_and_spread_evenly() {
    let racks = ["a", "a", "b", "b", "c", "c"].map(|rack| (rack, false));
    let image = image(&racks);
    for seed in 0..20 {
        let placed = place(&image, 0, 12, 3, seed).unwrap();
        let mut leads = BTreeMap::<BrokerId, usize>::new();
        let mut holds = BTreeMap::<BrokerId, usize>::new();
        for replicas in &placed {
            let racks: BTreeSet<_> = replicas.iter().map(|broker| rack_of(&image, *broker)).collect();
            assert_eq!(racks.len(), 3, "{replicas:?}");
            *leads.entry(replicas[0]).or_default() += 1;
            for broker in replicas {
                *holds.entry(*broker).or_default() += 1;
            }
        }
        assert!(leads.values().all(|count| *count == 2), "seed {seed}: {leads:?}");
        assert!(holds.values().all(|count| *count == 6), "seed {seed}: {holds:?}");
    }
}

#[test]
fn more_replicas_than_racks_never_name_a_broker_twice() {
    let image = image(&[("a", false), ("a", false), ("a", false), ("b", false)]);
    for replicas in place(&image, 0, 16, 4, 7).unwrap() {
        assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), 4, "{replicas:?}");
    }
}

#[test]
fn fenced_brokers_are_placed_but_never_first() {
    let image = image(&[("a", true), ("b", false), ("c", true)]);
    for replicas in place(&image, 0, 9, 3, 1).unwrap() {
        assert_eq!(replicas[0], BrokerId(2), "{replicas:?}");
    }
    for replicas in place(&image, 0, 9, 1, 1).unwrap() {
        assert_eq!(replicas, [BrokerId(2)]);
    }
}

#[test]
fn too_few_or_no_active_brokers_are_refused() {
    let two = image(&[("a", false), ("b", false)]);
    assert_eq!(place(&two, 0, 1, 3, 0).unwrap_err().code, ErrorCode::InvalidReplicationFactor);
    let fenced = image(&[("a", true)]);
    assert_eq!(place(&fenced, 0, 1, 1, 0).unwrap_err().code, ErrorCode::InvalidReplicationFactor);
}
