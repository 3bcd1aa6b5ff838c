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

from pathlib import Path

import machine
import results
import selftest
import table

from fleet import SYSTEMS, Fleet, settings
from processes import Failed, stop_all
from profiles import choose_profile, choose_works
from rows import ROWS
from session import Session
from soak import soak
from systems import Stonelog
from tools import Skipped
from work import CONTENDERS
from works import WORKS

REPOSITORY = Path(__file__).resolve().parent.parent.parent.parent
CACHE = Path(os.environ.get("STONELOG_COMPAT_CACHE", Path.home() / ".cache" / "stonelog-compat"))
SKIPPED = 77
# Rounds beyond those asked for that noise may cost.
SPARE_ROUNDS_FACTOR = 2


def arguments():
    parser = argparse.ArgumentParser(prog="compat-tests/side-by-side/run", description="Stonelog and Kafka side by side.")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--short", action="store_true", help="chosen works, at most ten minutes: for a change of the hot path")
    size.add_argument("--tiny", action="store_true", help="one pair of a second: proves that the instrument works")
    size.add_argument("--soak", type=float, metavar="MINUTES", help="no comparison: whether Stonelog grows under a long load")
    parser.add_argument("--rows", metavar="1,5,…", help="rows of the table (default: all of the profile)")
    parser.add_argument("--works", metavar="NAME,…", help="works by name instead of rows; --list names them")
    parser.add_argument("--list", action="store_true", help="print the rows and works, and leave")
    parser.add_argument("--pairs", type=int, metavar="N", help="pairs that count; the first is measured and dropped")
    parser.add_argument("--seconds", type=float, metavar="S", help="seconds that count in each measurement")
    parser.add_argument("--brokers", type=int, choices=[1, 3], help="only works with so many (default: both; 1 for --short)")
    parser.add_argument("--stonelog", metavar="PATH", help="the stonelog binary (default: build the release binary)")
    parser.add_argument("--commit", metavar="ID", help="with --stonelog: what the binary was built from (default: this tree)")
    parser.add_argument("--results", metavar="FILE", help="where raw values are appended")
    parser.add_argument("--directory", metavar="DIR", help="where brokers keep their data: on the disk to be measured")
    options = parser.parse_args()
    if options.commit and not options.stonelog:
        parser.error("--commit is for a binary given with --stonelog")
    return options


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
            "date": now(),
            "work": work.name,
            "brokers": work.brokers,
            "round": number,
            "dropped": dropped,
            **facts,
            "settings": settings(work.brokers),
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


def collect_facts(options, profile, place, versions):
    """What every line of raw values says of its run."""
    head = git("rev-parse", "--short=10", "HEAD")
    return {
        "run": uuid.uuid4().hex[:8],
        "profile": profile.name,
        "seconds": profile.seconds,
        "machine": machine.describe(place),
        # Of the binary, and of what measures it.
        "commit": options.commit or head,
        "clean": bool(options.commit) or not git("status", "--porcelain", "--untracked-files=no"),
        "harness": head,
        "binary": hashlib.sha256(Stonelog.binary.read_bytes()).hexdigest()[:12],
        "open_files": machine.raise_open_files(),
        "versions": versions,
        "sizes_mb": {name: round(SYSTEMS[name].size() / 1e6, 1) for name in versions},
    }


def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def compare(works, profile, facts, place, path, say):
    """Measures the works one after the other; what became of each."""
    outcomes = {}
    shared = Fleet(place)
    for work, names in works:
        names = [name for name in names if CONTENDERS[name].system in facts["versions"]]
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
    return outcomes


def soak_alone(options, facts, place, path, say):
    """The soak of one system, whose raw values the table passes over."""
    count = options.brokers or 1
    try:
        with Fleet(place) as fleet:
            found = soak(fleet.get(Stonelog.name, count), options.soak, say)
    except Skipped as reason:
        return {"soak": str(reason)}
    except Failed as reason:
        return {"soak": f"FAILED: {reason}"}
    results.append(path, {"date": now(), **facts, "profile": "soak", "brokers": count, "settings": settings(count), **found})
    return {"soak": "done"}


def main():
    options = arguments()
    if options.list:
        for row in ROWS:
            print(f"row {row.number:3} {row.work:28} {WORKS[row.work].brokers} {row.figure:20} {row.ours} ÷ {row.theirs}")
        return 0
    profile = choose_profile(options)
    if profile.trial and not unittest.TextTestRunner().run(unittest.TestLoader().loadTestsFromModule(selftest)).wasSuccessful():
        return 1
    works = [] if options.soak else choose_works(options, profile)
    Stonelog.binary = find_stonelog(options.stonelog)
    place = place_of_data(options.directory)
    path = Path(options.results) if options.results else results.DEFAULT
    if (profile.name != "full" or options.soak) and not options.results:
        path = CACHE / f"side-by-side-{'soak' if options.soak else profile.name}.jsonl"

    def say(text):
        print(text, flush=True)

    outcomes = {}
    begin = time.monotonic()
    try:
        versions = find_versions({CONTENDERS[name].system for _, names in works for name in names} | {Stonelog.name}, say)
        facts = collect_facts(options, profile, place, versions)
        if options.soak:
            outcomes = soak_alone(options, facts, place, path, say)
        else:
            outcomes = compare(works, profile, facts, place, path, say)
    finally:
        stop_all()
        shutil.rmtree(place, ignore_errors=True)

    say(f"\n== {time.monotonic() - begin:.0f} s, raw values in {path}")
    if not options.soak:
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
