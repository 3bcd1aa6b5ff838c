//! Carries groups: requests to the lane that owns their partition, decisions to its log, answers back once committed.
//!
//! Every partition of `__consumer_offsets` that this broker leads has one [`GroupPartition`] on the lane that owns the
//! partition's log; a lane's are found through its [`Registry`]. A request hops there, is decided, its records are
//! appended, and its answer is given when the high watermark has passed them (rule 15). Handlers use [`decide`],
//! [`read`] and [`read_every`]; the state itself never leaves its lane.
//!
//! *Differences from Kafka.* A request that meets a partition still being loaded waits a moment before it is told
//! COORDINATOR_LOAD_IN_PROGRESS. The commits of one turn of a lane are one batch, each other decision is one of its own;
//! the journal gathers them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use stonelog_protocol::{ErrorCode, PartitionIndex, TopicPartition};
use stonelog_replication::runtime::lane::Lane;
use tokio::sync::oneshot;

use super::group::message::Response;
use super::group::names::GroupId;
use super::group::{Config, Decision, Now, Ticket};
use super::internal_topic::OFFSETS_TOPIC;
use super::partition::partition_for;
use crate::broker::Broker;
use crate::config::broker_config::GroupSettings;
use crate::request::RequestContext;

mod group_partition;
mod load;
mod registry;
mod serving;

pub use super::group::Groups;
use group_partition::GroupPartition;
use registry::Registry;
use serving::Answered;

/// What the runtime may be told.
#[derive(Clone, Debug)]
struct Settings {
    /// What groups may be told.
    groups: Config,
    /// `offsets.commit.timeout.ms`: how long an answer waits for what it rests on.
    commit_timeout: Duration,
    /// `offsets.retention.check.interval.ms`.
    expiry_every: Duration,
}

impl Settings {
    fn of(settings: &GroupSettings) -> Settings {
        let groups = Config {
            session_timeout_min: settings.session_timeout_min,
            session_timeout_max: settings.session_timeout_max,
            initial_rebalance_delay: settings.initial_rebalance_delay,
            group_members_max: settings.members_max as usize,
            offset_metadata_bytes_max: settings.offset_metadata_bytes_max as usize,
            offsets_retention: settings.offsets_retention,
        };
        Settings {
            groups,
            commit_timeout: settings.commit_timeout,
            expiry_every: settings.offsets_retention_check_interval,
        }
    }
}

/// Begins to coordinate what this broker leads, on every lane. Called once, before the first request.
pub async fn start(broker: &Arc<Broker>) {
    for lane in 0..broker.lanes.count() {
        let (settings, metadata) = (Settings::of(&broker.config.groups), broker.metadata.clone());
        let begin = move |lane: Rc<Lane>| {
            Registry::begin(lane, settings, metadata);
            std::future::ready(())
        };
        broker.lanes.call(lane, begin).await;
    }
}

/// Has a request decided by the group's owner; resolves with its answer once that may be given.
///
/// Requests for one group are decided in the order of the calls, whenever their futures are awaited.
///
/// # Errors
/// NOT_COORDINATOR when another broker owns the group or it has no owner yet, COORDINATOR_LOAD_IN_PROGRESS while the
/// owner still reads its log, COORDINATOR_NOT_AVAILABLE when what the answer rests on was not committed in time.
pub fn decide<D>(
    context: &RequestContext,
    group: &GroupId,
    decide: D,
) -> impl Future<Output = Result<Response, ErrorCode>> + use<D>
where
    D: FnOnce(&mut Groups, Ticket, Now) -> Decision + Send + 'static,
{
    let decided = owner_of(context, group).map(|owned| decide_at(context, owned, decide));
    async move { decided?.await }
}

/// As [`decide`], for an OffsetCommit: it is appended with the others of its lane's turn, as one batch.
pub fn commit<D>(
    context: &RequestContext,
    group: &GroupId,
    decide: D,
) -> impl Future<Output = Result<Response, ErrorCode>> + use<D>
where
    D: FnOnce(&mut Groups, Ticket, Now) -> Decision + Send + 'static,
{
    let committed = owner_of(context, group).map(|owned| call(context, owned, decide, GroupPartition::commit));
    async move { committed?.await }
}

/// As [`decide`], by the partition: for requests about several groups.
pub fn decide_at<D>(
    context: &RequestContext,
    owned: TopicPartition,
    decide: D,
) -> impl Future<Output = Result<Response, ErrorCode>> + use<D>
where
    D: FnOnce(&mut Groups, Ticket, Now) -> Decision + Send + 'static,
{
    call(context, owned, decide, |partition, decide| partition.decide(decide))
}

/// Has `work` done with a decision on the lane that owns the partition.
fn call<D, W>(
    context: &RequestContext,
    owned: TopicPartition,
    decide: D,
    work: W,
) -> impl Future<Output = Result<Response, ErrorCode>> + use<D, W>
where
    D: FnOnce(&mut Groups, Ticket, Now) -> Decision + Send + 'static,
    W: FnOnce(&Rc<GroupPartition>, D) -> Decided + Send + 'static,
{
    let lanes = context.lane.lanes();
    lanes.call(lanes.owner(owned), move |_| {
        // Decided at once where that can be, so that the order of the calls is kept.
        let begun = partition(owned).map(|partition| match partition.is_loading() {
            false => Begun::Decided(work(&partition, decide)),
            true => Begun::Loading(partition, decide, work),
        });
        async move {
            let decided = match begun? {
                Begun::Decided(decided) => decided,
                Begun::Loading(partition, decide, work) => {
                    partition.loaded().await?;
                    work(&partition, decide)
                }
            };
            // A sender that is gone went with its partition.
            decided?.await.unwrap_or(Err(ErrorCode::NotCoordinator))
        }
    })
}

/// How far a decision has come within its lane's turn.
enum Begun<D, W> {
    Decided(Decided),
    Loading(Rc<GroupPartition>, D, W),
}

/// Where the answer to a decision will be given.
type Decided = Result<oneshot::Receiver<Answered>, ErrorCode>;

/// Reads the state of the group's owner; resolves once what was read is committed. Errors as [`decide`]'s.
pub async fn read<R: Send + 'static>(
    context: &RequestContext,
    group: &GroupId,
    read: impl FnOnce(&mut Groups, Now) -> R + Send + 'static,
) -> Result<R, ErrorCode> {
    let owned = owner_of(context, group)?;
    read_at(context, owned, read).await
}

/// As [`read`], and resolves only once everybody who could have come to own the group has said that this broker did when
/// it was asked: a coordinator that has been replaced answers nothing old (rule 15).
///
/// # Errors
/// [`decide`]'s; NOT_COORDINATOR, instead of COORDINATOR_NOT_AVAILABLE, also where nobody can tell within
/// `offsets.commit.timeout.ms`: Java's consumers before 3.9 ask again after the former only (as in Kafka's
/// `handleOffsetFetchException`).
pub async fn read_confirmed<R: Send + 'static>(
    context: &RequestContext,
    group: &GroupId,
    read: impl FnOnce(&mut Groups, Now) -> R + Send + 'static,
) -> Result<R, ErrorCode> {
    let owned = owner_of(context, group)?;
    let lanes = context.lane.lanes();
    let within = context.broker.config.groups.commit_timeout;
    let work = move |lane: Rc<Lane>| async move {
        let partition = partition(owned)?;
        partition.loaded().await?;
        let (answer, confirmed) = tokio::join!(partition.read(read), lane.confirm_leadership(owned, within));
        confirmed.map_err(|_| ErrorCode::NotCoordinator)?;
        answer
    };
    lanes.call(lanes.owner(owned), work).await.map_err(|error| match error {
        ErrorCode::CoordinatorNotAvailable => ErrorCode::NotCoordinator,
        error => error,
    })
}

/// Reads the state of every partition this broker leads; one that is moving away meanwhile is left out, as in Kafka: its
/// next owner lists it. Other errors as [`decide`]'s, the first one met.
pub async fn read_every<R: Send + 'static>(
    context: &RequestContext,
    read: impl FnOnce(&mut Groups, Now) -> R + Clone + Send + 'static,
) -> Result<Vec<R>, ErrorCode> {
    let image = context.image();
    let Some(topic) = image.topic_by_name(OFFSETS_TOPIC) else { return Ok(Vec::new()) };
    let me = context.broker.node.broker_id;
    let mut every = Vec::new();
    for (index, registration) in (0..).zip(&topic.partitions) {
        if registration.leader == Some(me) {
            let owned = TopicPartition { topic_id: topic.id, partition: PartitionIndex(index) };
            match read_at(context, owned, read.clone()).await {
                Ok(read) => every.push(read),
                // The owner's lane is an image ahead of this one.
                Err(ErrorCode::NotCoordinator) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(every)
}

/// The partition that owns a group.
///
/// # Errors
/// NOT_COORDINATOR while there is no such partition: whoever looks for the coordinator creates it.
pub fn owner_of(context: &RequestContext, group: &GroupId) -> Result<TopicPartition, ErrorCode> {
    let image = context.image();
    let topic = image.topic_by_name(OFFSETS_TOPIC).ok_or(ErrorCode::NotCoordinator)?;
    let count = i32::try_from(topic.partitions.len()).map_err(|_| ErrorCode::NotCoordinator)?;
    Ok(TopicPartition { topic_id: topic.id, partition: partition_for(group.as_str(), count) })
}

async fn read_at<R: Send + 'static>(
    context: &RequestContext,
    owned: TopicPartition,
    read: impl FnOnce(&mut Groups, Now) -> R + Send + 'static,
) -> Result<R, ErrorCode> {
    let lanes = context.lane.lanes();
    let work = move |_| async move {
        let partition = partition(owned)?;
        partition.loaded().await?;
        partition.read(read).await
    };
    lanes.call(lanes.owner(owned), work).await
}

/// On the owner's lane: the partition, which may still be loading.
fn partition(owned: TopicPartition) -> Result<Rc<GroupPartition>, ErrorCode> {
    Registry::here().ok_or(ErrorCode::CoordinatorNotAvailable)?.open(owned)
}
