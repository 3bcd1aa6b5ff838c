"""The works: what is done to a broker, and what is read off. A row of the table compares two contenders of one work.

A contender is a broker with a topic setting; a work names its contenders and runs the same client, with the same flags,
against each of them in turn.
"""

import re

from dataclasses import dataclass, field

from processes import Failed, run
from systems import RELAXED, STRICT
from tools import java_tool, path_of, workload

RECORD_BYTES = 1024
BATCH_BYTES = 16384
LINGER_MS = 5


@dataclass(frozen=True)
class Contender:
    """A broker and the settings of the topic it is measured on."""

    name: str
    system: str
    config: dict = field(hash=False)


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("strict", "stonelog", STRICT),
        Contender("relaxed", "stonelog", RELAXED),
        Contender("kafka-flush1", "kafka", STRICT),
        Contender("kafka-default", "kafka", RELAXED),
        Contender("kafka-tuned-flush1", "kafka-tuned", STRICT),
        Contender("kafka-tuned-default", "kafka-tuned", RELAXED),
    )
}
BOTH = ["strict", "kafka-flush1", "kafka-default", "relaxed"]
TUNED = ["kafka-tuned-flush1", "kafka-tuned-default"]


@dataclass
class Load:
    """What one run of a client saw. `sent` counts the records of warm-up too, `appends` the requests at least needed."""

    values: dict
    sent: int
    appends: int
    client: object


class Work:
    name = ""
    title = ""
    contenders = BOTH
    partitions = 1

    def load(self, system, topic, seconds, warm_seconds, rate, least):
        """Runs the client for `warm_seconds` that do not count and `seconds` that do; `rate` is
        the last pilot's. A client that sends a number of records, not for a time, sends `least` at least."""
        raise NotImplementedError


class OneInFlight(Work):
    """Many producers that wait for the acknowledgement of a record before they send the next."""

    def __init__(self, producers, partitions=1, contenders=None):
        self.name = f"one-in-flight-{producers}" + (f"-p{partitions}" if partitions > 1 else "")
        who = "1 producer" if producers == 1 else f"{producers} producers"
        where = "1 partition" if partitions == 1 else f"{partitions:,} partitions"
        self.title = f"{who}, one record of 1 KiB in flight each, {where} (franz-go)"
        self.producers = producers
        self.partitions = partitions
        self.contenders = contenders or BOTH + TUNED

    def load(self, system, topic, seconds, warm_seconds, rate, least):
        report, done = workload(
            "one-in-flight",
            system.brokers,
            seconds + warm_seconds + 90,
            topic=topic,
            partitions=self.partitions,
            producers=self.producers,
            bytes=RECORD_BYTES,
            warm=f"{warm_seconds}s",
            counted=f"{seconds}s",
        )
        values = {"records_per_s": round(report["rate"], 1), **milliseconds(report)}
        return Load(values, report["sent"], report["sent"], done)


def milliseconds(report):
    return {key[:-3] + "_ms": round(value / 1000, 3) for key, value in report.items() if key.endswith("_us")}


class JavaBatches(Work):
    """Kafka's ProducerPerformance at full speed; its steady-state line, after the warm-up."""

    def __init__(self, partitions):
        self.name = f"batches-java-p{partitions}"
        self.partitions = partitions
        where = "1 partition" if partitions == 1 else f"{partitions:,} partitions"
        self.title = f"16 KiB batches of 1 KiB records, {where} (Java client)"
        self.contenders = BOTH + TUNED

    PROPERTIES = ["acks=all", f"linger.ms={LINGER_MS}", f"batch.size={BATCH_BYTES}", "compression.type=none"]
    STEADY = re.compile(
        r"(\d+) steady state records sent, ([\d.]+) records/sec .*?([\d.]+) ms 50th, .*?([\d.]+) ms 99th, ([\d.]+) ms 99.9th"
    )
    ALL = re.compile(r"\d+ records sent, ([\d.]+) records/sec .* 99.9th")

    def load(self, system, topic, seconds, warm_seconds, rate, least):
        warm = max(int(rate * warm_seconds), least // 2)
        counted = max(int(rate * seconds), least // 2)
        command = java_tool(
            "ProducerPerformance",
            "--bootstrap-server",
            system.brokers,
            "--topic",
            topic,
            "--num-records",
            warm + counted,
            "--warmup-records",
            warm,
            "--record-size",
            RECORD_BYTES,
            "--throughput",
            "-1",
            "--command-property",
            *self.PROPERTIES,
            "enable.idempotence=true",
        )
        done = run(command, 10 * (seconds + warm_seconds) + 120)
        found = self.STEADY.findall(done.text)
        if not found:
            raise Failed(f"no steady state in what ProducerPerformance says:\n{done.text[-1500:]}")
        _, per_second, p50, p99, p999 = found[-1]
        values = produced(float(per_second))
        values.update(p50_ms=float(p50), p99_ms=float(p99), p999_ms=float(p999))
        return Load(values, warm + counted, appends_of(warm + counted), done)


class LibrdkafkaBatches(Work):
    """librdkafka's own rdkafka_performance at full speed."""

    def __init__(self, partitions):
        self.name = f"batches-librdkafka-p{partitions}"
        self.partitions = partitions
        where = "1 partition" if partitions == 1 else f"{partitions:,} partitions"
        self.title = f"16 KiB batches of 1 KiB records, {where} (librdkafka)"
        self.contenders = BOTH + TUNED

    SUMMARY = re.compile(r"(\d+) delivered \(offset -?\d+, (\d+) failed\) in (\d+)ms")

    def load(self, system, topic, seconds, warm_seconds, rate, least):
        # The tool has no warm-up of its own: it is a C program and the broker is warm.
        count = max(int(rate * seconds), least)
        command = [path_of("rdkafka-performance"), "-P", "-b", system.brokers, "-t", topic, "-s", RECORD_BYTES]
        command += ["-c", count, "-a", "-1", "-q", "-i", "3600000"]
        for setting in (f"linger.ms={LINGER_MS}", f"batch.size={BATCH_BYTES}", "enable.idempotence=false"):
            command += ["-X", setting]
        done = run(command, 10 * (seconds + warm_seconds) + 120)
        found = self.SUMMARY.search(done.text)
        if not found or found[2] != "0":
            raise Failed(f"rdkafka_performance did not deliver everything:\n{done.text[-1500:]}")
        delivered, _, took_ms = map(int, found.groups())
        return Load(produced(delivered * 1000 / max(took_ms, 1)), count, appends_of(count), done)


def produced(per_second):
    return {"records_per_s": round(per_second, 1), "mb_per_s": round(per_second * RECORD_BYTES / 1e6, 2)}


def appends_of(records):
    """The appends that so many records need at least, when every batch is as full as it can be."""
    return records * RECORD_BYTES // BATCH_BYTES


WORKS = {
    work.name: work
    for work in (
        OneInFlight(256),
        OneInFlight(32),
        OneInFlight(1),
        LibrdkafkaBatches(1),
        LibrdkafkaBatches(100),
        LibrdkafkaBatches(1000),
        JavaBatches(1),
        JavaBatches(100),
        JavaBatches(1000),
    )
}
