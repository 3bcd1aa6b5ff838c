//! The nodes of a cluster: started, killed, stopped, wiped, always with the same settings and directories.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Signal, kill_process};

use super::NODES;
use super::ground::Ground;
use super::view::View;
use crate::broker::{Broker, Spec};
use crate::clock;

/// A cluster that is not whole so long after everything was mended is stuck.
const WHOLE_WITHIN: Duration = Duration::from_secs(90);
/// A node that was told to stop and has not for this long is stuck.
const STOPPED_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Names the file by which a build with switches moves its wall clock: see `replication/src/runtime/clock.rs`.
const WALL_SHIFT: &str = "STONELOG_WALL_SHIFT_FILE";

/// How a controller says that it fences.
const FENCED: &str = "a broker is to be fenced";

/// What the nodes of a cluster are.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The executable.
    pub binary: PathBuf,
    /// Where their secret and their output go.
    pub directory: PathBuf,
    /// Where each has its data.
    pub data: [PathBuf; NODES],
    /// Settings of all of them, `key=value`.
    pub settings: Vec<String>,
    /// Environment variables on top of the harness's own.
    pub environment: Vec<(String, String)>,
}

impl Plan {
    /// Everything in one directory, and nothing special.
    pub fn new(binary: PathBuf, directory: &Path) -> Plan {
        let data = std::array::from_fn(|node| directory.join(format!("node-{}", node + 1)));
        Plan { binary, directory: directory.to_owned(), data, settings: Vec::new(), environment: Vec::new() }
    }
}

/// All nodes, some of them running.
#[derive(Debug)]
pub struct Nodes {
    /// Where they run. Ends after them.
    brokers: [Option<Broker>; NODES],
    specs: [Spec; NODES],
    ground: Ground,
    log_directory: PathBuf,
}

impl Nodes {
    /// Starts a new cluster, and waits until it is ready.
    pub fn start(ground: Ground, plan: Plan) -> Result<Nodes> {
        let secret = plan.directory.join("secret");
        std::fs::write(&secret, "a secret that all of these nodes know\n")?;
        let voters: Vec<String> =
            (0..NODES).map(|node| format!("{}@{}", node + 1, ground.controller_address(node))).collect();
        let spec = |node: usize| Spec {
            binary: plan.binary.clone(),
            data_dir: plan.data[node].clone(),
            port: 0,
            listeners: Some(format!(
                "PLAINTEXT://{},CONTROLLER://{}",
                ground.address(node),
                ground.controller_address(node)
            )),
            settings: [
                format!("node.id={}", node + 1),
                "controller.listener.names=CONTROLLER".to_owned(),
                format!("controller.quorum.voters={}", voters.join(",")),
                format!("stonelog.cluster.secret.file={}", secret.display()),
                "broker.session.timeout.ms=3000".to_owned(),
                "broker.heartbeat.interval.ms=500".to_owned(),
            ]
            .into_iter()
            .chain(plan.settings.iter().cloned())
            .collect(),
            environment: [(WALL_SHIFT.to_owned(), wall_shift(&plan.directory, node).display().to_string())]
                .into_iter()
                .chain(plan.environment.iter().cloned())
                .collect(),
            dies_with_us: true,
        };
        let specs = std::array::from_fn(spec);
        let mut nodes = Nodes { brokers: [None, None, None], specs, ground, log_directory: plan.directory };
        nodes.start_all()?;
        Ok(nodes)
    }

    /// Starts all nodes, none of which runs, and waits until they are ready.
    pub fn start_all(&mut self) -> Result<()> {
        for node in 0..NODES {
            self.spawn(node)?;
        }
        for node in 0..NODES {
            self.wait_ready(node)?;
        }
        Ok(())
    }

    /// Hands all processes out, for somebody else to end.
    pub fn take_all(&mut self) -> Result<[Broker; NODES]> {
        let taken: Vec<Broker> = self.brokers.iter_mut().filter_map(Option::take).collect();
        taken.try_into().map_err(|_| anyhow!("not all nodes run"))
    }

    /// Where they run.
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// Addresses of all nodes for clients, separated by commas.
    pub fn bootstrap(&self) -> String {
        (0..NODES).map(|node| self.ground.address(node)).collect::<Vec<_>>().join(",")
    }

    /// Whether a node's process runs, or is paused.
    pub fn is_up(&self, node: usize) -> bool {
        self.brokers[node].is_some()
    }

    /// Starts a node and does not wait for it.
    pub fn spawn(&mut self, node: usize) -> Result<()> {
        let command = self.ground.command(node, &self.specs[node].binary);
        let log = self.log(node);
        self.brokers[node] = Some(Broker::spawn_with(&self.specs[node], command, Some(&log))?);
        Ok(())
    }

    /// Waits until a node that was started is ready.
    pub fn wait_ready(&mut self, node: usize) -> Result<()> {
        let broker = self.brokers[node].as_mut().with_context(|| format!("node {} was not started", node + 1))?;
        broker.wait_ready().with_context(|| format!("node {}", node + 1))
    }

    /// Starts a node that must end by itself instead, and not cleanly; what it said.
    pub fn spawn_refused(&mut self, node: usize, within: Duration) -> Result<String> {
        self.spawn(node)?;
        let mut broker = self.brokers[node].take().context("no process")?;
        let status = broker.wait_ended(within).with_context(|| format!("node {}", node + 1))?;
        if status.success() {
            bail!("node {} ended as if all were well", node + 1);
        }
        Ok(broker.output())
    }

    /// SIGKILL.
    pub fn kill9(&mut self, node: usize) -> Result<()> {
        let broker = self.brokers[node].take().with_context(|| format!("node {} does not run", node + 1))?;
        broker.kill9().with_context(|| format!("node {}", node + 1))
    }

    /// SIGTERM, and waits for a clean end.
    pub fn stop(&mut self, node: usize) -> Result<()> {
        let broker = self.brokers[node].take().with_context(|| format!("node {} does not run", node + 1))?;
        let status = broker.stop()?;
        if !status.success() {
            bail!("node {} did not stop cleanly: {status}", node + 1);
        }
        Ok(())
    }

    /// Takes a node's disk away for good. It does not run.
    pub fn wipe(&self, node: usize) -> Result<()> {
        let data = &self.specs[node].data_dir;
        std::fs::remove_dir_all(data)?;
        Ok(std::fs::create_dir(data)?)
    }

    /// Where a node's data is.
    pub fn data(&self, node: usize) -> &Path {
        &self.specs[node].data_dir
    }

    /// How often a controller has said that a broker is to be fenced.
    pub fn fencings(&self) -> Result<usize> {
        let mut count = 0;
        for node in 0..NODES {
            let log = std::fs::read_to_string(self.log(node))?;
            count += log.lines().filter(|line| line.contains(FENCED)).count();
        }
        Ok(count)
    }

    /// What a node says goes here.
    fn log(&self, node: usize) -> PathBuf {
        self.log_directory.join(format!("node-{}.log", node + 1))
    }

    /// Moves a node's wall clock by so much from what is true, if it is of a build that has the switch.
    pub fn shift_clock(&self, node: usize, by_ms: i64) -> Result<()> {
        let path = wall_shift(&self.log_directory, node);
        let aside = path.with_extension("new");
        std::fs::write(&aside, by_ms.to_string())?;
        Ok(std::fs::rename(aside, path)?)
    }

    /// Sends a signal to a node.
    pub fn signal(&self, node: usize, signal: Signal) -> Result<()> {
        let broker = self.brokers[node].as_ref().with_context(|| format!("node {} does not run", node + 1))?;
        Ok(kill_process(broker.pid(), signal)?)
    }

    /// The process of a node.
    pub fn process(&self, node: usize) -> Option<u32> {
        let broker = self.brokers[node].as_ref()?;
        Some(broker.pid().as_raw_nonzero().get().unsigned_abs())
    }

    /// The node with the active controller, as whoever answers first sees it.
    pub fn controller(&self) -> Option<usize> {
        let up = (0..NODES).filter(|node| self.is_up(*node));
        let mut named = up.filter_map(|node| View::controller(&self.ground.address(node)).ok());
        named.find_map(|id| usize::try_from(id - 1).ok()).filter(|node| *node < NODES)
    }

    /// How a node sees the cluster.
    pub fn view(&self, node: usize) -> Result<View> {
        View::of(&self.ground.address(node))
    }

    /// Waits until every node sees every partition led, with all its replicas in sync; how long that took.
    pub fn wait_whole(&mut self) -> Result<Duration> {
        self.wait_until(|view| view.missing(NODES))
    }

    /// Waits until every node votes with the directory it has. Until then the metadata quorum stands one failure less, and
    /// none if another disk is taken away.
    pub fn wait_voting(&mut self) -> Result<()> {
        let begun = clock::now();
        loop {
            let voters = (0..NODES).find_map(|node| View::voters(&self.ground.address(node)).ok()).unwrap_or_default();
            let is_voter = |node: usize| -> Result<bool> {
                let path = self.specs[node].data_dir.join("meta.properties");
                let properties = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                let own = properties.lines().find_map(|line| line.strip_prefix("directory.id="));
                Ok(voters.iter().any(|voter| Some(voter.to_string().as_str()) == own))
            };
            let missing: Vec<usize> = (0..NODES)
                .filter_map(|node| is_voter(node).map(|votes| (!votes).then_some(node + 1)).transpose())
                .collect::<Result<_>>()?;
            if missing.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > WHOLE_WITHIN {
                bail!("nodes {missing:?} do not vote {WHOLE_WITHIN:?} after everything was mended");
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until every node sees every partition led; how long that took.
    pub fn wait_led(&mut self) -> Result<Duration> {
        self.wait_until(View::unled)
    }

    /// Waits until no node sees anything missing.
    fn wait_until(&mut self, missing: impl Fn(&View) -> Option<String>) -> Result<Duration> {
        let begun = clock::now();
        loop {
            let missing: Vec<String> = (0..NODES)
                .filter_map(|node| match self.view(node) {
                    Ok(view) => missing(&view).map(|missing| format!("to node {}, {missing}", node + 1)),
                    Err(error) => Some(format!("{error:#}")),
                })
                .collect();
            if missing.is_empty() {
                return Ok(begun.elapsed());
            }
            for broker in self.brokers.iter_mut().flatten() {
                broker.expect_running()?;
            }
            if begun.elapsed() > WHOLE_WITHIN {
                bail!("the cluster is not whole {WHOLE_WITHIN:?} after everything was mended: {}", missing.join("; "));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Stops all nodes, the last ones together: neither can hand over to the other.
    pub fn stop_all(mut self) -> Result<()> {
        self.stop(0)?;
        for node in 1..NODES {
            self.signal(node, Signal::TERM)?;
        }
        for node in 1..NODES {
            let broker = self.brokers[node].as_mut().with_context(|| format!("node {} does not run", node + 1))?;
            let status = broker.wait_ended(STOPPED_WITHIN)?;
            if !status.success() {
                bail!("node {} did not stop cleanly: {status}", node + 1);
            }
        }
        Ok(())
    }
}

fn wall_shift(directory: &Path, node: usize) -> PathBuf {
    directory.join(format!("clock-{}", node + 1))
}
