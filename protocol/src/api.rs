//! THE table of served APIs: key, name, versions and where each turns flexible. There is no second list anywhere.
//!
//! A row is here when its handler exists and its tests pass; ApiVersions answers from this table and frames are judged
//! by it. Version floors are Kafka 4's (KIP-896), ceilings those of Kafka 4.1 without its unstable versions. Produce is
//! *advertised* from 0 although it is accepted from 3, because librdkafka before 2.11.1 takes a higher floor to mean
//! that gzip, snappy and lz4 are unsupported.

use std::fmt;
use std::ops::RangeInclusive;

/// One row of the table.
#[derive(Debug)]
pub struct Api {
    /// Which API this row describes.
    pub name: ApiName,
    /// Versions that are decoded and answered.
    pub accepted: RangeInclusive<i16>,
    /// Versions that ApiVersions lists.
    pub advertised: RangeInclusive<i16>,
    /// The first version with compact lengths and tagged fields (KIP-482), if any has them.
    pub first_flexible: Option<i16>,
}

impl Api {
    /// The API key on the wire.
    pub fn key(&self) -> i16 {
        self.name.key()
    }

    /// Whether requests of this version are decoded and answered.
    pub fn accepts(&self, version: i16) -> bool {
        self.accepted.contains(&version)
    }

    /// Whether this version has compact lengths and tagged fields.
    pub fn is_flexible(&self, version: i16) -> bool {
        self.first_flexible.is_some_and(|first| version >= first)
    }

    /// Version of the request header: 2 has tagged fields, 1 has none.
    pub fn request_header_version(&self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// Version of the response header: 1 has tagged fields, 0 has none. ApiVersions is always 0, so that a client that
    /// does not know our versions yet can read the answer (KIP-511).
    pub fn response_header_version(&self, version: i16) -> i16 {
        if self.name != ApiName::ApiVersions && self.is_flexible(version) { 1 } else { 0 }
    }
}

/// The row of an API key, or `None` when the key is not served.
pub fn find(key: i16) -> Option<&'static Api> {
    APIS.binary_search_by_key(&key, |api| api.key()).ok().map(|index| &APIS[index])
}

/// A served API. Dispatch matches on it exhaustively.
#[repr(i16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ApiName {
    /// Key 0.
    Produce = 0,
    /// Key 1.
    Fetch = 1,
    /// Key 2.
    ListOffsets = 2,
    /// Key 3.
    Metadata = 3,
    /// Key 8.
    OffsetCommit = 8,
    /// Key 9.
    OffsetFetch = 9,
    /// Key 10.
    FindCoordinator = 10,
    /// Key 11.
    JoinGroup = 11,
    /// Key 12.
    Heartbeat = 12,
    /// Key 13.
    LeaveGroup = 13,
    /// Key 14.
    SyncGroup = 14,
    /// Key 15.
    DescribeGroups = 15,
    /// Key 16.
    ListGroups = 16,
    /// Key 18.
    ApiVersions = 18,
    /// Key 19.
    CreateTopics = 19,
    /// Key 20.
    DeleteTopics = 20,
    /// Key 21.
    DeleteRecords = 21,
    /// Key 22.
    InitProducerId = 22,
    /// Key 23.
    OffsetForLeaderEpoch = 23,
    /// Key 29.
    DescribeAcls = 29,
    /// Key 32.
    DescribeConfigs = 32,
    /// Key 33.
    AlterConfigs = 33,
    /// Key 34.
    AlterReplicaLogDirs = 34,
    /// Key 35.
    DescribeLogDirs = 35,
    /// Key 37.
    CreatePartitions = 37,
    /// Key 42.
    DeleteGroups = 42,
    /// Key 43.
    ElectLeaders = 43,
    /// Key 44.
    IncrementalAlterConfigs = 44,
    /// Key 45.
    AlterPartitionReassignments = 45,
    /// Key 46.
    ListPartitionReassignments = 46,
    /// Key 47.
    OffsetDelete = 47,
    /// Key 55.
    DescribeQuorum = 55,
    /// Key 57.
    UpdateFeatures = 57,
    /// Key 60.
    DescribeCluster = 60,
    /// Key 64.
    UnregisterBroker = 64,
    /// Key 75.
    DescribeTopicPartitions = 75,
    /// Key 80.
    AddRaftVoter = 80,
    /// Key 81.
    RemoveRaftVoter = 81,
}

impl ApiName {
    /// The API key on the wire.
    pub const fn key(self) -> i16 {
        self as i16
    }

    /// The row of this API.
    pub fn api(self) -> &'static Api {
        let Some(api) = find(self.key()) else { unreachable!("every name has a row") };
        api
    }
}

impl fmt::Display for ApiName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

const fn row(
    name: ApiName,
    accepted: RangeInclusive<i16>,
    advertised: RangeInclusive<i16>,
    first_flexible: Option<i16>,
) -> Api {
    Api { name, accepted, advertised, first_flexible }
}

/// Every served API, in order of its key.
#[rustfmt::skip]
pub static APIS: &[Api] = &[
    row(ApiName::Produce, 3..=13, 0..=13, Some(9)),
    row(ApiName::Fetch, 4..=17, 4..=17, Some(12)),
    row(ApiName::ListOffsets, 1..=10, 1..=10, Some(6)),
    row(ApiName::Metadata, 0..=13, 0..=13, Some(9)),
    row(ApiName::OffsetCommit, 2..=9, 2..=9, Some(8)),
    row(ApiName::OffsetFetch, 1..=9, 1..=9, Some(6)),
    row(ApiName::FindCoordinator, 0..=6, 0..=6, Some(3)),
    row(ApiName::JoinGroup, 0..=9, 0..=9, Some(6)),
    row(ApiName::Heartbeat, 0..=4, 0..=4, Some(4)),
    row(ApiName::LeaveGroup, 0..=5, 0..=5, Some(4)),
    row(ApiName::SyncGroup, 0..=5, 0..=5, Some(4)),
    row(ApiName::DescribeGroups, 0..=6, 0..=6, Some(5)),
    row(ApiName::ListGroups, 0..=5, 0..=5, Some(3)),
    row(ApiName::ApiVersions, 0..=4, 0..=4, Some(3)),
    row(ApiName::CreateTopics, 2..=7, 2..=7, Some(5)),
    row(ApiName::DeleteTopics, 1..=6, 1..=6, Some(4)),
    row(ApiName::DeleteRecords, 0..=2, 0..=2, Some(2)),
    row(ApiName::InitProducerId, 0..=5, 0..=5, Some(2)),
    row(ApiName::OffsetForLeaderEpoch, 2..=4, 2..=4, Some(4)),
    row(ApiName::DescribeAcls, 1..=3, 1..=3, Some(2)),
    row(ApiName::DescribeConfigs, 1..=4, 1..=4, Some(4)),
    row(ApiName::AlterConfigs, 0..=2, 0..=2, Some(2)),
    row(ApiName::AlterReplicaLogDirs, 1..=2, 1..=2, Some(2)),
    row(ApiName::DescribeLogDirs, 1..=4, 1..=4, Some(2)),
    row(ApiName::CreatePartitions, 0..=3, 0..=3, Some(2)),
    row(ApiName::DeleteGroups, 0..=2, 0..=2, Some(2)),
    row(ApiName::ElectLeaders, 0..=2, 0..=2, Some(2)),
    row(ApiName::IncrementalAlterConfigs, 0..=1, 0..=1, Some(1)),
    row(ApiName::AlterPartitionReassignments, 0..=1, 0..=1, Some(0)),
    row(ApiName::ListPartitionReassignments, 0..=0, 0..=0, Some(0)),
    row(ApiName::OffsetDelete, 0..=0, 0..=0, None),
    row(ApiName::DescribeQuorum, 0..=2, 0..=2, Some(0)),
    row(ApiName::UpdateFeatures, 0..=2, 0..=2, Some(0)),
    row(ApiName::DescribeCluster, 0..=2, 0..=2, Some(0)),
    row(ApiName::UnregisterBroker, 0..=0, 0..=0, Some(0)),
    row(ApiName::DescribeTopicPartitions, 0..=0, 0..=0, Some(0)),
    row(ApiName::AddRaftVoter, 0..=0, 0..=0, Some(0)),
    row(ApiName::RemoveRaftVoter, 0..=0, 0..=0, Some(0)),
];

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::ApiKey;

    #[test]
    fn rows_are_sorted_and_found_by_key() {
        assert!(APIS.windows(2).all(|pair| pair[0].key() < pair[1].key()));
        for api in APIS {
            assert_eq!(find(api.key()).map(|found| found.name), Some(api.name));
            assert_eq!(api.name.api().name, api.name);
        }
        assert!(find(4).is_none());
        assert!(find(-1).is_none());
    }

    #[test]
    fn accepted_versions_lie_within_what_the_codec_knows() {
        for api in APIS {
            let theirs = ApiKey::try_from(api.key()).unwrap();
            let range = theirs.valid_versions();
            assert!(range.min <= *api.accepted.start() && *api.accepted.end() <= range.max, "{}", api.name);
            assert_eq!(format!("{theirs:?}"), api.name.to_string());
        }
    }

    #[test]
    fn header_versions_are_those_of_the_codec() {
        for api in APIS {
            let theirs = ApiKey::try_from(api.key()).unwrap();
            for version in api.accepted.clone() {
                assert_eq!(api.request_header_version(version), theirs.request_header_version(version), "{}", api.name);
                assert_eq!(
                    api.response_header_version(version),
                    theirs.response_header_version(version),
                    "{} v{version}",
                    api.name
                );
            }
        }
    }

    #[test]
    fn only_produce_advertises_more_than_it_accepts() {
        for api in APIS {
            assert_eq!(api.advertised != api.accepted, api.name == ApiName::Produce, "{}", api.name);
        }
    }
}
