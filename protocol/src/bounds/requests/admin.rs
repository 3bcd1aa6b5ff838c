//! Topics, configurations and the cluster.

use super::super::shape::{INT8, INT16, INT32, INT64, Kind, Shape, UUID, always, plain, since, until};

pub(super) static CREATE_TOPICS: Shape =
    plain(&[always(Kind::Array(&Kind::Struct(&CREATE_TOPICS_TOPIC))), always(INT32), always(Kind::Bool)]);
static CREATE_TOPICS_TOPIC: Shape = plain(&[
    always(Kind::Text),
    always(INT32),
    always(INT16),
    always(Kind::Array(&Kind::Struct(&CREATE_TOPICS_ASSIGNMENT))),
    always(Kind::Array(&Kind::Struct(&CONFIG_ENTRY))),
]);
static CREATE_TOPICS_ASSIGNMENT: Shape = plain(&[always(INT32), always(Kind::Array(&INT32))]);
static CONFIG_ENTRY: Shape = plain(&[always(Kind::Text), always(Kind::Text)]);

pub(super) static DELETE_TOPICS: Shape = plain(&[
    since(6, Kind::Array(&Kind::Struct(&DELETE_TOPICS_TOPIC))),
    until(5, Kind::Array(&Kind::Text)),
    always(INT32),
]);
static DELETE_TOPICS_TOPIC: Shape = plain(&[always(Kind::Text), always(UUID)]);

pub(super) static DELETE_RECORDS: Shape =
    plain(&[always(Kind::Array(&Kind::Struct(&DELETE_RECORDS_TOPIC))), always(INT32)]);
static DELETE_RECORDS_TOPIC: Shape =
    plain(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&DELETE_RECORDS_PARTITION)))]);
static DELETE_RECORDS_PARTITION: Shape = plain(&[always(INT32), always(INT64)]);

pub(super) static DESCRIBE_ACLS: Shape = plain(&[
    always(INT8),
    always(Kind::Text),
    always(INT8),
    always(Kind::Text),
    always(Kind::Text),
    always(INT8),
    always(INT8),
]);

pub(super) static DESCRIBE_CONFIGS: Shape =
    plain(&[always(Kind::Array(&Kind::Struct(&DESCRIBE_CONFIGS_RESOURCE))), always(Kind::Bool), since(3, Kind::Bool)]);
static DESCRIBE_CONFIGS_RESOURCE: Shape = plain(&[always(INT8), always(Kind::Text), always(Kind::Array(&Kind::Text))]);

pub(super) static ALTER_CONFIGS: Shape =
    plain(&[always(Kind::Array(&Kind::Struct(&ALTER_CONFIGS_RESOURCE))), always(Kind::Bool)]);
static ALTER_CONFIGS_RESOURCE: Shape =
    plain(&[always(INT8), always(Kind::Text), always(Kind::Array(&Kind::Struct(&CONFIG_ENTRY)))]);

pub(super) static INCREMENTAL_ALTER_CONFIGS: Shape =
    plain(&[always(Kind::Array(&Kind::Struct(&INCREMENTAL_RESOURCE))), always(Kind::Bool)]);
static INCREMENTAL_RESOURCE: Shape =
    plain(&[always(INT8), always(Kind::Text), always(Kind::Array(&Kind::Struct(&INCREMENTAL_ENTRY)))]);
static INCREMENTAL_ENTRY: Shape = plain(&[always(Kind::Text), always(INT8), always(Kind::Text)]);

pub(super) static DESCRIBE_LOG_DIRS: Shape = plain(&[always(Kind::Array(&Kind::Struct(&TOPIC_PARTITIONS)))]);
static TOPIC_PARTITIONS: Shape = plain(&[always(Kind::Text), always(Kind::Array(&INT32))]);

pub(super) static CREATE_PARTITIONS: Shape =
    plain(&[always(Kind::Array(&Kind::Struct(&CREATE_PARTITIONS_TOPIC))), always(INT32), always(Kind::Bool)]);
static CREATE_PARTITIONS_TOPIC: Shape =
    plain(&[always(Kind::Text), always(INT32), always(Kind::Array(&Kind::Struct(&CREATE_PARTITIONS_ASSIGNMENT)))]);
static CREATE_PARTITIONS_ASSIGNMENT: Shape = plain(&[always(Kind::Array(&INT32))]);

pub(super) static DESCRIBE_CLUSTER: Shape = plain(&[always(Kind::Bool), since(1, INT8), since(2, Kind::Bool)]);

pub(super) static DESCRIBE_TOPIC_PARTITIONS: Shape = plain(&[
    always(Kind::Array(&Kind::Struct(&DESCRIBE_TOPIC_PARTITIONS_TOPIC))),
    always(INT32),
    always(Kind::OptionStruct(&DESCRIBE_TOPIC_PARTITIONS_CURSOR)),
]);
static DESCRIBE_TOPIC_PARTITIONS_TOPIC: Shape = plain(&[always(Kind::Text)]);
static DESCRIBE_TOPIC_PARTITIONS_CURSOR: Shape = plain(&[always(Kind::Text), always(INT32)]);
