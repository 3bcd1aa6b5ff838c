"""Works on a broker of their own, fresh for every measurement: how it starts, and what it is like when idle."""

import signal
import tempfile
import time

from processes import Failed, finish, start
from tools import path_of, report_of, workload
from work import Work

START_SECONDS_MAX = 120
# Long enough for Kafka to have loaded its classes and to have nothing left to do.
REST_SECONDS = 5
# The most partitions that Kafka 4.4 makes in one request is below 10,000; then they are spread over two topics.
PARTS_OF_TOPIC = 2


class Fresh(Work):
    fresh = True
    contenders = ["strict", "kafka-flush1"]

    def observe(self, system, contender, profile):
        """Measures a broker that has been made but not started."""
        raise NotImplementedError


class Start(Fresh):
    """From the start of the process to the first acknowledgement that a client, which is waiting already, gets."""

    def __init__(self, kind, partitions=1):
        self.kind = kind
        self.partitions = partitions
        self.name = f"start-{kind}" + (f"-p{partitions}" if partitions > 1 else "")
        what = {"empty": "on an empty directory", "killed": "after kill -9 under load", "clean": "after a clean stop"}[kind]
        where = "" if partitions == 1 else f", {partitions:,} partitions"
        self.title = f"process start to first acknowledgement {what}{where} (franz-go)"

    def observe(self, system, contender, profile):
        topic, make = "first", 1
        if self.kind != "empty":
            system.start()
            (topic, _), make = system.create_topic(contender.config, self.partitions), 0
            flags = {"topic": topic, "partitions": self.partitions, "producers": 64, "warm": "0s"}
            workload("one-in-flight", system.brokers, 120, counted=f"{profile.seconds}s", **flags)
            system.stop(signal.SIGKILL if self.kind == "killed" else signal.SIGTERM)
        flags = ["-brokers", system.brokers, "-topic", topic, "-partitions", make, "-limit", f"{START_SECONDS_MAX}s"]
        with tempfile.TemporaryFile() as output:
            client = start([path_of("workload"), "first-ack", *flags], output)
            # It is waiting before the broker starts, so that its own start is not part of the figure.
            time.sleep(0.2)
            begin = time.time()
            system.launch()
            done = finish(client, output, "first-ack", START_SECONDS_MAX + 10)
        report = report_of(done)
        values = {"start_s": report["acked_unix"] - begin, "listening_s": report["listening_unix"] - begin}
        return {key: round(value, 4) for key, value in values.items()} | system.memory()


class Partitions(Fresh):
    """A broker with so many empty partitions: how long it takes to make them, and what it uses while nobody asks."""

    def __init__(self, partitions):
        self.partitions = partitions
        self.name = f"idle-p{partitions}"
        self.title = f"a broker at rest with {partitions:,} {'partition' if partitions == 1 else 'empty partitions'}"

    def observe(self, system, contender, profile):
        system.start()
        try:
            _, seconds = system.create_topic(contender.config, self.partitions)
            topics = 1
        except Failed:
            # Refused in one topic.
            parts = [system.create_topic(contender.config, self.partitions // PARTS_OF_TOPIC) for _ in range(PARTS_OF_TOPIC)]
            seconds, topics = sum(took for _, took in parts), PARTS_OF_TOPIC
        system.settle(profile.settle_seconds)
        time.sleep(REST_SECONDS)
        used, begin = system.cpu_seconds(), time.monotonic()
        time.sleep(profile.seconds)
        idle = (system.cpu_seconds() - used) / (time.monotonic() - begin)
        return {"create_s": round(seconds, 3), "topics": topics, "idle_cores": round(idle, 4), **system.memory()}
