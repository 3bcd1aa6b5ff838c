//! Producing, consuming and what both ask first.

use super::super::shape::{INT8, INT16, INT32, INT64, Kind, Shape, Tag, UUID, always, between, plain, since, until};

pub(super) static PRODUCE: Shape =
    plain(&[always(Kind::Text), always(INT16), always(INT32), always(Kind::Array(&Kind::Struct(&PRODUCE_TOPIC)))]);
static PRODUCE_TOPIC: Shape =
    plain(&[until(12, Kind::Text), since(13, UUID), always(Kind::Array(&Kind::Struct(&PRODUCE_PARTITION)))]);
static PRODUCE_PARTITION: Shape = plain(&[always(INT32), always(Kind::Blob)]);

pub(super) static FETCH: Shape = Shape {
    fields: &[
        until(14, INT32),
        always(INT32),
        always(INT32),
        always(INT32),
        always(INT8),
        since(7, INT32),
        since(7, INT32),
        always(Kind::Array(&Kind::Struct(&FETCH_TOPIC))),
        since(7, Kind::Array(&Kind::Struct(&FETCH_FORGOTTEN))),
        since(11, Kind::Text),
    ],
    tags: &[
        Tag { tag: 0, since: 12, kind: Kind::Text },
        Tag { tag: 1, since: 15, kind: Kind::Struct(&FETCH_REPLICA_STATE) },
    ],
};
static FETCH_TOPIC: Shape =
    plain(&[until(12, Kind::Text), since(13, UUID), always(Kind::Array(&Kind::Struct(&FETCH_PARTITION)))]);
static FETCH_PARTITION: Shape = Shape {
    fields: &[always(INT32), since(9, INT32), always(INT64), since(12, INT32), since(5, INT64), always(INT32)],
    tags: &[Tag { tag: 0, since: 17, kind: UUID }],
};
static FETCH_FORGOTTEN: Shape = plain(&[until(12, Kind::Text), since(13, UUID), always(Kind::Array(&INT32))]);
static FETCH_REPLICA_STATE: Shape = plain(&[always(INT32), always(INT64)]);

pub(super) static LIST_OFFSETS: Shape =
    plain(&[always(INT32), since(2, INT8), always(Kind::Array(&Kind::Struct(&LIST_OFFSETS_TOPIC))), since(10, INT32)]);
static LIST_OFFSETS_TOPIC: Shape =
    plain(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&LIST_OFFSETS_PARTITION)))]);
static LIST_OFFSETS_PARTITION: Shape = plain(&[always(INT32), since(4, INT32), always(INT64)]);

pub(super) static METADATA: Shape = plain(&[
    always(Kind::Array(&Kind::Struct(&METADATA_TOPIC))),
    since(4, Kind::Bool),
    between(8, 10, Kind::Bool),
    since(8, Kind::Bool),
]);
static METADATA_TOPIC: Shape = plain(&[since(10, UUID), always(Kind::Text)]);

pub(super) static INIT_PRODUCER_ID: Shape =
    plain(&[always(Kind::Text), always(INT32), since(3, INT64), since(3, INT16)]);

pub(super) static OFFSET_FOR_LEADER_EPOCH: Shape =
    plain(&[since(3, INT32), always(Kind::Array(&Kind::Struct(&OFFSET_FOR_LEADER_TOPIC)))]);
static OFFSET_FOR_LEADER_TOPIC: Shape =
    plain(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&OFFSET_FOR_LEADER_PARTITION)))]);
static OFFSET_FOR_LEADER_PARTITION: Shape = plain(&[always(INT32), always(INT32), always(INT32)]);

pub(super) static API_VERSIONS: Shape = plain(&[since(3, Kind::Text), since(3, Kind::Text)]);
