//! Where partitions lie and who leads them; brokers, features and the quorum.

use super::super::shape::{INT16, INT32, INT64, Kind, Shape, UUID, always, plain, since, until};

pub(super) static ELECT_LEADERS: Shape =
    plain(&[always(INT32), since(1, INT16), always(Kind::Array(&Kind::Struct(&TOPIC_OF_RESULTS)))]);
/// Of ElectLeaders and AlterPartitionReassignments alike.
static TOPIC_OF_RESULTS: Shape = plain(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&PARTITION_RESULT)))]);
static PARTITION_RESULT: Shape = plain(&[always(INT32), always(INT16), always(Kind::Text)]);

pub(super) static ALTER_PARTITION_REASSIGNMENTS: Shape = plain(&[
    always(INT32),
    since(1, Kind::Bool),
    always(INT16),
    always(Kind::Text),
    always(Kind::Array(&Kind::Struct(&TOPIC_OF_RESULTS))),
]);

pub(super) static LIST_PARTITION_REASSIGNMENTS: Shape =
    plain(&[always(INT32), always(INT16), always(Kind::Text), always(Kind::Array(&Kind::Struct(&REASSIGNED_TOPIC)))]);
static REASSIGNED_TOPIC: Shape =
    plain(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&REASSIGNED_PARTITION)))]);
static REASSIGNED_PARTITION: Shape =
    plain(&[always(INT32), always(Kind::Array(&INT32)), always(Kind::Array(&INT32)), always(Kind::Array(&INT32))]);

pub(super) static ALTER_REPLICA_LOG_DIRS: Shape =
    plain(&[always(INT32), always(Kind::Array(&Kind::Struct(&TOPIC_OF_CODES)))]);
static TOPIC_OF_CODES: Shape = plain(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&PARTITION_CODE)))]);
static PARTITION_CODE: Shape = plain(&[always(INT32), always(INT16)]);

pub(super) static DESCRIBE_QUORUM: Shape = plain(&[
    always(INT16),
    since(2, Kind::Text),
    always(Kind::Array(&Kind::Struct(&QUORUM_TOPIC))),
    since(2, Kind::Array(&Kind::Struct(&QUORUM_NODE))),
]);
static QUORUM_TOPIC: Shape = plain(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&QUORUM_PARTITION)))]);
static QUORUM_PARTITION: Shape = plain(&[
    always(INT32),
    always(INT16),
    since(2, Kind::Text),
    always(INT32),
    always(INT32),
    always(INT64),
    always(Kind::Array(&Kind::Struct(&QUORUM_REPLICA))),
    always(Kind::Array(&Kind::Struct(&QUORUM_REPLICA))),
]);
static QUORUM_REPLICA: Shape = plain(&[always(INT32), since(2, UUID), always(INT64), since(1, INT64), since(1, INT64)]);
static QUORUM_NODE: Shape = plain(&[always(INT32), always(Kind::Array(&Kind::Struct(&QUORUM_LISTENER)))]);
static QUORUM_LISTENER: Shape = plain(&[always(Kind::Text), always(Kind::Text), always(INT16)]);

pub(super) static UPDATE_FEATURES: Shape =
    plain(&[always(INT32), always(INT16), always(Kind::Text), until(1, Kind::Array(&Kind::Struct(&UPDATED_FEATURE)))]);
static UPDATED_FEATURE: Shape = plain(&[always(Kind::Text), always(INT16), always(Kind::Text)]);

pub(super) static UNREGISTER_BROKER: Shape = plain(&[always(INT32), always(INT16), always(Kind::Text)]);

pub(super) static ADD_RAFT_VOTER: Shape = plain(&[always(INT32), always(INT16), always(Kind::Text)]);

pub(super) static REMOVE_RAFT_VOTER: Shape = plain(&[always(INT32), always(INT16), always(Kind::Text)]);
