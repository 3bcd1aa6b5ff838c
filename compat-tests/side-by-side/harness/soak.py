"""The soak: Stonelog under a steady load of many clients and partitions, its memory and descriptors sampled for long.

What grows while it warms up (partitions are touched for the first time, caches and pools fill) may; what matters is
whether it goes on. No figure is judged here: growth after the warm-up is reported.
"""

import statistics
import tempfile
import time

import machine

from processes import Failed, finish, start
from system import STRICT
from tools import path_of, report_of

PREFIX = "soak"
TOPICS = 100
PARTITIONS_OF_TOPIC = 100
PRODUCERS = 150
READERS = 50
RECORDS_PER_SECOND = 2000
RECORD_BYTES = 1024

SAMPLES_MIN = 40
SAMPLE_SECONDS_MAX = 5
# The first part of the samples, which is not looked at, and the parts of the rest that are compared.
WARM_SHARE = 1 / 3
COMPARED_SHARE = 1 / 4
FIGURES = ("rss_mb", "anon_mb", "descriptors", "threads")


def soak(system, minutes, say):
    """Loads a started system for so many minutes; everything sampled, and what became of each figure."""
    say(f"== soak: {TOPICS * PARTITIONS_OF_TOPIC:,} partitions, {PRODUCERS + READERS} clients, {minutes:g} minutes")
    for number in range(TOPICS):
        system.create_topic(STRICT, PARTITIONS_OF_TOPIC, f"{PREFIX}-{number}")
    say(f"  {TOPICS} topics of {PARTITIONS_OF_TOPIC} partitions are made")
    seconds = minutes * 60
    flags = {"brokers": system.brokers, "topic": PREFIX, "topics": TOPICS, "counted": f"{seconds}s"}
    flags.update(producers=PRODUCERS, readers=READERS, rate=RECORDS_PER_SECOND, bytes=RECORD_BYTES)
    with tempfile.TemporaryFile() as output:
        command = [path_of("workload"), "soak"] + [word for key in flags for word in (f"-{key}", flags[key])]
        client = start(command, output)
        samples = _sample(system, seconds)
        done = finish(client, output, "soak", 120)
    if not system.alive():
        raise Failed(f"a broker died:\n{system.tail()}")
    report = report_of(done)
    outcome = {figure: growth([sample[figure] for sample in samples]) for figure in FIGURES}
    say(f"  {report['sent']:,} records sent, {report['failed']} failed, {report['read']:,} read")
    for figure, found in outcome.items():
        say(f"  {figure}: {found['early']:g} after the warm-up, {found['late']:g} at the end ({found['percent']:+.1f} %)")
    return {"minutes": minutes, **report, "growth": outcome, "samples": samples}


def _sample(system, seconds):
    every = min(seconds / SAMPLES_MIN, SAMPLE_SECONDS_MAX)
    begin, samples = time.monotonic(), []
    while time.monotonic() - begin < seconds and system.alive():
        pids = [node.process.pid for node in system.nodes]
        counts = [machine.descriptors_and_threads(pid) for pid in pids]
        descriptors, threads = (sum(column) for column in zip(*counts))
        sample = {"at_s": round(time.monotonic() - begin, 1), "cpu_s": round(system.cpu_seconds(), 1)}
        samples.append({**sample, **system.memory(), "descriptors": descriptors, "threads": threads})
        time.sleep(every)
    return samples


def growth(values):
    """The medians of the first and last samples after the warm-up, and by how much the last are above the first."""
    values = values[int(len(values) * WARM_SHARE) :]
    part = max(int(len(values) * COMPARED_SHARE), 1)
    early, late = statistics.median(values[:part]), statistics.median(values[-part:])
    return {"early": early, "late": late, "most": max(values), "percent": round((late / early - 1) * 100, 2)}
