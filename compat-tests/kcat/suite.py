"""kcat with Debian's librdkafka 2.0.2: the oldest librdkafka that is still installed everywhere.

It has no admin client: topics come into being by its first record, with the broker's `num.partitions`, and stay.
"""

import json
import os
import random
import re
import signal
import subprocess
import tempfile
import time

import compat
import wire

from compat import wait_until

KCAT = os.path.join(os.environ["CACHE"], "root", "usr", "bin", "kcat")
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
shown = subprocess.run([KCAT, "-V"], capture_output=True, check=True, timeout=10).stdout.decode()
version, library = re.search(r"Version (\S+) .*librdkafka (\S+)", shown).groups()
suite = compat.Suite("kcat", f"{version} (librdkafka {library})")
scratch = tempfile.TemporaryDirectory(prefix="stonelog-compat-kcat-")


def kcat(*arguments, given=b"", seconds=compat.STEP_SECONDS):
    done = subprocess.run([KCAT, "-b", suite.bootstrap, *arguments], input=given, capture_output=True, timeout=seconds)
    if done.returncode:
        raise AssertionError(f"kcat {' '.join(arguments)} ended with {done.returncode}: {done.stderr.decode()[-600:]}")
    return done.stdout.decode()


def produce(topic, codec, *settings):
    """Sends the rows kcat can express and returns them as (headers, key, payload), null as None."""
    base = [
        "-P",
        "-t",
        topic,
        "-p",
        "0",
        "-z",
        codec,
        "-X",
        "message.max.bytes=1048588",
        "-X",
        "message.timeout.ms=30000",
        *settings,
    ]
    rows = []

    def send(new, given, *more):
        kcat(*base, *more, given=given.encode())
        rows.extend(new)

    tab = ["-K", "\t"]
    send(
        [(["a", "1", "a", "2", "ü", "✓"], "key", "value")], "key\tvalue\n", *tab, "-H", "a=1", "-H", "a=2", "-H", "ü=✓"
    )
    send([([], None, "null key")], "null key\n")
    send([([], "null value", None)], "null value\t\n", *tab, "-Z")
    send([([], "empty value", "")], "empty value\t\n", *tab)
    many = [([], f"schlüssel-{index % 7}", f"wert-{index:06d} 🪨 " + "compressible " * 8) for index in range(120)]
    send(many, "".join(f"{key}\t{payload}\n" for _, key, payload in many), *tab)
    # A file is one record; its bytes are text so that the JSON output carries them whole.
    noise = random.Random(codec)
    large = "".join(
        noise.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/", k=compat.LARGE_BYTES)
    )
    path = os.path.join(scratch.name, codec)
    with open(path, "w", encoding="utf-8") as file:
        file.write(large)
    kcat(*base, path)
    rows.append(([], None, large))
    return rows


def consume(topic, *arguments):
    output = kcat("-C", "-t", topic, "-o", "beginning", "-e", "-q", "-J", *arguments)
    return [json.loads(line) for line in output.splitlines()]


def check_rows(sent, received):
    assert len(sent) == len(received), f"sent {len(sent)} records, received {len(received)}"
    for index, (row, message) in enumerate(zip(sent, received)):
        found = (message.get("headers", []), message["key"], message["payload"])
        assert found == row, f"record {index}: sent {str(row)[:160]}, received {str(found)[:160]}"
        assert message["offset"] == index and message["tstype"] == "create", message["offset"]


def partitions_of(topic):
    (described,) = json.loads(kcat("-L", "-J", "-t", topic))["topics"]
    return len(described["partitions"])


class Member:
    """A balanced consumer that runs until it is stopped; it says on standard error what it owns."""

    def __init__(self, group, topic):
        self.path = os.path.join(scratch.name, f"member-{random.randrange(1 << 30)}")
        self._output = open(self.path, "wb")
        self.process = subprocess.Popen(
            [
                KCAT,
                "-b",
                suite.bootstrap,
                "-G",
                group,
                "-X",
                "session.timeout.ms=10000",
                "-X",
                "heartbeat.interval.ms=300",
                topic,
            ],
            stdout=subprocess.DEVNULL,
            stderr=self._output,
            stdin=subprocess.DEVNULL,
        )

    def owned(self):
        """None before the first assignment, then the number of partitions of the last one."""
        with open(self.path, encoding="utf-8") as output:
            assigned = re.findall(r"assigned:(.*)", output.read())
        assert self.process.poll() is None, "kcat ended by itself"
        return len(re.findall(r"\[\d+\]", assigned[-1])) if assigned else None

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def soon(what, condition):
    def attempt():
        if condition():
            return True
        time.sleep(0.05)
        return False

    wait_until(what, attempt)


with suite.step("create_topic"):
    for codec in CODECS:
        kcat("-P", "-t", suite.name(f"{codec}-created"), given=b"first\n")
    assert partitions_of(suite.name("none-created")) >= 1

sent = {}
for codec in CODECS:
    topic = suite.name(codec)
    with suite.step(f"produce.{codec}"):
        sent[codec] = produce(topic, codec)
        stored = wire.stored(suite.bootstrap, topic, 1).codecs
        # Single records are sent uncompressed when compression makes them larger. librdkafka 2.0 reads the codecs it
        # may use from the advertised Produce range, so a wrong range shows here and nowhere else.
        assert codec in stored and stored <= {codec, "none"}, f"asked for {codec}, stored as {stored}"
    if suite.failed(f"produce.{codec}", f"consume.{codec}"):
        continue
    with suite.step(f"consume.{codec}"):
        check_rows(sent[codec], consume(topic, "-p", "0"))

with suite.step("idempotent"):
    rows = produce(suite.name("idempotent"), "none", "-X", "enable.idempotence=true")
    check_rows(rows, consume(suite.name("idempotent"), "-p", "0"))
    assert -1 not in wire.stored(suite.bootstrap, suite.name("idempotent"), 1).producer_ids

if not suite.failed("consume.none", "offsets_by_time"):
    with suite.step("offsets_by_time"):
        topic = suite.name("none")
        messages = consume(topic, "-p", "0")
        target = next(index for index in range(3, len(messages)) if messages[index]["ts"] > messages[index - 1]["ts"])
        for time_ms, expected in [
            (messages[target]["ts"], target),
            (messages[0]["ts"] - 1, 0),
            (messages[-1]["ts"] + 1, len(messages)),
        ]:
            answer = kcat("-Q", "-t", f"{topic}:0:{time_ms}")
            found = int(re.search(r"offset (-?\d+)", answer).group(1))
            # librdkafka answers "no such record" with the end (-1 is OFFSET_END).
            assert found == expected or (
                expected == len(messages) and found == -1
            ), f"at {time_ms}: {found}, not {expected}"

with suite.step("group.rebalance"):
    topic = suite.name("none-created")
    count = partitions_of(topic)
    one = Member(suite.name("rebalance"), topic)
    two = None
    try:
        soon("the first member owns everything", lambda: one.owned() == count)
        two = Member(suite.name("rebalance"), topic)
        soon(
            "both have an assignment of all partitions together",
            lambda: two.owned() is not None and (one.owned() or 0) + two.owned() == count,
        )
        # With one partition only one of them owns it: stop the owner.
        leaving, staying = (one, two) if one.owned() else (two, one)
        leaving.stop()
        soon("the remaining member owns everything", lambda: staying.owned() == count)
    finally:
        one.stop()
        if two:
            two.stop()

with suite.step("group.resume"):
    topic, group = suite.name("resume"), suite.name("group")
    kcat("-P", "-t", topic, "-p", "0", given="".join(f"{index}\n" for index in range(100)).encode())
    settings = ["-q", "-G", group, "-X", "auto.offset.reset=earliest"]
    first = kcat(*settings, "-c", "40", topic).split()
    rest = kcat(*settings, "-c", "60", topic).split()
    assert first + rest == [str(index) for index in range(100)], f"resumed at {rest[:1]}"

with suite.step("describe.topic"):
    compat.whole()
    described = json.loads(kcat("-L", "-J"))
    assert len(described["brokers"]) == compat.NODES and described["controllerid"] is not None, described["brokers"]
    assert suite.name("none") in [one["topic"] for one in described["topics"]]

for step in ["describe.configs", "describe.group", "delete_topic"]:
    suite.lacks(step, "kcat has no admin client")
suite.lacks("timestamps", "kcat cannot set them")
scratch.cleanup()
suite.finish()
