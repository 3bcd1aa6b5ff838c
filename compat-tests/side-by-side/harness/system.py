"""What every system is: one broker or several, started in fresh directories on free loopback ports, and what is asked of it.

All get the same machine, user and priority, and the settings of `common_settings`; what differs is named in `settings`,
which is kept with the raw values.
"""

import shutil
import signal
import socket
import time
import uuid

from dataclasses import dataclass
from pathlib import Path

from processes import Failed
from tools import workload

START_SECONDS = 90
# A broker that was killed has to be taken back by the others first.
WHOLE_SECONDS = 120
# A broker that uses less than this has finished with the load before.
SETTLED_CORES = 0.1

# Kafka's own names; each system gets them all.
COMMON = {
    "num.partitions": "1",
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "5",
    "group.initial.rebalance.delay.ms": "0",
    "log.segment.delete.delay.ms": "1000",
}
# What a lone broker cannot have otherwise. Several keep Kafka's defaults: three replicas, two of them in sync.
ALONE = {
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
}
NEVER = str(2**63 - 1)
STRICT = {"flush.messages": "1"}
RELAXED = {"flush.messages": NEVER}
# Every topic's, with several brokers.
REPLICATED = {"min.insync.replicas": "2"}


def common_settings(count):
    """The settings of every broker where there are `count`."""
    return COMMON if count > 1 else {**COMMON, **ALONE}


def free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@dataclass(frozen=True)
class Member:
    """A broker's number and its addresses. Every one is a voter of the metadata quorum as well."""

    number: int
    client: str
    controller: str
    jmx_port: int


def free_members(count):
    """Numbers from 1 on, and ports that are free."""
    ports = iter(free_ports(3 * count))
    address = "127.0.0.1:{}".format
    return [Member(number + 1, address(next(ports)), address(next(ports)), next(ports)) for number in range(count)]


def voters(members):
    return ",".join(f"{member.number}@{member.controller}" for member in members)


class System:
    """Brokers that run, and what is asked of every kind."""

    name = ""
    # What every broker of this kind is started with beyond the common settings, kept with the raw values.
    settings = {}

    def __init__(self, place, count=1):
        self.directory = Path(place) / f"{self.name}-{uuid.uuid4().hex[:8]}"
        self.directory.mkdir(parents=True)
        # Brokers, and replicas of every partition.
        self.count = count
        # Its processes: the broker with number n is the n-th, unless the kind says otherwise.
        self.nodes = []
        # Where clients start from.
        self.brokers = ""
        self._topics = 0

    def launch(self):
        """Starts the processes and returns at once; a directory that holds data already is taken up again."""
        for node in self.nodes:
            node.launch()

    def start(self):
        """Starts and returns when a topic can be made, with all its replicas."""
        self.launch()
        self.create_topic(STRICT, 1)
        return self

    def stop(self, how=signal.SIGTERM):
        return all([node.stop(how) for node in self.nodes])

    def close(self):
        """Stops and removes everything."""
        for node in self.nodes:
            node.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def create_topic(self, config, partitions, topic=None):
        """A fresh topic; returns its name and the seconds it took, the client's start included."""
        self._topics += 1
        topic = topic or f"{self.name}-{self._topics}"
        settings = {**config, **(REPLICATED if self.count > 1 else {}), "retention.ms": "-1"}
        begin = time.monotonic()
        try:
            report, _ = workload(
                "create",
                self.brokers,
                START_SECONDS + 30,
                topic=topic,
                partitions=partitions,
                replicas=self.count,
                configs=",".join(f"{key}={value}" for key, value in settings.items()),
                limit=f"{START_SECONDS}s",
            )
        except Failed as failure:
            raise Failed(f"{failure}\n{self.tail()}") from None
        return topic, report.get("seconds", time.monotonic() - begin)

    def delete_topic(self, topic):
        workload("delete", self.brokers, 90, topic=topic)

    def wait_whole(self, topic):
        """Waits until every replica of a topic is in sync; a report that names the first partition's leader and the
        active controller, and the `Finished`."""
        return workload("whole", self.brokers, WHOLE_SECONDS + 30, topic=topic, limit=f"{WHOLE_SECONDS}s")

    def tail(self):
        return "\n".join(f"{self.name} said last:\n{node.tail()}" for node in self.nodes)

    def one_in_flight(self, topic, producers, partitions, record_bytes, seconds, warm_seconds, acks):
        """Producers with one record in flight each, through franz-go; the report and the `Finished`."""
        return workload(
            "one-in-flight",
            self.brokers,
            seconds + warm_seconds + 90,
            topic=topic,
            partitions=partitions,
            producers=producers,
            bytes=record_bytes,
            acks=acks,
            warm=f"{warm_seconds}s",
            counted=f"{seconds}s",
        )

    def alive(self):
        return all(node.alive() for node in self.nodes)

    def cpu_seconds(self):
        return sum(node.cpu_seconds() for node in self.nodes)

    def device_read_bytes(self):
        return sum(node.device_read_bytes() for node in self.nodes)

    def memory(self):
        """Of all its processes together."""
        parts = [node.memory() for node in self.nodes]
        return {key: round(sum(part[key] for part in parts), 1) for key in parts[0]}

    def settle(self, limit_seconds):
        """Waits until the brokers have nothing left to do from the load before."""
        limit = time.monotonic() + limit_seconds
        while time.monotonic() < limit:
            begin, used = time.monotonic(), self.cpu_seconds()
            time.sleep(0.5)
            if (self.cpu_seconds() - used) / (time.monotonic() - begin) < SETTLED_CORES * self.count:
                return

    def flush_counts(self):
        """Flushes of logs by each broker's own account; None where they keep none."""
        return None
