"""A stock librdkafka producer and consumer group as a load: writes the history that `stonelog verify --check` judges.

Usage: librdkafka.py BOOTSTRAP HISTORY. Prints one line with versions once its topic is there, runs until standard input closes, reads to the
end, and exits. The file's form is that of broker/src/cli/verify/history.rs, the values' that of value.rs beside it: a
line is written before what it tells of can have consequences, so the order of lines is an order in real time.
"""

import json
import logging
import os
import random
import sys
import threading
import time
from importlib.metadata import version

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition, libversion
from confluent_kafka.admin import AdminClient, NewTopic

PARTITIONS = 4
PRODUCERS = 2
MEMBERS = 2
IN_FLIGHT_MAX = 500
COMMIT_EVERY_S = 0.3
STAY_S = 6.0
PATIENCE_S = 90.0
# What a commit is refused with for good, nothing stored.
REFUSED = {KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS}

bootstrap, path = sys.argv[1:3]
run = os.urandom(8).hex()
topic = f"stock-{run}"
group = f"stock-{run}"
stopping = threading.Event()
draining = threading.Event()


class History:
    """One line per event, in order, from all threads."""

    def __init__(self):
        self.lock = threading.Lock()
        self.file = open(path, "x", buffering=1)
        self.begun = time.monotonic()
        self.batches = 0
        self.commits = 0
        header = {"schema": "verify.history/1", "run": run, "topic": topic, "partitions": PARTITIONS}
        self.file.write(json.dumps({**header, "exclusive": True, "groups": [group]}) + "\n")

    def write(self, event, **fields):
        with self.lock:
            self._write(event, fields)

    def _write(self, event, fields):
        at_ms = int((time.monotonic() - self.begun) * 1000)
        self.file.write(json.dumps({"at_ms": at_ms, "event": event, **fields}, separators=(",", ":")) + "\n")

    def send(self, **fields):
        with self.lock:
            self.batches += 1
            self._write("send", {"id": self.batches - 1, **fields})
            return self.batches - 1

    def commit_asked(self, **fields):
        with self.lock:
            self.commits += 1
            self._write("commit_asked", {"id": self.commits - 1, **fields})
            return self.commits - 1


history = History()


def fnv1a(data):
    digest = 0xCBF29CE484222325
    for byte in data:
        digest = ((digest ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return digest


def value_of(partition, producer, sequence):
    body = f"slv1 {run} {topic} {partition} {producer} {sequence}  ".encode()
    return body + f"{fnv1a(body):016x}".encode()


def read_value(message):
    """(producer, sequence) of a value of this run that is whole and where it belongs, else None."""
    value = message.value() or b""
    body, digits = value[:-16], value[-16:]
    fields = body.decode("ascii", "replace").split(" ")
    if len(fields) < 6 or fields[0] != "slv1" or fields[1] != run or f"{fnv1a(body):016x}".encode() != digits:
        return None
    if fields[2] != topic or int(fields[3]) != message.partition():
        return None
    return int(fields[4]), int(fields[5])


class Bumps(logging.Handler):
    """Notes in a file beside the history when librdkafka gives a producer a new epoch by itself.

    It does so where a batch was refused and the one behind it came out of order, and sends anew under the new epoch what
    other partitions have not answered, though it may be there: a broker cannot know that it is the same (librdkafka
    issue 4953, open). What may come twice then is no fault of the cluster's.
    """

    def __init__(self, number):
        super().__init__()
        self.logger = logging.Logger(f"producer-{number}")
        self.logger.addHandler(self)

    def emit(self, record):
        said = record.getMessage()
        if "bumped epoch" in said:
            with open(path + ".bumped", "a", encoding="utf-8") as file:
                file.write(f"{self.logger.name}: {said}\n")


def produce(number):
    fatal = []

    def on_error(error):
        if error.fatal():
            fatal.append(str(error))

    producer = Producer({
        "bootstrap.servers": bootstrap,
        "error_cb": on_error,
        # A broker that is gone is what this is about: no line for each connection lost.
        "log_level": 7,
        "debug": "eos",
        "logger": Bumps(number).logger,
        "enable.idempotence": True,
        "message.timeout.ms": int(PATIENCE_S * 1000),
        "linger.ms": 2,
        "reconnect.backoff.max.ms": 200,
        "retry.backoff.ms": 20,
    })
    dice = random.Random(f"{run}/{number}")
    following = [0] * PARTITIONS
    in_flight = [0]

    # What the binding failed to hand over without saying whether librdkafka took it: no later word on it counts.
    doubtful = set()

    def delivered(identifier):
        def on_delivery(error, message):
            if identifier in doubtful:
                return
            in_flight[0] -= 1
            if error is None:
                offset = message.offset()
                history.write("acked", id=identifier, offset=offset if offset >= 0 else None)
            else:
                # librdkafka does not say whether a message it gave up may have been stored.
                history.write("unknown", id=identifier, error=str(error))
        return on_delivery

    while not stopping.is_set():
        partition = dice.randrange(PARTITIONS)
        sequence = following[partition]
        following[partition] += 1
        value = value_of(partition, number, sequence)
        identifier = history.send(producer=number, partition=partition, first=sequence, count=1)
        in_flight[0] += 1
        try:
            producer.produce(topic, value, partition=partition, on_delivery=delivered(identifier))
        except SystemError as failure:
            # The binding has raised an error and lost which one. A fatal one comes through `on_error` as well.
            print(f"producer {number}: {failure!r}", file=sys.stderr, flush=True)
            doubtful.add(identifier)
            in_flight[0] -= 1
            history.write("unknown", id=identifier, error=repr(failure))
            producer.poll(0.05)
        producer.poll(0)
        if fatal:
            raise SystemExit(f"producer {number}: librdkafka gives up: {fatal[0]}")
        while in_flight[0] >= IN_FLIGHT_MAX and not stopping.is_set():
            producer.poll(0.05)
        if dice.randrange(50) == 0:
            producer.poll(0.02)
    left = producer.flush(PATIENCE_S)
    if left:
        raise SystemExit(f"producer {number}: {left} messages neither acknowledged nor given up")


def consume(member):
    dice = random.Random(f"{run}/member/{member}")
    while True:
        if stay(member, None if member == 0 else STAY_S * (1 + dice.random())):
            return


def stay(member, seconds):
    """Reads until the run ends (True) or until it is time to leave for a while (False)."""
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        # A broker that is gone is what this is about: no line for each connection lost.
        "log_level": 2,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "session.timeout.ms": 10000,
        "reconnect.backoff.max.ms": 200,
        "retry.backoff.ms": 20,
    })
    read = {}
    positions = {}
    closing = threading.Event()

    def commit():
        if not read:
            return
        offsets = [[partition, offset] for partition, offset in read.items()]
        identifier = history.commit_asked(group=group, offsets=offsets)
        try:
            results = consumer.commit(
                offsets=[TopicPartition(topic, partition, offset) for partition, offset in offsets], asynchronous=False
            )
            bad = [result.error for result in results if result.error is not None]
            if bad:
                raise KafkaException(bad[0])
        except KafkaException as failure:
            error = failure.args[0]
            kind = "commit_failed" if error.code() in REFUSED else "commit_unknown"
            history.write(kind, id=identifier, error=str(error))
            return
        history.write("commit_acked", id=identifier)
        read.clear()

    def on_assign(_, partitions):
        read.clear()
        positions.clear()
        committed = []
        deadline = time.monotonic() + PATIENCE_S
        while partitions:
            # An assignment may come as late as this, and a consumer that closes is told nothing any more.
            if closing.is_set():
                return
            try:
                committed = consumer.committed(partitions, timeout=5)
                if all(partition.error is None for partition in committed):
                    break
            except KafkaException:
                pass
            if time.monotonic() > deadline:
                raise SystemExit("the committed offsets could not be read")
        known = [(partition.partition, partition.offset) for partition in committed if partition.offset >= 0]
        start = [(partition.partition, max(partition.offset, 0)) for partition in committed]
        history.write("joined", group=group, member=member, generation=0, positions=start, committed=known)
        positions.update(start)
        consumer.assign([TopicPartition(topic, partition, offset) for partition, offset in start])

    def on_revoke(_, partitions):
        commit()
        read.clear()
        positions.clear()

    def on_lost(_, partitions):
        read.clear()
        positions.clear()

    consumer.subscribe([topic], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_lost)
    until = None if seconds is None else time.monotonic() + seconds
    committed_at = time.monotonic()
    ends, deadline = None, None
    try:
        while True:
            take(member, consumer.consume(500, timeout=0.1), read, positions)
            if time.monotonic() - committed_at > COMMIT_EVERY_S:
                commit()
                committed_at = time.monotonic()
            if draining.is_set():
                deadline = deadline or time.monotonic() + PATIENCE_S
                ends = ends or watermarks(consumer)
                complete = bool(ends) and bool(positions) and all(positions[p] >= ends[p] for p in positions)
                if complete or time.monotonic() > deadline:
                    commit()
                    history.write("drained", group=group, complete=complete)
                    return True
            elif until is not None and time.monotonic() > until:
                commit()
                return False
    finally:
        closing.set()
        consumer.close()


def watermarks(consumer):
    try:
        return {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=5)[1] for p in range(PARTITIONS)}
    except KafkaException:
        return None


def take(member, messages, read, positions):
    """Writes down what was read, one line per partition, consecutive records of a producer as one run."""
    seen = {}
    for message in messages:
        if message.error() is not None:
            continue
        runs, others = seen.setdefault(message.partition(), ([], []))
        offset, content = message.offset(), read_value(message)
        if content is None:
            others.append(offset)
        else:
            producer, sequence = content
            last = runs[-1] if runs else None
            if (
                last
                and last["producer"] == producer
                and last["sequence"] + last["count"] == sequence
                and last["offset"] + last["count"] == offset
            ):
                last["count"] += 1
            else:
                runs.append({"offset": offset, "count": 1, "producer": producer, "sequence": sequence})
        read[message.partition()] = offset + 1
        positions[message.partition()] = offset + 1
    for partition, (runs, others) in seen.items():
        history.write("polled", group=group, member=member, partition=partition, runs=runs, others=others)


def create(admin, wanted):
    """Makes the topic. A controller that loses its lease meanwhile cannot say whether it did, and is asked again."""
    limit = time.monotonic() + PATIENCE_S
    while True:
        try:
            return admin.create_topics([wanted])[topic].result(PATIENCE_S)
        except KafkaException as failure:
            code = failure.args[0].code()
            if code == KafkaError.TOPIC_ALREADY_EXISTS:
                return None
            if code != KafkaError.REQUEST_TIMED_OUT or time.monotonic() > limit:
                raise


def main():
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
    settings = {"retention.ms": "-1", "retention.bytes": "-1"}
    create(admin, NewTopic(topic, PARTITIONS, config=settings))
    print(f"confluent-kafka {version('confluent-kafka')}, librdkafka {libversion()[0]}", flush=True)
    failures = []

    def guarded(work, number):
        try:
            work(number)
        except BaseException as failure:
            failures.append(f"{work.__name__} {number}: {failure!r}")

    start = lambda work, count: [threading.Thread(target=guarded, args=(work, number)) for number in range(count)]
    producers, members = start(produce, PRODUCERS), start(consume, MEMBERS)
    for thread in producers + members:
        thread.start()
    sys.stdin.read()
    stopping.set()
    for thread in producers:
        thread.join()
    draining.set()
    for thread in members:
        thread.join()
    if failures:
        sys.exit("; ".join(failures))


main()
