//! Topics, configurations and the cluster.

use super::super::shape::{INT8, INT16, INT32, INT64, Kind, Shape, Tag, UUID, always, plain, since};

pub(super) static CREATE_TOPICS: Shape =
    plain(&[always(INT32), always(Kind::Array(&Kind::Struct(&CREATE_TOPICS_TOPIC)))]);
static CREATE_TOPICS_TOPIC: Shape = Shape {
    fields: &[
        always(Kind::Text),
        since(7, UUID),
        always(INT16),
        always(Kind::Text),
        since(5, INT32),
        since(5, INT16),
        since(5, Kind::Array(&Kind::Struct(&CREATE_TOPICS_CONFIG))),
    ],
    tags: &[Tag { tag: 0, since: 5, kind: INT16 }],
};
static CREATE_TOPICS_CONFIG: Shape =
    plain(&[always(Kind::Text), always(Kind::Text), always(Kind::Bool), always(INT8), always(Kind::Bool)]);

pub(super) static DELETE_TOPICS: Shape =
    plain(&[always(INT32), always(Kind::Array(&Kind::Struct(&DELETE_TOPICS_TOPIC)))]);
static DELETE_TOPICS_TOPIC: Shape = plain(&[always(Kind::Text), since(6, UUID), always(INT16), since(5, Kind::Text)]);

pub(super) static DELETE_RECORDS: Shape =
    plain(&[always(INT32), always(Kind::Array(&Kind::Struct(&DELETE_RECORDS_TOPIC)))]);
static DELETE_RECORDS_TOPIC: Shape =
    plain(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&DELETE_RECORDS_PARTITION)))]);
static DELETE_RECORDS_PARTITION: Shape = plain(&[always(INT32), always(INT64), always(INT16)]);

pub(super) static DESCRIBE_ACLS: Shape = plain(&[
    always(INT32),
    always(INT16),
    always(Kind::Text),
    always(Kind::Array(&Kind::Struct(&DESCRIBE_ACLS_RESOURCE))),
]);
static DESCRIBE_ACLS_RESOURCE: Shape =
    plain(&[always(INT8), always(Kind::Text), always(INT8), always(Kind::Array(&Kind::Struct(&DESCRIBE_ACLS_ENTRY)))]);
static DESCRIBE_ACLS_ENTRY: Shape = plain(&[always(Kind::Text), always(Kind::Text), always(INT8), always(INT8)]);

pub(super) static DESCRIBE_CONFIGS: Shape =
    plain(&[always(INT32), always(Kind::Array(&Kind::Struct(&DESCRIBE_CONFIGS_RESOURCE)))]);
static DESCRIBE_CONFIGS_RESOURCE: Shape = plain(&[
    always(INT16),
    always(Kind::Text),
    always(INT8),
    always(Kind::Text),
    always(Kind::Array(&Kind::Struct(&DESCRIBE_CONFIGS_ENTRY))),
]);
static DESCRIBE_CONFIGS_ENTRY: Shape = plain(&[
    always(Kind::Text),
    always(Kind::Text),
    always(Kind::Bool),
    always(INT8),
    always(Kind::Bool),
    always(Kind::Array(&Kind::Struct(&DESCRIBE_CONFIGS_SYNONYM))),
    since(3, INT8),
    since(3, Kind::Text),
]);
static DESCRIBE_CONFIGS_SYNONYM: Shape = plain(&[always(Kind::Text), always(Kind::Text), always(INT8)]);

/// Of AlterConfigs and IncrementalAlterConfigs alike.
pub(super) static ALTER_CONFIGS: Shape =
    plain(&[always(INT32), always(Kind::Array(&Kind::Struct(&ALTER_CONFIGS_RESOURCE)))]);
static ALTER_CONFIGS_RESOURCE: Shape = plain(&[always(INT16), always(Kind::Text), always(INT8), always(Kind::Text)]);

pub(super) static DESCRIBE_LOG_DIRS: Shape =
    plain(&[always(INT32), since(3, INT16), always(Kind::Array(&Kind::Struct(&LOG_DIR)))]);
static LOG_DIR: Shape = plain(&[
    always(INT16),
    always(Kind::Text),
    always(Kind::Array(&Kind::Struct(&LOG_DIR_TOPIC))),
    since(4, INT64),
    since(4, INT64),
]);
static LOG_DIR_TOPIC: Shape = plain(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&LOG_DIR_PARTITION)))]);
static LOG_DIR_PARTITION: Shape = plain(&[always(INT32), always(INT64), always(INT64), always(Kind::Bool)]);

pub(super) static CREATE_PARTITIONS: Shape =
    plain(&[always(INT32), always(Kind::Array(&Kind::Struct(&CREATE_PARTITIONS_TOPIC)))]);
static CREATE_PARTITIONS_TOPIC: Shape = plain(&[always(Kind::Text), always(INT16), always(Kind::Text)]);

pub(super) static DESCRIBE_CLUSTER: Shape = plain(&[
    always(INT32),
    always(INT16),
    always(Kind::Text),
    since(1, INT8),
    always(Kind::Text),
    always(INT32),
    always(Kind::Array(&Kind::Struct(&DESCRIBE_CLUSTER_BROKER))),
    always(INT32),
]);
static DESCRIBE_CLUSTER_BROKER: Shape =
    plain(&[always(INT32), always(Kind::Text), always(INT32), always(Kind::Text), since(2, Kind::Bool)]);

pub(super) static DESCRIBE_TOPIC_PARTITIONS: Shape =
    plain(&[always(INT32), always(Kind::Array(&Kind::Struct(&TOPIC))), always(Kind::OptionStruct(&CURSOR))]);
static TOPIC: Shape = plain(&[
    always(INT16),
    always(Kind::Text),
    always(UUID),
    always(Kind::Bool),
    always(Kind::Array(&Kind::Struct(&PARTITION))),
    always(INT32),
]);
static PARTITION: Shape = plain(&[
    always(INT16),
    always(INT32),
    always(INT32),
    always(INT32),
    always(Kind::Array(&INT32)),
    always(Kind::Array(&INT32)),
    always(Kind::Array(&INT32)),
    always(Kind::Array(&INT32)),
    always(Kind::Array(&INT32)),
]);
static CURSOR: Shape = plain(&[always(Kind::Text), always(INT32)]);
