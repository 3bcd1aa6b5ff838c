"""A stock consumer with `client.rack` reads from the replica in its rack (KIP-392), also when leaders die meanwhile.

The three brokers are this suite's own, each in a rack of its own, with the binary that STONELOG names. From whom the
consumer fetches is what librdkafka's own statistics say.
"""

import atexit
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import compat
import confluent_kafka

from compat import wait_until
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

SELECTOR = "org.apache.kafka.common.replica.RackAwareReplicaSelector"
READY_SECONDS = 60
SKIPPED = 77
RACKS = ["a", "b", "c"]

suite = compat.Suite("racks", f"{confluent_kafka.__version__} (librdkafka {confluent_kafka.libversion()[0]})")
scratch = tempfile.mkdtemp(prefix="stonelog-compat-racks-")


def binary():
    """The stonelog to run."""
    named = os.environ.get("STONELOG")
    target = os.environ.get("CARGO_TARGET_DIR", pathlib.Path(__file__).resolve().parents[2] / "target")
    path = pathlib.Path(named) if named else pathlib.Path(target) / "release" / "stonelog"
    if not path.exists():
        print(f"SKIPPED: racks needs a stonelog binary; {path} is not there (STONELOG names another)")
        sys.exit(SKIPPED)
    return str(path)


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


class Nodes:
    """Three brokers; node n of these is broker n + 1."""

    def __init__(self):
        self.binary = binary()
        self.running = {}
        ports = free_ports(6)
        self.ports, self.quorum = ports[:3], ports[3:]
        self.secret = os.path.join(scratch, "secret")
        with open(self.secret, "w", encoding="utf-8") as file:
            file.write("a secret that all three know\n")
        os.chmod(self.secret, 0o600)
        self.bootstrap = ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def start(self, node):
        voters = ",".join(f"{index + 1}@127.0.0.1:{port}" for index, port in enumerate(self.quorum))
        settings = {
            "node.id": node + 1,
            "broker.rack": RACKS[node],
            "replica.selector.class": SELECTOR,
            "listeners": f"PLAINTEXT://127.0.0.1:{self.ports[node]},CONTROLLER://127.0.0.1:{self.quorum[node]}",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": voters,
            "stonelog.cluster.secret.file": self.secret,
            "auto.leader.rebalance.enable": "false",
        }
        command = [self.binary, "serve", "--data-dir", os.path.join(scratch, str(node))]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        self.running[node] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def kill(self, node):
        process = self.running.pop(node)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self):
        for node in list(self.running):
            self.kill(node)
        shutil.rmtree(scratch, ignore_errors=True)


class Load:
    """Numbered records to one partition, and who has read them."""

    def __init__(self, topic):
        self.topic = topic
        self.sent = 0
        self.read = 0
        self.statistics = {}
        at = {"bootstrap.servers": nodes.bootstrap, "topic.metadata.refresh.interval.ms": 1000}
        self.producer = Producer({**at, "enable.idempotence": True, "message.timeout.ms": 30000})
        self.consumer = Consumer(
            {
                **at,
                "group.id": suite.name("group"),
                "client.rack": "b",
                "auto.offset.reset": "error",
                "statistics.interval.ms": 100,
                "stats_cb": self.on_statistics,
            }
        )
        self.consumer.assign([TopicPartition(topic, 0, 0)])

    def on_statistics(self, said):
        self.statistics = json.loads(said)

    def produce(self, count):
        failed = []

        def on_delivery(problem, _):
            if problem is not None:
                failed.append(problem)

        for number in range(self.sent, self.sent + count):
            self.producer.produce(self.topic, b"%d" % number, partition=0, on_delivery=on_delivery)
        assert self.producer.flush(compat.STEP_SECONDS) == 0, "not all were acknowledged"
        assert not failed, failed[0]
        self.sent += count

    def poll(self):
        """One record at most: each comes once, in its order."""
        message = self.consumer.poll(0.2)
        if message is None:
            return
        if message.error():
            # A broker that is gone is an event here, not the end.
            assert message.error().retriable() or message.error().code() < 0, message.error()
            return
        assert int(message.value()) == self.read, f"record {message.value()} came for {self.read}"
        self.read += 1

    def read_all(self):
        def read():
            self.poll()
            return self.read == self.sent

        wait_until(f"{self.sent} records are read", read)

    def partition(self):
        """What the consumer says of its partition: whom it fetches from, and who leads."""
        shown = self.statistics.get("topics", {}).get(self.topic, {}).get("partitions", {}).get("0", {})
        return shown.get("broker"), shown.get("leader")

    def fetches_from(self, broker):
        """Fetch requests sent to a broker so far."""
        shown = [one for one in self.statistics["brokers"].values() if one["nodeid"] == broker]
        return sum(one["req"].get("Fetch", 0) for one in shown)

    def wait_until_fetched_from(self, broker):
        def settled():
            self.poll()
            now, leader = self.partition()
            return now == broker and leader not in (None, -1, broker)

        wait_until(f"the consumer fetches from broker {broker}", settled)


nodes = Nodes()
atexit.register(nodes.stop)
for index in range(3):
    nodes.start(index)
admin = AdminClient({"bootstrap.servers": nodes.bootstrap})
wait_until("three brokers are there", lambda: len(admin.list_topics(timeout=READY_SECONDS).brokers) == 3, READY_SECONDS)
name = suite.name("near")
loads = []


def create():
    # Broker 2, which is in the consumer's rack, comes last: another one leads, and leads next.
    topic = NewTopic(name, num_partitions=1, replica_assignment=[[1, 3, 2]], config={"min.insync.replicas": "1"})
    admin.create_topics([topic], request_timeout=30)[name].result(compat.STEP_SECONDS)
    loads.append(Load(name))


def reads_in_its_rack():
    (load,) = loads
    load.produce(100)
    load.read_all()
    load.wait_until_fetched_from(2)
    before = load.fetches_from(1), load.fetches_from(2)
    load.produce(1000)
    load.read_all()
    wait_until("the statistics show it", lambda: load.poll() or load.fetches_from(2) > before[1])
    assert load.partition() == (2, 1), load.partition()
    assert load.fetches_from(1) == before[0], "nothing was asked of the leader meanwhile"


def leader_killed():
    (load,) = loads
    nodes.kill(0)
    load.produce(1000)
    load.read_all()
    # Broker 3 leads: the consumer comes back to broker 2.
    load.wait_until_fetched_from(2)
    assert load.partition() == (2, 3), load.partition()
    load.produce(100)
    load.read_all()


def follower_killed():
    (load,) = loads
    nodes.start(0)
    wait_until("it is back", lambda: time.sleep(0.2) or len(admin.list_topics(timeout=10).brokers) == 3)
    nodes.kill(1)
    load.produce(1000)
    load.read_all()
    nodes.start(1)
    load.wait_until_fetched_from(2)
    load.produce(100)
    load.read_all()


with suite.step("create_topic"):
    create()
for step in (reads_in_its_rack, leader_killed, follower_killed):
    if not suite.failed("create_topic", step.__name__):
        with suite.step(step.__name__):
            step()
for load in loads:
    load.consumer.close()
# It leaves the process at once.
nodes.stop()
suite.finish()
