"""Kafka's own tools for a cluster, against three brokers of this suite's own: where partitions lie, who leads them, who
keeps the metadata, what a broker that is gone looks like.

The cluster is `stonelog dev --nodes 3` with the binary that STONELOG names; it is stopped by its process id.
"""

import atexit
import glob
import json
import os
import pathlib
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time

import compat

from compat import wait_until

JARS = os.path.join(os.environ["CACHE"], "jars")
(version,) = (
    re.search(r"kafka-tools-(\d.*)\.jar", path).group(1) for path in glob.glob(f"{JARS}/kafka-tools-[0-9]*.jar")
)
JAVA = ["java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xlog:disable"]
archive = os.path.join(os.environ["CACHE"], "tools.jsa")
if os.path.exists(archive):
    JAVA.append(f"-XX:SharedArchiveFile={archive}")
JAVA += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{JARS}/*"]
TOOLS = "org.apache.kafka.tools"
READY_SECONDS = 60
SKIPPED = 77

suite = compat.Suite("java-cluster", version)
scratch = tempfile.mkdtemp(prefix="stonelog-compat-cluster-")


def binary():
    """The stonelog to run."""
    named = os.environ.get("STONELOG")
    target = os.environ.get("CARGO_TARGET_DIR", pathlib.Path(__file__).resolve().parents[2] / "target")
    path = pathlib.Path(named) if named else pathlib.Path(target) / "release" / "stonelog"
    if not path.exists():
        print(f"SKIPPED: java-cluster needs a stonelog binary; {path} is not there (STONELOG names another)")
        sys.exit(SKIPPED)
    return str(path)


class Nodes:
    """Three brokers, those of them that run."""

    def __init__(self):
        self.binary = binary()
        self.data = os.path.join(scratch, "data")
        command = [self.binary, "dev", "--nodes", "3", "--base-port", "0", "--data-dir", self.data]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        said, limit = b"", time.monotonic() + READY_SECONDS
        while b"\nready\n" not in said:
            readable, _, _ = select.select([self.process.stdout], [], [], max(0, limit - time.monotonic()))
            more = os.read(self.process.stdout.fileno(), 65536) if readable else b""
            if not more:
                self.stop()
                raise SystemExit(f"three brokers did not start: {said.decode(errors='replace')}")
            said += more
        self.bootstrap = re.search(rb"^bootstrap (\S+)$", said, re.MULTILINE).group(1).decode()

    def play(self, *what):
        """`stonelog dev kill 3` and its like."""
        command = [self.binary, "dev", "--data-dir", self.data, *what]
        subprocess.run(command, check=True, capture_output=True, timeout=compat.STEP_SECONDS)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(scratch, ignore_errors=True)


nodes = Nodes()
atexit.register(nodes.stop)


def tool(name, *arguments, code=0):
    """Runs one tool to its end and returns what it printed; any other exit code than `code` is a failure."""
    main = name if name.startswith("kafka.") else f"{TOOLS}.{name}"
    at = ["--bootstrap-server", nodes.bootstrap]
    # This one takes its verb first.
    command = [*arguments, *at] if name == "ClusterTool" else [*at, *arguments]
    done = subprocess.run(JAVA + [main, *command], capture_output=True, timeout=compat.STEP_SECONDS)
    output = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == code, f"{name} {arguments} ended with {done.returncode}: {output[-900:]}"
    return output


def partitions(*view):
    """Partition, leader, replicas and in-sync replicas as `--describe` shows them in this view."""
    output = tool("TopicCommand", "--describe", *view)
    shown = re.findall(r"Topic: (\S+)\s+Partition: (\d+)\s+Leader: (\S+)\s+Replicas: (\S+)\s+Isr: (\S*)", output)
    return {(topic, int(index)): (leader, replicas, set(isr.split(","))) for topic, index, leader, replicas, isr in shown}


def file_of(name, content):
    path = os.path.join(scratch, name)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file)
    return path


def assignment(name, **replicas):
    """A reassignment file: `moved_0=[2, 3]`."""
    places = [(place.rsplit("_", 1), to) for place, to in replicas.items()]
    wishes = [{"topic": topic, "partition": int(index), "replicas": to} for (topic, index), to in places]
    return file_of(name, {"version": 1, "partitions": wishes})


REASSIGN = "reassign.ReassignPartitionsCommand"


def verified(path):
    return "is still in progress" not in tool(REASSIGN, "--verify", "--reassignment-json-file", path)


with suite.step("create_topic"):
    tool("TopicCommand", "--create", "--topic", "moved", "--replica-assignment", "1:2,2:3")
    tool("TopicCommand", "--create", "--topic", "whole", "--partitions", "3", "--replication-factor", "3")
    tool("TopicCommand", "--create", "--topic", "single", "--replica-assignment", "3")
    tool("TopicCommand", "--create", "--topic", "away", "--replica-assignment", "1")

with suite.step("topics.views"):
    assert len(partitions()) == 7
    for view in ["--under-replicated-partitions", "--at-min-isr-partitions", "--unavailable-partitions"]:
        found = {topic for topic, _ in partitions(view)}
        # One replica of one is as many as are needed.
        assert found <= ({"single", "away", "moved"} if "at-min" in view else set()), (view, found)

with suite.step("cluster.endpoints"):
    assert re.search(r"Cluster ID: \S{22}", tool("ClusterTool", "cluster-id"))
    listed = tool("ClusterTool", "list-endpoints", "--include-fenced-brokers")
    assert len(re.findall(r"\bunfenced\b", listed)) == 3, listed

with suite.step("features"):
    assert re.search(r"stonelog.metadata.version\s.*FinalizedVersionLevel: 1", tool("FeatureCommand", "describe"))

with suite.step("metadata_quorum"):
    status = tool("MetadataQuorumCommand", "describe", "--status")
    voters = json.loads(re.search(r"CurrentVoters:\s+(\[.*\])", status).group(1))
    assert [voter["id"] for voter in voters] == [1, 2, 3], status
    assert all(voter["endpoints"][0].startswith("CONTROLLER://") for voter in voters), status
    replication = tool("MetadataQuorumCommand", "describe", "--replication", "--human-readable")
    assert (replication.count("Leader"), replication.count("Follower")) == (1, 2), replication

with suite.step("reassign"):
    wanted = file_of("topics.json", {"version": 1, "topics": [{"topic": "moved"}]})
    generated = tool(REASSIGN, "--generate", "--topics-to-move-json-file", wanted, "--broker-list", "1,2,3")
    assert "Proposed partition reassignment configuration" in generated
    path = assignment("there.json", moved_0=[2, 3], moved_1=[3, 1])
    started = tool(REASSIGN, "--execute", "--reassignment-json-file", path)
    assert "Successfully started partition reassignments for moved-0,moved-1" in started, started
    wait_until("both have moved", lambda: verified(path))
    assert {place: partitions("--topic", "moved")[place][1] for place in [("moved", 0), ("moved", 1)]} == {
        ("moved", 0): "2,3",
        ("moved", 1): "3,1",
    }

with suite.step("reassign.rollback"):
    # The tool prints directories too, and asks for them when it is given that back.
    before = json.loads(re.search(r'^(\{"version":1,"partitions".*\})$', started, re.MULTILINE).group(1))
    path = file_of("back.json", before)
    tool(REASSIGN, "--execute", "--reassignment-json-file", path)
    wait_until("both are back", lambda: verified(path))
    assert partitions("--topic", "moved")[("moved", 0)][1] == "1,2"

with suite.step("reassign.throttle"):
    path = assignment("slowly.json", moved_0=[1, 2, 3])
    limited = tool(REASSIGN, "--execute", "--throttle", "10000000", "--reassignment-json-file", path)
    assert "throttle limit was set" in limited, limited
    wait_until("a third replica", lambda: verified(path))
    cleared = tool("kafka.admin.ConfigCommand", "--describe", "--entity-type", "topics", "--entity-name", "moved")
    assert "throttled" not in cleared, cleared

with suite.step("log_dirs"):
    output = tool("LogDirsCommand", "--describe", "--topic-list", "whole")
    (line,) = (line for line in output.splitlines() if line.startswith("{"))
    held = {broker["broker"]: broker["logDirs"][0]["partitions"] for broker in json.loads(line)["brokers"]}
    assert {broker: len(held[broker]) for broker in held} == {1: 3, 2: 3, 3: 3}, held

with suite.step("configs"):
    topic = ["--entity-type", "topics", "--entity-name", "moved"]
    relax = "flush.messages=1000,min.insync.replicas=1"
    tool("kafka.admin.ConfigCommand", "--alter", *topic, "--add-config", relax)
    unclean = ["--add-config", "unclean.leader.election.enable=true"]
    tool("kafka.admin.ConfigCommand", "--alter", *topic, *unclean)
    described = tool("kafka.admin.ConfigCommand", "--describe", *topic)
    for setting in [*relax.split(","), "unclean.leader.election.enable=true"]:
        assert setting in described, described
    strict = ["--entity-type", "topics", "--entity-name", "whole"]
    assert "strict topic" in tool("kafka.admin.ConfigCommand", "--alter", *strict, *unclean, code=1)

live = ["--entity-type", "topics", "--entity-name", "live"]
load = None


def alter(*what, code=0):
    return tool("kafka.admin.ConfigCommand", "--alter", *live, *what, code=code)


def restarted(node):
    nodes.play("kill", node)
    nodes.play("start", node)
    wait_until("all are in sync", lambda: not partitions("--under-replicated-partitions"))


with suite.step("configs.relaxed_under_load"):
    tool("TopicCommand", "--create", "--topic", "live", "--partitions", "3", "--replication-factor", "3")
    command = [nodes.binary, "verify", "--output", "json", "--until-stdin-closes", "--patience", "60s"]
    command += ["--brokers", nodes.bootstrap, "--topic", "live", "--producers", "2", "--groups", "1", "--members", "2"]
    load = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    atexit.register(load.kill)
    assert "strict topic" in alter(*unclean, code=1)
    alter("--add-config", "flush.messages=1000,min.insync.replicas=1")
    alter(*unclean)
    restarted("2")

with suite.step("configs.strict_under_load"):
    # In this order: a strict topic does not elect uncleanly.
    assert "strict topic" in alter("--delete-config", "flush.messages", code=1)
    alter("--delete-config", "unclean.leader.election.enable,flush.messages,min.insync.replicas")
    restarted("2")
    verdict, errors = load.communicate(timeout=compat.STEP_SECONDS)
    assert load.returncode == 0, f"{load.returncode}: {verdict.decode()[-900:]} {errors.decode()[-900:]}"
    assert json.loads(verdict)["acknowledged"] > 0 and json.loads(verdict)["commits"] > 0, verdict

with suite.step("broker_gone"):
    nodes.play("kill", "3")
    fenced = lambda: " fenced" in tool("ClusterTool", "list-endpoints", "--include-fenced-brokers")
    wait_until("it is fenced", fenced)
    assert " fenced" not in tool("ClusterTool", "list-endpoints")
    under = partitions("--under-replicated-partitions")
    assert {("whole", 0), ("whole", 1), ("whole", 2)} <= set(under), under
    assert all("3" not in isr for place, (_, _, isr) in under.items() if place[0] == "whole"), under
    assert ("whole", 0) in partitions("--at-min-isr-partitions")
    assert ("whole", 0) not in partitions("--under-min-isr-partitions")
    assert set(partitions("--unavailable-partitions")) == {("single", 0)}

with suite.step("leader_election.unclean_refused"):
    unclean = ["--election-type", "unclean", "--topic", "single", "--partition", "0"]
    refused = tool("LeaderElectionCommand", *unclean, code=1)
    assert "PolicyViolationException" in refused and "strict" in refused, refused

with suite.step("reassign.cancel"):
    # The tool moves nothing to a broker that is not there, so somebody else asks for that.
    move = [nodes.binary, "partition", "move", "away:0", "--to", "3", "--brokers", nodes.bootstrap]
    subprocess.run(move, check=True, capture_output=True, timeout=compat.STEP_SECONDS)
    listed = tool(REASSIGN, "--list")
    assert "away-0: replicas: 3,1. adding: 3. removing: 1." in listed, listed
    # Throttles would be taken off broker 3 too, by asking it: the tool waits for it to come.
    path = assignment("hanging.json", away_0=[3])
    cancelled = tool(REASSIGN, "--cancel", "--preserve-throttles", "--reassignment-json-file", path)
    assert "Successfully cancelled" in cancelled, cancelled
    assert "No partition reassignments found" in tool(REASSIGN, "--list")
    assert partitions("--topic", "away")[("away", 0)][:2] == ("1", "1")

with suite.step("leader_election.preferred"):
    nodes.play("start", "3")
    wait_until("all are in sync", lambda: not partitions("--under-replicated-partitions"))
    before = partitions("--topic", "whole")
    tool("LeaderElectionCommand", "--election-type", "preferred", "--all-topic-partitions")
    now = partitions("--topic", "whole")
    assert all(leader == replicas.split(",")[0] for leader, replicas, _ in now.values()), (before, now)

with suite.step("cluster.unregister"):
    nodes.play("kill", "3")
    wait_until("it is fenced", fenced)
    tool("ClusterTool", "unregister", "--id", "3")
    gone = lambda: len(re.findall(r"\b(?:un)?fenced\b", tool("ClusterTool", "list-endpoints", "--include-fenced-brokers")))
    assert wait_until("two are left", lambda: gone() == 2)

nodes.stop()
suite.finish()
