//! Where partitions lie and who leads them; brokers, features and the quorum.

use super::super::shape::{INT8, INT16, INT32, Kind, Shape, UUID, always, plain, since, until};

pub(super) static ELECT_LEADERS: Shape =
    plain(&[since(1, INT8), always(Kind::Array(&Kind::Struct(&TOPIC_PARTITIONS))), always(INT32)]);
static TOPIC_PARTITIONS: Shape = plain(&[always(Kind::Text), always(Kind::Array(&INT32))]);

pub(super) static ALTER_PARTITION_REASSIGNMENTS: Shape =
    plain(&[always(INT32), since(1, Kind::Bool), always(Kind::Array(&Kind::Struct(&REASSIGNED_TOPIC)))]);
static REASSIGNED_TOPIC: Shape =
    plain(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&REASSIGNED_PARTITION)))]);
static REASSIGNED_PARTITION: Shape = plain(&[always(INT32), always(Kind::Array(&INT32))]);

pub(super) static LIST_PARTITION_REASSIGNMENTS: Shape =
    plain(&[always(INT32), always(Kind::Array(&Kind::Struct(&TOPIC_PARTITIONS)))]);

pub(super) static ALTER_REPLICA_LOG_DIRS: Shape = plain(&[always(Kind::Array(&Kind::Struct(&LOG_DIR)))]);
static LOG_DIR: Shape = plain(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&TOPIC_PARTITIONS)))]);

pub(super) static DESCRIBE_QUORUM: Shape = plain(&[always(Kind::Array(&Kind::Struct(&QUORUM_TOPIC)))]);
static QUORUM_TOPIC: Shape = plain(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&QUORUM_PARTITION)))]);
static QUORUM_PARTITION: Shape = plain(&[always(INT32)]);

pub(super) static UPDATE_FEATURES: Shape =
    plain(&[always(INT32), always(Kind::Array(&Kind::Struct(&UPDATED_FEATURE))), since(1, Kind::Bool)]);
static UPDATED_FEATURE: Shape = plain(&[always(Kind::Text), always(INT16), until(0, Kind::Bool), since(1, INT8)]);

pub(super) static UNREGISTER_BROKER: Shape = plain(&[always(INT32)]);

pub(super) static ADD_RAFT_VOTER: Shape = plain(&[
    always(Kind::Text),
    always(INT32),
    always(INT32),
    always(UUID),
    always(Kind::Array(&Kind::Struct(&VOTER_LISTENER))),
]);
static VOTER_LISTENER: Shape = plain(&[always(Kind::Text), always(Kind::Text), always(INT16)]);

pub(super) static REMOVE_RAFT_VOTER: Shape = plain(&[always(Kind::Text), always(INT32), always(UUID)]);
