"""Works that write: one record in flight, full batches, and fixed rates."""

import re
import tempfile

from processes import Failed, finish, run, start
from system import RELAXED
from tools import java_tool, path_of, report_of, workload
from work import BATCH_BYTES, BOTH, CLIENT_SECONDS_MAX, LINGER_MS, RECORD_BYTES, TUNED
from work import Load, Work, appends_of, milliseconds, produced


class OneInFlight(Work):
    """Many producers that wait for the acknowledgement of a record before they send the next."""

    warm_seconds_max = 3

    def __init__(self, producers, partitions=1, contenders=None, acks="all"):
        self.name = f"one-in-flight-{producers}" + (f"-p{partitions}" if partitions > 1 else "")
        self.name += "" if acks == "all" else f"-acks{acks}"
        who = "1 producer" if producers == 1 else f"{producers} producers"
        where = "1 partition" if partitions == 1 else f"{partitions:,} partitions"
        how = "" if acks == "all" else f", acks={acks}"
        self.title = f"{who}, one record of 1 KiB in flight each, {where}{how} (franz-go)"
        self.acks = acks
        self.producers = producers
        self.partitions = partitions
        self.contenders = contenders or BOTH + TUNED

    def load(self, system, topic, seconds, warm_seconds, rate, least):
        report, done = system.one_in_flight(
            topic, self.producers, self.partitions, RECORD_BYTES, seconds, warm_seconds, self.acks
        )
        values = {"records_per_s": round(report["rate"], 1), **milliseconds(report)}
        # Followers fetch what several producers sent at once; a lone record is appended by itself on each of them.
        appends = report["sent"] * (system.count if self.producers == 1 else 1)
        return Load(values, report["rate"], report["sent"], appends, done)


class JavaBatches(Work):
    """Kafka's ProducerPerformance at full speed; its steady-state line, after the warm-up."""

    def __init__(self, partitions):
        self.name = f"batches-java-p{partitions}"
        self.partitions = partitions
        where = "1 partition" if partitions == 1 else f"{partitions:,} partitions"
        self.title = f"16 KiB batches of 1 KiB records, {where} (Java client)"
        self.contenders = BOTH + TUNED

    def load(self, system, topic, seconds, warm_seconds, rate, least):
        warm, counted = max(int(rate * warm_seconds), least // 2), max(int(rate * seconds), least // 2)
        properties = ["acks=all", f"linger.ms={LINGER_MS}", f"batch.size={BATCH_BYTES}", "compression.type=none"]
        return produce_java(system, topic, counted, warm, -1, properties + ["enable.idempotence=true"])


STEADY = re.compile(
    r"steady state records sent, ([\d.]+) records/sec .*?([\d.]+) ms 50th, .*?([\d.]+) ms 99th, ([\d.]+) ms 99.9th"
)


def produce_java(system, topic, counted, warm, throughput, properties):
    """Kafka's ProducerPerformance: `warm` records, then `counted` ones, of which its last line speaks."""
    named = {"bootstrap-server": system.brokers, "topic": topic, "num-records": warm + counted}
    named.update({"warmup-records": warm, "record-size": RECORD_BYTES, "throughput": throughput})
    words = [word for key in named for word in (f"--{key}", named[key])]
    done = run(java_tool("ProducerPerformance", *words, "--command-property", *properties), CLIENT_SECONDS_MAX)
    found = STEADY.findall(done.text)
    if not found:
        raise Failed(f"no steady state in what ProducerPerformance says:\n{done.text[-1500:]}")
    per_second, p50, p99, p999 = map(float, found[-1])
    values = {**produced(per_second), "p50_ms": p50, "p99_ms": p99, "p999_ms": p999}
    return Load(values, per_second, warm + counted, appends_of(warm + counted), done)


class LibrdkafkaBatches(Work):
    """librdkafka's own rdkafka_performance at full speed."""

    def __init__(self, partitions, batch_bytes=BATCH_BYTES):
        self.batch_bytes = batch_bytes
        size = f"{batch_bytes >> 10} KiB"
        self.name = f"batches-librdkafka-p{partitions}" + ("" if batch_bytes == BATCH_BYTES else f"-{batch_bytes >> 10}k")
        self.partitions = partitions
        where = "1 partition" if partitions == 1 else f"{partitions:,} partitions"
        self.title = f"{size} batches of 1 KiB records, {where} (librdkafka)"
        self.contenders = BOTH + TUNED

    SUMMARY = re.compile(r"(\d+) delivered \(offset -?\d+, (\d+) failed\) in (\d+)ms")

    def load(self, system, topic, seconds, warm_seconds, rate, least):
        # The tool has no warm-up of its own: it is a C program and the broker is warm.
        count = max(int(rate * seconds), least)
        command = [path_of("rdkafka-performance"), "-P", "-b", system.brokers, "-t", topic, "-s", RECORD_BYTES]
        command += ["-c", count, "-a", "-1", "-q", "-i", "3600000"]
        for setting in (f"linger.ms={LINGER_MS}", f"batch.size={self.batch_bytes}", "enable.idempotence=false"):
            command += ["-X", setting]
        done = run(command, CLIENT_SECONDS_MAX)
        found = self.SUMMARY.search(done.text)
        if not found or found[2] != "0":
            raise Failed(f"rdkafka_performance did not deliver everything:\n{done.text[-1500:]}")
        delivered, _, took_ms = map(int, found.groups())
        per_second = delivered * 1000 / max(took_ms, 1)
        return Load(produced(per_second), per_second, count, appends_of(count, self.batch_bytes), done)


class ManyPartitions(LibrdkafkaBatches):
    """The same load over one partition and over 10,000, beside each other."""

    def __init__(self):
        super().__init__(1)
        self.name = "batches-librdkafka-p10000"
        self.title = "16 KiB batches of 1 KiB records, 10,000 partitions and 1 partition (librdkafka)"
        self.contenders = ["strict-p10000", "strict"]


class OpenLoop(Work):
    """Unbatched records at a fixed rate, whatever the answers do; latency from the moment a record was due."""

    paced_by = "kafka-flush1"

    def __init__(self, percent):
        self.percent = percent
        self.name = f"rate-{percent}-open-loop"
        self.title = f"{percent} % of what Kafka flush.messages=1 reached with 32 producers, unbatched (own open loop)"

    def load(self, system, topic, seconds, warm_seconds, rate, least):
        if not warm_seconds:
            # A pilot: what the broker can do.
            return OneInFlight(32).load(system, topic, seconds, warm_seconds, rate, least)
        rate = max(rate * self.percent / 100, 20)
        report, done = workload(
            "open-loop",
            system.brokers,
            seconds + warm_seconds + 120,
            topic=topic,
            rate=rate,
            bytes=RECORD_BYTES,
            warm=f"{warm_seconds}s",
            counted=f"{seconds}s",
        )
        values = {"asked_per_s": round(rate, 1), "records_per_s": round(report["rate"], 1), **milliseconds(report)}
        # Records that waited behind each other may share a request.
        return Load(values, report["rate"], report["sent"], 1, done)


class FixedRateJava(OpenLoop):
    """The stock tool at the same rate: its latency runs from the send, so what waited to be sent is not in it."""

    def __init__(self, percent):
        super().__init__(percent)
        self.name = f"rate-{percent}-java"
        self.title = f"{percent} % of what Kafka flush.messages=1 reached with 32 producers, linger 0 (Java client)"

    def load(self, system, topic, seconds, warm_seconds, rate, least):
        if not warm_seconds:
            return super().load(system, topic, seconds, warm_seconds, rate, least)
        rate = max(int(rate * self.percent / 100), 20)
        properties = ["acks=all", "linger.ms=0", "compression.type=none", "enable.idempotence=true"]
        load = produce_java(system, topic, int(rate * seconds), int(rate * warm_seconds), rate, properties)
        load.values["asked_per_s"] = rate
        load.appends = 1
        return load


class BesideReader(OpenLoop):
    """The open loop while a consumer catches up with another topic of the same broker, over and over."""

    # More than Stonelog keeps in memory of what was written last (stonelog.tail.memory.bytes).
    READ_RECORDS = 600_000
    contenders = ["strict", "kafka-flush1", "kafka-default"]

    def __init__(self, percent):
        super().__init__(percent)
        self.name = f"rate-{percent}-beside-reader"
        self.title = f"{self.title[:-1]}, beside a reader that catches up)"
        self.read = {}

    def load(self, system, topic, seconds, warm_seconds, rate, least):
        if id(system) not in self.read:
            self.read[id(system)], _ = system.create_topic(RELAXED, 1)
            fill(system, self.read[id(system)], self.READ_RECORDS)
        if not warm_seconds:
            return super().load(system, topic, seconds, warm_seconds, rate, least)
        flags = ["-brokers", system.brokers, "-topic", self.read[id(system)], "-counted", f"{seconds + warm_seconds}s"]
        with tempfile.TemporaryFile() as output:
            reader = start([path_of("workload"), "read", "-warm", "0s", *flags], output)
            load = super().load(system, topic, seconds, warm_seconds, rate, least)
            read = finish(reader, output, "read", seconds + warm_seconds + 60)
        load.values["reader_mb_per_s"] = round(report_of(read)["mb_per_s"], 1)
        load.client.cpu_seconds += read.cpu_seconds
        return load


def fill(system, topic, records):
    """So many records into one partition, as fast as it goes."""
    command = [path_of("rdkafka-performance"), "-P", "-b", system.brokers, "-t", topic, "-s", RECORD_BYTES]
    run(command + ["-c", records, "-a", "-1", "-q", "-i", "3600000", "-X", "linger.ms=5"], CLIENT_SECONDS_MAX)
