//! Keeps the nodes of a cluster: starts them, does to them what is asked, tells what happens, and stops them in order.
//!
//! One task, in the thread that starts the processes: when it ends, the kernel ends them.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use stonelog_replication::runtime::lanes::spawn_here;
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::{mpsc, oneshot};

use super::control::{Answer, Asked, Control, Do, NodeStatus, Request};
use super::member::{Ending, Event, Process, Spec};
use super::place::Place;
use super::warnings::Warnings;
use crate::cli::exit::{Exit, Failure};
use crate::client::clock::now;
use crate::client::{Cluster, Settings};

/// News of nodes that are not looked at yet; those that bring more wait.
const EVENTS_LEN_MAX: usize = 1024;
/// Requests that are not looked at yet; those that ask more wait.
const ASKED_LEN_MAX: usize = 64;
/// How long a node may take to stop before it is killed. Above what a broker takes at most to hand over.
const STOPPED_WITHIN: Duration = Duration::from_secs(20);
/// After this long somebody is told what is waited for.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks at what brokers tell clients.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a node is doing.
#[derive(Clone, Debug)]
enum State {
    Starting,
    Running,
    /// What it goes back to.
    Paused(Box<State>),
    Stopping,
    /// How it ended.
    Ended(String),
}

impl State {
    fn name(&self) -> &str {
        match self {
            State::Starting => "starting",
            State::Running => "running",
            State::Paused(_) => "paused",
            State::Stopping => "stopping",
            State::Ended(how) => how,
        }
    }
}

/// A node.
struct Member {
    spec: Spec,
    state: State,
    process: Option<Process>,
    life: u32,
    /// Whether its end is our doing.
    is_ours: bool,
    warnings: Warnings,
    /// Who waits for it to be ready, or to have ended.
    waiting: Vec<(Do, oneshot::Sender<Answer>)>,
}

struct Supervisor {
    place: Place,
    members: BTreeMap<u16, Member>,
    events: mpsc::Sender<Event>,
    /// What the first node that began a cluster said of it.
    cluster: Option<String>,
    begun: Instant,
    /// Whether `ready` has been said.
    is_up: bool,
}

/// What ends a cluster.
struct Interrupts {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

impl Interrupts {
    fn listen() -> std::io::Result<Interrupts> {
        Ok(Interrupts {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hangup: unix::signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Runs the cluster of a place until it is interrupted.
pub(super) async fn run(place: Place, patience: Duration) -> Result<Exit, Failure> {
    let mut interrupts = Interrupts::listen()?;
    let (events, mut news) = mpsc::channel(EVENTS_LEN_MAX);
    let (sender, mut asked) = mpsc::channel(ASKED_LEN_MAX);
    let control = Control::open(&place.directory)?;
    drop(spawn_here(control.serve(sender)));
    let mut supervisor = Supervisor::new(place, events);
    for node in 1..=supervisor.place.nodes() {
        supervisor.spawn(node)?;
    }
    let outcome = supervisor.serve(&mut news, &mut asked, &mut interrupts, patience).await;
    // Whoever asks from here on is told that it is too late.
    drop(asked);
    let stopped = supervisor.stop(&mut news, &mut interrupts).await;
    outcome?;
    Ok(stopped)
}

impl Supervisor {
    fn new(place: Place, events: mpsc::Sender<Event>) -> Supervisor {
        let member = |node| Member {
            spec: Spec { node, data: place.data(node), log: place.log(node), settings: place.settings(node) },
            state: State::Ended("not started".to_owned()),
            process: None,
            life: 0,
            is_ours: false,
            warnings: Warnings::default(),
            waiting: Vec::new(),
        };
        let members = (1..=place.nodes()).map(|node| (node, member(node))).collect();
        Supervisor { place, members, events, cluster: None, begun: now(), is_up: false }
    }

    fn member(&mut self, node: u16) -> Option<&mut Member> {
        self.members.get_mut(&node)
    }

    fn spawn(&mut self, node: u16) -> Result<(), Failure> {
        let events = self.events.clone();
        let Some(member) = self.member(node) else { return Ok(()) };
        member.life += 1;
        let process = Process::spawn(&member.spec, member.life, &events);
        let explain = |error| Failure::new(Exit::Failed, format!("cannot start node {node}: {error}"));
        member.process = Some(process.map_err(explain)?);
        member.state = State::Starting;
        member.is_ours = false;
        Ok(())
    }

    /// Until it is interrupted, or a node ends before the cluster is up.
    async fn serve(
        &mut self,
        news: &mut mpsc::Receiver<Event>,
        asked: &mut mpsc::Receiver<Asked>,
        interrupts: &mut Interrupts,
        patience: Duration,
    ) -> Result<(), Failure> {
        let mut seen: Option<Pin<Box<dyn Future<Output = ()>>>> = None;
        let late = tokio::time::sleep(PATIENCE);
        tokio::pin!(late);
        let mut is_late = false;
        loop {
            tokio::select! {
                () = interrupts.next() => return Ok(()),
                Some(event) = news.recv() => self.on_event(event)?,
                Some((request, answer)) = asked.recv() => self.on_asked(&request, answer),
                () = when(&mut seen) => {
                    self.is_up = true;
                    seen = None;
                    self.print_banner()?;
                }
                () = &mut late, if !is_late && !self.is_up => {
                    is_late = true;
                    self.tell_what_is_waited_for();
                }
            }
            if !self.is_up
                && seen.is_none()
                && self.members.values().all(|member| matches!(member.state, State::Running))
            {
                seen = Some(Box::pin(seen_by_clients(self.addresses(), patience)));
            }
        }
    }

    fn addresses(&self) -> Vec<String> {
        (1..=self.place.nodes()).map(|node| self.place.address(node)).collect()
    }

    fn on_event(&mut self, event: Event) -> Result<(), Failure> {
        let is_up = self.is_up;
        match event {
            Event::Ready { node, life, banner } => {
                let told = banner.iter().find(|line| line.starts_with("NEW CLUSTER ") || line.starts_with("cluster "));
                self.cluster = self.cluster.take().or(told.cloned());
                let Some(member) = self.members.get_mut(&node).filter(|member| member.life == life) else {
                    return Ok(());
                };
                match &mut member.state {
                    State::Starting => member.state = State::Running,
                    State::Paused(before) => **before = State::Running,
                    _ => {}
                }
                self.answer_waiting(node, Do::Start, true, &format!("node {node} is ready"));
            }
            Event::Warned { node, line } => {
                let at = self.begun.elapsed();
                if let Some(line) = self.member(node).and_then(|member| member.warnings.on_line(&line, at)) {
                    note!("node {node}  {line}");
                }
            }
            Event::Ended { node, life, ending } => {
                let Some(member) = self.members.get_mut(&node).filter(|member| member.life == life) else {
                    return Ok(());
                };
                let was_starting = matches!(member.state, State::Starting);
                let (how, is_ours) = (how(&ending), member.is_ours);
                member.state = State::Ended(how.clone());
                member.process = None;
                let log = member.spec.log.display().to_string();
                let message = format!("node {node} has ended ({how})");
                self.answer_waiting(node, Do::Kill, true, &message);
                self.answer_waiting(node, Do::Start, false, &told(&message, &ending));
                if is_ours {
                    return Ok(());
                }
                if !is_up && was_starting {
                    let failure = Failure::new(Exit::Failed, told(&format!("{message} instead of starting"), &ending));
                    return Err(failure.hint(format!("its output is in {log}")));
                }
                note!("{}", told(&message, &ending));
                note!("  try: stonelog dev start {node} --data-dir {}", self.place.directory.display());
            }
        }
        Ok(())
    }

    fn answer_waiting(&mut self, node: u16, verb: Do, done: bool, message: &str) {
        let nodes = self.statuses();
        let Some(member) = self.member(node) else { return };
        let (answered, waiting) =
            std::mem::take(&mut member.waiting).into_iter().partition(|(wants, _)| *wants == verb);
        member.waiting = waiting;
        let answered: Vec<(Do, oneshot::Sender<Answer>)> = answered;
        for (_, answer) in answered {
            // Whoever asked may have gone.
            let _ = answer.send(Answer { done, message: message.to_owned(), nodes: nodes.clone() });
        }
    }

    fn on_asked(&mut self, request: &Request, answer: oneshot::Sender<Answer>) {
        let outcome = self.attempt(request);
        let (done, message) = match outcome {
            Ok(Some(message)) => (true, message),
            Ok(None) => {
                if let Some(member) = self.member(request.node) {
                    member.waiting.push((request.verb, answer));
                }
                return;
            }
            Err(message) => (false, message),
        };
        // Whoever asked may have gone.
        let _ = answer.send(Answer { done, message, nodes: self.statuses() });
    }

    /// Does what is asked: `Ok(None)` when it takes a while.
    fn attempt(&mut self, request: &Request) -> Result<Option<String>, String> {
        let node = request.node;
        if request.verb == Do::Status {
            return Ok(Some("status".to_owned()));
        }
        let nodes = self.place.nodes();
        let Some(member) = self.member(node) else {
            return Err(format!("there is no node {node}: nodes are 1 to {nodes}"));
        };
        let process = member.process.as_ref().filter(|_| !matches!(member.state, State::Ended(_)));
        match (request.verb, process, &member.state) {
            (Do::Start, Some(_), state) => Err(format!("node {node} is {} already", state.name())),
            (Do::Start, None, _) => {
                note!("node {node}  is started");
                self.spawn(node).map_err(|failure| format!("{failure:?}"))?;
                Ok(None)
            }
            (_, None, _) => Err(format!("node {node} is dead already; `stonelog dev start {node}` starts it")),
            (Do::Kill, Some(process), _) => {
                note!("node {node}  is killed");
                process.signal(Signal::KILL);
                member.is_ours = true;
                Ok(None)
            }
            (Do::Pause, Some(_), State::Paused(_)) => Err(format!("node {node} is paused already")),
            (Do::Pause, Some(process), state) => {
                note!("node {node}  is paused");
                process.signal(Signal::STOP);
                member.state = State::Paused(Box::new(state.clone()));
                Ok(Some(format!("node {node} is paused")))
            }
            (Do::Resume, Some(process), State::Paused(before)) => {
                note!("node {node}  goes on");
                process.signal(Signal::CONT);
                member.state = (**before).clone();
                Ok(Some(format!("node {node} goes on")))
            }
            (Do::Resume, Some(_), _) => Err(format!("node {node} is not paused")),
            (Do::Status, ..) => unreachable!("answered above"),
        }
    }

    fn statuses(&self) -> Vec<NodeStatus> {
        let status = |member: &Member| NodeStatus {
            node: member.spec.node,
            state: member.state.name().to_owned(),
            pid: member.process.as_ref().map(|process| process.pid),
            address: self.place.address(member.spec.node),
            data: member.spec.data.clone(),
            log: member.spec.log.clone(),
        };
        self.members.values().map(status).collect()
    }

    fn print_banner(&self) -> Result<(), Failure> {
        use std::io::Write as _;
        let mut out = std::io::stdout().lock();
        let (nodes, directory) = (self.place.nodes(), self.place.directory.display());
        let noun = if nodes == 1 { "node" } else { "nodes" };
        writeln!(out, "stonelog {} · {nodes} {noun} on this machine", env!("CARGO_PKG_VERSION"))?;
        writeln!(out, "{}", self.cluster.as_deref().unwrap_or_default())?;
        for status in self.statuses() {
            let pid = status.pid.unwrap_or_default();
            writeln!(out, "node {}    {} (process {pid}, {})", status.node, status.address, status.log.display())?;
        }
        writeln!(out, "data      {directory}")?;
        writeln!(
            out,
            "promise   an acknowledgement means fsynced on every in-sync replica, unless a topic relaxes it"
        )?;
        if nodes > 1 {
            writeln!(out, "note      all nodes are on this machine; its loss is the loss of them all")?;
        }
        writeln!(out, "bootstrap {}", self.place.bootstrap())?;
        writeln!(out, "started in {} ms", self.begun.elapsed().as_millis())?;
        writeln!(out, "ready")?;
        out.flush()?;
        Ok(())
    }

    fn tell_what_is_waited_for(&self) {
        for member in self.members.values() {
            if matches!(member.state, State::Starting) {
                note!("node {} is not ready yet; its output is in {}", member.spec.node, member.spec.log.display());
            }
        }
    }

    /// Stops node after node, so that each can hand over to the others; those without whom nobody could decide anything
    /// come last, together. A second interrupt kills what is left.
    async fn stop(&mut self, news: &mut mpsc::Receiver<Event>, interrupts: &mut Interrupts) -> Exit {
        let mut left: Vec<u16> =
            self.members.iter().filter(|(_, member)| member.process.is_some()).map(|(node, _)| *node).collect();
        // Brokers that do not vote go first.
        left.reverse();
        while !left.is_empty() {
            let voters = left.iter().filter(|node| self.place.votes(**node)).count();
            let can_spare = !self.place.votes(left[0]) || self.place.is_majority(voters - 1);
            let leaving: Vec<u16> = if can_spare { vec![left.remove(0)] } else { std::mem::take(&mut left) };
            for node in &leaving {
                self.terminate(*node);
            }
            let ended = async {
                while leaving.iter().any(|node| self.members.get(node).is_some_and(|member| member.process.is_some())) {
                    self.on_event_while_stopping(news.recv().await);
                }
            };
            tokio::select! {
                () = ended => {}
                () = tokio::time::sleep(STOPPED_WITHIN) => {
                    note!("nodes that have not stopped within {STOPPED_WITHIN:?} are killed");
                    self.kill(&leaving, news).await;
                }
                () = interrupts.next() => {
                    note!("killing what is left");
                    self.kill(&[leaving, left].concat(), news).await;
                    return Exit::Interrupted;
                }
            }
        }
        Exit::Done
    }

    fn terminate(&mut self, node: u16) {
        let Some(member) = self.member(node) else { return };
        let Some(process) = &member.process else { return };
        process.signal(Signal::TERM);
        if let State::Paused(_) = member.state {
            process.signal(Signal::CONT);
        }
        member.state = State::Stopping;
    }

    fn on_event_while_stopping(&mut self, event: Option<Event>) {
        // What nodes say of others that stop is in their output.
        if let Some(Event::Ended { node, life, ending }) = event
            && let Some(member) = self.members.get_mut(&node).filter(|member| member.life == life)
        {
            member.process = None;
            // Before the cluster was up, the reason is known: the node that ended first.
            if self.is_up && !ending.status.success() && matches!(member.state, State::Stopping) {
                note!("{}", told(&format!("node {node} did not stop cleanly ({})", how(&ending)), &ending));
            }
            member.state = State::Ended(how(&ending));
        }
    }

    async fn kill(&mut self, nodes: &[u16], news: &mut mpsc::Receiver<Event>) {
        for node in nodes {
            let Some(member) = self.members.get_mut(node) else { continue };
            // That it does not end cleanly is known.
            member.state = State::Ended("killed".to_owned());
            if let Some(process) = &member.process {
                process.signal(Signal::KILL);
            }
        }
        while nodes.iter().any(|node| self.members.get(node).is_some_and(|member| member.process.is_some())) {
            self.on_event_while_stopping(news.recv().await);
        }
    }
}

async fn when(future: &mut Option<Pin<Box<dyn Future<Output = ()>>>>) {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Completes when every broker tells clients of every other: all are unfenced, and a topic can have a replica on each.
async fn seen_by_clients(addresses: Vec<String>, patience: Duration) {
    for address in &addresses {
        let settings = Settings {
            brokers: vec![address.clone()],
            client_id: "stonelog-dev".to_owned(),
            request_timeout: patience,
            retry_for: patience,
            retry_unreachable: true,
        };
        let mut cluster = Cluster::new(settings);
        loop {
            match cluster.describe_all().await {
                Ok(snapshot) if snapshot.brokers.len() == addresses.len() => break,
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }
}

fn how(ending: &Ending) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (ending.status.code(), ending.status.signal()) {
        (Some(0), _) => "stopped".to_owned(),
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(9)) => "killed".to_owned(),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// With the last things it said.
fn told(what: &str, ending: &Ending) -> String {
    let said: String = ending.last.iter().map(|line| format!("\n  {line}")).collect();
    format!("{what}{}{said}", if said.is_empty() { "" } else { ":" })
}
