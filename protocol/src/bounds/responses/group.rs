//! Consumer groups and their offsets.

use super::super::shape::{INT16, INT32, INT64, Kind, Shape, always, between, plain, since, until};

pub(super) static OFFSET_COMMIT: Shape =
    plain(&[since(3, INT32), always(Kind::Array(&Kind::Struct(&OFFSET_COMMIT_TOPIC)))]);
static OFFSET_COMMIT_TOPIC: Shape = plain(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&PARTITION_ERROR)))]);
static PARTITION_ERROR: Shape = plain(&[always(INT32), always(INT16)]);

pub(super) static OFFSET_FETCH: Shape = plain(&[
    since(3, INT32),
    until(7, Kind::Array(&Kind::Struct(&OFFSET_FETCH_TOPIC))),
    between(2, 7, INT16),
    since(8, Kind::Array(&Kind::Struct(&OFFSET_FETCH_GROUP))),
]);
static OFFSET_FETCH_GROUP: Shape =
    plain(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&OFFSET_FETCH_TOPIC))), always(INT16)]);
static OFFSET_FETCH_TOPIC: Shape =
    plain(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&OFFSET_FETCH_PARTITION)))]);
static OFFSET_FETCH_PARTITION: Shape =
    plain(&[always(INT32), always(INT64), since(5, INT32), always(Kind::Text), always(INT16)]);

pub(super) static FIND_COORDINATOR: Shape = plain(&[
    since(1, INT32),
    until(3, INT16),
    between(1, 3, Kind::Text),
    until(3, INT32),
    until(3, Kind::Text),
    until(3, INT32),
    since(4, Kind::Array(&Kind::Struct(&COORDINATOR))),
]);
static COORDINATOR: Shape =
    plain(&[always(Kind::Text), always(INT32), always(Kind::Text), always(INT32), always(INT16), always(Kind::Text)]);

pub(super) static JOIN_GROUP: Shape = plain(&[
    since(2, INT32),
    always(INT16),
    always(INT32),
    since(7, Kind::Text),
    always(Kind::Text),
    always(Kind::Text),
    since(9, Kind::Bool),
    always(Kind::Text),
    always(Kind::Array(&Kind::Struct(&JOIN_GROUP_MEMBER))),
]);
static JOIN_GROUP_MEMBER: Shape = plain(&[always(Kind::Text), since(5, Kind::Text), always(Kind::Blob)]);

pub(super) static HEARTBEAT: Shape = plain(&[since(1, INT32), always(INT16)]);

pub(super) static LEAVE_GROUP: Shape =
    plain(&[since(1, INT32), always(INT16), since(3, Kind::Array(&Kind::Struct(&LEAVE_GROUP_MEMBER)))]);
static LEAVE_GROUP_MEMBER: Shape = plain(&[always(Kind::Text), always(Kind::Text), always(INT16)]);

pub(super) static SYNC_GROUP: Shape =
    plain(&[since(1, INT32), always(INT16), since(5, Kind::Text), since(5, Kind::Text), always(Kind::Blob)]);

pub(super) static DESCRIBE_GROUPS: Shape =
    plain(&[since(1, INT32), always(Kind::Array(&Kind::Struct(&DESCRIBE_GROUPS_GROUP)))]);
static DESCRIBE_GROUPS_GROUP: Shape = plain(&[
    always(INT16),
    since(6, Kind::Text),
    always(Kind::Text),
    always(Kind::Text),
    always(Kind::Text),
    always(Kind::Text),
    always(Kind::Array(&Kind::Struct(&DESCRIBE_GROUPS_MEMBER))),
    since(3, INT32),
]);
static DESCRIBE_GROUPS_MEMBER: Shape = plain(&[
    always(Kind::Text),
    since(4, Kind::Text),
    always(Kind::Text),
    always(Kind::Text),
    always(Kind::Blob),
    always(Kind::Blob),
]);

pub(super) static LIST_GROUPS: Shape =
    plain(&[since(1, INT32), always(INT16), always(Kind::Array(&Kind::Struct(&LIST_GROUPS_GROUP)))]);
static LIST_GROUPS_GROUP: Shape =
    plain(&[always(Kind::Text), always(Kind::Text), since(4, Kind::Text), since(5, Kind::Text)]);

pub(super) static DELETE_GROUPS: Shape =
    plain(&[always(INT32), always(Kind::Array(&Kind::Struct(&DELETE_GROUPS_GROUP)))]);
static DELETE_GROUPS_GROUP: Shape = plain(&[always(Kind::Text), always(INT16)]);

pub(super) static OFFSET_DELETE: Shape =
    plain(&[always(INT16), always(INT32), always(Kind::Array(&Kind::Struct(&OFFSET_DELETE_TOPIC)))]);
static OFFSET_DELETE_TOPIC: Shape = plain(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&PARTITION_ERROR)))]);
