"""What a work is: what is done to a broker, and what is read off. A row of the table compares two contenders of a work.

A contender is a broker with a topic setting; a work names its contenders and runs the same client, with the same flags,
against each of them in turn.
"""

from dataclasses import dataclass, field

from system import RELAXED, STRICT

RECORD_BYTES = 1024
BATCH_BYTES = 16384
LINGER_MS = 5
# A client that sends a number of records takes longer than planned when the broker is slower than in the pilot.
CLIENT_SECONDS_MAX = 600


@dataclass(frozen=True)
class Contender:
    """A broker and the settings of the topic it is measured on."""

    name: str
    system: str
    config: dict = field(hash=False)
    # Instead of the work's own.
    partitions: int = 0


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("strict", "stonelog", STRICT),
        Contender("strict-p10000", "stonelog", STRICT, partitions=10_000),
        Contender("relaxed", "stonelog", RELAXED),
        Contender("kafka-flush1", "kafka", STRICT),
        Contender("kafka-default", "kafka", RELAXED),
        Contender("kafka-tuned-flush1", "kafka-tuned", STRICT),
        Contender("kafka-tuned-default", "kafka-tuned", RELAXED),
        # Flushing is a setting of the whole broker there.
        Contender("rocketmq-sync", "rocketmq-sync", {}),
        Contender("rocketmq-async", "rocketmq-async", {}),
    )
}
BOTH = ["strict", "kafka-flush1", "kafka-default", "relaxed"]
SYNC = ["strict", "kafka-flush1"]
ROCKETMQ = ["rocketmq-sync", "rocketmq-async"]
TUNED = ["kafka-tuned-flush1", "kafka-tuned-default"]


@dataclass
class Load:
    """What one run of a client saw.

    `pace` is what pilots compare, in records per second; `sent` counts the records of warm-up too; `appends` are those
    that they need at least, on all brokers together.
    """

    values: dict
    pace: float
    sent: int
    appends: int
    client: object


class Work:
    name = ""
    title = ""
    contenders = BOTH
    # Of each system; every partition has as many replicas.
    brokers = 1
    partitions = 1
    # True: `observe` is called with a broker that has not been started yet, instead of `load` with a warm one.
    fresh = False
    # True: one topic for all rounds, made and filled by `fill`.
    keeps_topic = False
    # False: it writes nothing, or the brokers' own count of flushes does not outlive it.
    counts_flushes = True
    # Programs that are compiled need less of the profile's warm-up than Java.
    warm_seconds_max = 30
    # The contender whose pilots give everybody's rate; each contender's own when empty.
    paced_by = ""

    def before(self, system):
        """Called just before a measurement, when everything has come to rest."""

    def check(self, load, values):
        """Raises `Failed` when what was measured is not what the work says."""

    def load(self, system, topic, seconds, warm_seconds, rate, least):
        """Runs the client for `warm_seconds` that do not count and `seconds` that do; `rate` is
        the last pilot's. A client that sends a number of records, not for a time, sends `least` at least."""
        raise NotImplementedError


def produced(per_second):
    return {"records_per_s": round(per_second, 1), "mb_per_s": round(per_second * RECORD_BYTES / 1e6, 2)}


def appends_of(records, batch_bytes=BATCH_BYTES):
    """The appends that so many records need at least, when every batch is as full as it can be."""
    return records * RECORD_BYTES // batch_bytes


def milliseconds(report):
    return {key[:-3] + "_ms": round(value / 1000, 3) for key, value in report.items() if key.endswith("_us")}
