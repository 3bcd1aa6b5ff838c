//! The first steps of the start: which configured log directories there are, whose they are, and what is in them.
//!
//! A directory that cannot be used is *absent*, never empty (rule 12): its partitions wait for it and are made nowhere
//! else. A cluster is formed only where every directory is empty. The directory that holds the metadata log must be
//! there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stonelog_protocol::{BrokerEpoch, ClusterId, DirectoryId, Uuid};
use stonelog_storage::disk::{Disk, raise_descriptor_limit};
use stonelog_storage::log::LogConfig;
use stonelog_storage::log_dir::{self, DirectoryState, LogDir, MemberMark, MetaProperties, PeerMarker, Tenure};
use stonelog_storage::recovery::{self, RecoveredLogDir, RecoveryOptions};
use stonelog_storage::segment::file_cache::{INDEX_BYTES_MAX, open_files_count};
use stonelog_storage::{Fault, log_dir::LastStop};

use super::{StartError, StartOptions};
use crate::quorum::log_store;
use crate::runtime::clock::Clock;
use crate::runtime::directory::AbsentDirectory;

/// A directory that is locked and ours.
pub(super) struct OpenDirectory {
    pub(super) log_dir: LogDir,
    pub(super) meta: MetaProperties,
    pub(super) tenure: Tenure,
    pub(super) holds_metadata: bool,
    /// Somebody has had it read again since it was last used, and wants it as it is.
    pub(super) was_reopened: bool,
}

/// A directory with its logs.
pub(super) struct RecoveredDirectory {
    pub(super) open: OpenDirectory,
    pub(super) recovered: RecoveredLogDir,
}

/// The configured directories as they were found; the usable ones are locked.
pub(super) struct FoundDirectories {
    found: Vec<(usize, LogDir, DirectoryState)>,
    absent: Vec<AbsentDirectory>,
    /// Those reopened since they were last used.
    reopened: Vec<usize>,
    metadata_place: usize,
}

/// What the configured directories are.
pub(super) struct OpenDirectories {
    pub(super) open: Vec<OpenDirectory>,
    pub(super) absent: Vec<AbsentDirectory>,
    pub(super) cluster_id: ClusterId,
    pub(super) is_new_cluster: bool,
}

/// Locks every directory that is there, and looks whose it is. Nothing is formatted yet.
pub(super) fn find_all(options: &StartOptions) -> Result<FoundDirectories, StartError> {
    let disk = &options.disk;
    let mut found: Vec<(usize, LogDir, DirectoryState)> = Vec::new();
    let mut missing = Vec::new();
    let mut absent = Vec::new();
    for (place, path) in options.log_dirs.iter().enumerate() {
        match look_at(disk, path) {
            Ok(None) => missing.push(place),
            Ok(Some((log_dir, state))) => found.push((place, log_dir, state)),
            Err(Unusable::Here(fault)) => return Err(fault.into()),
            Err(Unusable::Absent(directory)) => absent.push(directory),
        }
    }
    let is_ours = |state: &DirectoryState| matches!(state, DirectoryState::Ours(_));
    let is_first_start = absent.is_empty() && !found.iter().any(|(_, _, state)| is_ours(state));
    for place in missing {
        let path = &options.log_dirs[place];
        if is_first_start {
            let (log_dir, state) = LogDir::open(Arc::clone(disk), path)?;
            found.push((place, log_dir, state));
        } else {
            let reason = "the directory does not exist; mount its disk and start again, or, if it is to be a new and \
                          empty log directory, create it first";
            absent.push(AbsentDirectory { path: path.clone(), id: None, reason: reason.to_owned() });
        }
    }
    found.sort_by_key(|(place, ..)| *place);
    let (found, reopened) = leave_out_marked_by_neighbours(&**disk, found, &mut absent);
    if found.is_empty() {
        return Err(StartError::AllAbsent(absent));
    }
    check_whose(options, &found)?;
    if options.cluster.is_none() {
        refuse_those_of_several(options, &found)?;
    }
    let metadata_place = find_metadata(options, &found, &absent)?;
    Ok(FoundDirectories { found, absent, reopened, metadata_place })
}

impl FoundDirectories {
    /// The directory that holds the metadata log, or will.
    fn home(&self) -> &(usize, LogDir, DirectoryState) {
        let home = self.found.iter().find(|(place, ..)| *place == self.metadata_place);
        home.expect("the metadata's place is that of a directory that was found")
    }

    fn metas(&self) -> impl Iterator<Item = &MetaProperties> {
        self.found.iter().filter_map(|(_, _, state)| match state {
            DirectoryState::Ours(meta) => Some(meta),
            DirectoryState::Empty => None,
        })
    }

    /// Where the metadata log is, or will be.
    pub(super) fn metadata_home(&self) -> PathBuf {
        self.home().1.path().to_owned()
    }

    /// The identity that this node votes with; durable from here on, before anybody hears of it (rule 13).
    pub(super) fn voting_identity(&self, options: &StartOptions) -> Result<DirectoryId, Fault> {
        let (place, log_dir, state) = self.home();
        if let DirectoryState::Ours(meta) = state {
            return Ok(meta.directory_id);
        }
        if let Some(mark) = MemberMark::read(&*options.disk, log_dir.path())? {
            return Ok(mark.directory_id);
        }
        let mark = MemberMark { directory_id: directory_id(options, *place), may_have_voted: false };
        mark.write(&*options.disk, log_dir.path())?;
        Ok(mark.directory_id)
    }

    /// The cluster that the directories belong to, or are wished to.
    pub(super) fn cluster_id(&self, options: &StartOptions) -> Option<ClusterId> {
        self.metas().next().map(|meta| meta.cluster_id.clone()).or_else(|| options.cluster_id.clone())
    }

    /// The newest entry that this node is known to have applied: a broker epoch recorded in any directory, which is the
    /// index of one, or what a node that is no broker has recorded instead.
    pub(super) fn newest_epoch(&self) -> Option<BrokerEpoch> {
        let applied = |meta: &MetaProperties| meta.metadata_index.map(|index| BrokerEpoch(index as i64));
        self.metas().filter_map(|meta| meta.broker_epoch.max(applied(meta))).max()
    }

    /// The directory, if there is one, that holds replicas or a broker epoch: this node has been a broker.
    pub(super) fn of_a_broker(&self) -> Result<Option<PathBuf>, Fault> {
        for (_, log_dir, state) in &self.found {
            let DirectoryState::Ours(meta) = state else { continue };
            if meta.broker_epoch.is_some() || !log_dir.replicas()?.is_empty() {
                return Ok(Some(log_dir.path().to_owned()));
            }
        }
        Ok(None)
    }

    /// Whether any directory holds replicas or a recorded broker epoch, or says that this node has followed the metadata:
    /// it has been part of a cluster.
    pub(super) fn has_been_used(&self) -> Result<bool, Fault> {
        let is_in_use = |meta: &MetaProperties| meta.broker_epoch.is_some() || meta.metadata_index.is_some();
        let mut is_used = self.metas().any(is_in_use) || !self.absent.is_empty();
        for (_, log_dir, state) in &self.found {
            is_used |= matches!(state, DirectoryState::Ours(_)) && !log_dir.replicas()?.is_empty();
        }
        Ok(is_used)
    }

    /// Formats the empty directories for a cluster, or a new one with `None`, and refuses those of another.
    pub(super) fn open(
        self,
        options: &StartOptions,
        cluster_id: Option<ClusterId>,
    ) -> Result<OpenDirectories, StartError> {
        let FoundDirectories { found, absent, reopened, metadata_place } = self;
        let mut opened = format_and_check(options, found, absent, metadata_place, cluster_id)?;
        for directory in &mut opened.open {
            let place = options.log_dirs.iter().position(|path| *path == directory.log_dir.path());
            directory.was_reopened = place.is_some_and(|place| reopened.contains(&place));
        }
        Ok(opened)
    }
}

/// Why a directory cannot be used.
enum Unusable {
    /// It is there, and not ours: a mistake to be mended.
    Here(Fault),
    /// It is not there, or not to be trusted.
    Absent(AbsentDirectory),
}

/// Locks a directory and says what is in it; `None` when there is none.
fn look_at(disk: &Arc<dyn Disk>, path: &Path) -> Result<Option<(LogDir, DirectoryState)>, Unusable> {
    let absent = |fault: Fault| match fault {
        Fault::Foreign { .. } => Unusable::Here(fault),
        fault => {
            let reason = fault.to_string();
            Unusable::Absent(AbsentDirectory { path: path.to_owned(), id: None, reason })
        }
    };
    match disk.exists(path) {
        Ok(true) => {}
        Ok(false) => return Ok(None),
        Err(source) => return Err(absent(Fault::io("stat", path, source))),
    }
    if let Some(reason) = log_dir::offline_reason(&**disk, path).map_err(absent)? {
        let id = MetaProperties::read(&**disk, path).ok().flatten().map(|read| read.value.directory_id);
        return Err(Unusable::Absent(marked(path, id, &reason)));
    }
    LogDir::open(Arc::clone(disk), path).map(Some).map_err(absent)
}

fn marked(path: &Path, id: Option<Uuid>, reason: &str) -> AbsentDirectory {
    let reason = format!(
        "it failed ({reason}) and stays offline until it has been read again from the device: stop the broker, run \
         `stonelog storage reopen {}`, and start again",
        path.display()
    );
    AbsentDirectory { path: path.to_owned(), id, reason }
}

/// A failing device may not even have taken its own marker; its neighbours remember. A directory whose own files cannot
/// be read or written meanwhile is left out by itself. Returns the others, and which of them were reopened.
fn leave_out_marked_by_neighbours(
    disk: &dyn Disk,
    found: Vec<(usize, LogDir, DirectoryState)>,
    absent: &mut Vec<AbsentDirectory>,
) -> (Vec<(usize, LogDir, DirectoryState)>, Vec<usize>) {
    let failed = |log_dir: &LogDir, state: &DirectoryState, fault: &Fault| {
        tracing::error!("log directory {} is left out: {fault}", log_dir.path().display());
        let id = match state {
            DirectoryState::Ours(meta) => Some(meta.directory_id),
            DirectoryState::Empty => None,
        };
        AbsentDirectory { path: log_dir.path().to_owned(), id, reason: fault.to_string() }
    };
    let mut markers: Vec<(PathBuf, PeerMarker)> = Vec::new();
    let mut readable = Vec::new();
    for (place, log_dir, state) in found {
        match log_dir::peers_offline(disk, log_dir.path()) {
            Ok(said) => {
                markers.extend(said.into_iter().map(|marker| (log_dir.path().to_owned(), marker)));
                readable.push((place, log_dir, state));
            }
            Err(fault) => absent.push(failed(&log_dir, &state, &fault)),
        }
    }
    let (mut kept, mut reopened) = (Vec::new(), Vec::new());
    for (place, log_dir, state) in readable {
        let DirectoryState::Ours(meta) = &state else {
            kept.push((place, log_dir, state));
            continue;
        };
        let about_it: Vec<_> = markers.iter().filter(|(_, marker)| marker.id == meta.directory_id).collect();
        match said_by_neighbours(disk, log_dir.path(), &about_it) {
            Ok(Said::Nothing) => kept.push((place, log_dir, state)),
            Ok(Said::Settled) => {
                reopened.push(place);
                kept.push((place, log_dir, state));
            }
            Ok(Said::Failed(reason)) => absent.push(marked(log_dir.path(), Some(meta.directory_id), &reason)),
            Err(fault) => absent.push(failed(&log_dir, &state, &fault)),
        }
    }
    (kept, reopened)
}

/// What the neighbours of a directory say of it.
enum Said {
    /// Nothing that counts.
    Nothing,
    /// It was reopened: whatever they say is settled.
    Settled,
    /// It has failed, and why.
    Failed(String),
}

/// Whether a directory may be used, by what its neighbours say of it. What is settled is forgotten; a neighbour that takes
/// no change, or is away, may say it again, and it stays settled.
fn said_by_neighbours(disk: &dyn Disk, path: &Path, about_it: &[&(PathBuf, PeerMarker)]) -> Result<Said, Fault> {
    let forget = |at: &Path, marker: &PeerMarker| {
        if let Err(fault) = log_dir::forget_peer(disk, at, marker.id) {
            tracing::warn!("{} still says that {} has failed, which is settled: {fault}", at.display(), path.display());
        }
    };
    let settled = log_dir::reopened_epoch(disk, path)?.unwrap_or(BrokerEpoch(-1));
    if log_dir::is_just_reopened(disk, path)? {
        // One that cannot be read says nothing of others.
        let told = about_it.iter().map(|(_, marker)| marker.epoch).filter(|epoch| *epoch != BrokerEpoch(i64::MAX));
        let newest = told.fold(settled, BrokerEpoch::max);
        about_it.iter().for_each(|(at, marker)| forget(at, marker));
        log_dir::on_reopened(disk, path, newest)?;
        return Ok(Said::Settled);
    }
    let mut said = Said::Nothing;
    for (at, marker) in about_it {
        match settled >= marker.epoch {
            true => forget(at, marker),
            false => said = Said::Failed(marker.reason.clone()),
        }
    }
    Ok(said)
}

/// Refuses the directories of another node or cluster, and two with one identity, before anybody hears of them.
fn check_whose(options: &StartOptions, found: &[(usize, LogDir, DirectoryState)]) -> Result<(), StartError> {
    let mut known: Vec<(&LogDir, &MetaProperties)> = Vec::new();
    for (_, log_dir, state) in found {
        let DirectoryState::Ours(meta) = state else { continue };
        let cluster_id = options.cluster_id.as_ref().or(known.first().map(|(_, first)| &first.cluster_id));
        meta.require(log_dir.path(), cluster_id, options.node_id)?;
        if let Some((original, _)) = known.iter().find(|(_, other)| other.directory_id == meta.directory_id) {
            let (one, other) = (original.path().to_owned(), log_dir.path().to_owned());
            return Err(StartError::SameDirectory { one, other });
        }
        known.push((log_dir, meta));
    }
    Ok(())
}

/// The place of the directory with the metadata log, or of the one to begin it in.
fn find_metadata(
    options: &StartOptions,
    found: &[(usize, LogDir, DirectoryState)],
    absent: &[AbsentDirectory],
) -> Result<usize, StartError> {
    let (mut ours, mut with_log) = (Vec::new(), Vec::new());
    for (place, log_dir, state) in found {
        let DirectoryState::Ours(meta) = state else { continue };
        if has_metadata_log(options, log_dir)? {
            with_log.push((*place, log_dir.path()));
        }
        ours.push((*place, meta));
    }
    match with_log.as_slice() {
        [] => {}
        [(place, _)] => return Ok(*place),
        [(_, one), (_, other), ..] => {
            return Err(StartError::TwoMetadataLogs { one: one.to_path_buf(), other: other.to_path_buf() });
        }
    }
    if let Some(cluster) = &options.cluster {
        // A node of several finds its cluster again, whatever it has lost; but not a voter whose log may be elsewhere:
        // absent is not empty (rule 12).
        let is_listed = cluster.voters.iter().any(|voter| voter.node == options.node_id);
        if absent.is_empty() || !is_listed || remembers_to_be_a_members(options, found)? {
            return place_for_metadata(options, found);
        }
    }
    let is_begun = ours.iter().any(|(_, meta)| meta.broker_epoch.is_some());
    let begins_in = ours.is_empty() || ours.iter().any(|(place, _)| *place == options.metadata_place);
    if absent.is_empty() && !is_begun && begins_in {
        return Ok(options.metadata_place);
    }
    Err(StartError::MetadataAbsent {
        looked_in: found.iter().map(|(_, log_dir, _)| log_dir.path().to_owned()).collect(),
        absent: absent.to_vec(),
    })
}

/// Whether a directory holds a metadata log: a folder of that name alone is a cache of one who does not vote, or nothing.
fn has_metadata_log(options: &StartOptions, log_dir: &LogDir) -> Result<bool, Fault> {
    log_store::exists(&*options.disk, &log_dir.metadata_path())
}

/// Whether a directory of ours says that it is where this node's part in the quorum is kept.
fn remembers_to_be_a_members(options: &StartOptions, found: &[(usize, LogDir, DirectoryState)]) -> Result<bool, Fault> {
    for (_, log_dir, state) in found {
        let is_ours = matches!(state, DirectoryState::Ours(_));
        if is_ours && MemberMark::read(&*options.disk, log_dir.path())?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A lone node begins no metadata log in a directory that was part of a cluster of several: it would be a second cluster
/// with the same id. Where there is a log, the voters that it names are asked later.
fn refuse_those_of_several(
    options: &StartOptions,
    found: &[(usize, LogDir, DirectoryState)],
) -> Result<(), StartError> {
    for (_, log_dir, state) in found {
        let Some(mark) = MemberMark::read(&*options.disk, log_dir.path())? else { continue };
        let was_member = mark.may_have_voted || matches!(state, DirectoryState::Ours(_));
        if was_member && !has_metadata_log(options, log_dir)? {
            return Err(StartError::OneOfSeveral { directory: log_dir.path().to_owned() });
        }
    }
    Ok(())
}

/// The place of the directory that remembers to be a member's, else of one with a cache of the metadata, else the
/// configured one, else the first that is usable.
fn place_for_metadata(options: &StartOptions, found: &[(usize, LogDir, DirectoryState)]) -> Result<usize, StartError> {
    for (place, log_dir, _) in found {
        if MemberMark::read(&*options.disk, log_dir.path())?.is_some() {
            return Ok(*place);
        }
    }
    for (place, log_dir, _) in found {
        let path = log_dir.metadata_path();
        if options.disk.exists(&path).map_err(|source| Fault::io("stat", &path, source))? {
            return Ok(*place);
        }
    }
    let configured = found.iter().find(|(place, ..)| *place == options.metadata_place);
    let (place, ..) = configured.or(found.first()).expect("a start without any directory has ended before");
    Ok(*place)
}

/// Formats the empty directories, the one with the metadata log first, and refuses those of another cluster or node.
fn format_and_check(
    options: &StartOptions,
    found: Vec<(usize, LogDir, DirectoryState)>,
    absent: Vec<AbsentDirectory>,
    metadata_place: usize,
    joined: Option<ClusterId>,
) -> Result<OpenDirectories, StartError> {
    let known = found.iter().find_map(|(_, _, state)| match state {
        DirectoryState::Ours(meta) => Some(meta.cluster_id.clone()),
        DirectoryState::Empty => None,
    });
    let is_new_cluster = known.is_none();
    let fresh = || ClusterId(Uuid::from_random(options.random.cluster).to_string().into());
    let cluster_id = joined.or(known).or_else(|| options.cluster_id.clone()).unwrap_or_else(fresh);
    let mut open = Vec::new();
    let (first, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|(place, ..)| *place == metadata_place);
    for (place, log_dir, state) in first.into_iter().chain(others) {
        let meta = match state {
            DirectoryState::Ours(meta) => {
                meta.require(log_dir.path(), options.cluster_id.as_ref(), options.node_id)?;
                meta.require(log_dir.path(), Some(&cluster_id), options.node_id)?;
                meta
            }
            DirectoryState::Empty => {
                let promised = MemberMark::read(&*options.disk, log_dir.path())?.map(|mark| mark.directory_id);
                let meta = MetaProperties {
                    cluster_id: cluster_id.clone(),
                    node_id: options.node_id,
                    directory_id: promised.unwrap_or_else(|| directory_id(options, place)),
                    broker_epoch: None,
                    follows_epoch: None,
                    metadata_index: None,
                };
                log_dir.format(&meta)?;
                if !is_new_cluster {
                    tracing::warn!(
                        "log directory {} was empty and is now a new one ({}); if a disk should have been mounted \
                         there, stop the broker and mount it",
                        log_dir.path().display(),
                        meta.directory_id
                    );
                }
                meta
            }
        };
        give_up_reserve_if_needed(&*options.disk, log_dir.path())?;
        let tenure =
            (options.tenure_of)(log_dir.path()).map_err(|source| Fault::io("statx", log_dir.path(), source))?;
        open.push((
            place,
            OpenDirectory { log_dir, meta, tenure, holds_metadata: place == metadata_place, was_reopened: false },
        ));
    }
    open.sort_by_key(|(place, _)| *place);
    let open = open.into_iter().map(|(_, directory)| directory).collect();
    Ok(OpenDirectories { open, absent, cluster_id, is_new_cluster })
}

/// Recovery begins new journal files: on a full disk the reserve is for them.
fn give_up_reserve_if_needed(disk: &dyn Disk, path: &Path) -> Result<(), Fault> {
    let space = disk.space(path).map_err(|source| Fault::io("statvfs", path, source))?;
    if space.usable_bytes < 2 * log_dir::RESERVE_BYTES {
        log_dir::release_reserve(disk, path)?;
    }
    Ok(())
}

/// The place is mixed in, so that one random number serves all directories of a start.
fn directory_id(options: &StartOptions, place: usize) -> Uuid {
    let mut random = options.random.directory;
    for (byte, place) in random.iter_mut().zip((place as u64).to_le_bytes()) {
        *byte ^= place;
    }
    Uuid::from_random(random)
}

/// Recovers every directory, all at the same time. One that fails is absent, unless the broker cannot be without it.
pub(super) fn recover_all(
    options: &StartOptions,
    open: Vec<OpenDirectory>,
    absent: &mut Vec<AbsentDirectory>,
) -> Result<Vec<RecoveredDirectory>, StartError> {
    let results: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = open.iter().map(|directory| scope.spawn(move || recover(options, directory))).collect();
        running.into_iter().map(|thread| thread.join()).collect()
    });
    let whole: Vec<PathBuf> = open
        .iter()
        .zip(&results)
        .filter(|(_, result)| matches!(result, Ok(Ok(_))))
        .map(|(directory, _)| directory.log_dir.path().to_owned())
        .collect();
    let mut recovered = Vec::new();
    let mut last_fault = None;
    for (directory, result) in open.into_iter().zip(results) {
        let result = result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match result {
            Ok(found) => recovered.push(RecoveredDirectory { open: directory, recovered: found }),
            Err(fault) => {
                let path = directory.log_dir.path();
                if fault.is_device_failure() {
                    mark(options, &directory, &whole, &fault.to_string());
                }
                if directory.holds_metadata {
                    return Err(fault.into());
                }
                tracing::error!("log directory {} cannot be recovered and is left out: {fault}", path.display());
                let (id, reason) = (Some(directory.meta.directory_id), fault.to_string());
                absent.push(AbsentDirectory { path: PathBuf::from(path), id, reason });
                last_fault = Some(fault);
            }
        }
    }
    match last_fault {
        Some(fault) if recovered.is_empty() => Err(fault.into()),
        _ => Ok(recovered),
    }
}

/// Leaves markers that keep a directory out of use, as a running broker does: in itself, and in its neighbours, because a
/// failing device may take nothing.
fn mark(options: &StartOptions, failed: &OpenDirectory, neighbours: &[PathBuf], reason: &str) {
    let (disk, path) = (&*options.disk, failed.log_dir.path());
    // Newer than what was settled, though no broker epoch came after that.
    let recorded = failed.meta.broker_epoch.unwrap_or(BrokerEpoch(0));
    let epoch = log_dir::failure_epoch(disk, path, recorded).unwrap_or(recorded);
    let own = log_dir::mark_offline(disk, path, reason).map(|()| path);
    let others = neighbours.iter().map(|neighbour| {
        log_dir::mark_peer_offline(disk, neighbour, failed.meta.directory_id, epoch, reason)
            .map(|()| neighbour.as_path())
    });
    let mut is_marked = false;
    for marked in [own].into_iter().chain(others) {
        match marked {
            Ok(_) => is_marked = true,
            Err(fault) => tracing::error!("cannot mark {} as offline: {fault}", path.display()),
        }
    }
    if !is_marked {
        tracing::error!("nothing will keep {} from being used again: have its device checked", path.display());
    }
}

/// A device that fails while the start writes to it is not asked again by the next one.
pub(super) fn mark_if_device_failed(
    options: &StartOptions,
    failed: &OpenDirectory,
    all: &[RecoveredDirectory],
    fault: &Fault,
) {
    if !fault.is_device_failure() {
        return;
    }
    let others = all.iter().map(|directory| &directory.open).filter(|open| !std::ptr::eq(*open, failed));
    let neighbours: Vec<PathBuf> = others.map(|open| open.log_dir.path().to_owned()).collect();
    mark(options, failed, &neighbours, &fault.to_string());
}

fn recover(options: &StartOptions, directory: &OpenDirectory) -> Result<RecoveredLogDir, Fault> {
    let last_stop = directory.log_dir.begin(&directory.tenure)?;
    let recovery = RecoveryOptions {
        journal_name: "journal",
        journal: options.journal,
        config: LogConfig::default(),
        relaxed_survived: last_stop != LastStop::Unknown,
        open_files_count: open_files_count(raise_descriptor_limit()) / options.log_dirs.len().max(1),
        index_bytes_max: INDEX_BYTES_MAX,
        progress: Arc::clone(&options.progress),
    };
    recovery::recover_log_dir(&options.disk, directory.log_dir.path(), &recovery, Clock.wall())
}
