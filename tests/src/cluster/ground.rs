//! Where the nodes of a cluster run: each in a network namespace of its own, joined by a router, or all on loopback.
//!
//! The harness itself moves into a fresh namespace, which is the router, and the clients run there. A node's namespace is
//! held by a process that dies with the harness; namespaces, devices and rules go with it, whatever ends the run. What
//! the router is told to drop it drops silently, in one direction, as a broken switch would; clients keep reaching
//! everybody. Nothing is needed beyond iproute2 and util-linux, and root.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::NODES;
use crate::clock;
use crate::power::sandbox::bound_to_us;

/// How long a namespace may take to come about.
const MADE_WITHIN: Duration = Duration::from_secs(5);
/// Ports in a namespace; nobody else is there.
const CLIENTS_PORT: u16 = 9092;
const CONTROLLER_PORT: u16 = 9093;
/// What a slow link carries.
const SLOW_LINK: &[&str] = &["tbf", "rate", "4mbit", "burst", "32kbit", "latency", "300ms"];

/// Where the nodes run.
#[derive(Debug)]
pub enum Ground {
    /// Each in a network namespace.
    Namespaces([Namespace; NODES]),
    /// All on loopback, at these ports for clients and for controllers: no network to break.
    Loopback([(u16, u16); NODES]),
}

/// A network namespace. Dropping it ends it.
#[derive(Debug)]
pub struct Namespace {
    holder: Child,
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

impl Ground {
    /// Namespaces where the machine allows them. To be called while the process has one thread.
    pub fn namespaces() -> Result<Ground> {
        // SAFETY: no file descriptor table is unshared, and there is one thread yet, so none keeps the old namespace.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("a network of our own needs root")?;
        ip(&["link", "set", "lo", "up"])?;
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot forward packets")?;
        let mut namespaces = Vec::new();
        for node in 0..NODES {
            namespaces.push(Namespace::make(node)?);
        }
        let namespaces = namespaces.try_into().map_err(|_| anyhow::anyhow!("not {NODES} namespaces"))?;
        Ok(Ground::Namespaces(namespaces))
    }

    /// Everything on loopback, at ports that are free now.
    pub fn loopback() -> Result<Ground> {
        let sockets: Vec<TcpListener> =
            (0..2 * NODES).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<_>>()?;
        let port = |place: usize| sockets[place].local_addr().map(|address| address.port());
        let mut ports = [(0, 0); NODES];
        for (node, ports) in ports.iter_mut().enumerate() {
            *ports = (port(2 * node)?, port(2 * node + 1)?);
        }
        Ok(Ground::Loopback(ports))
    }

    /// Whether the network can be broken.
    pub fn has_network(&self) -> bool {
        matches!(self, Ground::Namespaces(_))
    }

    /// Address of a node for clients.
    pub fn address(&self, node: usize) -> String {
        match self {
            Ground::Namespaces(_) => format!("{}:{CLIENTS_PORT}", host(node)),
            Ground::Loopback(ports) => format!("127.0.0.1:{}", ports[node].0),
        }
    }

    /// Address of a node for controllers.
    pub fn controller_address(&self, node: usize) -> String {
        match self {
            Ground::Namespaces(_) => format!("{}:{CONTROLLER_PORT}", host(node)),
            Ground::Loopback(ports) => format!("127.0.0.1:{}", ports[node].1),
        }
    }

    /// A command whose process runs where the node does, and dies with the harness.
    pub fn command(&self, node: usize, program: &Path) -> Command {
        match self {
            Ground::Namespaces(namespaces) => {
                let mut command = bound_to_us("nsenter");
                command.arg(format!("--net={}", namespaces[node].path())).arg("--").arg(program);
                command
            }
            Ground::Loopback(_) => bound_to_us(program),
        }
    }

    /// Nothing that `from` sends reaches `to` any more.
    pub fn cut(&self, from: usize, to: usize) -> Result<()> {
        let priority = priority(from, to);
        ip(&["rule", "add", "from", &host(from), "to", &host(to), "blackhole", "prio", &priority])
    }

    /// What [`Ground::cut`] did is undone.
    pub fn join(&self, from: usize, to: usize) -> Result<()> {
        ip(&["rule", "del", "prio", &priority(from, to)])
    }

    /// A node's link carries little, in both directions.
    pub fn slow_down(&self, node: usize) -> Result<()> {
        tc(&[&["qdisc", "add", "dev", &device(node), "root"], SLOW_LINK].concat())?;
        self.inside(node, &[&["tc", "qdisc", "add", "dev", "eth0", "root"], SLOW_LINK].concat())
    }

    /// What [`Ground::slow_down`] did is undone.
    pub fn speed_up(&self, node: usize) -> Result<()> {
        tc(&["qdisc", "del", "dev", &device(node), "root"])?;
        self.inside(node, &["tc", "qdisc", "del", "dev", "eth0", "root"])
    }

    fn inside(&self, node: usize, command: &[&str]) -> Result<()> {
        let Ground::Namespaces(namespaces) = self else { bail!("there is no network to change") };
        namespaces[node].run(command)
    }
}

impl Namespace {
    fn make(node: usize) -> Result<Namespace> {
        let mut command = bound_to_us("unshare");
        command.args(["--net", "--", "sleep", "infinity"]).stdin(Stdio::null()).stdout(Stdio::null());
        let namespace = Namespace { holder: command.spawn().context("cannot run setpriv")? };
        let ours = std::fs::read_link("/proc/self/ns/net")?;
        let begun = clock::now();
        // Until the process is in its own.
        while std::fs::read_link(namespace.path()).map_or(true, |theirs| theirs == ours) {
            if begun.elapsed() > MADE_WITHIN {
                bail!("no network namespace after {MADE_WITHIN:?}; is util-linux there?");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let (device, holder) = (device(node), namespace.holder.id().to_string());
        ip(&["link", "add", &device, "type", "veth", "peer", "name", "eth0", "netns", &holder])?;
        ip(&["address", "add", &format!("{}/24", router(node)), "dev", &device])?;
        ip(&["link", "set", &device, "up"])?;
        for command in [
            &["ip", "link", "set", "lo", "up"][..],
            &["ip", "address", "add", &format!("{}/24", host(node)), "dev", "eth0"],
            &["ip", "link", "set", "eth0", "up"],
            &["ip", "route", "add", "default", "via", &router(node)],
        ] {
            namespace.run(command)?;
        }
        Ok(namespace)
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }

    fn run(&self, command: &[&str]) -> Result<()> {
        let inside = format!("--net={}", self.path());
        run("nsenter", &[&[inside.as_str(), "--"], command].concat())
    }
}

fn host(node: usize) -> String {
    format!("10.77.{node}.2")
}

fn router(node: usize) -> String {
    format!("10.77.{node}.1")
}

fn device(node: usize) -> String {
    format!("node{node}")
}

fn priority(from: usize, to: usize) -> String {
    (100 + NODES * from + to).to_string()
}

fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", arguments)
}

fn tc(arguments: &[&str]) -> Result<()> {
    run("tc", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
