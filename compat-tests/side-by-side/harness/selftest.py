"""Tests of what the harness makes of its values; `run --tiny` runs them first. They need no broker."""

import argparse
import signal
import sys
import tempfile
import time
import unittest

from pathlib import Path

import node
import produce
import profiles
import results
import soak
import system
import systems
import table

from rows import ROWS, Row


def half(value, cpu_ms=100.0, disk_us=80.0, foreign=0.0, **more):
    probe = {"cpu_ms": cpu_ms, "disk": {"p50_us": disk_us, "p99_us": 200.0}}
    return {"records_per_s": value, "before": probe, "after": probe, "foreign_share": foreign, **more}


def line(strict, kafka, dropped=False, binary="b", date="2026-01-01T00:00:00"):
    return {
        "work": "one-in-flight-256",
        "dropped": dropped,
        "date": date,
        "binary": binary,
        "machine": {"cores": 2, "cpu": "c", "memory_gib": 1, "kernel": "6", "file_system": "ext4"},
        "seconds": 10,
        "profile": "full",
        "commit": "abc",
        "clean": True,
        "versions": {"stonelog": "stonelog 1", "kafka": "Apache Kafka 4"},
        "sizes_mb": {"stonelog": 1.0, "kafka": 2.0},
        "contenders": {"strict": strict, "kafka-flush1": kafka},
    }


ROW = Row("1", "one-in-flight-256", "records_per_s", "strict", "kafka-flush1", 2, 4)


class Noise(unittest.TestCase):
    def test_a_quiet_pair_counts(self):
        self.assertEqual(results.noise(half(1), half(2, cpu_ms=119.0, disk_us=119.0, foreign=0.09)), "")

    def test_processors_that_were_slower_discard_the_pair(self):
        self.assertEqual(results.noise(half(1), half(2, cpu_ms=121.0)), "processors")

    def test_a_disk_that_was_slower_discards_the_pair(self):
        self.assertEqual(results.noise(half(1), half(2, disk_us=121.0)), "disk")

    def test_strangers_discard_the_pair(self):
        self.assertEqual(results.noise(half(1, foreign=0.11), half(2)), "strangers")

    def test_a_probe_before_differing_from_the_one_after_discards_the_pair(self):
        changed = half(1)
        changed["after"] = half(1, cpu_ms=130.0)["after"]
        self.assertEqual(results.noise(changed, half(2)), "processors")


class PairsOfARow(unittest.TestCase):
    def test_the_median_is_of_ratios_and_dropped_rounds_do_not_count(self):
        rounds = [line(half(900), half(1), dropped=True), line(half(10), half(1)), line(half(12), half(6)), line(half(9), half(3))]
        pairs = results.Pairs(ROW, rounds)
        self.assertEqual(pairs.ratios, [10, 2, 3])
        self.assertEqual(pairs.middle(), (3, 10, 3))

    def test_noisy_pairs_are_counted_and_left_out(self):
        pairs = results.Pairs(ROW, [line(half(10), half(1, cpu_ms=200.0)), line(half(10), half(5))])
        self.assertEqual((pairs.good, pairs.noisy, pairs.ratios), (1, 1, [2]))

    def test_a_pair_without_a_ratio_counts_and_shows_its_figures(self):
        pairs = results.Pairs(ROW, [line(half(10), half(0))])
        self.assertEqual((pairs.good, pairs.middle()), (1, (None, 10, 0)))
        self.assertIn("| – | 1 (0) |", table.text([line(half(10), half(0))]))

    def test_a_full_machine_that_mostly_ran_the_client_is_said(self):
        limited = dict(busy_share=0.99, client_share=0.6, client_cores=1.2)
        self.assertTrue(results.Pairs(ROW, [line(half(2, **limited), half(1, **limited))]).client_is_the_limit())
        idle = dict(limited, busy_share=0.5)
        self.assertFalse(results.Pairs(ROW, [line(half(2, **idle), half(1, **idle))]).client_is_the_limit())


class Table(unittest.TestCase):
    def test_only_the_newest_binary_is_shown(self):
        old = line(half(100), half(1), binary="old", date="2026-01-01T00:00:00")
        new = line(half(30), half(10), binary="new", date="2026-01-02T00:00:00")
        text = table.text([old, new])
        self.assertIn("**3** (3–3)", text)
        self.assertNotIn("**100**", text)

    def test_a_row_that_was_only_noisy_shows_no_figure(self):
        self.assertIn("too noisy | 0 (1)", table.text([line(half(100), half(1, foreign=0.5))]))

    def test_nothing_measured_is_said(self):
        self.assertEqual(table.text([]), "No figures yet.\n")


class Rows(unittest.TestCase):
    def test_every_row_compares_two_contenders_of_its_work(self):
        for row in ROWS:
            self.assertLessEqual({row.ours, row.theirs}, set(table.WORKS[row.work].contenders), row)


class Choosing(unittest.TestCase):
    def names(self, profile, **given):
        options = argparse.Namespace(**{"short": False, "works": None, "rows": None, "brokers": None, **given})
        return [work.name for work, _ in profiles.choose_works(options, profiles.PROFILES[profile])]

    def test_a_row_is_measured_with_every_number_of_brokers_unless_one_is_named(self):
        self.assertEqual(self.names("full", rows="4"), ["one-in-flight-1", "one-in-flight-1-rf3"])
        self.assertEqual(self.names("full", rows="4", brokers=3), ["one-in-flight-1-rf3"])

    def test_the_short_profile_takes_one_broker_unless_three_are_asked_for(self):
        self.assertEqual({table.WORKS[name].brokers for name in self.names("short", short=True)}, {1})
        self.assertEqual({table.WORKS[name].brokers for name in self.names("short", short=True, brokers=3)}, {3})

    def test_what_is_not_measured_is_said(self):
        with self.assertRaises(SystemExit):
            self.names("full", rows="1", brokers=3)


class Brokers(unittest.TestCase):
    def test_every_member_has_ports_of_its_own_and_a_vote(self):
        members = system.free_members(3)
        addresses = [address for member in members for address in (member.client, member.controller)]
        self.assertEqual(len(set(addresses)), 6)
        expected = ",".join(f"{number}@{members[number - 1].controller}" for number in (1, 2, 3))
        self.assertEqual(system.voters(members), expected)

    def test_what_a_killed_process_used_still_counts(self):
        with tempfile.TemporaryDirectory() as place:
            busy = node.Node(Path(place) / "1", [sys.executable, "-c", "while True: pass"])
            busy.launch()
            while busy.cpu_seconds() < 0.05:
                time.sleep(0.01)
            before = busy.cpu_seconds()
            busy.stop(signal.SIGKILL)
            self.assertFalse(busy.alive())
            busy.launch()
            self.assertGreaterEqual(busy.cpu_seconds(), before)
            busy.close()


class Growth(unittest.TestCase):
    def test_what_grows_while_it_warms_up_is_left_out(self):
        self.assertEqual(soak.growth([1, 5, 9] + [10] * 6)["percent"], 0)

    def test_growth_compares_the_end_with_the_first_samples_after_the_warm_up(self):
        found = soak.growth([0, 0, 0, 0, 10, 10, 11, 50, 12, 11, 11, 11])
        self.assertEqual(found, {"early": 10, "late": 11, "most": 50, "percent": 10})


class WhatToolsSay(unittest.TestCase):
    """Lines as the pinned tools print them."""

    def test_producer_performance(self):
        said = (
            "200000 records sent, 15359.803395 records/sec (15.00 MB/sec), 1371.64 ms avg latency, 2599.00 ms max latency, "
            "1495 ms 50th, 2239 ms 95th, 2422 ms 99th, 2569 ms 99.9th.\n"
            "100000 steady state records sent, 17531.556802 records/sec (17.12 MB/sec), 990.87 ms avg latency, "
            "2093.00 ms max latency, 815 ms 50th, 2027 ms 95th, 2068 ms 99th, 2086 ms 99.9th.\n"
        )
        self.assertEqual(produce.STEADY.findall(said), [("17531.556802", "815", "2068", "2086")])

    def test_jmx_tool(self):
        said = "kafka.log:type=LogFlushStats,name=LogFlushRateAndTimeMs:Count=417\n"
        self.assertEqual(systems.flush_count("time=1795308532723\n" + said), 417)

    def test_rdkafka_performance(self):
        said = (
            "% 200000 messages produced (204800000 bytes), 200000 delivered (offset 64401, 0 failed) in 3318ms: "
            "60263 msgs/s and 61.71 MB/s, 1826 produce failures, 0 in queue, no compression"
        )
        self.assertEqual(produce.LibrdkafkaBatches.SUMMARY.search(said).groups(), ("200000", "0", "3318"))


if __name__ == "__main__":
    unittest.main()
