//! Where partitions lie and who leads them; brokers, features and the quorum.

use super::super::shape::{INT16, INT32, Kind, Shape, always, plain, since, until};

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

pub(super) static UPDATE_FEATURES: Shape =
    plain(&[always(INT32), always(INT16), always(Kind::Text), until(1, Kind::Array(&Kind::Struct(&UPDATED_FEATURE)))]);
static UPDATED_FEATURE: Shape = plain(&[always(Kind::Text), always(INT16), always(Kind::Text)]);

pub(super) static UNREGISTER_BROKER: Shape = plain(&[always(INT32), always(INT16), always(Kind::Text)]);
