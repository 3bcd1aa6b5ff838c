"""The rows of the table: which two contenders of which work are divided by which figure, and what is aimed at.

A goal is a ratio ours ÷ theirs; where `lower` is set, smaller is better. A row is one of
the table's numbers; `L` is latency at fixed rates.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    number: str
    work: str
    figure: str
    ours: str
    theirs: str
    goal: float = None
    moonshot: float = None
    lower: bool = False
    # The goal is for our own figure, not for the ratio.
    absolute: bool = False


def rows():
    yield Row("1", "one-in-flight-256", "records_per_s", "strict", "kafka-flush1", 15, 30)
    yield Row("1", "one-in-flight-256", "records_per_s", "strict", "kafka-default", 1.6, 3)
    yield Row("1", "one-in-flight-256", "records_per_s", "strict", "rocketmq-sync", 1.5, 3)
    yield Row("2", "one-in-flight-32", "records_per_s", "strict", "kafka-flush1", 10, 20)
    yield Row("2", "one-in-flight-32", "records_per_s", "strict", "kafka-default", 1, 2)
    yield Row("3", "one-in-flight-32-rf3", "records_per_s", "strict", "kafka-flush1", 8, 15)
    yield Row("3", "one-in-flight-32-rf3", "records_per_s", "strict", "kafka-default", 1.5, 3)
    yield Row("4", "one-in-flight-1", "p50_ms", "strict", "kafka-flush1", 0.6, 0.4, lower=True)
    yield Row("4", "one-in-flight-1-rf3", "p50_ms", "strict", "kafka-flush1", 0.5, 0.3, lower=True)
    for client in ("librdkafka", "java"):
        for partitions in (1, 100, 1000):
            work = f"batches-{client}-p{partitions}"
            yield Row("5", work, "mb_per_s", "strict", "kafka-flush1", 5, 10)
            yield Row("5", work, "mb_per_s", "strict", "kafka-default", 1.2, 2)
            yield Row("7", work, "mb_per_s", "strict", "relaxed", 0.85, 0.95)
            yield Row("9", work, "mb_per_s", "relaxed", "kafka-default", 1.5, 3)
    for client in ("librdkafka", "java"):
        work = f"batches-{client}-p100-rf3"
        yield Row("6", work, "mb_per_s", "strict", "kafka-flush1", 6, 15)
        yield Row("6", work, "mb_per_s", "strict", "kafka-default", 1.5, 4)
        yield Row("9", work, "mb_per_s", "relaxed", "kafka-default", 2, 5)
    yield Row("7", "one-in-flight-256", "records_per_s", "strict", "relaxed", 0.8, 0.95)
    # The same rows against a Kafka with more threads, which have no goal of their own.
    for number, work, figure in (
        ("1", "one-in-flight-256", "records_per_s"),
        ("3", "one-in-flight-32-rf3", "records_per_s"),
        ("5", "batches-librdkafka-p100", "mb_per_s"),
        ("6", "batches-librdkafka-p100-rf3", "mb_per_s"),
    ):
        for theirs in ("kafka-tuned-flush1", "kafka-tuned-default"):
            yield Row(number, work, figure, "strict", theirs)
    yield Row("1", "one-in-flight-256", "records_per_s", "strict", "rocketmq-async")
    for theirs in ("kafka-flush1", "kafka-default"):
        yield Row("1", "one-in-flight-256-acks1", "records_per_s", "strict", theirs)
        yield Row("5", "batches-librdkafka-p100-512k", "mb_per_s", "strict", theirs)
    yield Row("8", "batches-librdkafka-p10000", "mb_per_s", "strict-p10000", "strict", 0.8, 0.95)
    yield Row("10", "end-to-end", "p99_ms", "strict", "kafka-flush1", 0.5, 0.25, lower=True)
    yield Row("10", "end-to-end", "mean_ms", "strict", "kafka-flush1", 0.5, 0.25, lower=True)
    yield Row("10", "end-to-end-rf3", "p99_ms", "strict", "kafka-flush1", 0.25, 0.1, lower=True)
    yield Row("10", "end-to-end-rf3", "mean_ms", "strict", "kafka-flush1", 0.25, 0.1, lower=True)
    yield Row("11", "consume-hot", "mb_per_s", "strict", "kafka-default", 1.1, 1.5)
    yield Row("11", "consume-cold", "mb_per_s", "strict", "kafka-default", 1.2, 2)
    for start in ("start-empty", "start-killed", "start-clean-p1000"):
        yield Row("12", start, "start_s", "strict", "kafka-flush1", 1 / 20, 1 / 60, lower=True)
    # Who waits for a dead leader does not wait for a disk: Kafka as it comes.
    yield Row("13", "leader-killed", "wait_s", "strict", "kafka-default", 1 / 10, 1 / 30, lower=True)
    yield Row("13", "leader-killed", "worst_s", "strict", "kafka-default", lower=True)
    for partitions in (1, 1000, 10_000):
        yield Row("14", f"idle-p{partitions}", "rss_mb", "strict", "kafka-flush1", 1 / 12, 1 / 20, lower=True)
    # The brokers have had every contender's load by then, and the JVM its warm-up.
    for work in ("batches-java-p100", "batches-java-p100-rf3"):
        yield Row("14", work, "rss_mb", "strict", "kafka-flush1", 1 / 5, 1 / 10, lower=True)
    # Full batches, so that the overhead of requests does not decide.
    for work in ("librdkafka-p1", "java-p1", "librdkafka-p1-rf3", "java-p100-rf3"):
        yield Row("15", f"batches-{work}", "broker_cpu_s_per_gb", "strict", "kafka-flush1", 1 / 3, 1 / 8, lower=True)
    yield Row("16", "idle-p10000", "create_s", "strict", "kafka-flush1", 1 / 5, 1 / 15, lower=True)
    yield Row("16", "idle-p10000", "idle_cores", "strict", "kafka-flush1", 0.01, 0.001, lower=True, absolute=True)
    # Latency at fixed rates; the open loop and the stock tool beside each other.
    for percent in (25, 50, 75):
        for client in ("open-loop", "java"):
            for figure in ("p50_ms", "p99_ms", "p999_ms"):
                yield Row("L", f"rate-{percent}-{client}", figure, "strict", "kafka-flush1", 1 / 4, 1 / 20, lower=True)
    for theirs in ("kafka-flush1", "kafka-default"):
        yield Row("L", "rate-50-beside-reader", "p99_ms", "strict", theirs, lower=True)


ROWS = sorted(rows(), key=lambda row: (not row.number.isdigit(), row.number.zfill(2)))
