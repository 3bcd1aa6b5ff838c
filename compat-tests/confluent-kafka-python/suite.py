"""confluent-kafka (librdkafka): every codec, groups, offsets, idempotence and the admin client."""

import compat
import confluent_kafka
import wire

from compat import PARTITIONS, Record, wait_until
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType

suite = compat.Suite(
    "confluent-kafka-python", f"{confluent_kafka.__version__} (librdkafka {confluent_kafka.libversion()[0]})"
)
admin = AdminClient({"bootstrap.servers": suite.bootstrap})
base_ms = compat.base_timestamp()
codecs = ["none", "gzip", "snappy", "lz4", "zstd"]
group = suite.name("group")
group_topic = suite.name("grouped")


def results(futures):
    return {name: future.result(compat.STEP_SECONDS) for name, future in futures.items()}


def create(topic, partitions=PARTITIONS):
    topics = [NewTopic(topic, partitions, compat.NODES, config={"retention.ms": "-1"})]
    results(admin.create_topics(topics, request_timeout=30))


def produce(topic, records, **settings):
    """Sends all and raises on the first record that was not acknowledged."""
    producer = Producer(
        {
            "bootstrap.servers": suite.bootstrap,
            "message.max.bytes": 1048588,
            "linger.ms": 20,
            "message.timeout.ms": 30000,
            "enable.idempotence": compat.NODES > 1,
            **settings,
        }
    )
    problems = []
    offsets = []

    def on_delivery(problem, message):
        if problem is None:
            offsets.append(message.offset())
        else:
            problems.append(problem)

    for record in records:
        producer.produce(
            topic,
            key=record.key,
            value=record.value,
            headers=record.headers,
            partition=record.partition,
            timestamp=record.timestamp,
            on_delivery=on_delivery,
        )
    left = producer.flush(compat.STEP_SECONDS)
    if problems or left:
        raise AssertionError(f"{len(problems)} refused, {left} unanswered: {problems[:1]}")
    assert len(offsets) == len(records) and min(offsets) >= 0


def to_record(message):
    if message.error():
        raise KafkaException(message.error())
    kind, timestamp = message.timestamp()
    assert kind == confluent_kafka.TIMESTAMP_CREATE_TIME
    return Record(message.partition(), message.key(), message.value(), message.headers(), timestamp)


def consumer_of(group, **settings):
    return Consumer(
        {
            "bootstrap.servers": suite.bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 10000,
            "heartbeat.interval.ms": 500,
            **settings,
        }
    )


def read(consumer, count, at_most=500):
    """Polls until `count` records have come; the comparison that follows finds one too many by its content."""
    found = []

    def attempt():
        found.extend(to_record(message) for message in consumer.consume(at_most, 0.5))
        return len(found) >= count

    wait_until(f"{count} records", attempt)
    return found


def consume_all(topic, count):
    consumer = consumer_of(suite.name("unused"))
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    try:
        found = read(consumer, count)
        low_high = [consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10) for p in range(PARTITIONS)]
        assert sum(high - low for low, high in low_high) == count, low_high
        return found
    finally:
        consumer.close()


with suite.step("create_topic"):
    for codec in codecs:
        create(suite.name(codec))
    create(suite.name("idempotent"))
    create(group_topic, 4)
    create(suite.name("resume"), 1)

sent = {}
for codec in codecs:
    sent[codec] = compat.record_set(codec, base_ms)
    with suite.step(f"produce.{codec}"):
        produce(suite.name(codec), sent[codec], **{"compression.type": codec})
        stored = wire.stored(suite.bootstrap, suite.name(codec), PARTITIONS).codecs
        # librdkafka sends a batch uncompressed when compression does not make it smaller: the large record.
        assert codec in stored and stored <= {codec, "none"}, f"asked for {codec}, stored as {stored}"
    if suite.failed(f"produce.{codec}", f"consume.{codec}"):
        continue
    with suite.step(f"consume.{codec}"):
        compat.compare(sent[codec], consume_all(suite.name(codec), len(sent[codec])))

with suite.step("offsets_by_time"):
    topic = suite.name("none")
    partition_0 = [record for record in sent["none"] if record.partition == 0]
    asked = TopicPartition(topic, 0)
    for spec, expected in [
        (OffsetSpec.earliest(), 0),
        (OffsetSpec.latest(), len(partition_0)),
        (OffsetSpec.for_timestamp(partition_0[5].timestamp), 5),
        (OffsetSpec.for_timestamp(partition_0[5].timestamp - 1), 5),
        (OffsetSpec.for_timestamp(partition_0[-1].timestamp + 1), -1),
        (OffsetSpec.max_timestamp(), len(partition_0) - 1),
    ]:
        (found,) = results(admin.list_offsets({asked: spec}, request_timeout=20)).values()
        assert found.offset == expected, f"{spec} gave {found.offset}, not {expected}"

with suite.step("idempotent"):
    records = compat.record_set("idempotent", base_ms)
    produce(suite.name("idempotent"), records, **{"enable.idempotence": True})
    compat.compare(records, consume_all(suite.name("idempotent"), len(records)))
    stored = wire.stored(suite.bootstrap, suite.name("idempotent"), PARTITIONS)
    assert -1 not in stored.producer_ids, "stored without a producer id"


def rebalance(protocol):
    """Two members share the partitions; when one leaves the other gets all of them."""
    one, two = (consumer_of(f"{group}-{protocol}", **{"partition.assignment.strategy": protocol}) for _ in range(2))

    def owned(*members):
        for member in members:
            message = member.poll(0.2)
            assert message is None or not message.error(), message.error()
        return [len(member.assignment()) for member in members]

    def balanced():
        counts = owned(one, two)
        return sum(counts) == 4 and all(counts)

    try:
        one.subscribe([group_topic])
        two.subscribe([group_topic])
        wait_until("both members own partitions", balanced)
        two.close()
        wait_until("the remaining member owns all four", lambda: owned(one) == [4])
    finally:
        one.close()


with suite.step("group.rebalance"):
    rebalance("range")
with suite.step("group.rebalance_cooperative"):
    rebalance("cooperative-sticky")

with suite.step("group.resume"):
    topic = suite.name("resume")
    produce(topic, [Record(0, None, b"%d" % index, [], base_ms + index) for index in range(100)])
    first = consumer_of(group)
    first.subscribe([topic])
    position = len(read(first, 40, at_most=20))
    assert position == 40, position
    stored = first.commit(offsets=[TopicPartition(topic, 0, position, metadata="märk")], asynchronous=False)
    assert stored[0].error is None, stored
    first.close()
    second = consumer_of(group)
    committed = second.committed([TopicPartition(topic, 0)], timeout=20)
    assert (committed[0].offset, committed[0].metadata) == (position, "märk"), committed
    second.subscribe([topic])
    rest = read(second, 100 - position)
    second.commit(offsets=[TopicPartition(topic, 0, 100)], asynchronous=False)
    assert [record.value for record in rest] == [b"%d" % index for index in range(position, 100)]
    with suite.step("describe.group"):
        (described,) = results(admin.describe_consumer_groups([group], request_timeout=20)).values()
        assert described.state.name == "STABLE" and len(described.members) == 1, described.state
        assert described.members[0].assignment.topic_partitions == [TopicPartition(topic, 0)]
        listed = admin.list_consumer_groups(request_timeout=20).result(compat.STEP_SECONDS)
        assert group in [entry.group_id for entry in listed.valid]
    second.close()

with suite.step("group.admin_offsets"):
    topic = suite.name("resume")
    target = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 7)])
    results(admin.alter_consumer_group_offsets([target], request_timeout=20))
    (offsets,) = results(
        admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)], request_timeout=20)
    ).values()
    assert [(entry.topic, entry.offset) for entry in offsets.topic_partitions] == [(topic, 7)]
    results(admin.delete_consumer_groups([group], request_timeout=20))
    listed = admin.list_consumer_groups(request_timeout=20).result(compat.STEP_SECONDS)
    assert group not in [entry.group_id for entry in listed.valid]

with suite.step("describe.topic"):
    compat.whole()
    collection = confluent_kafka.TopicCollection([suite.name("none")])
    (described,) = results(admin.describe_topics(collection, request_timeout=20)).values()
    assert len(described.partitions) == PARTITIONS and described.partitions[0].leader is not None
    assert str(described.topic_id), described
    cluster = admin.describe_cluster(request_timeout=20).result(compat.STEP_SECONDS)
    assert len(cluster.nodes) == compat.NODES and cluster.cluster_id

with suite.step("describe.configs"):
    resource = ConfigResource(ResourceType.TOPIC, suite.name("none"))
    (entries,) = results(admin.describe_configs([resource], request_timeout=20)).values()
    assert entries["retention.ms"].value == "-1" and not entries["retention.ms"].is_default
    assert entries["max.message.bytes"].value == "1048588"
    change = ConfigResource(ResourceType.TOPIC, suite.name("none"))
    change.add_incremental_config(
        confluent_kafka.admin.ConfigEntry(
            "segment.bytes", "1048576", incremental_operation=confluent_kafka.admin.AlterConfigOpType.SET
        )
    )
    results(admin.incremental_alter_configs([change], request_timeout=20))
    (entries,) = results(admin.describe_configs([resource], request_timeout=20)).values()
    assert entries["segment.bytes"].value == "1048576" and entries["retention.ms"].value == "-1"

with suite.step("delete_records"):
    topic = suite.name("none")
    (deleted,) = results(admin.delete_records([TopicPartition(topic, 0, 3)], request_timeout=20)).values()
    assert deleted.low_watermark == 3

with suite.step("create_partitions"):
    results(
        admin.create_partitions(
            [confluent_kafka.admin.NewPartitions(suite.name("gzip"), PARTITIONS + 2)], request_timeout=20
        )
    )
    wait_until(
        "the added partitions",
        lambda: len(admin.list_topics(suite.name("gzip"), timeout=10).topics[suite.name("gzip")].partitions)
        == PARTITIONS + 2,
    )

with suite.step("delete_topic"):
    names = [suite.name(codec) for codec in codecs] + [suite.name("idempotent"), group_topic, suite.name("resume")]
    results(admin.delete_topics(names, request_timeout=20))
    wait_until("the topics are gone", lambda: not set(names) & set(admin.list_topics(timeout=10).topics))

suite.finish()
