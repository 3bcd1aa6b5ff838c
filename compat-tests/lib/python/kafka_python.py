"""The producer and consumer steps that both kafka-python suites share; their admin clients differ and stay with them.

Not a suite: it is imported by `kafka-python-3` and `kafka-python-2.0.2` after their own `kafka` is on the path.
"""

import time

import compat
import kafka
import wire

from compat import PARTITIONS, Record, wait_until
from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
# With brokers dying, joining a group takes longer, and a poll that ends meanwhile does a group no good.
POLL_MS = 200 if compat.NODES == 1 else 1000
IS_THREE = kafka.__version__.startswith("3.")


def offset_and_metadata(offset, metadata):
    """2.0.2 has no leader epoch in the tuple; 3 has."""
    fields = {"offset": offset, "metadata": metadata, "leader_epoch": -1}
    return OffsetAndMetadata(*(fields[name] for name in OffsetAndMetadata._fields))


class Steps:
    def __init__(self, suite, null_header, idempotence):
        self.suite = suite
        self.null_header = null_header
        # What the producer passes to be idempotent or not; empty where it never is.
        self.plain = {"enable_idempotence": compat.NODES > 1} if idempotence else {}
        self.base_ms = compat.base_timestamp()
        self.sent = {}

    def produce(self, topic, records, **settings):
        producer = KafkaProducer(bootstrap_servers=self.suite.bootstrap, linger_ms=20, acks="all", **settings)
        try:
            futures = [
                producer.send(
                    topic,
                    value=record.value,
                    key=record.key,
                    headers=record.headers,
                    partition=record.partition,
                    timestamp_ms=record.timestamp,
                )
                for record in records
            ]
            producer.flush(compat.STEP_SECONDS)
            for record, future in zip(records, futures):
                answer = future.get(compat.STEP_SECONDS)
                assert answer.partition == record.partition and answer.offset >= 0
        finally:
            producer.close(timeout=5)

    def consumer(self, group=None, **settings):
        return KafkaConsumer(
            bootstrap_servers=self.suite.bootstrap,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=10000,
            heartbeat_interval_ms=500,
            consumer_timeout_ms=1000,
            **settings,
        )

    def subscribe(self, consumer, topic):
        """Subscribes, and returns when the consumer knows the topic's partitions. Version 3 may lose its wish to know them
        when it is asking for something else just then; it would assign none to itself, join the group anew when it
        hears of them, and drop that assignment if a poll ends meanwhile."""
        consumer.subscribe([topic])

        def knows():
            if not asked(consumer.partitions_for_topic, topic):
                return False
            # What its assignments are compared with, to join anew when it changes.
            if IS_THREE and not consumer._coordinator._metadata_snapshot.get(topic):
                time.sleep(0.01)
                return False
            return True

        wait_until("the topic's partitions", knows)

    def read(self, consumer, count, at_most=None):
        found = []

        def attempt():
            for messages in (asked(consumer.poll, POLL_MS, max_records=at_most) or {}).values():
                for message in messages:
                    assert message.timestamp_type == 0
                    found.append(
                        Record(message.partition, message.key, message.value, message.headers, message.timestamp)
                    )
            return len(found) >= count

        wait_until(f"{count} records", attempt)
        return found

    def consume_all(self, topic, count):
        consumer = self.consumer()
        partitions = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        try:
            consumer.assign(partitions)
            consumer.seek_to_beginning(*partitions)
            found = self.read(consumer, count)
            assert sum(consumer.end_offsets(partitions).values()) == count
            return found
        finally:
            consumer.close()

    def codecs(self):
        suite = self.suite
        for codec in CODECS:
            topic = suite.name(codec)
            records = self.sent[codec] = compat.record_set(codec, self.base_ms, null_header=self.null_header)
            with suite.step(f"produce.{codec}"):
                self.produce(topic, records, compression_type=None if codec == "none" else codec, **self.plain)
                stored = wire.stored(suite.bootstrap, topic, PARTITIONS).codecs
                # A batch that compression would make larger is sent as it is: the large record.
                assert codec in stored and stored <= {codec, "none"}, f"asked for {codec}, stored as {stored}"
            if suite.failed(f"produce.{codec}", f"consume.{codec}"):
                continue
            with suite.step(f"consume.{codec}"):
                compat.compare(records, self.consume_all(topic, len(records)))

    def by_time(self):
        if self.suite.failed("produce.none", "offsets_by_time"):
            return
        with self.suite.step("offsets_by_time"):
            partition_0 = [record for record in self.sent["none"] if record.partition == 0]
            asked = TopicPartition(self.suite.name("none"), 0)
            consumer = self.consumer()
            try:
                assert consumer.beginning_offsets([asked]) == {asked: 0}
                assert consumer.end_offsets([asked]) == {asked: len(partition_0)}
                for timestamp, expected in [(partition_0[5].timestamp, 5), (partition_0[5].timestamp - 1, 5)]:
                    found = consumer.offsets_for_times({asked: timestamp})[asked]
                    assert (found.offset, found.timestamp) == (expected, partition_0[expected].timestamp), found
                assert consumer.offsets_for_times({asked: partition_0[-1].timestamp + 1})[asked] is None
            finally:
                consumer.close()

    def rebalance(self, topic, name="group.rebalance", **settings):
        """Two members share four partitions; when one leaves the other gets all of them."""
        with self.suite.step(name):
            group = self.suite.name(name)
            one, two = self.consumer(group, **settings), self.consumer(group, **settings)

            def owned(*members):
                for member in members:
                    asked(member.poll, POLL_MS)
                return [len(member.assignment()) for member in members]

            def balanced():
                counts = owned(one, two)
                return sum(counts) == 4 and all(counts)

            try:
                self.subscribe(one, topic)
                wait_until("the first member owns all four", lambda: owned(one) == [4])
                self.subscribe(two, topic)
                # The second member blocks inside its poll until the first has rejoined, so the first polls beside it.
                with Polling(one):
                    wait_until("the second member owns partitions", lambda: owned(two) != [0])
                wait_until("both members own partitions", balanced)
                two.close()
                wait_until("the remaining member owns all four", lambda: owned(one) == [4])
            finally:
                one.close()

    def resume(self, topic, group, while_stable):
        with self.suite.step("group.resume"):
            self.produce(
                topic, [Record(0, None, b"%d" % index, [], self.base_ms + index) for index in range(100)], **self.plain
            )
            asked = TopicPartition(topic, 0)
            first = self.consumer(group)
            self.subscribe(first, topic)
            position = len(self.read(first, 40, at_most=20))
            assert position == 40, position
            first.commit({asked: offset_and_metadata(position, "mark")})
            first.close()
            second = self.consumer(group)
            self.subscribe(second, topic)
            assert second.committed(asked) == position
            rest = self.read(second, 100 - position)
            assert [record.value for record in rest] == [b"%d" % index for index in range(position, 100)]
            second.commit()
            assert second.committed(asked) == 100
            while_stable()
            second.close()


def asked(method, *arguments, **named):
    """What a method returns; None when it failed for a broker that is gone, and may be called again."""
    try:
        return method(*arguments, **named)
    except KafkaError as problem:
        if compat.NODES == 1 or not problem.retriable:
            raise
        time.sleep(0.1)
        return None


class Polling:
    """Polls a consumer on a thread of its own while the block runs; nobody else may use it meanwhile."""

    def __init__(self, consumer):
        import threading

        self._consumer = consumer
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self._stop.is_set():
            asked(self._consumer.poll, 100)

    def __enter__(self):
        self._thread.start()

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(compat.STEP_SECONDS)
