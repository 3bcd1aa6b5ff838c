"""Works that read, or write and read: a consumer that catches up, and a record's way from end to end."""

import re

import machine

from processes import Failed, run
from produce import fill
from tools import java_tool
from work import BOTH, RECORD_BYTES, Load, Work, produced


class EndToEnd(Work):
    """Kafka's EndToEndLatency: one record at a time, from send to what the consumer is given."""

    name = "end-to-end"
    title = "end to end, one record of 1 KiB at a time (Java clients)"
    contenders = BOTH

    MEAN = re.compile(r"Avg latency: ([\d.]+) ms")
    QUANTILES = re.compile(r"Percentiles: 50th = (\d+), 99th = (\d+), 99.9th = (\d+)")

    def load(self, system, topic, seconds, warm_seconds, rate, least):
        # Its quantiles hold the first, slow records too: the tool has no warm-up.
        count = max(int(min(rate, 5000) * seconds), min(least, 2000))
        named = {"bootstrap-server": system.brokers, "topic": topic, "num-records": count, "producer-acks": "all"}
        named["record-size"] = RECORD_BYTES
        done = run(java_tool("EndToEndLatency", *(word for key in named for word in (f"--{key}", named[key]))), 600)
        mean, quantiles = self.MEAN.search(done.text), self.QUANTILES.search(done.text)
        if not mean or not quantiles:
            raise Failed(f"no latency in what EndToEndLatency says:\n{done.text[-1500:]}")
        p50, p99, p999 = map(float, quantiles.groups())
        values = {"mean_ms": float(mean[1]), "p50_ms": p50, "p99_ms": p99, "p999_ms": p999}
        return Load(values, 1000 / float(mean[1]), count, count, done)


COLD_RECORDS = 1_200_000


class Consume(Work):
    """Kafka's ConsumerPerformance reads a topic from its start, from the page cache or from the device."""

    contenders = ["strict", "kafka-default"]
    keeps_topic = True
    counts_flushes = False
    # Read from the device at least, or the page cache was not cold; what a broker keeps in its own memory is left out.
    COLD_SHARE_MIN = 0.5

    def __init__(self, cold):
        self.cold = cold
        self.name = "consume-cold" if cold else "consume-hot"
        self.title = f"consume 1 partition from its start, {'cold' if cold else 'hot'} page cache (Java client)"
        self.records = 0

    def fill(self, system, topic, profile):
        # 100 MB for each second, what a consumer reads in a fraction of it; cold, several times what Stonelog keeps in
        # memory of what was written last (stonelog.tail.memory.bytes).
        self.records = max(int(100_000 * profile.seconds), COLD_RECORDS if self.cold else 0)
        fill(system, topic, self.records)

    def before(self, system):
        if self.cold:
            machine.drop_cache(system.directory)

    def load(self, system, topic, seconds, warm_seconds, rate, least):
        arguments = ["--bootstrap-server", system.brokers, "--topic", topic, "--num-records", self.records]
        done = run(java_tool("ConsumerPerformance", *arguments, "--timeout", 60_000), 600)
        lines = [line.split(", ") for line in done.text.splitlines() if ", " in line]
        fields = dict(zip(lines[-2], lines[-1]))
        if int(fields.get("data.consumed.in.nMsg", 0)) < self.records:
            raise Failed(f"not everything was consumed:\n{done.text[-1500:]}")
        # The time of joining the group is left out.
        per_second = int(fields["data.consumed.in.nMsg"]) * 1000 / max(int(fields["fetch.time.ms"]), 1)
        return Load(produced(per_second), per_second, self.records, 0, done)

    def check(self, load, values):
        if self.cold and values["device_read_mb"] < self.COLD_SHARE_MIN * self.records * RECORD_BYTES / 1e6:
            raise Failed(f"only {values['device_read_mb']} MB came from the device: the cache was not cold")
