//! A node that follows the metadata without voting: pulls from the leader, or from any voter while it cannot reach that,
//! applies with the same code, publishes.
//!
//! What it keeps on disk is a cache: the newest snapshot it was given, so that the next start is quick.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use openraft::RaftSnapshotBuilder as _;
use openraft::storage::RaftStateMachine as _;
use stonelog_protocol::peer::feed::{Leading, Pull, Pulled};
use stonelog_protocol::peer::frame::Kind;
use stonelog_protocol::peer::probe::Part;
use stonelog_protocol::peer::proof::Purpose;
use stonelog_protocol::peer::raft::LogId;
use stonelog_protocol::{BrokerId, Uuid};
use stonelog_storage::Fault;
use tokio::sync::watch;
use tokio::time::Instant;

use super::controllers::Controllers;
use super::feed_position::{Advance, FeedPosition};
use super::link::{LinkError, PeerDialer, PeerLink, Target};
use super::node::{QuorumOptions, StartError, refused};
use super::publisher::Publisher;
use super::snapshot_store::{SnapshotStore, decode_snapshot};
use super::state_machine::StateMachine;
use super::voter::{part, places};
use super::wire::{broker, id_out, node};

/// How long a voter may hold a pull for which it has nothing. Who leads is news as well, and comes with the answer.
const WAIT_MS: u32 = 500;
/// How long an answer may take beyond that.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Before another voter is asked.
const ELSEWHERE_AFTER: Duration = Duration::from_millis(50);

/// How long a leader that could not be followed is left alone, while another voter is followed.
const LEADER_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// A node that does not vote.
pub struct Observer<D: PeerDialer> {
    dialer: D,
    machine: StateMachine,
    publisher: Arc<Publisher>,
    position: FeedPosition,
    /// Where voters are by configuration; those of the membership come on top once it is known.
    listed: BTreeMap<BrokerId, (String, u16)>,
    leading: watch::Sender<Option<Leading>>,
    /// Hear who votes.
    controllers: Option<Arc<Controllers>>,
    /// When a leader could not be followed.
    leader_failed: Option<Instant>,
    /// This node, as the membership would name it.
    own: (u64, [u8; 16]),
    /// Where its log will be.
    directory: PathBuf,
    /// The leader's membership names it, as of everything that the leader has applied.
    is_added: bool,
    /// It may be a member of the quorum.
    may_vote: bool,
}

impl<D: PeerDialer> Observer<D> {
    /// An observer at the newest snapshot in its directory, if there is one. The receiver hears who leads.
    pub async fn open(
        options: &QuorumOptions,
        publisher: Arc<Publisher>,
        dialer: D,
        listed: BTreeMap<BrokerId, (String, u16)>,
    ) -> Result<(Observer<D>, watch::Receiver<Option<Leading>>), StartError> {
        let directory = &options.directory;
        let made = match options.disk.exists(directory) {
            Ok(true) => Ok(()),
            Ok(false) => options.disk.create_dir(directory),
            Err(error) => Err(error),
        };
        made.map_err(|source| Fault::Io { operation: "create", path: directory.clone(), position: None, source })?;
        let snapshots = SnapshotStore::new(options.disk.clone(), options.directory.clone());
        let stale_batches = Arc::new(AtomicU64::new(0));
        // What a log that was put aside has been applied to begins elsewhere.
        publisher.begin_anew();
        let mut machine = StateMachine::new(publisher.clone(), snapshots, stale_batches);
        if let Some(snapshot) = machine.get_current_snapshot().await.map_err(refused)? {
            machine.install_snapshot(&snapshot.meta, snapshot.snapshot).await.map_err(refused)?;
        }
        let (applied, _) = machine.applied_state().await.map_err(refused)?;
        let (leading, heard) = watch::channel(None);
        let position = FeedPosition::at(applied.map(id_out));
        let observer = Observer {
            dialer,
            machine,
            publisher,
            position,
            listed,
            leading,
            controllers: None,
            leader_failed: None,
            own: (node(options.node_id), options.voter.directory),
            directory: options.directory.clone(),
            is_added: false,
            may_vote: true,
        };
        Ok((observer, heard))
    }

    /// Has them hear who votes.
    pub fn tell(mut self, controllers: Arc<Controllers>) -> Observer<D> {
        self.controllers = Some(controllers);
        self
    }

    /// Whether it may be a member of the quorum; else it follows for ever, whatever the membership says.
    pub fn which_votes(self, may_vote: bool) -> Observer<D> {
        Observer { may_vote, ..self }
    }

    /// Follows until the membership names this node with its directory; what it has applied by then is durable as a
    /// snapshot, on which its log can begin. Fails only when what it was given cannot be applied, which ends the process:
    /// its image would differ from everybody else's.
    pub async fn run(mut self) -> Result<(), StartError> {
        let (mut turn, mut fruitless) = (0, 0);
        loop {
            if self.is_added {
                let mut builder = self.machine.get_snapshot_builder().await;
                builder.build_snapshot().await.map_err(refused)?;
                return Ok(());
            }
            let voters = self.voters().await?;
            let wanted = self.wanted_leader();
            let leader = voters.iter().find(|voter| Some(voter.node) == wanted);
            if let Some(voter) = leader.or(voters.get(turn % voters.len().max(1))) {
                let mut link = self.dialer.link(voter.clone(), Purpose::Feed);
                fruitless += 1;
                let why = self.follow(voter.node, &mut link, &mut fruitless).await?;
                tracing::debug!(node = %voter.node, "the metadata feed moves on: {why}");
                if self.wanted_leader() == Some(voter.node) {
                    self.leader_failed = Some(Instant::now());
                }
            }
            turn += 1;
            if fruitless >= voters.len() {
                // Nobody at all could be followed: nobody is known to lead.
                self.lead(None);
            }
            tokio::time::sleep(ELSEWHERE_AFTER).await;
        }
    }

    async fn has_applied(&mut self, upto: Option<LogId>) -> Result<bool, StartError> {
        let (applied, _) = self.machine.applied_state().await.map_err(refused)?;
        Ok(applied.map(id_out).map(|id| id.index) >= upto.map(|id| id.index))
    }

    /// Whether it is to vote. It cannot be a voter: nobody becomes one who has not answered as one to be.
    async fn is_member(&mut self) -> Result<bool, StartError> {
        let (_, stored) = self.machine.applied_state().await.map_err(refused)?;
        let (id, directory) = self.own;
        let is_named = stored.membership().get_node(&id).is_some_and(|member| member.directory == directory);
        if is_named && part(stored.membership(), id) == Part::Votes && !off!(VoteForgotten) {
            return Err(StartError::VoteForgotten { directory: self.directory.clone(), own: id });
        }
        Ok(is_named)
    }

    async fn voters(&mut self) -> Result<Vec<Target>, StartError> {
        let (_, membership) = self.machine.applied_state().await.map_err(refused)?;
        let membership = membership.membership();
        if let Some(controllers) = &self.controllers {
            controllers.on_voters(places(membership));
        }
        let mut voters: BTreeMap<BrokerId, Target> = BTreeMap::new();
        for (node, (host, port)) in &self.listed {
            voters.insert(*node, Target { node: *node, directory: None, host: host.clone(), port: *port });
        }
        for id in membership.voter_ids() {
            let Some(voter) = membership.get_node(&id) else { continue };
            let directory = Some(Uuid(voter.directory));
            let target = Target { node: broker(id), directory, host: voter.host.clone(), port: voter.port };
            voters.insert(broker(id), target);
        }
        Ok(voters.into_values().collect())
    }

    /// The leader, if it is worth a try: it is to know who follows and how far.
    fn wanted_leader(&self) -> Option<BrokerId> {
        let is_left_alone = self.leader_failed.is_some_and(|at| at.elapsed() < LEADER_AGAIN_AFTER);
        self.leading.borrow().filter(|_| !is_left_alone).map(|leading| leading.node)
    }

    /// Follows one voter for as long as it leads on; the reason why it does not any more. An answer that helps makes
    /// `fruitless` zero.
    async fn follow(
        &mut self,
        voter: BrokerId,
        link: &mut impl PeerLink,
        fruitless: &mut usize,
    ) -> Result<String, StartError> {
        loop {
            let pull = Pull { may_vote: self.may_vote, ..self.position.pull(WAIT_MS) };
            let within = Duration::from_millis(u64::from(WAIT_MS)) + ANSWER_WITHIN;
            let pulled = match link.exchange(Kind::Pull, pull.encode(), within).await {
                Ok(frame) if frame.kind == Kind::Pulled => Pulled::decode(frame.body),
                Ok(frame) => return Ok(LinkError::Malformed(format!("{:?} for a pull", frame.kind)).to_string()),
                Err(error) => return Ok(error.to_string()),
            };
            let pulled = match pulled {
                Ok(pulled) => pulled,
                Err(error) => return Ok(error.to_string()),
            };
            let (leader, applied) = (pulled.leader, pulled.applied);
            match self.position.on_pulled(pulled) {
                Advance::Apply(entries) => {
                    for entry in entries {
                        self.machine.apply_entry(&entry).map_err(refused)?;
                    }
                }
                Advance::Install(last, bytes) => {
                    let meta = match decode_snapshot(&bytes) {
                        Ok((meta, _)) if meta.last_log_id.map(id_out) == Some(last) => meta,
                        unreadable => {
                            // Nothing of it was taken: another voter's may be better.
                            let (applied, _) = self.machine.applied_state().await.map_err(refused)?;
                            self.position.on_unreadable(applied.map(id_out));
                            return Ok(match unreadable {
                                Ok(_) => "its snapshot covers something else than it says".to_owned(),
                                Err(error) => format!("its snapshot cannot be read: {error}"),
                            });
                        }
                    };
                    self.machine.install_snapshot(&meta, bytes).await.map_err(refused)?;
                }
                Advance::Again => {}
                Advance::Elsewhere(why) => return Ok(why.to_owned()),
            }
            *fruitless = 0;
            // Before anybody hears who leads: it may be one that was not known.
            self.voters().await?;
            self.lead(leader);
            // Memberships of earlier times pass by on the way to the present one.
            let is_of_leader = leader.is_some_and(|leading| leading.node == voter);
            if self.may_vote && is_of_leader && self.has_applied(applied).await? && self.is_member().await? {
                self.is_added = true;
                return Ok("this node is a member of the quorum".to_owned());
            }
            if self.wanted_leader().is_some_and(|wanted| wanted != voter) {
                return Ok("another voter leads".to_owned());
            }
        }
    }

    fn lead(&self, leading: Option<Leading>) {
        self.publisher.publish_controller(leading.map(|leading| leading.node));
        self.leading.send_if_modified(|known| std::mem::replace(known, leading) != leading);
    }
}
