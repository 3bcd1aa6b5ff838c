//! Producing, consuming and what both ask first.

use super::super::shape::{INT16, INT32, INT64, Kind, Shape, Tag, UUID, always, between, plain, since, until};

static LEADER: Shape = plain(&[always(INT32), always(INT32)]);
static NODE_ENDPOINT: Shape = plain(&[always(INT32), always(Kind::Text), always(INT32), always(Kind::Text)]);

pub(super) static PRODUCE: Shape = Shape {
    fields: &[always(Kind::Array(&Kind::Struct(&PRODUCE_TOPIC))), always(INT32)],
    tags: &[Tag { tag: 0, since: 10, kind: Kind::Array(&Kind::Struct(&NODE_ENDPOINT)) }],
};
static PRODUCE_TOPIC: Shape =
    plain(&[until(12, Kind::Text), since(13, UUID), always(Kind::Array(&Kind::Struct(&PRODUCE_PARTITION)))]);
static PRODUCE_PARTITION: Shape = Shape {
    fields: &[
        always(INT32),
        always(INT16),
        always(INT64),
        always(INT64),
        since(5, INT64),
        since(8, Kind::Array(&Kind::Struct(&PRODUCE_RECORD_ERROR))),
        since(8, Kind::Text),
    ],
    tags: &[Tag { tag: 0, since: 10, kind: Kind::Struct(&LEADER) }],
};
static PRODUCE_RECORD_ERROR: Shape = plain(&[always(INT32), always(Kind::Text)]);

pub(super) static FETCH: Shape = Shape {
    fields: &[always(INT32), since(7, INT16), since(7, INT32), always(Kind::Array(&Kind::Struct(&FETCH_TOPIC)))],
    tags: &[Tag { tag: 0, since: 16, kind: Kind::Array(&Kind::Struct(&NODE_ENDPOINT)) }],
};
static FETCH_TOPIC: Shape =
    plain(&[until(12, Kind::Text), since(13, UUID), always(Kind::Array(&Kind::Struct(&FETCH_PARTITION)))]);
static FETCH_PARTITION: Shape = Shape {
    fields: &[
        always(INT32),
        always(INT16),
        always(INT64),
        always(INT64),
        since(5, INT64),
        always(Kind::Array(&Kind::Struct(&FETCH_ABORTED))),
        since(11, INT32),
        always(Kind::Blob),
    ],
    tags: &[
        Tag { tag: 0, since: 12, kind: Kind::Struct(&FETCH_EPOCH_END) },
        Tag { tag: 1, since: 12, kind: Kind::Struct(&LEADER) },
        Tag { tag: 2, since: 12, kind: Kind::Struct(&FETCH_SNAPSHOT) },
    ],
};
static FETCH_ABORTED: Shape = plain(&[always(INT64), always(INT64)]);
static FETCH_EPOCH_END: Shape = plain(&[always(INT32), always(INT64)]);
static FETCH_SNAPSHOT: Shape = plain(&[always(INT64), always(INT32)]);

pub(super) static LIST_OFFSETS: Shape =
    plain(&[since(2, INT32), always(Kind::Array(&Kind::Struct(&LIST_OFFSETS_TOPIC)))]);
static LIST_OFFSETS_TOPIC: Shape =
    plain(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&LIST_OFFSETS_PARTITION)))]);
static LIST_OFFSETS_PARTITION: Shape =
    plain(&[always(INT32), always(INT16), always(INT64), always(INT64), since(4, INT32)]);

pub(super) static METADATA: Shape = plain(&[
    since(3, INT32),
    always(Kind::Array(&Kind::Struct(&METADATA_BROKER))),
    since(2, Kind::Text),
    since(1, INT32),
    always(Kind::Array(&Kind::Struct(&METADATA_TOPIC))),
    between(8, 10, INT32),
    since(13, INT16),
]);
static METADATA_BROKER: Shape = plain(&[always(INT32), always(Kind::Text), always(INT32), since(1, Kind::Text)]);
static METADATA_TOPIC: Shape = plain(&[
    always(INT16),
    always(Kind::Text),
    since(10, UUID),
    since(1, Kind::Bool),
    always(Kind::Array(&Kind::Struct(&METADATA_PARTITION))),
    since(8, INT32),
]);
static METADATA_PARTITION: Shape = plain(&[
    always(INT16),
    always(INT32),
    always(INT32),
    since(7, INT32),
    always(Kind::Array(&INT32)),
    always(Kind::Array(&INT32)),
    since(5, Kind::Array(&INT32)),
]);

pub(super) static INIT_PRODUCER_ID: Shape = plain(&[always(INT32), always(INT16), always(INT64), always(INT16)]);

pub(super) static OFFSET_FOR_LEADER_EPOCH: Shape =
    plain(&[always(INT32), always(Kind::Array(&Kind::Struct(&OFFSET_FOR_LEADER_TOPIC)))]);
static OFFSET_FOR_LEADER_TOPIC: Shape =
    plain(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&OFFSET_FOR_LEADER_PARTITION)))]);
static OFFSET_FOR_LEADER_PARTITION: Shape = plain(&[always(INT16), always(INT32), always(INT32), always(INT64)]);

pub(super) static API_VERSIONS: Shape = Shape {
    fields: &[always(INT16), always(Kind::Array(&Kind::Struct(&API_VERSIONS_KEY))), since(1, INT32)],
    tags: &[
        Tag { tag: 0, since: 3, kind: Kind::Array(&Kind::Struct(&API_VERSIONS_FEATURE)) },
        Tag { tag: 1, since: 3, kind: INT64 },
        Tag { tag: 2, since: 3, kind: Kind::Array(&Kind::Struct(&API_VERSIONS_FEATURE)) },
        Tag { tag: 3, since: 3, kind: Kind::Bool },
    ],
};
static API_VERSIONS_KEY: Shape = plain(&[always(INT16), always(INT16), always(INT16)]);
static API_VERSIONS_FEATURE: Shape = plain(&[always(Kind::Text), always(INT16), always(INT16)]);
