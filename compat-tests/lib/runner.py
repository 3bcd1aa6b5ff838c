"""Runs the client suites against one broker, collects their `COMPAT` lines and writes the matrix.

It starts the broker unless `--broker` names one, and stops what it started by process id. It is no test by itself:
each suite folder holds its own program, and its `run` decides between pass, skip (77) and failure.
"""

import argparse
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from pathlib import Path

from recorder import Recorder

HERE = Path(__file__).resolve().parent.parent
REPOSITORY = HERE.parent
DOCUMENT = REPOSITORY / "docs" / "compatibility.md"
MARK_BEGIN, MARK_END = "<!-- matrix:begin -->", "<!-- matrix:end -->"

# One of each library family, quick to install.
CORE = [
    "confluent-kafka-python",
    "racks",
    "kafka-python-3",
    "kafka-python-2.0.2",
    "aiokafka",
    "kafkajs",
    "franz-go",
    "sarama",
    "kafka-go",
    "java-4",
    "java-tools",
    "java-cluster",
    "kcat",
]
# With several nodes; the rest with --all.
CORE_OF_SEVERAL = ["confluent-kafka-python", "kafka-python-3", "franz-go", "java-4"]
# Kafka's tools meet three brokers in `java-cluster`, and a consumer its rack in `racks`, which start their own.
NOT_OF_SEVERAL = ["java-tools", "java-cluster", "racks"]
EXTRA = ["java-2.8", "platformatic-kafka", "rdkafka", "rskafka"]

SKIPPED = 77
READY_SECONDS = 30
STOP_SECONDS = 15
INSTALL_SECONDS = 1500
TEST_SECONDS = 300

# With several nodes: after these steps, which a client may lack, the leader of this suite's first topic is killed, and so
# long it stays away.
KILL_AFTER = ("consume.none", "idempotent")
KILL_SUFFIX = "-none"
DEAD_SECONDS = 3


class Cluster:
    """`stonelog dev`: brokers on free loopback ports, one of which is killed while a suite runs, and started again."""

    def __init__(self, binary, nodes, settings):
        self.binary = str(binary)
        self.nodes = nodes
        self.directory = tempfile.mkdtemp(prefix="stonelog-compat-")
        self.data = os.path.join(self.directory, "data")
        self.log_path = os.path.join(self.directory, "cluster.log")
        # A file that is there once all is done to the cluster that one suite meets with: what is asked of a whole cluster
        # waits for it.
        self.whole = os.path.join(self.directory, "whole")
        self.bootstrap = None
        self.kills = []
        command = [self.binary, "dev", "--nodes", str(nodes), "--base-port", "0", "--data-dir", self.data]
        for value in ["group.initial.rebalance.delay.ms=0"] + settings:
            command += ["--set", value]
        self._log = open(self.log_path, "ab", buffering=0)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, stdin=subprocess.DEVNULL)
        watchdog = threading.Timer(READY_SECONDS, self.process.kill)
        watchdog.start()
        for line in self.process.stdout:
            self._log.write(line)
            if line.startswith(b"bootstrap "):
                self.bootstrap = line.split()[1].decode()
            if line.strip() == b"ready":
                break
        watchdog.cancel()
        if self.process.poll() is not None or not self.bootstrap:
            self.process.wait()
            raise SystemExit(f"the cluster was not `ready` within {READY_SECONDS} s:\n{self.tail()}")
        self._starting = None

    def alive(self):
        return self.process.poll() is None

    def tail(self):
        return Path(self.log_path).read_bytes()[-4000:].decode(errors="replace")

    def _ask(self, *arguments):
        command = [self.binary, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)

    def leader_of(self, client, suffix):
        """The node that leads partition 0 of the client's topic whose name ends so."""
        listed = json.loads(self._ask("topic", "list", "-b", self.bootstrap, "-o", "json").stdout)
        names = [topic["topic"] for topic in listed["topics"] if is_of(client, suffix, topic["topic"])]
        described = json.loads(self._ask("topic", "describe", names[-1], "-b", self.bootstrap, "-o", "json").stdout)
        return next(entry["leader"] for entry in described["partitions"] if entry["partition"] == 0)

    def begin(self):
        """Before a suite."""
        Path(self.whole).unlink(missing_ok=True)

    def kill_leader(self, client, suffix, is_last):
        """Kills the leader at once, and has it started again after a while."""
        self.wait_whole()
        try:
            node = self.leader_of(client, suffix)
        except (KeyError, IndexError, ValueError, StopIteration) as problem:
            print(f"  (no leader was found to kill: {problem!r})", flush=True)
            if is_last:
                Path(self.whole).touch()
            return
        killed = self._ask("dev", "kill", str(node), "--data-dir", self.data)
        if killed.returncode:
            raise SystemExit(f"node {node} could not be killed: {killed.stderr}")
        self.kills.append(node)
        print(f"  (node {node}, the leader of …{suffix}-0, is killed)", flush=True)
        self._starting = threading.Thread(target=self._start_later, args=(node, is_last), daemon=True)
        self._starting.start()

    def _start_later(self, node, is_last):
        time.sleep(DEAD_SECONDS)
        started = self._ask("dev", "start", str(node), "--data-dir", self.data, "--timeout", "60s")
        if started.returncode:
            print(f"  (node {node} did not start: {started.stderr})", flush=True)
        if is_last:
            limit = time.monotonic() + READY_SECONDS
            while not all(map(self._sees_all, self.bootstrap.split(","))) and time.monotonic() < limit:
                time.sleep(0.05)
            Path(self.whole).touch()

    def _sees_all(self, address):
        """Whether the broker there says that all are up."""
        listed = self._ask("cluster", "brokers", "-b", address, "-o", "json")
        if listed.returncode:
            return False
        return [entry["state"] for entry in json.loads(listed.stdout)["brokers"]] == ["up"] * self.nodes

    def wait_whole(self):
        """Until whoever was killed is there again."""
        if self._starting:
            self._starting.join()
            self._starting = None

    def stop(self):
        """True when all nodes were running and left cleanly."""
        was_running = self.alive()
        if was_running:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS * 2)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                return False
        self._log.write(self.process.stdout.read())
        return was_running and self.process.returncode == 0


class Broker:
    """A stonelog process on a free loopback port and an empty directory of its own."""

    def __init__(self, binary, advertised_port, settings):
        self.directory = tempfile.mkdtemp(prefix="stonelog-compat-")
        self.port = free_port()
        command = [str(binary), "serve", "--data-dir", os.path.join(self.directory, "data")]
        values = [f"listeners=PLAINTEXT://127.0.0.1:{self.port}", "group.initial.rebalance.delay.ms=0"]
        if advertised_port:
            values.append(f"advertised.listeners=PLAINTEXT://127.0.0.1:{advertised_port}")
        for value in values + settings:
            command += ["--set", value]
        self.log_path = os.path.join(self.directory, "broker.log")
        self._log = open(self.log_path, "ab", buffering=0)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, stdin=subprocess.DEVNULL)
        self._ready = threading.Event()
        self._ended = threading.Event()
        # Reads for as long as the broker runs, so that a talkative broker never blocks on a full pipe.
        self._reader = threading.Thread(target=self._read_output, daemon=True)
        self._reader.start()
        limit = time.monotonic() + READY_SECONDS
        while not self._ready.wait(0.05):
            if self._ended.is_set() or time.monotonic() > limit:
                self.stop()
                reason = (
                    f"ended with {self.process.returncode}"
                    if self._ended.is_set()
                    else f"took more than {READY_SECONDS} s"
                )
                raise SystemExit(f"the broker {reason} before `ready`:\n{self.tail()}")

    def _read_output(self):
        for line in self.process.stdout:
            self._log.write(line)
            if line.strip() == b"ready":
                self._ready.set()
        self._ended.set()

    def alive(self):
        return self.process.poll() is None

    def tail(self):
        return Path(self.log_path).read_bytes()[-4000:].decode(errors="replace")

    def stop(self):
        """True when the broker was still running and left cleanly."""
        was_running = self.process.poll() is None
        if was_running:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                was_running = False
        self._reader.join(STOP_SECONDS)
        return was_running and self.process.returncode == 0


def is_of(client, suffix, topic):
    return topic.startswith(f"compat-{client}-") and topic.endswith(suffix)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def find_binary(given):
    """The release binary, built when there is none. A suite that starts brokers of its own has it in STONELOG."""
    if given:
        os.environ["STONELOG"] = str(Path(given).resolve())
        return Path(given)
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    binary = target / "release" / "stonelog"
    print(f"building {binary}", flush=True)
    subprocess.run(
        ["cargo", "build", "--release", "--locked", "--package", "stonelog", "--bin", "stonelog"],
        cwd=REPOSITORY,
        check=True,
    )
    os.environ["STONELOG"] = str(binary.resolve())
    return binary


def run_phase(client, phase, environment, seconds, on_line):
    """Runs `<client>/run <phase>` in its own process group; returns its exit code, or None when it took too long."""
    process = subprocess.Popen(
        [str(HERE / client / "run"), phase],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        finished = follow(process, time.monotonic() + seconds, on_line)
    finally:
        # Whatever the suite left behind is in its own group, which we made; the leader is not reaped before that, so
        # its id cannot have become somebody else's.
        kill_group(process.pid)
        code = process.wait()
    return code if finished else None


def follow(process, limit, on_line):
    """Hands on the output line by line until the process has ended; False when it took too long."""
    pending = b""
    output = process.stdout.fileno()
    while True:
        left = limit - time.monotonic()
        if left <= 0:
            return False
        if not select.select([output], [], [], left)[0]:
            continue
        data = os.read(output, 65536)
        if not data:
            break
        pending += data
        *lines, pending = pending.split(b"\n")
        for line in lines:
            on_line(line.decode(errors="replace"))
    if pending:
        on_line(pending.decode(errors="replace"))
    while not os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
        if time.monotonic() > limit:
            return False
        time.sleep(0.01)
    return True


def kill_group(leader):
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass


def run_client(client, bootstrap, direct, recorder, cluster=None):
    """One suite from install to outcome: a dictionary with client, version, outcome, steps, apis and seconds."""
    environment = dict(os.environ, BOOTSTRAP=bootstrap, BOOTSTRAP_DIRECT=direct)
    if cluster:
        environment["COMPAT_NODES"] = str(cluster.nodes)
        environment["COMPAT_WHOLE"] = cluster.whole
        cluster.begin()
    kills = list(KILL_AFTER) if cluster else []
    report = {"client": client, "version": "", "steps": {}, "apis": {}, "outcome": "failed", "reason": ""}
    last_lines = []

    def on_line(line):
        if line.startswith("COMPAT "):
            try:
                fields = json.loads(line[len("COMPAT ") :])
            except ValueError:
                print(f"  unreadable report: {line}", flush=True)
                return
            for name in ("version", "steps", "apis"):
                report[name] = fields.get(name, report[name])
            return
        last_lines.append(line)
        del last_lines[:-30]
        print(f"  {line}" if not line.startswith("  ") else line, flush=True)
        words = line.split()
        step = words[1].rstrip(":") if words[:1] in (["pass"], ["FAIL"], ["lacks"]) and words[1:] else None
        if step in kills:
            kills.remove(step)
            cluster.kill_leader(client, KILL_SUFFIX, not kills)

    print(f"== {client}", flush=True)
    started = time.monotonic()
    code = run_phase(client, "install", environment, INSTALL_SECONDS, on_line)
    report["install_seconds"] = round(time.monotonic() - started, 1)
    phase = "install"
    if code == 0:
        if recorder:
            recorder.take()
        started = time.monotonic()
        phase = "test"
        code = run_phase(client, "test", environment, TEST_SECONDS, on_line)
        report["test_seconds"] = round(time.monotonic() - started, 1)
        if recorder:
            report["apis"] = recorder.take()
    if code == SKIPPED:
        report["outcome"] = "skipped"
        report["reason"] = next((line for line in reversed(last_lines) if "SKIPPED" in line), "SKIPPED")
    elif code is None:
        report["reason"] = f"{phase} took longer than its limit"
    elif code != 0:
        report["reason"] = f"{phase} ended with exit code {code}"
    elif not report["steps"]:
        report["reason"] = "no COMPAT line"
    elif any(outcome.startswith("fail") for outcome in report["steps"].values()):
        report["reason"] = "a step failed"
    else:
        report["outcome"] = "passed"
    return report


# Column title, and the steps that it sums up.
COLUMNS = [
    ("create", ["create_topic"]),
    ("plain", ["produce.none", "consume.none"]),
    ("gzip", ["produce.gzip", "consume.gzip"]),
    ("snappy", ["produce.snappy", "consume.snappy"]),
    ("lz4", ["produce.lz4", "consume.lz4"]),
    ("zstd", ["produce.zstd", "consume.zstd"]),
    ("by time", ["offsets_by_time"]),
    ("rebalance", ["group.rebalance"]),
    ("resume", ["group.resume"]),
    ("idempotent", ["idempotent"]),
    ("describe", ["describe.topic", "describe.configs", "describe.group"]),
    ("delete", ["delete_topic"]),
]


def cell(steps, names):
    outcomes = [steps.get(name) for name in names]
    known = [outcome for outcome in outcomes if outcome is not None]
    if any(outcome.startswith("fail") for outcome in known):
        return "**fails**"
    if any(outcome == "pass" for outcome in known):
        return "yes"
    return "–" if known else ""


def extra(name, outcome):
    """A step that has no column of its own."""
    if outcome.startswith("fail"):
        return f"{name}: **fails**"
    return {"pass": name, "lacks": f"no {name}", "refused": f"{name}: refused at once"}[outcome]


def matrix(reports):
    """The two tables of docs/compatibility.md: what each client proved, and the API versions it used on the wire."""
    lines = [
        "“yes” was proved in the run that wrote this; “–” and “no …” are what the client itself does not have.",
        "",
        "| client | version | " + " | ".join(title for title, _ in COLUMNS) + " | more |",
        "|---|---|" + "---|" * (len(COLUMNS) + 1),
    ]
    summed = {name for _, names in COLUMNS for name in names}
    for report in reports:
        if report["outcome"] == "skipped":
            lines.append(f"| {report['client']} | not run here |" + " |" * (len(COLUMNS) + 1))
            continue
        cells = [cell(report["steps"], names) for _, names in COLUMNS]
        more = [extra(name, outcome) for name, outcome in report["steps"].items() if name not in summed]
        lines.append(f"| {report['client']} | {report['version']} | " + " | ".join(cells) + f" | {', '.join(more)} |")
    lines += ["", "API versions seen on the wire:", "", "| client | versions |", "|---|---|"]
    for report in reports:
        if report["apis"]:
            used = ", ".join(f"{name} {'/'.join(map(str, versions))}" for name, versions in report["apis"].items())
            lines.append(f"| {report['client']} {report['version']} | {used} |")
    return "\n".join(lines) + "\n"


def write_document(reports):
    text = DOCUMENT.read_text() if DOCUMENT.exists() else f"# Compatibility\n\n{MARK_BEGIN}\n{MARK_END}\n"
    if MARK_BEGIN not in text or MARK_END not in text:
        raise SystemExit(f"{DOCUMENT} has no {MARK_BEGIN} … {MARK_END}")
    head, rest = text.split(MARK_BEGIN, 1)
    _, tail = rest.split(MARK_END, 1)
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(f"{head}{MARK_BEGIN}\n{matrix(reports)}{MARK_END}{tail}")


def arguments():
    parser = argparse.ArgumentParser(
        prog="compat-tests/run", description="Real, pinned client libraries against a broker."
    )
    parser.add_argument("--client", action="append", default=[], metavar="NAME", help="one suite; may be repeated")
    parser.add_argument("--core", action="store_true", help="one of each library family (the default)")
    parser.add_argument("--all", action="store_true", help="every suite")
    parser.add_argument("--list", action="store_true", help="print the suites and leave")
    parser.add_argument(
        "--nodes", type=int, default=1, metavar="N", help="a cluster of N brokers, whose leaders are killed meanwhile"
    )
    parser.add_argument("--broker", metavar="HOST:PORT", help="a running broker instead of a stonelog started here")
    parser.add_argument(
        "--relay-port",
        type=int,
        default=0,
        metavar="PORT",
        help="with --broker: the loopback port that the broker advertises; record the API versions there",
    )
    parser.add_argument("--no-relay", action="store_true", help="connect directly; API versions are not recorded")
    parser.add_argument("--binary", metavar="PATH", help="the stonelog binary (default: build the release binary)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a further broker setting")
    parser.add_argument("--ci", action="store_true", help="a missing toolchain is a failure")
    parser.add_argument("--report", metavar="FILE", help="write all reports as JSON")
    parser.add_argument("--write-docs", action="store_true", help="write the matrix into docs/compatibility.md")
    return parser.parse_args()


def main():
    options = arguments()
    known = CORE + EXTRA
    if options.list:
        for client in known:
            print(f"{client}{'' if client in CORE else ' (only with --all)'}")
        return 0
    every = known if options.nodes == 1 else [client for client in known if client not in NOT_OF_SEVERAL]
    clients = options.client or (every if options.all else CORE if options.nodes == 1 else CORE_OF_SEVERAL)
    if options.nodes > 1 and (options.broker or options.write_docs):
        raise SystemExit("--nodes starts a cluster of its own, and API versions are not recorded with it")
    for client in clients:
        if client not in known:
            raise SystemExit(f"no suite `{client}`; there are: {' '.join(known)}")
    ci = options.ci or os.environ.get("CI") == "true"

    broker = None
    recorder = None
    cluster = None
    if options.nodes > 1:
        broker = cluster = Cluster(find_binary(options.binary), options.nodes, options.set)
        bootstrap = direct = cluster.bootstrap
    elif options.broker:
        host, port = options.broker.rsplit(":", 1)
        if options.relay_port and not options.no_relay:
            recorder = Recorder(options.relay_port)
            recorder.target = (host, int(port))
    else:
        binary = find_binary(options.binary)
        recorder = None if options.no_relay else Recorder()
        broker = Broker(binary, recorder.port if recorder else None, options.set)
        host, port = "127.0.0.1", str(broker.port)
        if recorder:
            recorder.target = (host, int(port))
    if not cluster:
        direct = f"{host}:{port}"
        bootstrap = f"127.0.0.1:{recorder.port}" if recorder else direct

    reports = []
    broker_died = False
    try:
        for client in clients:
            reports.append(run_client(client, bootstrap, direct, recorder, cluster))
            if cluster:
                cluster.wait_whole()
            if broker and not broker.alive():
                broker_died = True
                print(f"the broker died during {client}:\n{broker.tail()}", flush=True)
                break
    finally:
        clean = broker.stop() if broker else True

    if broker and not clean and not broker_died:
        print(f"the broker did not stop cleanly:\n{broker.tail()}", flush=True)
    failed = broker_died or not clean
    print("\n== summary", flush=True)
    for report in reports:
        seconds = report.get("test_seconds", 0)
        print(f"{report['outcome']:8} {report['client']:24} {report['version']:12} {seconds:6} s  {report['reason']}")
        for name, outcome in report["steps"].items():
            if outcome.startswith("fail"):
                print(f"         {name}: {outcome}")
        failed |= report["outcome"] == "failed" or (ci and report["outcome"] == "skipped")
    if options.report:
        Path(options.report).write_text(json.dumps(reports, indent=1) + "\n")
    if options.write_docs:
        write_document(reports)
    if broker:
        if failed:
            print(f"the broker's log and data are kept in {broker.directory}")
        else:
            shutil.rmtree(broker.directory, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    # A termination takes the same way out as an interrupt: through the clean-up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
