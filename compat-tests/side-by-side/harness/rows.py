"""The rows of the table: which two contenders of which work are divided by which figure, and what is aimed at.

A goal is a ratio ours ÷ theirs; where `lower` is set, smaller is better.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    number: str
    work: str
    figure: str
    ours: str
    theirs: str
    goal: float
    moonshot: float
    lower: bool = False


def rows():
    yield Row("1", "one-in-flight-256", "records_per_s", "strict", "kafka-flush1", 15, 30)
    yield Row("1", "one-in-flight-256", "records_per_s", "strict", "kafka-default", 1.6, 3)
    yield Row("2", "one-in-flight-32", "records_per_s", "strict", "kafka-flush1", 10, 20)
    yield Row("2", "one-in-flight-32", "records_per_s", "strict", "kafka-default", 1, 2)
    yield Row("4", "one-in-flight-1", "p50_ms", "strict", "kafka-flush1", 0.6, 0.4, lower=True)
    for client in ("librdkafka", "java"):
        for partitions in (1, 100, 1000):
            work = f"batches-{client}-p{partitions}"
            yield Row("5", work, "mb_per_s", "strict", "kafka-flush1", 5, 10)
            yield Row("5", work, "mb_per_s", "strict", "kafka-default", 1.2, 2)
            yield Row("7", work, "mb_per_s", "strict", "relaxed", 0.85, 0.95)
            yield Row("9", work, "mb_per_s", "relaxed", "kafka-default", 1.5, 3)
    yield Row("7", "one-in-flight-256", "records_per_s", "strict", "relaxed", 0.8, 0.95)
    # CPU seconds of the broker per GB; one producer's full batches, so that overheads of requests do not decide.
    for client in ("librdkafka", "java"):
        yield Row("15", f"batches-{client}-p1", "broker_cpu_s_per_gb", "strict", "kafka-flush1", 1 / 3, 1 / 8, lower=True)


ROWS = list(rows())
