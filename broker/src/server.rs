//! `stonelog serve`: from a configuration to a running broker, and back to a clean stop.
//!
//! Order: configuration, sockets bound (so that their ports are known), the start walk of the data plane, coordinators,
//! and only then the first connection is accepted. `ready` on standard output means all of that.

mod banner;
mod cluster;
mod controller;
mod descriptors;
mod recovery_report;

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use stonelog_replication::controller::member::ClusterOptions;
use stonelog_replication::controller::{Defaults, SettingsRules};
use stonelog_replication::metadata::{Endpoint, SecurityProtocol};
use stonelog_replication::runtime::lanes::spawn_here;
use stonelog_replication::runtime::memory;
use stonelog_replication::runtime::node::{Node, NodeSettings};
use stonelog_replication::runtime::pool::Pool;
use stonelog_replication::runtime::start::{self, StartOptions, Started};
use stonelog_replication::settings::group_key;
use stonelog_storage::disk::RealDisk;
use stonelog_storage::journal::JournalOptions;
use stonelog_storage::log_dir::current_tenure;
use stonelog_storage::recovery::RecoveryProgress;
use stonelog_storage::scrub::ScrubPace;
use tokio::signal::unix::{SignalKind, signal};

use crate::broker::Broker;
use crate::cli::serve::ServeArgs;
use crate::config::{self, BrokerConfig, Listener, Surroundings, broker_keys};
use crate::coordinator;
use crate::network::limits::Limits;
use crate::network::listener::{self, Bound};
use crate::producer_ids::ProducerIds;

/// Exit code for a configuration that cannot be used.
const EXIT_CONFIGURATION: u8 = 2;
/// Exit code for a broker that could not start, or whose directory failed.
const EXIT_FAILED: u8 = 1;
/// Exit code for what SIGINT ended before its time, as a shell has it.
const EXIT_INTERRUPTED: u8 = 130;
/// The same for SIGTERM.
const EXIT_TERMINATED: u8 = 143;

/// Why a node ends that was a voter.
const REMOVED_FROM_QUORUM: &str = "this node was removed from the metadata quorum and stops; started again, it follows \
                                   the metadata without voting";

/// How long appended batches gather before they go to segments.
const FLUSH_AFTER: Duration = Duration::from_secs(1);
/// How long a lane keeps recent batches in memory after the last one.
const REST_AFTER: Duration = Duration::from_secs(5);
/// How long written segments gather before a checkpoint frees the journal.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(5);

/// Threads that validate large compressed batches; each may hold what one such batch opens to.
const VALIDATOR_THREADS: usize = 2;

/// Runs a broker until it is told to stop.
pub async fn run(args: ServeArgs) -> ExitCode {
    let begun = now();
    if let Some(parent) = args.ends_with
        && let Err(error) = end_with(parent)
    {
        eprintln!("error: {error:#}");
        return ExitCode::from(EXIT_FAILED);
    }
    let request = config::Request { config: args.config, data_dir: args.data_dir, set: args.set };
    let config = match config::load(&request, &Surroundings::of_process()) {
        Ok(config) => config,
        Err(report) => {
            eprint!("{report}");
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    log_to_stderr();
    let served = match config.is_broker {
        true => serve(config, begun).await,
        false => controller::serve(config, begun).await,
    };
    match served {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Has the kernel kill this process when its parent, or the thread of it that started this one, ends.
fn end_with(parent: u32) -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // It may have ended before it was asked about.
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    anyhow::ensure!(now == Some(parent), "process {parent}, which this one is to end with, is not its parent");
    Ok(())
}

async fn serve(config: BrokerConfig, begun: Instant) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut bound = bind(&config)?;
    let cluster = cluster::options(&config, &mut bound)?;
    let starting = end_start_on_signal();
    let (started, endpoints) = tokio::select! {
        started = start_data_plane(&config, &bound, cluster) => started?,
        // A node of several may wait for the others for any time.
        _ = interrupt.recv() => return Ok(stopped_before_ready(EXIT_INTERRUPTED)),
        _ = terminate.recv() => return Ok(stopped_before_ready(EXIT_TERMINATED)),
    };
    starting.store(false, Ordering::Relaxed);
    if let Err(error) = start_listening(&bound, config.network.listen_backlog) {
        started.stop()?;
        return Err(error);
    }
    let broker = assemble(config, &started)?;
    coordinator::start(&broker).await;
    accept(&broker, bound).await;
    memory::give_back_unused();
    let ready = banner::print(&broker, &started.report, &endpoints, begun.elapsed());
    ready?;
    let mut failures = started.node.watch_failures();
    let node = Arc::clone(&started.node);
    let metadata = started.metadata.clone();
    let mut hands_over = true;
    let code = tokio::select! {
        _ = interrupt.recv() => ExitCode::SUCCESS,
        _ = terminate.recv() => ExitCode::SUCCESS,
        _ = failures.wait_for(|_| node.must_stop().is_some()) => {
            eprintln!("error: {}", stopped_by(&node));
            exit_if_stopping_hangs();
            hands_over = false;
            ExitCode::from(EXIT_FAILED)
        }
        () = metadata.removed_from_quorum() => {
            eprintln!("error: {REMOVED_FROM_QUORUM}");
            ExitCode::from(EXIT_FAILED)
        }
    };
    drop(metadata);
    // A second signal ends the process at once.
    exit_on_second_signal(interrupt, terminate);
    if hands_over {
        started.hand_over().await;
    }
    let validators = Arc::clone(&broker.validators);
    drop(broker);
    started.stop()?;
    validators.stop();
    Ok(code)
}

/// Starts everything below the network.
async fn start_data_plane(
    config: &BrokerConfig,
    bound: &[Bound],
    cluster: Option<ClusterOptions>,
) -> anyhow::Result<(Started, Vec<Endpoint>)> {
    let options = start_options(config, bound, cluster)?;
    let endpoints = options.endpoints.clone();
    let _watch = recovery_report::watch(&options.progress);
    Ok((start::start(options).await?, endpoints))
}

/// What a node is started with.
fn start_options(
    config: &BrokerConfig,
    bound: &[Bound],
    cluster: Option<ClusterOptions>,
) -> anyhow::Result<StartOptions> {
    let log_dirs = config.log_dirs.iter().map(|path| whole(path)).collect::<std::io::Result<Vec<PathBuf>>>()?;
    let endpoints = endpoints(&config.listeners, bound);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let journal = JournalOptions {
        file_bytes: config.storage.journal_file_bytes,
        bytes_max: config.storage.journal_bytes_max,
        ..JournalOptions::default()
    };
    let random = start::Random { cluster: random_bytes()?, directory: random_bytes()?, incarnation: random_bytes()? };
    Ok(StartOptions {
        disk: Arc::new(RealDisk),
        node_id: config.node_id,
        cluster_id: config.cluster_id.clone(),
        rack: config.rack.as_deref().map(Arc::from),
        endpoints,
        journal,
        lanes: config.storage.lanes.unwrap_or(cores),
        node: node_settings(config, journal.entry_bytes_max()),
        rules: Arc::new(SettingsRules {
            static_broker: config.static_settings.clone(),
            broker_key: broker_keys::broker_key,
            group_key,
        }),
        defaults: Defaults {
            partitions: config.topics.default_partitions,
            replication_factor: config.topics.default_replication_factor,
        },
        random,
        tenure_of: current_tenure,
        cluster,
        progress: Arc::new(RecoveryProgress::default()),
        log_dirs,
        metadata_place: config.metadata_place,
    })
}

/// The path as the system knows it, also of a directory that does not exist.
fn whole(path: &Path) -> std::io::Result<PathBuf> {
    std::fs::canonicalize(path).or_else(|_| std::path::absolute(path))
}

fn random_bytes() -> anyhow::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("the system gives no random bytes: {error}"))?;
    Ok(bytes)
}

fn stopped_by(node: &Node) -> String {
    let reason = node.must_stop().unwrap_or_default();
    let paths: Vec<_> = node.directories.iter().filter(|directory| directory.is_offline()).collect();
    let paths: Vec<_> = paths.iter().map(|directory| directory.path.display().to_string()).collect();
    if paths.is_empty() {
        return format!("{reason}; the broker stops");
    }
    format!(
        "{reason}; the broker stops. What was acknowledged is on the device as far as the device kept it. See to the \
         device, then have it read again with `stonelog storage reopen {}` and start the broker",
        paths.join(" ")
    )
}

/// A thread may hang in a call on the failed device for ever; the process does not wait for it.
fn exit_if_stopping_hangs() {
    const STOP_TIME_MAX: Duration = Duration::from_secs(15);
    let watch = std::thread::Builder::new().name("stop-limit".into()).spawn(|| {
        std::thread::sleep(STOP_TIME_MAX);
        eprintln!("error: a thread hangs on the failed device; the process ends without it");
        std::process::exit(i32::from(EXIT_FAILED));
    });
    if let Err(error) = watch {
        tracing::warn!("the time to stop is not limited: {error}");
    }
}

fn node_settings(config: &BrokerConfig, entry_bytes_max: u64) -> NodeSettings {
    NodeSettings {
        broker_defaults: config.static_settings.clone(),
        tail_bytes_max: config.storage.tail_memory_bytes as usize,
        // The journal holds at most half of itself in unwritten batches before producers wait; the rest is slack for
        // commits in flight and for files that are freed whole.
        unflushed_bytes_max: (config.storage.journal_bytes_max / 2) as usize,
        hangs_after: config.storage.hangs_after,
        free_bytes_min: config.storage.free_bytes_min,
        entry_bytes_max,
        flush_after: FLUSH_AFTER,
        rest_after: REST_AFTER,
        checkpoint_after: CHECKPOINT_AFTER,
        retention_check_every: config.topics.retention_check_interval,
        producer_id_expiration: config.producers.id_expiration,
        scrub: config
            .storage
            .scrub_interval
            .map(|interval| ScrubPace { interval, bytes_per_second_max: config.storage.scrub_bytes_per_second_max }),
    }
}

fn assemble(config: BrokerConfig, started: &Started) -> anyhow::Result<Arc<Broker>> {
    let producer_ids = ProducerIds::new(config.node_id, started.report.broker_epoch);
    let mut seed = [0; 4];
    getrandom::fill(&mut seed).map_err(|error| anyhow::anyhow!("the system gives no random bytes: {error}"))?;
    let (node, lanes, metadata) = (Arc::clone(&started.node), started.lanes.clone(), started.metadata.clone());
    let validators = Arc::new(Pool::start("validate", VALIDATOR_THREADS)?);
    Ok(Broker::new(config, node, lanes, metadata, producer_ids, validators, u32::from_ne_bytes(seed)))
}

fn stopped_before_ready(code: u8) -> ExitCode {
    eprintln!("stopped before this node was ready: nothing was served");
    ExitCode::from(code)
}

/// Recovery holds the thread that hears signals: while the start lasts, another one ends the process. Nothing is owed to
/// anybody before the broker serves. The start is over when the flag is taken down.
fn end_start_on_signal() -> Arc<AtomicBool> {
    /// A start that can stop in order does so meanwhile.
    const IN_ORDER_WITHIN: Duration = Duration::from_secs(1);
    let starting = Arc::new(AtomicBool::new(true));
    let lasts = Arc::clone(&starting);
    let watch = std::thread::Builder::new().name("start-signals".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let code = runtime.block_on(async {
            let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            std::io::Result::Ok(tokio::select! {
                _ = interrupt.recv() => EXIT_INTERRUPTED,
                _ = terminate.recv() => EXIT_TERMINATED,
            })
        })?;
        std::thread::sleep(IN_ORDER_WITHIN);
        if lasts.load(Ordering::Relaxed) {
            stopped_before_ready(code);
            std::process::exit(i32::from(code));
        }
        std::io::Result::Ok(())
    });
    if let Err(error) = watch {
        tracing::warn!("signals will not be heard while directories are recovered: {error}");
    }
    starting
}

/// From here on clients find somebody: as long as a node waits for others, they go to the next address at once.
fn start_listening(bound: &[Bound], backlog: u32) -> anyhow::Result<()> {
    for bound in bound {
        let listening = socket2::SockRef::from(&bound.socket).listen(i32::try_from(backlog).unwrap_or(i32::MAX));
        listening.with_context(|| format!("cannot listen on {}://{}", bound.name, bound.address))?;
    }
    Ok(())
}

/// Binds every listener; nobody can connect yet.
fn bind(config: &BrokerConfig) -> anyhow::Result<Vec<Bound>> {
    config
        .listeners
        .iter()
        .map(|listener| {
            let host = listener.host.as_deref().unwrap_or("0.0.0.0");
            let explain = |error: std::io::Error| {
                anyhow::anyhow!(
                    "cannot listen on {}://{host}:{}: {error}; is another broker running, or is the address another \
                     machine's?",
                    listener.name,
                    listener.port
                )
            };
            let addresses: Vec<_> = (host, listener.port).to_socket_addrs().map_err(explain)?.collect();
            let address = addresses.first().copied();
            let address = address.ok_or_else(|| explain(std::io::ErrorKind::AddrNotAvailable.into()))?;
            if let Some(surprise) = surprise(host, &addresses) {
                tracing::warn!("{}://{host}:{}: {surprise}", listener.name, listener.port);
            }
            let socket = std::net::TcpListener::from(bind_socket(address).map_err(explain)?);
            let address = socket.local_addr()?;
            Ok(Bound { name: listener.name.as_str().into(), socket, address, nodes: None })
        })
        .collect()
}

/// What somebody who named a host to listen at may not expect.
fn surprise(host: &str, addresses: &[SocketAddr]) -> Option<String> {
    let first = addresses.first()?.ip();
    if host.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost") {
        return None;
    }
    if first.is_loopback() {
        return Some(format!("the name stands for {first} on this machine, which nobody else can reach"));
    }
    let others: Vec<String> =
        addresses.iter().map(SocketAddr::ip).filter(|other| *other != first).map(|other| other.to_string()).collect();
    (!others.is_empty())
        .then(|| format!("only {first} is listened at, and the name stands for {} too", others.join(", ")))
}

fn listen(address: SocketAddr, backlog: u32) -> std::io::Result<std::net::TcpListener> {
    let socket = bind_socket(address)?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

fn bind_socket(address: SocketAddr) -> std::io::Result<socket2::Socket> {
    let domain = match address.ip() {
        IpAddr::V4(_) => socket2::Domain::IPV4,
        IpAddr::V6(_) => socket2::Domain::IPV6,
    };
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// What clients are told to connect to: the advertised addresses, with the bound port where the kernel chose it.
fn endpoints(listeners: &[Listener], bound: &[Bound]) -> Vec<Endpoint> {
    listeners
        .iter()
        .zip(bound)
        .map(|(listener, bound)| Endpoint {
            listener: Arc::clone(&bound.name),
            host: listener.advertised_host.as_str().into(),
            port: if listener.advertised_port == 0 { bound.address.port() } else { listener.advertised_port },
            protocol: SecurityProtocol::Plaintext,
        })
        .collect()
}

/// `max.connections`, or as many as there are descriptors for.
fn connections_max(broker: &Broker) -> usize {
    let (config, directories) = (&broker.config, broker.node.directories.len() as u64);
    let journal_files = config.storage.journal_bytes_max / config.storage.journal_file_bytes + 2;
    let (limit, wanted) = (descriptors::raise_limit(), u64::from(config.network.connections_max));
    let allowed = descriptors::connections_max(limit, wanted, directories, journal_files);
    usize::try_from(allowed).unwrap_or(usize::MAX)
}

async fn accept(broker: &Arc<Broker>, bound: Vec<Bound>) {
    let network = &broker.config.network;
    let limits = Limits::new(
        network.request_bytes_max as usize,
        network.connection_idle_max.unwrap_or(Duration::MAX),
        connections_max(broker),
        network.connections_per_ip_max as usize,
        usize::try_from(network.queued_request_bytes_max).unwrap_or(usize::MAX),
    );
    for bound in bound {
        let (acceptor, limits) = (Arc::clone(broker), Arc::clone(&limits));
        let accepting = move |lane: Rc<_>| {
            spawn_here(listener::accept(lane, acceptor, limits, bound));
            std::future::ready(())
        };
        broker.lanes.call(0, accepting).await;
    }
}

fn exit_on_second_signal(mut interrupt: tokio::signal::unix::Signal, mut terminate: tokio::signal::unix::Signal) {
    let watch = std::thread::Builder::new().name("second-signal".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if let Ok(runtime) = runtime {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            });
            std::process::exit(i32::from(EXIT_INTERRUPTED));
        }
    });
    if let Err(error) = watch {
        tracing::warn!("a second signal will not be heard: {error}");
    }
}

/// Errors and warnings to standard error; more with `STONELOG_LOG` (`info`, `stonelog=debug`, …).
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("STONELOG_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,openraft=error"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // Somebody may have set one already, in a test.
    let _ = subscriber.try_init();
}

#[allow(clippy::disallowed_methods, reason = "start-up time is measured from here")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_that_leads_elsewhere_than_one_would_think_is_told() {
        let at = |addresses: &[&str]| -> Vec<SocketAddr> {
            addresses.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 9092)).collect()
        };
        let said = surprise("myhost", &at(&["127.0.1.1"])).unwrap();
        assert!(said.contains("127.0.1.1 on this machine"), "{said}");
        let said = surprise("myhost", &at(&["10.0.0.1", "10.0.1.1"])).unwrap();
        assert!(said.contains("only 10.0.0.1") && said.contains("10.0.1.1 too"), "{said}");
        for (host, addresses) in [("myhost", ["10.0.0.1"]), ("localhost", ["127.0.0.1"]), ("127.0.0.1", ["127.0.0.1"])]
        {
            assert_eq!(surprise(host, &at(&addresses)), None, "{host}");
        }
    }
}
