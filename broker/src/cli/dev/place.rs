//! The directory of a cluster on this machine: whose it is, which ports its nodes have, where each keeps its data.
//!
//! `dev.json` says how many nodes there are and which ports they have, and never changes: nodes know each other by
//! these addresses. `dev.lock` is held by the process that runs the cluster. Beside them: `secret`, and for each node
//! its data directory `node-N` and its output `node-N.log`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::exit::{Exit, Failure};

/// Most nodes on one machine; more would teach nothing.
pub(super) const NODES_MAX: u16 = 9;
/// Nodes of a new cluster that nobody gave a number for.
const NODES: u16 = 3;
/// Nodes that vote, in a cluster of several.
const VOTERS: usize = 3;
/// The first port of a new cluster that nobody gave one for: Kafka's.
const BASE_PORT: u16 = 9092;
/// Every socket is on this address, so nobody outside reaches the cluster.
pub(super) const HOST: &str = "127.0.0.1";

const LAYOUT: &str = "dev.json";
const LOCK: &str = "dev.lock";
const SECRET: &str = "secret";
const SCHEMA: &str = "stonelog.dev/1";
/// A layout is a few numbers.
const LAYOUT_BYTES_MAX: u64 = 4096;

/// What was asked for on the command line.
#[derive(Clone, Debug, Default)]
pub(super) struct Wish {
    /// `--nodes`.
    pub(super) nodes: Option<u16>,
    /// `--base-port`.
    pub(super) base_port: Option<u16>,
    /// Each `--set`.
    pub(super) settings: Vec<String>,
}

/// What a directory says of its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Layout {
    schema: String,
    /// Ports for clients and other brokers, the first node's first.
    clients: Vec<u16>,
    /// Ports of the nodes that vote; empty for a lone node.
    controllers: Vec<u16>,
}

/// A directory that this process holds for the cluster it runs.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) directory: PathBuf,
    layout: Layout,
    settings: Vec<String>,
    /// Locked until the process ends.
    _lock: File,
}

impl Place {
    /// Takes a directory: an empty one, or that of a cluster that does not run. Its ports are free.
    pub(super) fn take(directory: &Path, wish: Wish) -> Result<Place, Failure> {
        let explain = |error: std::io::Error| failed(format!("cannot use {}: {error}", directory.display()));
        fs::create_dir_all(directory).map_err(explain)?;
        let directory = fs::canonicalize(directory).map_err(explain)?;
        let known = read_layout(&directory)?;
        if known.is_none() {
            refuse_foreign(&directory)?;
        }
        let lock = lock(&directory)?;
        let layout = match known {
            Some(layout) => check_wish(layout, &wish, &directory)?,
            None => {
                let layout = new_layout(wish.nodes.unwrap_or(NODES), wish.base_port.unwrap_or(BASE_PORT))?;
                // Ports of others are found before anything is left behind in the directory.
                check_ports(&layout, true)?;
                write_new(&directory, &layout).map_err(explain)?;
                layout
            }
        };
        check_ports(&layout, false)?;
        let place = Place { directory, layout, settings: wish.settings, _lock: lock };
        place.check_clusters()?;
        Ok(place)
    }

    /// How many nodes there are.
    pub(super) fn nodes(&self) -> u16 {
        self.layout.clients.len() as u16
    }

    /// Whether a node has a say in what is decided.
    pub(super) fn votes(&self, node: u16) -> bool {
        self.layout.controllers.is_empty() || usize::from(node) <= self.layout.controllers.len()
    }

    /// Whether so many voters can decide.
    pub(super) fn is_majority(&self, voters: usize) -> bool {
        voters > self.layout.controllers.len().max(1) / 2
    }

    /// Address of a node for clients; nodes count from 1.
    pub(super) fn address(&self, node: u16) -> String {
        format!("{HOST}:{}", self.layout.clients[usize::from(node) - 1])
    }

    /// Addresses of all nodes, for clients to start from.
    pub(super) fn bootstrap(&self) -> String {
        (1..=self.nodes()).map(|node| self.address(node)).collect::<Vec<_>>().join(",")
    }

    /// Where a node keeps its data.
    pub(super) fn data(&self, node: u16) -> PathBuf {
        self.directory.join(format!("node-{node}"))
    }

    /// Where a node's output goes.
    pub(super) fn log(&self, node: u16) -> PathBuf {
        self.directory.join(format!("node-{node}.log"))
    }

    /// The settings that a node is started with; those of the command line come last and win.
    pub(super) fn settings(&self, node: u16) -> Vec<String> {
        let controllers = &self.layout.controllers;
        let mut settings = vec![format!("node.id={node}")];
        let mut listeners = format!("listeners=PLAINTEXT://{}", self.address(node));
        if !controllers.is_empty() {
            let voters = controllers.iter().enumerate().map(|(place, port)| format!("{}@{HOST}:{port}", place + 1));
            settings.push(format!("controller.quorum.voters={}", voters.collect::<Vec<_>>().join(",")));
            settings.push("controller.listener.names=CONTROLLER".to_owned());
            match controllers.get(usize::from(node) - 1) {
                Some(port) => listeners.push_str(&format!(",CONTROLLER://{HOST}:{port}")),
                None => settings.push("process.roles=broker".to_owned()),
            }
            settings.push(format!("stonelog.cluster.secret.file={}", self.directory.join(SECRET).display()));
            // One machine answers at once or not at all; who plays does not want to wait nine seconds.
            settings.push("broker.session.timeout.ms=3000".to_owned());
            settings.push("broker.heartbeat.interval.ms=500".to_owned());
        }
        settings.push(listeners);
        settings.extend(self.settings.iter().cloned());
        settings
    }

    /// Nodes with data of different clusters would never find each other.
    fn check_clusters(&self) -> Result<(), Failure> {
        let mut first: Option<(u16, String)> = None;
        for node in 1..=self.nodes() {
            let Some(cluster) = cluster_of(&self.data(node)) else { continue };
            match &first {
                Some((other, found)) if *found != cluster => {
                    let what = format!(
                        "{} holds data of two clusters: node {other} is of {found}, node {node} of {cluster}",
                        self.directory.display()
                    );
                    return Err(Failure::new(Exit::Precondition, what).hint("take another --data-dir"));
                }
                Some(_) => {}
                None => first = Some((node, cluster)),
            }
        }
        Ok(())
    }
}

fn failed(what: String) -> Failure {
    Failure::new(Exit::Failed, what)
}

fn read_layout(directory: &Path) -> Result<Option<Layout>, Failure> {
    let path = directory.join(LAYOUT);
    let text = match fs::metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Ok(found) if found.len() <= LAYOUT_BYTES_MAX => fs::read_to_string(&path).map_err(|error| error.to_string()),
        Ok(_) => Err("it is too long".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let layout = text.and_then(|text| serde_json::from_str::<Layout>(&text).map_err(|error| error.to_string()));
    let layout = layout.map_err(|error| failed(format!("cannot read {}: {error}", path.display())))?;
    let (nodes, voters) = (layout.clients.len(), layout.controllers.len());
    if layout.schema != SCHEMA || nodes == 0 || nodes > usize::from(NODES_MAX) || voters > nodes {
        return Err(failed(format!("{} was not written by this version of stonelog", path.display())));
    }
    Ok(Some(layout))
}

/// A new cluster begins in an empty directory only.
fn refuse_foreign(directory: &Path) -> Result<(), Failure> {
    let what = if cluster_of(directory).is_some() {
        format!("{} is the data directory of a broker, which `stonelog serve` runs", directory.display())
    } else {
        let entries = fs::read_dir(directory).map_err(Failure::from)?;
        let other = entries.flatten().map(|entry| entry.file_name()).find(|name| name.to_str() != Some(LOCK));
        let Some(other) = other else { return Ok(()) };
        format!("{} holds `{}`, and no cluster of `stonelog dev`", directory.display(), other.display())
    };
    Err(Failure::new(Exit::Precondition, what).hint("name an empty or a new directory with --data-dir"))
}

fn lock(directory: &Path) -> Result<File, Failure> {
    let path = directory.join(LOCK);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let what = format!("a cluster runs in {} already", directory.display());
            let hint = format!("`stonelog dev status --data-dir {}` shows it", directory.display());
            Err(Failure::new(Exit::Precondition, what).hint(hint))
        }
        Err(TryLockError::Error(error)) => Err(failed(format!("cannot lock {}: {error}", path.display()))),
    }
}

/// A cluster keeps its number of nodes and its ports.
fn check_wish(layout: Layout, wish: &Wish, directory: &Path) -> Result<Layout, Failure> {
    let nodes = layout.clients.len();
    if let Some(wished) = wish.nodes
        && usize::from(wished) != nodes
    {
        let what = format!("{} is a cluster of {nodes}, not of {wished}", directory.display());
        let hint = format!("leave --nodes out, or take another --data-dir for a cluster of {wished}");
        return Err(Failure::new(Exit::Precondition, what).hint(hint));
    }
    let first = layout.clients[0];
    if let Some(wished) = wish.base_port
        && wished != 0
        && wished != first
    {
        let what = format!("the nodes in {} know each other by ports from {first} on", directory.display());
        let hint = format!("leave --base-port out, or take another --data-dir for port {wished}");
        return Err(Failure::new(Exit::Precondition, what).hint(hint));
    }
    Ok(layout)
}

fn new_layout(nodes: u16, base_port: u16) -> Result<Layout, Failure> {
    if nodes == 2 {
        let what = "two nodes cannot decide anything when one of them is gone";
        return Err(Failure::new(Exit::Usage, what).hint("take --nodes 3, or --nodes 1"));
    }
    let voters = if nodes == 1 { 0 } else { VOTERS };
    let count = usize::from(nodes) + voters;
    let mut ports: Vec<u16> = if base_port == 0 {
        free_ports(count)?
    } else {
        let last = usize::from(base_port) + count - 1;
        if last > usize::from(u16::MAX) {
            let what = format!("{nodes} nodes need {count} ports, and from {base_port} on there are not so many");
            return Err(Failure::new(Exit::Usage, what).hint("choose a lower --base-port"));
        }
        (base_port..=last as u16).collect()
    };
    let controllers = ports.split_off(usize::from(nodes));
    Ok(Layout { schema: SCHEMA.to_owned(), clients: ports, controllers })
}

/// Ports that nobody listens at now.
fn free_ports(count: usize) -> Result<Vec<u16>, Failure> {
    // All held at once, so that none is given twice.
    let sockets: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<std::io::Result<_>>()?;
    let ports = sockets.iter().map(|socket| Ok(socket.local_addr()?.port()));
    ports.collect::<std::io::Result<_>>().map_err(Failure::from)
}

fn check_ports(layout: &Layout, is_new: bool) -> Result<(), Failure> {
    for port in layout.clients.iter().chain(&layout.controllers) {
        if let Err(error) = TcpListener::bind((HOST, *port)) {
            let what = match error.kind() {
                ErrorKind::AddrInUse => format!("port {port} is in use: something else listens there"),
                _ => format!("cannot listen at port {port}: {error}"),
            };
            let failure = Failure::new(Exit::Precondition, what);
            return Err(match is_new {
                true => failure.hint("choose others with --base-port, or `--base-port 0` for any that are free"),
                false => failure.hint("end what listens there; the nodes know each other by these ports"),
            });
        }
    }
    Ok(())
}

/// The layout comes last: a directory without it is not a cluster yet.
fn write_new(directory: &Path, layout: &Layout) -> std::io::Result<()> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| std::io::Error::other(error.to_string()))?;
    let secret: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(directory.join(SECRET))?;
    writeln!(file, "{secret}")?;
    file.sync_all()?;
    let aside = directory.join(format!("{LAYOUT}.new"));
    let mut file = File::create(&aside)?;
    serde_json::to_writer(&mut file, layout)?;
    writeln!(file)?;
    file.sync_all()?;
    fs::rename(&aside, directory.join(LAYOUT))?;
    File::open(directory)?.sync_all()
}

/// The cluster that a broker's data directory belongs to.
fn cluster_of(directory: &Path) -> Option<String> {
    let text = fs::read_to_string(directory.join("meta.properties")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("cluster.id=")).map(|id| id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(outcome: Result<Place, Failure>) -> String {
        format!("{:?}", outcome.map(drop).unwrap_err())
    }

    fn wish(nodes: Option<u16>, base_port: Option<u16>) -> Wish {
        Wish { nodes, base_port, settings: Vec::new() }
    }

    #[test]
    fn a_cluster_keeps_its_nodes_and_ports() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        let first = Place::take(&path, wish(Some(3), Some(0))).unwrap();
        assert!(told(Place::take(&path, wish(None, None))).contains("runs in"));
        let (bootstrap, settings) = (first.bootstrap(), first.settings(2));
        drop(first);
        let again = Place::take(&path, wish(None, None)).unwrap();
        assert_eq!((again.nodes(), again.bootstrap(), again.settings(2)), (3, bootstrap, settings));
        drop(again);
        assert!(told(Place::take(&path, wish(Some(1), None))).contains("is a cluster of 3, not of 1"));
        assert!(told(Place::take(&path, wish(None, Some(1)))).contains("know each other by ports"));
    }

    #[test]
    fn directories_of_others_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("notes.txt"), "mine").unwrap();
        assert!(told(Place::take(directory.path(), Wish::default())).contains("holds `notes.txt`"));
        fs::write(directory.path().join("meta.properties"), "version=1\ncluster.id=abc\n").unwrap();
        assert!(told(Place::take(directory.path(), Wish::default())).contains("data directory of a broker"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing was left behind");
    }

    #[test]
    fn data_of_two_clusters_is_no_cluster() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::take(directory.path(), wish(Some(3), Some(0))).unwrap();
        for (node, cluster) in [(1, "one"), (3, "two")] {
            fs::create_dir(place.data(node)).unwrap();
            fs::write(place.data(node).join("meta.properties"), format!("cluster.id={cluster}\n")).unwrap();
        }
        drop(place);
        assert!(told(Place::take(directory.path(), wish(None, None))).contains("node 1 is of one, node 3 of two"));
    }

    #[test]
    fn a_port_in_use_is_named_and_nothing_is_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind((HOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let outcome = told(Place::take(directory.path(), wish(Some(1), Some(port))));
        assert!(outcome.contains(&format!("port {port} is in use")), "{outcome}");
        assert!(read_layout(directory.path()).unwrap().is_none());
    }

    #[test]
    fn brokers_beyond_the_voters_are_brokers_alone() {
        let layout = new_layout(4, 20_000).unwrap();
        assert_eq!((layout.clients.len(), layout.controllers.len()), (4, 3));
        let directory = tempfile::tempdir().unwrap();
        let place = Place {
            directory: directory.path().to_owned(),
            layout,
            settings: vec!["num.partitions=3".to_owned()],
            _lock: lock(directory.path()).unwrap(),
        };
        let settings = place.settings(4);
        assert!(settings.contains(&"process.roles=broker".to_owned()), "{settings:?}");
        assert!(settings.contains(&"listeners=PLAINTEXT://127.0.0.1:20003".to_owned()), "{settings:?}");
        assert_eq!(settings.last().unwrap(), "num.partitions=3");
        assert!(
            place
                .settings(3)
                .contains(&"listeners=PLAINTEXT://127.0.0.1:20002,CONTROLLER://127.0.0.1:20006".to_owned())
        );
        assert!(new_layout(2, 20_000).is_err() && new_layout(9, 65_530).is_err());
        assert!(new_layout(1, 20_000).unwrap().controllers.is_empty());
    }
}
