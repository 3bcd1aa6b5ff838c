"""Runs Stonelog and Apache Kafka side by side and appends the raw values; see docs/benchmarks.md for the method.

Each work starts its brokers in fresh directories, warms them up and measures its contenders in interleaved rounds. What
is measured already (same work, profile, machine and Stonelog binary) is not measured again: an interrupted run goes on
where it stopped.
"""

import argparse
import contextlib
import datetime
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import unittest
import uuid

from dataclasses import dataclass
from pathlib import Path

import machine
import results
import selftest
import table

from fleet import SYSTEMS, Fleet
from processes import Failed, stop_all
from rows import ROWS
from session import Session
from systems import COMMON, KAFKA_HEAP, Stonelog
from tools import Skipped
from work import CONTENDERS
from works import WORKS

REPOSITORY = Path(__file__).resolve().parent.parent.parent.parent
CACHE = Path(os.environ.get("STONELOG_COMPAT_CACHE", Path.home() / ".cache" / "stonelog-compat"))
SKIPPED = 77
# Rounds beyond those asked for that noise may cost.
SPARE_ROUNDS_FACTOR = 2


@dataclass
class Profile:
    """How much is measured. Only `full` makes figures worth showing."""

    name: str
    pairs: int
    seconds: float
    warm_seconds: float
    pilot_seconds: float
    pilots_min: int
    pilots_max: int
    # Longest that a broker may go on working after a load before the next measurement starts anyway.
    settle_seconds: float
    # Records that a client sends at least, whatever its rate in the pilot before.
    least_records: int
    # How long a work goes on before it is left for the next run to finish.
    work_seconds_max: float
    # Proves that the instrument works: one round, nothing dropped, noise is no matter, brokers shared by all works.
    trial: bool = False


PROFILES = {
    "full": Profile(
        "full",
        pairs=5,
        seconds=10,
        warm_seconds=10,
        pilot_seconds=5,
        pilots_min=2,
        pilots_max=12,
        settle_seconds=30,
        least_records=20_000,
        work_seconds_max=1500,
    ),
    "short": Profile(
        "short",
        pairs=2,
        seconds=4,
        warm_seconds=3,
        pilot_seconds=3,
        pilots_min=2,
        pilots_max=5,
        settle_seconds=15,
        least_records=20_000,
        work_seconds_max=240,
    ),
    "tiny": Profile(
        "tiny",
        pairs=1,
        seconds=1,
        warm_seconds=0.5,
        pilot_seconds=1,
        pilots_min=1,
        pilots_max=1,
        settle_seconds=2,
        least_records=2_000,
        work_seconds_max=300,
        trial=True,
    ),
}
# The works of the smaller profiles, and their contenders.
CHOSEN = {
    "short": {
        "one-in-flight-256": ["strict", "kafka-flush1", "kafka-default", "relaxed"],
        "batches-librdkafka-p100": ["strict", "kafka-flush1", "kafka-default", "relaxed"],
    },
    "tiny": {
        "one-in-flight-256": ["strict", "kafka-flush1", "kafka-default"],
        "batches-librdkafka-p1": ["strict", "kafka-flush1"],
        "batches-java-p1": ["strict", "kafka-flush1"],
    },
}


def arguments():
    parser = argparse.ArgumentParser(prog="compat-tests/side-by-side/run", description="Stonelog and Kafka side by side.")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--short", action="store_true", help="chosen works, at most ten minutes: for a change of the hot path")
    size.add_argument("--tiny", action="store_true", help="one pair of a second: proves that the instrument works")
    parser.add_argument("--rows", metavar="1,5,…", help="rows of the table (default: all of the profile)")
    parser.add_argument("--works", metavar="NAME,…", help="works by name instead of rows; --list names them")
    parser.add_argument("--list", action="store_true", help="print the rows and works, and leave")
    parser.add_argument("--pairs", type=int, metavar="N", help="pairs that count; the first is measured and dropped")
    parser.add_argument("--seconds", type=float, metavar="S", help="seconds that count in each measurement")
    parser.add_argument("--brokers", type=int, default=1, metavar="N", help="brokers of each system; 1 for now")
    parser.add_argument("--stonelog", metavar="PATH", help="the stonelog binary (default: build the release binary)")
    parser.add_argument("--results", metavar="FILE", help="where raw values are appended")
    parser.add_argument("--directory", metavar="DIR", help="where brokers keep their data: on the disk to be measured")
    return parser.parse_args()


def choose_profile(options):
    profile = PROFILES["tiny" if options.tiny else "short" if options.short else "full"]
    profile.pairs = options.pairs or profile.pairs
    profile.seconds = options.seconds or profile.seconds
    return profile


def choose_works(options, profile):
    """The works to run, each with the names of its contenders."""
    chosen = CHOSEN.get(profile.name, {})
    if options.works:
        names = options.works.split(",")
        unknown = [name for name in names if name not in WORKS]
    elif options.rows:
        wanted = options.rows.split(",")
        unknown = [number for number in wanted if number not in {row.number for row in ROWS}]
        names = list(dict.fromkeys(row.work for row in ROWS if row.number in wanted))
    else:
        unknown, names = [], list(chosen or WORKS)
    if unknown:
        raise SystemExit(f"no {', '.join(unknown)}; --list shows what there is")
    return [(WORKS[name], chosen.get(name, WORKS[name].contenders)) for name in names]


def find_stonelog(given):
    if given:
        return Path(given).resolve()
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    command = ["cargo", "build", "--release", "--locked", "--package", "stonelog", "--bin", "stonelog"]
    subprocess.run(command, cwd=REPOSITORY, check=True)
    return target / "release" / "stonelog"


def git(*words):
    done = subprocess.run(["git", *words], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout.strip()


def place_of_data(given):
    place = Path(given) if given else CACHE / "side-by-side-data"
    place.mkdir(parents=True, exist_ok=True)
    mount, kind = machine.mount_of(place)
    if kind in machine.VOLATILE:
        raise SystemExit(f"{place} lies on {kind}: flushing would cost nothing there. Choose a disk with --directory.")
    place = place / f"run-{os.getpid()}"
    place.mkdir()
    return place


def find_versions(wanted, say):
    """The versions of the systems that can be had here; one that cannot is left out, with a word."""
    versions = {}
    for name in sorted(wanted):
        try:
            versions[name] = SYSTEMS[name].version()
        except (Skipped, Failed) as reason:
            say(f"{name} is left out: {reason}")
    return versions


def measure(work, names, profile, facts, fleet, path, say):
    """Runs one work until it has its pairs; returns False when noise ate too many."""
    same = {key: facts[key] for key in ("binary", "machine", "profile", "seconds")}
    rows = [row for row in ROWS if row.work == work.name and row.ours in names and row.theirs in names]

    def missing():
        rounds = [line for line in results.load(path) if line["work"] == work.name and all(line[k] == same[k] for k in same)]
        return profile.pairs - min((results.Pairs(row, rounds).good for row in rows), default=0)

    def enough():
        return missing() <= 0

    say(f"== {work.name}: {work.title}")
    if enough() and not profile.trial:
        say("  has its pairs already")
        return True
    begin = time.monotonic()
    session = Session(work, names, profile, fleet, say)
    for number in range(1 + missing() * (1 + SPARE_ROUNDS_FACTOR)):
        dropped = number == 0 and not profile.trial
        measured = session.round(dropped)
        line = {
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "work": work.name,
            "round": number,
            "dropped": dropped,
            **facts,
            "warm_seconds": profile.warm_seconds,
            "pilots": session.pilots,
            "contenders": measured,
        }
        results.append(path, line)
        if profile.trial or enough():
            return True
        if time.monotonic() - begin > profile.work_seconds_max:
            break
    return False


def main():
    options = arguments()
    if options.list:
        for row in ROWS:
            print(f"row {row.number:3} {row.work:28} {row.figure:20} {row.ours} ÷ {row.theirs}")
        return 0
    if options.brokers != 1:
        raise SystemExit(
            f"--brokers {options.brokers}: Stonelog does not form clusters of several nodes yet, so there is nothing to put "
            "beside three Kafka brokers; only --brokers 1 runs."
        )
    profile = choose_profile(options)
    if profile.trial and not unittest.TextTestRunner().run(unittest.TestLoader().loadTestsFromModule(selftest)).wasSuccessful():
        return 1
    works = choose_works(options, profile)
    Stonelog.binary = find_stonelog(options.stonelog)
    place = place_of_data(options.directory)
    path = Path(options.results) if options.results else results.DEFAULT
    if profile.name != "full" and not options.results:
        path = CACHE / f"side-by-side-{profile.name}.jsonl"

    def say(text):
        print(text, flush=True)

    outcomes = {}
    begin = time.monotonic()
    try:
        wanted = {CONTENDERS[name].system for _, names in works for name in names}
        versions = find_versions(wanted, say)
        facts = {
            "run": uuid.uuid4().hex[:8],
            "profile": profile.name,
            "seconds": profile.seconds,
            "brokers": options.brokers,
            "machine": machine.describe(place),
            "commit": git("rev-parse", "--short=10", "HEAD"),
            "clean": not git("status", "--porcelain", "--untracked-files=no"),
            "binary": hashlib.sha256(Stonelog.binary.read_bytes()).hexdigest()[:12],
            "open_files": machine.raise_open_files(),
            "versions": versions,
            "sizes_mb": {name: round(SYSTEMS[name].size() / 1e6, 1) for name in versions},
            "settings": {"common": COMMON, "kafka heap": KAFKA_HEAP, **{n: s.settings for n, s in SYSTEMS.items()}},
        }
        shared = Fleet(place)
        for work, names in works:
            names = [name for name in names if CONTENDERS[name].system in versions]
            if not any(row.work == work.name and {row.ours, row.theirs} <= set(names) for row in ROWS):
                outcomes[work.name] = "SKIPPED: nothing to compare with"
                continue
            try:
                with contextlib.ExitStack() as own:
                    fleet = shared if profile.trial else own.enter_context(Fleet(place))
                    done = measure(work, names, profile, facts, fleet, path, say)
                outcomes[work.name] = "done" if done else "not enough quiet pairs yet: run again"
            except Skipped as reason:
                outcomes[work.name] = str(reason)
            except Failed as reason:
                outcomes[work.name] = f"FAILED: {reason}"
            say(f"  {outcomes[work.name]}")
    finally:
        stop_all()
        shutil.rmtree(place, ignore_errors=True)

    say(f"\n== {time.monotonic() - begin:.0f} s, raw values in {path}")
    say(table.text(results.load(path), profile.name))
    for name, outcome in outcomes.items():
        say(f"{name}: {outcome.splitlines()[0]}")
    skipped = [name for name, outcome in outcomes.items() if outcome.startswith("SKIPPED")]
    if any(outcome.startswith("FAILED") for outcome in outcomes.values()):
        return 1
    if skipped and os.environ.get("CI") == "true":
        return 1
    return SKIPPED if outcomes and len(skipped) == len(outcomes) else 0


if __name__ == "__main__":
    # A termination takes the same way out as an interrupt: through the clean-up. A shell has its background processes
    # ignore interrupts; this one must not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
