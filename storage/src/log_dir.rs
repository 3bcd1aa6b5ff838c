//! A log directory: who owns it, where things lie in it, and how it was last left.
//!
//! [`LogDir::open`] locks it and says what it found; nothing is written before [`LogDir::format`], which only an empty
//! directory accepts (rule 12). Not here: what is in the journal and the replica directories.

mod member_mark;
mod meta_properties;
mod offline;
mod recorded_epochs;
mod reread;
mod reserve;
mod tenure;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stonelog_protocol::{BrokerEpoch, PartitionIndex, TopicPartition, Uuid};

pub use member_mark::{MEMBER_NAME, MemberMark};
pub use meta_properties::{META_PROPERTIES_NAME, MetaError, MetaProperties};
pub use offline::{
    OFFLINE_NAME, PeerMarker, REOPENED_NAME, failure_epoch, forget_peer, is_just_reopened, mark_offline,
    mark_peer_offline, offline_reason, on_reopened, peers_offline, reopened_epoch,
};
pub use recorded_epochs::RecordedEpochs;
pub use reread::Reread;
pub use reserve::{RESERVE_BYTES, RESERVE_NAME, has_reserve, make_reserve, probe_space, release_reserve};
pub(crate) use tenure::TENURE_KIND;
pub use tenure::{CLEAN_STOP_NAME, LastStop, TENURE_NAME, Tenure, current_tenure};

use crate::Fault;
use crate::checkpoint::CHECKPOINT_NAME;
use crate::disk::real::LOCK_NAME;
use crate::disk::{DirLock, Disk};
use crate::small_file::{self, copy_name};

/// What was found in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryState {
    /// Nothing of anybody's: it may be formatted.
    Empty,
    /// Formatted by this program.
    Ours(MetaProperties),
}

/// A locked log directory. Dropping it releases the lock.
pub struct LogDir {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    _lock: Box<dyn DirLock>,
}

impl LogDir {
    /// Locks the directory, making it and missing parents first, and looks at what is in it.
    ///
    /// Held by another process, Kafka's, or somebody else's files: [`Fault::Foreign`] with what to do. Ours but with
    /// both copies of its identity damaged or missing: [`Fault::Damage`] with what to do.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<(LogDir, DirectoryState), Fault> {
        make_dirs(&*disk, path)?;
        let lock = disk.lock_dir(path).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => Fault::Foreign {
                path: path.to_owned(),
                detail: "another process has this log directory open; stop it, or give this broker a directory of \
                         its own"
                    .to_owned(),
            },
            _ => Fault::io("lock", path, e),
        })?;
        let directory = LogDir { disk, path: path.to_owned(), _lock: lock };
        let state = directory.look()?;
        Ok((directory, state))
    }

    /// Makes an empty directory ours. The identity is the last thing a power cut can leave out, so an interrupted format
    /// is an empty directory again.
    pub fn format(&self, meta: &MetaProperties) -> Result<(), Fault> {
        match self.look()? {
            DirectoryState::Empty => meta.write(&*self.disk, &self.path, 1),
            DirectoryState::Ours(_) => Err(self.foreign("it is already formatted".to_owned())),
        }
    }

    /// Durably records the broker epoch under which this process registered, and what it follows (rule 11).
    pub fn record_broker_epoch(&self, epoch: BrokerEpoch, follows: Option<BrokerEpoch>) -> Result<(), Fault> {
        let read = MetaProperties::read(&*self.disk, &self.path)?
            .ok_or_else(|| self.foreign(format!("{META_PROPERTIES_NAME} has vanished while the broker ran")))?;
        if read.value.recorded_epochs() == (RecordedEpochs { last: Some(epoch), follows }) {
            return Ok(());
        }
        let meta = MetaProperties { broker_epoch: Some(epoch), follows_epoch: follows, ..read.value };
        meta.write(&*self.disk, &self.path, read.version + 1)
    }

    /// Durably records an entry of the metadata log that this node, which is no broker, has applied: for a voter only once
    /// its own log holds it for certain. An earlier one than is recorded changes nothing.
    pub fn record_metadata_index(&self, index: u64) -> Result<(), Fault> {
        let read = MetaProperties::read(&*self.disk, &self.path)?
            .ok_or_else(|| self.foreign(format!("{META_PROPERTIES_NAME} has vanished while the node ran")))?;
        if read.value.metadata_index >= Some(index) {
            return Ok(());
        }
        let meta = MetaProperties { metadata_index: Some(index), ..read.value };
        meta.write(&*self.disk, &self.path, read.version + 1)
    }

    /// How the directory was last left. A start that ends before [`LogDir::record_tenure`] changes nothing about it.
    pub fn begin(&self, now: &Tenure) -> Result<LastStop, Fault> {
        tenure::begin(&*self.disk, &self.path, now)
    }

    /// Records under which kernel boot and mount the directory is written from here on, and takes the clean-stop marker
    /// away; both durably, so call it before the first append. After [`LastStop::Unknown`] call it only when this start's
    /// verdicts are durable: else a second crash would pass for the process's alone.
    pub fn record_tenure(&self, now: &Tenure) -> Result<(), Fault> {
        tenure::record(&*self.disk, &self.path, now)
    }

    /// The last act of a clean stop: everything written is durable.
    pub fn mark_clean_stop(&self, now: &Tenure) -> Result<(), Fault> {
        tenure::mark_clean_stop(&*self.disk, &self.path, now)
    }

    /// Puts a directory that had failed back into use: only for whoever has just read all of it from the device.
    pub fn settle_failure(&self) -> Result<(), Fault> {
        // Pages were lost, not only the process: relaxed replicas have not survived.
        small_file::remove_small_file(&*self.disk, &self.path, TENURE_NAME)?;
        small_file::remove_small_file(&*self.disk, &self.path, CLEAN_STOP_NAME)?;
        let recorded = MetaProperties::read(&*self.disk, &self.path)?.and_then(|read| read.value.broker_epoch);
        // Also what a neighbour says that is away now and that no start will ask until it is back.
        let newest = offline::failure_epoch(&*self.disk, &self.path, recorded.unwrap_or(BrokerEpoch(-1)))?;
        offline::settle(&*self.disk, &self.path, newest)
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The disk it lies on.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Where the journal lies.
    pub fn journal_path(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// Where the metadata quorum's log lies.
    pub fn metadata_path(&self) -> PathBuf {
        self.path.join("metadata")
    }

    /// Where a replica's segments lie.
    pub fn replica_path(&self, partition: &TopicPartition) -> PathBuf {
        self.path.join(partition.to_string())
    }

    /// The replicas that have a directory, in order of their identity.
    pub fn replicas(&self) -> Result<Vec<TopicPartition>, Fault> {
        let entries = self.disk.list(&self.path).map_err(|e| Fault::io("list", &self.path, e))?;
        let is_replica = |entry: &crate::disk::DirEntry| entry.is_dir.then(|| parse_replica_name(&entry.name))?;
        let mut replicas: Vec<TopicPartition> = entries.iter().filter_map(is_replica).collect();
        replicas.sort_unstable();
        Ok(replicas)
    }

    fn look(&self) -> Result<DirectoryState, Fault> {
        if let Some(read) = self.read_meta()? {
            return Ok(DirectoryState::Ours(read));
        }
        let entries = self.disk.list(&self.path).map_err(|e| Fault::io("list", &self.path, e))?;
        let mut names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        names.retain(|name| !is_nobodys(name));
        names.sort_unstable();
        let Some(first) = names.first() else {
            return Ok(DirectoryState::Empty);
        };
        if let Some(kafkas) = names.iter().find(|name| is_kafkas(name)) {
            let detail = format!(
                "this is Apache Kafka's data ({kafkas} is in it); name an empty directory, and bring the data over by \
                 replicating the topics"
            );
            return Err(self.foreign(detail));
        }
        if ["journal", "metadata", CHECKPOINT_NAME].iter().any(|ours| names.contains(ours)) {
            return Err(Fault::Damage {
                what: META_PROPERTIES_NAME,
                path: self.path.join(META_PROPERTIES_NAME),
                position: 0,
                detail: format!(
                    "the directory holds a log, but neither copy of its identity exists; restore {META_PROPERTIES_NAME} \
                     or {} from a backup, or empty the directory so that its replicas are fetched anew",
                    copy_name(META_PROPERTIES_NAME)
                ),
            });
        }
        if names.iter().all(|name| is_hidden_and_ours(name)) {
            let hidden = entries.iter().map(|entry| entry.name.as_str()).filter(|name| is_hidden_and_ours(name));
            let mut hidden: Vec<&str> = hidden.collect();
            hidden.sort_unstable();
            return Err(self.foreign(format!(
                "the directory was this program's and has been emptied, but for its hidden files: {}. If it is to be a \
                 new and empty log directory, remove them as well, all of them; if a disk or a backup belongs here, put \
                 it back",
                hidden.join(", ")
            )));
        }
        Err(self.foreign(format!(
            "the directory is not empty ({first} is in it) and was not formatted by this program; name an empty one"
        )))
    }

    /// The identity, unless there is none. Kafka's file of the same name is foreign, not damaged.
    fn read_meta(&self) -> Result<Option<MetaProperties>, Fault> {
        let path = self.path.join(META_PROPERTIES_NAME);
        let first = small_file::read_small_file(&*self.disk, &path)?;
        let second = small_file::read_small_file(&*self.disk, &self.path.join(copy_name(META_PROPERTIES_NAME)))?;
        if let (Some(bytes), None) = (first, second)
            && MetaProperties::decode(&bytes) == Err(MetaError::Kafkas)
        {
            let detail = format!(
                "this is Apache Kafka's data (its {META_PROPERTIES_NAME} carries no mark of ours); name an empty \
                 directory, and bring the data over by replicating the topics"
            );
            return Err(self.foreign(detail));
        }
        Ok(MetaProperties::read(&*self.disk, &self.path)?.map(|read| read.value))
    }

    fn foreign(&self, detail: String) -> Fault {
        Fault::Foreign { path: self.path.clone(), detail }
    }
}

/// The replica a directory is named after: `<topic id>-<partition>`.
pub fn parse_replica_name(name: &str) -> Option<TopicPartition> {
    let (topic_id, partition) = name.rsplit_once('-')?;
    let topic_id = Uuid::parse(topic_id)?;
    let number: i32 = partition.parse().ok()?;
    let parsed = TopicPartition { topic_id, partition: PartitionIndex(number) };
    // One name per replica: `+1`, `01` and the like are not ours.
    (number >= 0 && parsed.to_string() == name).then_some(parsed)
}

/// What a fresh file system, a lock, a probe, an interrupted format or the wait for other voters leaves.
fn is_nobodys(name: &str) -> bool {
    let is_mark = name == MEMBER_NAME || name.strip_suffix(".copy") == Some(MEMBER_NAME);
    is_mark || name == "lost+found" || name == LOCK_NAME || name.ends_with(".tmp")
}

fn is_hidden_and_ours(name: &str) -> bool {
    name.starts_with(".stonelog_")
}

fn is_kafkas(name: &str) -> bool {
    const CHECKPOINTS: [&str; 4] = [
        "recovery-point-offset-checkpoint",
        "replication-offset-checkpoint",
        "log-start-offset-checkpoint",
        "cleaner-offset-checkpoint",
    ];
    CHECKPOINTS.contains(&name) || name == ".kafka_cleanshutdown" || name.starts_with("__cluster_metadata-")
}

fn make_dirs(disk: &dyn Disk, path: &Path) -> Result<(), Fault> {
    if disk.exists(path).map_err(|e| Fault::io("stat", path, e))? {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_dirs(disk, parent)?;
    }
    disk.create_dir(path).map_err(|e| Fault::io("create", path, e))?;
    let parent = parent.unwrap_or(Path::new("."));
    disk.sync_dir(parent).map_err(|e| Fault::io("fsync", parent, e))
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::{BrokerId, ClusterId};

    use super::*;
    use crate::disk::{SimDisk, Tearing};
    use crate::small_file::write_small_file;

    const PATH: &str = "/data/logs";

    fn meta() -> MetaProperties {
        MetaProperties {
            cluster_id: ClusterId("a cluster".into()),
            node_id: BrokerId(3),
            directory_id: Uuid([7; 16]),
            broker_epoch: None,
            follows_epoch: None,
            metadata_index: None,
        }
    }

    fn open(disk: &SimDisk) -> Result<(LogDir, DirectoryState), Fault> {
        LogDir::open(Arc::new(disk.clone()), Path::new(PATH))
    }

    fn put(disk: &SimDisk, name: &str, bytes: &[u8]) {
        write_small_file(disk, Path::new(PATH), name, bytes).unwrap();
    }

    #[test]
    fn an_empty_directory_is_formatted_once() {
        let disk = SimDisk::new();
        disk.create_dir(Path::new("/data")).unwrap();
        disk.create_dir(Path::new(PATH)).unwrap();
        disk.create_dir(&Path::new(PATH).join("lost+found")).unwrap();
        let (directory, state) = open(&disk).unwrap();
        assert_eq!(state, DirectoryState::Empty);
        directory.format(&meta()).unwrap();
        assert!(directory.format(&meta()).is_err());
        assert!(matches!(open(&disk), Err(Fault::Foreign { .. })), "it is locked");
        drop(directory);
        disk.crash(1, Tearing::Sectors);
        assert_eq!(open(&disk).unwrap().1, DirectoryState::Ours(meta()));
    }

    #[test]
    fn an_interrupted_format_leaves_an_empty_or_a_formatted_directory() {
        let attempt = |cut: Option<u64>, seed| {
            let disk = SimDisk::new();
            if let Some(cut) = cut {
                disk.cut_power_at(cut);
            }
            let result = open(&disk).and_then(|(directory, _)| directory.format(&meta()));
            let changes = disk.changes();
            disk.crash(seed, Tearing::Sectors);
            let (_, state) = open(&disk).unwrap();
            assert!(state == DirectoryState::Empty || state == DirectoryState::Ours(meta()), "{state:?}");
            assert!(result.is_err() || state != DirectoryState::Empty);
            changes
        };
        for cut in 0..attempt(None, 0) {
            for seed in 0..20 {
                attempt(Some(cut), seed);
            }
        }
    }

    #[test]
    fn the_broker_epoch_survives_a_damaged_copy() {
        for damaged in [META_PROPERTIES_NAME.to_owned(), copy_name(META_PROPERTIES_NAME)] {
            let disk = SimDisk::new();
            let (directory, _) = open(&disk).unwrap();
            directory.format(&meta()).unwrap();
            directory.record_broker_epoch(BrokerEpoch(41), Some(BrokerEpoch(39))).unwrap();
            drop(directory);
            disk.flip_bit(&Path::new(PATH).join(&damaged), 30, 2);
            let (broker_epoch, follows_epoch) = (Some(BrokerEpoch(41)), Some(BrokerEpoch(39)));
            let expected = MetaProperties { broker_epoch, follows_epoch, ..meta() };
            assert_eq!(open(&disk).unwrap().1, DirectoryState::Ours(expected));
            let repaired = disk.contents(&Path::new(PATH).join(damaged));
            assert!(MetaProperties::decode(&repaired).is_ok());
        }
    }

    #[test]
    fn both_copies_damaged_says_what_to_do() {
        let disk = SimDisk::new();
        let (directory, _) = open(&disk).unwrap();
        directory.format(&meta()).unwrap();
        drop(directory);
        for name in [META_PROPERTIES_NAME.to_owned(), copy_name(META_PROPERTIES_NAME)] {
            disk.flip_bit(&Path::new(PATH).join(name), 30, 2);
        }
        let fault = open(&disk).err().unwrap();
        assert!(matches!(fault, Fault::Damage { .. }) && fault.to_string().contains("backup"), "{fault}");
    }

    #[test]
    fn a_log_without_its_identity_is_damaged_not_empty() {
        let disk = SimDisk::new();
        drop(open(&disk).unwrap());
        disk.create_dir(&Path::new(PATH).join("journal")).unwrap();
        assert!(matches!(open(&disk), Err(Fault::Damage { .. })));
    }

    #[test]
    fn kafkas_and_strangers_directories_are_refused() {
        let kafkas = b"#\n#Mon Jan 01 00:00:00 UTC 2024\ncluster.id=x\nversion=1\nnode.id=1\ndirectory.id=abc\n";
        for (name, bytes) in [
            ("meta.properties", &kafkas[..]),
            ("recovery-point-offset-checkpoint", b"0\n0\n"),
            ("letter.txt", b"hello"),
        ] {
            let disk = SimDisk::new();
            drop(open(&disk).unwrap());
            put(&disk, name, bytes);
            let fault = open(&disk).err().unwrap();
            assert!(matches!(fault, Fault::Foreign { .. }), "{name}: {fault}");
            assert_eq!(fault.to_string().contains("Apache Kafka"), name != "letter.txt");
        }
    }

    #[test]
    fn directory_emptied_but_for_hidden_files_names_all_of_them() {
        let disk = SimDisk::new();
        drop(open(&disk).unwrap());
        for name in [TENURE_NAME, RESERVE_NAME, CLEAN_STOP_NAME, MEMBER_NAME] {
            put(&disk, name, b"x");
        }
        let said = open(&disk).err().unwrap().to_string();
        let named = [CLEAN_STOP_NAME, MEMBER_NAME, RESERVE_NAME, TENURE_NAME].join(", ");
        assert!(said.contains(&named), "{said}");
    }

    #[test]
    fn settling_reaches_the_marker_of_a_start_that_failed_before_it_had_a_new_epoch() {
        let disk = SimDisk::new();
        let (directory, _) = open(&disk).unwrap();
        directory.format(&meta()).unwrap();
        directory.record_broker_epoch(BrokerEpoch(5), None).unwrap();
        for _ in 0..3 {
            let marker = failure_epoch(&disk, Path::new(PATH), BrokerEpoch(5)).unwrap();
            assert!(reopened_epoch(&disk, Path::new(PATH)).unwrap().is_none_or(|settled| settled < marker));
            // The neighbour that holds it is away.
            directory.settle_failure().unwrap();
            let settled = reopened_epoch(&disk, Path::new(PATH)).unwrap().unwrap();
            on_reopened(&disk, Path::new(PATH), settled).unwrap();
            assert!(settled >= marker, "it counts no more when it is back");
        }
    }

    #[test]
    fn replica_names_are_exact() {
        let partition = TopicPartition { topic_id: Uuid([0xfb; 16]), partition: PartitionIndex(12) };
        let name = partition.to_string();
        assert_eq!(parse_replica_name(&name), Some(partition));
        for wrong in
            [format!("{name}.stray"), name.replace("-12", "-012"), name.replace("-12", "--12"), "a-1".to_owned()]
        {
            assert_eq!(parse_replica_name(&wrong), None, "{wrong}");
        }
    }
}
