"""Makes the table of docs/benchmarks.md from the raw values: the newest binary's pairs of each row."""

import argparse
import sys

from pathlib import Path

import results

from rows import ROWS
from works import WORKS

DOCUMENT = Path(__file__).resolve().parent.parent.parent.parent / "docs" / "benchmarks.md"
MARK_BEGIN, MARK_END = "<!-- side-by-side:begin -->", "<!-- side-by-side:end -->"
UNITS = {"records_per_s": "records/s", "mb_per_s": "MB/s", "broker_cpu_s_per_gb": "broker CPU s/GB"}
UNITS.update({"start_s": "s", "create_s": "s to create", "rss_mb": "MB resident", "idle_cores": "cores at rest"})
UNITS.update({"wait_s": "s, median death", "worst_s": "s, worst death"})
LABELS = {"strict": "Stonelog strict", "relaxed": "Stonelog relaxed", "kafka-flush1": "Kafka flush.messages=1"}
LABELS.update({"rocketmq-sync": "RocketMQ SYNC_FLUSH", "rocketmq-async": "RocketMQ ASYNC_FLUSH"})
LABELS["strict-p10000"] = "Stonelog strict, 10,000 partitions"
LABELS.update({"kafka-default": "Kafka default", "kafka-tuned-flush1": "tuned Kafka flush.messages=1"})
LABELS.update({"kafka-tuned-default": "tuned Kafka default"})


def number(value):
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def unit(figure):
    return UNITS.get(figure) or {"p999_ms": "p99.9 ms"}.get(figure) or f"{figure[:-3]} ms"


def newest(rounds):
    """The rounds of the binary and machine that were measured last."""
    if not rounds:
        return []
    last = max(rounds, key=lambda line: line["date"])
    return [line for line in rounds if all(line[key] == last[key] for key in ("binary", "machine", "seconds"))]


def text(lines, profile="full"):
    """The Markdown between the marks."""
    lines = [line for line in lines if line["profile"] == profile]
    if not lines:
        return "No figures yet.\n"
    out = [
        "| # | work | figure | ours | theirs | ratio (min–max) | pairs (discarded) | goal | measured | notes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    used = []
    for row in ROWS:
        rounds = newest([line for line in lines if line["work"] == row.work])
        pairs = results.Pairs(row, rounds)
        if not pairs.good and not pairs.noisy:
            continue
        used += rounds
        work = WORKS[row.work]
        goal = "" if row.goal is None else f"{'ours ' if row.absolute else ''}{'≤' if row.lower else '≥'} {number(row.goal)} ({number(row.moonshot)})"
        head = f"| {row.number} | {work.title} | {unit(row.figure)}"
        if not pairs.good:
            out.append(f"{head} | {LABELS[row.ours]} | {LABELS[row.theirs]} | too noisy | 0 ({pairs.noisy}) | {goal} | | |")
            continue
        ratio, ours, theirs = pairs.middle()
        spread = "–" if ratio is None else f"**{number(ratio)}** ({number(min(pairs.ratios))}–{number(max(pairs.ratios))})"
        notes = "the client is the limit" if pairs.client_is_the_limit() else ""
        last = max(rounds, key=lambda line: line["date"])
        measured = f"{last['date'][:10]} {last['commit']}{'' if last['clean'] else '+'}"
        out.append(
            f"{head} | {LABELS[row.ours]} {number(ours)} | {LABELS[row.theirs]} {number(theirs)} | {spread} "
            f"| {pairs.good} ({pairs.noisy}) | {goal} | {measured} | {notes} |"
        )
    return "\n".join(about(used) + out) + "\n"


def about(rounds):
    """What was measured where, once for each machine and set of versions; sizes are of what is installed, without Java."""
    out = []
    for line in rounds:
        where = line["machine"]
        versions = ", ".join(
            f"{version} ({line['sizes_mb'][name]:g} MB)"
            for name, version in line["versions"].items()
            if name not in ("kafka-tuned", "rocketmq-async")
        )
        sentence = (
            f"{where['cores']} × {where['cpu']}, {where['memory_gib']} GiB, Linux {where['kernel']}, {where['file_system']}; "
            f"{versions}; {line['seconds']:g} s a measurement."
        )
        if sentence not in out:
            out.append(sentence)
    return out + [""]


def write(path):
    document = DOCUMENT.read_text()
    if MARK_BEGIN not in document or MARK_END not in document:
        raise SystemExit(f"{DOCUMENT} has no {MARK_BEGIN} … {MARK_END}")
    head, rest = document.split(MARK_BEGIN, 1)
    tail = rest.split(MARK_END, 1)[1]
    DOCUMENT.write_text(f"{head}{MARK_BEGIN}\n{text(results.load(path))}{MARK_END}{tail}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="compat-tests/side-by-side/assemble", description=__doc__)
    parser.add_argument("--results", default=results.DEFAULT, help="raw values")
    parser.add_argument("--print", action="store_true", help="print the table; write nothing")
    parser.add_argument("--profile", default="full", help="with --print: full, short or tiny")
    options = parser.parse_args()
    if options.print:
        sys.stdout.write(text(results.load(options.results), options.profile))
    else:
        write(options.results)
