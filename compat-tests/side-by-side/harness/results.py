"""Raw values: one JSON line per round, in which every contender of a work was measured once. Appended, never changed."""

import json
import statistics

from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
DEFAULT = HERE / "results.jsonl"

# A pair counts when the probes around both of its halves agree within these factors, and strangers used less than this
# share of the machine meanwhile.
CPU_PROBE_FACTOR_MAX = 1.2
DISK_PROBE_FACTOR_MAX = 1.5
FOREIGN_SHARE_MAX = 0.1


def load(path):
    if not Path(path).exists():
        return []
    return [json.loads(line) for line in Path(path).read_text().splitlines() if line.strip()]


def append(path, line):
    with open(path, "a") as file:
        file.write(json.dumps(line, separators=(",", ":")) + "\n")


def noise(*halves):
    """Why a pair must be discarded; an empty text when it need not be."""
    probes = [probe for half in halves for probe in (half["before"], half["after"])]
    cpu = [probe["cpu_ms"] for probe in probes]
    disk = [probe["disk"]["p50_us"] for probe in probes]
    if max(cpu) / min(cpu) > CPU_PROBE_FACTOR_MAX:
        return "processors"
    if max(disk) / min(disk) > DISK_PROBE_FACTOR_MAX:
        return "disk"
    if max(half.get("foreign_share", 0) for half in halves) > FOREIGN_SHARE_MAX:
        return "strangers"
    return ""


class Pairs:
    """What the rounds of one work say about one row."""

    def __init__(self, row, rounds):
        self.ratios, self.ours, self.theirs, self.used = [], [], [], []
        self.noisy = 0
        for line in rounds:
            values = line["contenders"]
            if line["dropped"] or row.ours not in values or row.theirs not in values:
                continue
            ours, theirs = values[row.ours], values[row.theirs]
            if row.figure not in ours or row.figure not in theirs:
                continue
            if noise(ours, theirs):
                self.noisy += 1
                continue
            # Tools that count in whole milliseconds say 0 now and then.
            if theirs[row.figure]:
                self.ratios.append(ours[row.figure] / theirs[row.figure])
            self.ours.append(ours[row.figure])
            self.theirs.append(theirs[row.figure])
            self.used.append((ours, theirs))

    @property
    def good(self):
        return len(self.used)

    def middle(self):
        """The medians of the ratios (None when there is none), of ours and of theirs."""
        ratio = statistics.median(self.ratios) if self.ratios else None
        return ratio, statistics.median(self.ours), statistics.median(self.theirs)

    def client_is_the_limit(self):
        """True when the machine was full and the client used the larger part of it, in most of the pairs' halves."""
        halves = [half for pair in self.used for half in pair if "client_cores" in half]
        limited = [half for half in halves if half["busy_share"] > 0.85 and half["client_share"] > 0.5]
        return len(halves) > 0 and len(limited) * 2 > len(halves)
