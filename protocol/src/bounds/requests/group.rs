//! Consumer groups and their offsets.

use super::super::shape::{INT8, INT32, INT64, Kind, Shape, always, plain, since, until};

pub(super) static OFFSET_COMMIT: Shape = plain(&[
    always(Kind::Text),
    always(INT32),
    always(Kind::Text),
    since(7, Kind::Text),
    until(4, INT64),
    always(Kind::Array(&Kind::Struct(&OFFSET_COMMIT_TOPIC))),
]);
static OFFSET_COMMIT_TOPIC: Shape =
    plain(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&OFFSET_COMMIT_PARTITION)))]);
static OFFSET_COMMIT_PARTITION: Shape = plain(&[always(INT32), always(INT64), since(6, INT32), always(Kind::Text)]);

pub(super) static OFFSET_FETCH: Shape = plain(&[
    until(7, Kind::Text),
    until(7, Kind::Array(&Kind::Struct(&OFFSET_FETCH_TOPIC))),
    since(8, Kind::Array(&Kind::Struct(&OFFSET_FETCH_GROUP))),
    since(7, Kind::Bool),
]);
static OFFSET_FETCH_GROUP: Shape = plain(&[
    always(Kind::Text),
    since(9, Kind::Text),
    since(9, INT32),
    always(Kind::Array(&Kind::Struct(&OFFSET_FETCH_TOPIC))),
]);
static OFFSET_FETCH_TOPIC: Shape = plain(&[always(Kind::Text), always(Kind::Array(&INT32))]);

pub(super) static FIND_COORDINATOR: Shape =
    plain(&[until(3, Kind::Text), since(1, INT8), since(4, Kind::Array(&Kind::Text))]);

pub(super) static JOIN_GROUP: Shape = plain(&[
    always(Kind::Text),
    always(INT32),
    since(1, INT32),
    always(Kind::Text),
    since(5, Kind::Text),
    always(Kind::Text),
    always(Kind::Array(&Kind::Struct(&JOIN_GROUP_PROTOCOL))),
    since(8, Kind::Text),
]);
static JOIN_GROUP_PROTOCOL: Shape = plain(&[always(Kind::Text), always(Kind::Blob)]);

pub(super) static HEARTBEAT: Shape =
    plain(&[always(Kind::Text), always(INT32), always(Kind::Text), since(3, Kind::Text)]);

pub(super) static LEAVE_GROUP: Shape =
    plain(&[always(Kind::Text), until(2, Kind::Text), since(3, Kind::Array(&Kind::Struct(&LEAVE_GROUP_MEMBER)))]);
static LEAVE_GROUP_MEMBER: Shape = plain(&[always(Kind::Text), always(Kind::Text), since(5, Kind::Text)]);

pub(super) static SYNC_GROUP: Shape = plain(&[
    always(Kind::Text),
    always(INT32),
    always(Kind::Text),
    since(3, Kind::Text),
    since(5, Kind::Text),
    since(5, Kind::Text),
    always(Kind::Array(&Kind::Struct(&SYNC_GROUP_ASSIGNMENT))),
]);
static SYNC_GROUP_ASSIGNMENT: Shape = plain(&[always(Kind::Text), always(Kind::Blob)]);

pub(super) static DESCRIBE_GROUPS: Shape = plain(&[always(Kind::Array(&Kind::Text)), since(3, Kind::Bool)]);

pub(super) static LIST_GROUPS: Shape = plain(&[since(4, Kind::Array(&Kind::Text)), since(5, Kind::Array(&Kind::Text))]);

pub(super) static DELETE_GROUPS: Shape = plain(&[always(Kind::Array(&Kind::Text))]);

pub(super) static OFFSET_DELETE: Shape =
    plain(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&OFFSET_DELETE_TOPIC)))]);
static OFFSET_DELETE_TOPIC: Shape = plain(&[always(Kind::Text), always(Kind::Array(&INT32))]);
