"""What a stock librdkafka producer with its default settings sees when brokers of three die or restart.

Each work prints one line of JSON. The producer sends a record every two milliseconds to each of three partitions (of
one work: to the partitions that the victim does not lead) and notes when each is acknowledged. Nothing but
`bootstrap.servers` and idempotence is set, so acks=all, and a record is given up after five minutes.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import struct
import sys
import threading
import time

import runner

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

SEND_EVERY_S = 0.002
SETTLED_S = 2.0
PATIENCE_S = 60.0


class Load:
    """A producer in a thread, and the moments of its acknowledgements."""

    def __init__(self, bootstrap, topic, partitions):
        self.acknowledged = []
        self.failed = 0
        self._stop = threading.Event()
        self._producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "log_level": 2})
        self._thread = threading.Thread(target=self._run, args=(topic, partitions), daemon=True)
        self._thread.start()

    def _run(self, topic, partitions):
        def on_delivery(problem, message):
            if problem is None:
                self.acknowledged.append((time.monotonic(), message.partition()))
            else:
                self.failed += 1

        while not self._stop.is_set():
            for partition in partitions:
                try:
                    self._producer.produce(topic, b"x" * 100, partition=partition, on_delivery=on_delivery)
                except BufferError:
                    pass
            self._producer.poll(SEND_EVERY_S)
        self.failed += self._producer.flush(PATIENCE_S)

    def next_after(self, moment, partition):
        """Seconds from `moment` to the first acknowledgement in a partition after it."""
        limit = time.monotonic() + PATIENCE_S
        while time.monotonic() < limit:
            for at, where in reversed(self.acknowledged[-5:]):
                if at > moment and where == partition:
                    return min(at - moment for at, where in self.acknowledged if at > moment and where == partition)
            time.sleep(0.002)
        raise SystemExit("nothing is acknowledged any more")

    def stop(self):
        self._stop.set()
        self._thread.join()

    def longest_gap(self, since, until):
        """The longest time without an acknowledgement in any one partition."""
        longest = 0.0
        for partition in {where for _, where in self.acknowledged}:
            moments = [since] + [at for at, where in self.acknowledged if where == partition and since < at < until]
            moments.append(until)
            longest = max(longest, max(late - early for early, late in zip(moments, moments[1:])))
        return longest


class Fleet:
    """The cluster, and what a client is told of it."""

    def __init__(self, binary, settings):
        self.cluster = runner.Cluster(binary, 3, settings)
        self.bootstrap = self.cluster.bootstrap
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 2})

    def create(self, topic, partitions):
        self.admin.create_topics([NewTopic(topic, partitions, 3)])[topic].result(PATIENCE_S)
        self.wait_whole(topic)

    def metadata(self, topic=None):
        return self.admin.list_topics(topic, timeout=PATIENCE_S)

    def leaders(self, topic):
        return {index: found.leader for index, found in self.metadata(topic).topics[topic].partitions.items()}

    def controller(self):
        """The active one. Metadata names any broker."""
        return json.loads(self.cluster._ask("cluster", "info", "-b", self.bootstrap, "-o", "json").stdout)["controller"]

    def wait_whole(self, topic):
        limit = time.monotonic() + PATIENCE_S
        while time.monotonic() < limit:
            partitions = self.metadata(topic).topics[topic].partitions.values()
            if partitions and all(found.leader > 0 and len(found.isrs) == len(found.replicas) for found in partitions):
                return
            time.sleep(0.1)
        raise SystemExit(f"{topic} is not whole")

    def play(self, *arguments):
        done = self.cluster._ask("dev", *map(str, arguments), "--data-dir", self.cluster.data, "--timeout", "60s")
        if done.returncode:
            raise SystemExit(f"dev {arguments}: {done.stderr}")
        return done.stdout

    def stop_node(self, node):
        """SIGTERM, and waits for the end."""
        nodes = json.loads(self.play("status", "-o", "json"))["nodes"]
        os.kill(next(entry["pid"] for entry in nodes if entry["node"] == node), signal.SIGTERM)
        while next(
            entry["pid"] for entry in json.loads(self.play("status", "-o", "json"))["nodes"] if entry["node"] == node
        ):
            time.sleep(0.02)


def create_at(address, topic):
    """Has one broker make a topic (CreateTopics 4), for what a client adds to the controller's own time is the client's."""

    def text(value):
        return struct.pack(">h", len(value)) + value.encode()

    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), PATIENCE_S) as connection:
        connection.settimeout(PATIENCE_S)
        asked = text(topic) + struct.pack(">ihii", 1, 2, 0, 0)
        request = struct.pack(">hhi", 19, 4, 1) + text("failover") + struct.pack(">i", 1) + asked
        request += struct.pack(">i?", int(PATIENCE_S * 1000), False)
        connection.sendall(struct.pack(">i", len(request)) + request)
        (length,) = struct.unpack(">i", connection.recv(4, socket.MSG_WAITALL))
        answer = connection.recv(length, socket.MSG_WAITALL)
    # Correlation id, throttle time, number of topics, the topic's name.
    (error,) = struct.unpack_from(">h", answer, 4 + 4 + 4 + 2 + len(topic))
    if error:
        raise SystemExit(f"{address} does not make {topic}: error {error}")


def summary(name, values, **more):
    """One line: milliseconds."""
    found = sorted(round(value * 1000) for value in values)
    line = {"work": name, "rounds": len(found), "p50_ms": statistics.median(found), "worst_ms": found[-1], **more}
    print(json.dumps({**line, "all_ms": found}), flush=True)


def leader_killed(fleet, rounds):
    fleet.create("failover", 3)
    load = Load(fleet.bootstrap, "failover", [0, 1, 2])
    waits = []
    for number in range(rounds):
        time.sleep(SETTLED_S)
        partition = number % 3
        victim = fleet.leaders("failover")[partition]
        moment = time.monotonic()
        fleet.play("kill", victim)
        # What it acknowledged until it was dead does not count.
        dead = time.monotonic()
        waits.append(dead - moment + load.next_after(dead, partition))
        fleet.play("start", victim)
        fleet.wait_whole("failover")
    load.stop()
    summary("next acknowledgement after kill -9 of the leader", waits, failed_sends=load.failed)


def controller_killed(fleet, rounds):
    fleet.create("beside", 6)
    waits, alone, gaps, failed = [], [], [], 0
    for number in range(rounds):
        controller = fleet.controller()
        brokers = fleet.metadata().brokers.values()
        alive = next(f"{broker.host}:{broker.port}" for broker in brokers if broker.id != controller)
        others = [partition for partition, leader in fleet.leaders("beside").items() if leader != controller]
        load = Load(fleet.bootstrap, "beside", others)
        time.sleep(SETTLED_S)
        moment = time.monotonic()
        fleet.play("kill", controller)
        asked = fleet.admin.create_topics([NewTopic(f"made-{number}", 1, 2)])[f"made-{number}"]
        asked.add_done_callback(lambda _: waits.append(time.monotonic() - moment))
        create_at(alive, f"alone-{number}")
        alone.append(time.monotonic() - moment)
        asked.result(PATIENCE_S)
        time.sleep(SETTLED_S)
        gaps.append(load.longest_gap(moment, time.monotonic()))
        load.stop()
        failed += load.failed
        fleet.play("start", controller)
        fleet.wait_whole("beside")
    summary("a topic is made after kill -9 of the controller", waits)
    summary("the same, asked of a broker that lives", alone)
    summary("longest gap of producers beside it", gaps, failed_sends=failed)


def rolling_restart(fleet, rounds):
    fleet.create("rolling", 6)
    load = Load(fleet.bootstrap, "rolling", list(range(6)))
    time.sleep(SETTLED_S)
    gaps = []
    for _ in range(rounds):
        for node in (1, 2, 3):
            moment = time.monotonic()
            fleet.stop_node(node)
            fleet.play("start", node)
            fleet.wait_whole("rolling")
            time.sleep(0.5)
            gaps.append(load.longest_gap(moment, time.monotonic()))
    load.stop()
    summary("longest gap while a node is restarted", gaps, failed_sends=load.failed)


def thousand_partitions(fleet, rounds):
    fleet.create("many", 3000)
    waits = []
    for _ in range(rounds):
        leaders = fleet.leaders("many")
        victim = max((1, 2, 3), key=lambda node: sum(leader == node for leader in leaders.values()))
        lost = sum(leader == victim for leader in leaders.values())
        moment = time.monotonic()
        fleet.play("kill", victim)
        while any(leader in (victim, -1) for leader in fleet.leaders("many").values()):
            time.sleep(0.01)
        waits.append(time.monotonic() - moment)
        fleet.play("start", victim)
        fleet.wait_whole("many")
    summary(f"{lost} partitions are led again", waits)


WORKS = {
    "leader": leader_killed,
    "controller": controller_killed,
    "rolling": rolling_restart,
    "partitions": thousand_partitions,
}


def main():
    parser = argparse.ArgumentParser(prog="compat-tests/failover/run", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--only", choices=list(WORKS), action="append")
    parser.add_argument("--binary", metavar="PATH", help="the stonelog binary (default: build the release binary)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a further broker setting")
    options = parser.parse_args()
    binary = runner.find_binary(options.binary)
    for name in options.only or WORKS:
        fleet = Fleet(binary, options.set)
        rounds = options.rounds if name == "leader" else max(options.rounds // 4, 1)
        try:
            WORKS[name](fleet, rounds)
        finally:
            clean = fleet.cluster.stop()
        if not clean:
            print(f"the cluster did not stop cleanly: {fleet.cluster.directory}", file=sys.stderr)
        else:
            shutil.rmtree(fleet.cluster.directory, ignore_errors=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    main()
