"""aiokafka: every codec, groups, offsets, idempotence and its small admin client."""

import asyncio

import aiokafka
import compat
import wire

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.structs import OffsetAndMetadata
from compat import PARTITIONS, STEP_SECONDS, Deadline, Record

suite = compat.Suite("aiokafka", aiokafka.__version__)
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
base_ms = compat.base_timestamp()
group = suite.name("group")
group_topic = suite.name("grouped")
resume_topic = suite.name("resume")
idempotent_topic = suite.name("idempotent")


async def produce(topic, records, **settings):
    producer = AIOKafkaProducer(bootstrap_servers=suite.bootstrap, linger_ms=20, acks="all", **settings)
    await producer.start()
    try:
        answers = []
        for record in records:
            answers.append(
                await producer.send(
                    topic,
                    value=record.value,
                    key=record.key,
                    headers=record.headers,
                    partition=record.partition,
                    timestamp_ms=record.timestamp,
                )
            )
        for record, answer in zip(records, await asyncio.wait_for(asyncio.gather(*answers), STEP_SECONDS)):
            assert answer.partition == record.partition and answer.offset >= 0
    finally:
        await asyncio.wait_for(producer.stop(), STEP_SECONDS)


def consumer_of(group_id=None, **settings):
    return AIOKafkaConsumer(
        bootstrap_servers=suite.bootstrap,
        group_id=group_id,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=10000,
        heartbeat_interval_ms=500,
        **settings,
    )


async def read(consumer, count, at_most=None):
    found = []
    deadline = Deadline(f"{count} records")
    while len(found) < count:
        deadline.check(f"({len(found)} came)")
        for messages in (await consumer.getmany(timeout_ms=500, max_records=at_most)).values():
            for message in messages:
                assert message.timestamp_type == 0
                found.append(Record(message.partition, message.key, message.value, message.headers, message.timestamp))
    return found


async def consume_all(topic, count):
    consumer = consumer_of()
    partitions = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
    await consumer.start()
    try:
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        found = await read(consumer, count)
        assert sum((await consumer.end_offsets(partitions)).values()) == count
        return found
    finally:
        await consumer.stop()


async def create(admin, topic, partitions):
    answer = await admin.create_topics(
        [NewTopic(topic, partitions, compat.NODES, topic_configs={"retention.ms": "-1"})], timeout_ms=30000
    )
    assert [entry[1] for entry in answer.topic_errors] == [0], answer


async def codecs():
    sent = {}
    for codec in CODECS:
        sent[codec] = compat.record_set(codec, base_ms)
        with suite.step(f"produce.{codec}"):
            await produce(suite.name(codec), sent[codec], compression_type=None if codec == "none" else codec)
            stored = await asyncio.to_thread(wire.stored, suite.bootstrap, suite.name(codec), PARTITIONS)
            assert codec in stored.codecs and stored.codecs <= {codec, "none"}, stored.codecs
        if suite.failed(f"produce.{codec}", f"consume.{codec}"):
            continue
        with suite.step(f"consume.{codec}"):
            compat.compare(sent[codec], await consume_all(suite.name(codec), len(sent[codec])))
    return sent


async def by_time(sent):
    with suite.step("offsets_by_time"):
        partition_0 = [record for record in sent["none"] if record.partition == 0]
        asked = TopicPartition(suite.name("none"), 0)
        consumer = consumer_of()
        await consumer.start()
        try:
            assert await consumer.beginning_offsets([asked]) == {asked: 0}
            assert await consumer.end_offsets([asked]) == {asked: len(partition_0)}
            for timestamp, expected in [(partition_0[5].timestamp, 5), (partition_0[5].timestamp - 1, 5)]:
                found = (await consumer.offsets_for_times({asked: timestamp}))[asked]
                assert (found.offset, found.timestamp) == (expected, partition_0[expected].timestamp), found
            assert (await consumer.offsets_for_times({asked: partition_0[-1].timestamp + 1}))[asked] is None
        finally:
            await consumer.stop()


async def idempotent():
    with suite.step("idempotent"):
        records = compat.record_set("idempotent", base_ms)
        await produce(idempotent_topic, records, enable_idempotence=True)
        compat.compare(records, await consume_all(idempotent_topic, len(records)))
        stored = await asyncio.to_thread(wire.stored, suite.bootstrap, idempotent_topic, PARTITIONS)
        assert -1 not in stored.producer_ids, "stored without a producer id"


async def rebalance():
    """Two members share four partitions; when one leaves the other gets all of them."""
    with suite.step("group.rebalance"):
        one, two = (consumer_of(suite.name("rebalance")) for _ in range(2))

        async def until(what, wanted, *members):
            deadline = Deadline(what)
            while not wanted([len(member.assignment()) for member in members]):
                deadline.check()
                for member in members:
                    await member.getmany(timeout_ms=100)

        await one.start()
        await two.start()
        try:
            one.subscribe([group_topic])
            await until("the first member owns all four", lambda counts: counts == [4], one)
            two.subscribe([group_topic])
            await until("both own partitions", lambda counts: sum(counts) == 4 and all(counts), one, two)
            await two.stop()
            await until("the remaining member owns all four", lambda counts: counts == [4], one)
        finally:
            await two.stop()
            await one.stop()


async def resume(admin):
    with suite.step("group.resume"):
        await produce(resume_topic, [Record(0, None, b"%d" % index, [], base_ms + index) for index in range(100)])
        asked = TopicPartition(resume_topic, 0)
        first = consumer_of(group)
        await first.start()
        first.subscribe([resume_topic])
        position = len(await read(first, 40, at_most=20))
        assert position == 40, position
        await first.commit({asked: OffsetAndMetadata(position, "mark")})
        await first.stop()
        second = consumer_of(group)
        await second.start()
        try:
            second.subscribe([resume_topic])
            rest = await read(second, 100 - position)
            assert [record.value for record in rest] == [b"%d" % index for index in range(position, 100)]
            await second.commit()
            assert await second.committed(asked) == 100
            with suite.step("describe.group"):
                await asyncio.to_thread(compat.whole)
                (answer,) = await admin.describe_consumer_groups([group])
                (described,) = answer.groups
                assert described[0] == 0 and described[2] == "Stable" and len(described[5]) == 1, described
                assert (group, "consumer") in await admin.list_consumer_groups()
                offsets = await admin.list_consumer_group_offsets(group)
                assert offsets[asked].offset == 100, offsets
        finally:
            await second.stop()


async def topic_configs(admin, topic):
    (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    ((error, _message, _type, name, entries),) = answer.resources
    assert (error, name) == (0, topic), answer
    return {entry[0]: entry[1] for entry in entries}


async def main():
    admin = AIOKafkaAdminClient(bootstrap_servers=suite.bootstrap, request_timeout_ms=30000)
    await admin.start()
    with suite.step("create_topic"):
        for codec in CODECS:
            await create(admin, suite.name(codec), PARTITIONS)
        await create(admin, idempotent_topic, PARTITIONS)
        await create(admin, group_topic, 4)
        await create(admin, resume_topic, 1)
    sent = await codecs()
    if not suite.failed("produce.none", "offsets_by_time"):
        await by_time(sent)
    await idempotent()
    await rebalance()
    await resume(admin)

    with suite.step("describe.topic"):
        (described,) = await admin.describe_topics([suite.name("none")])
        assert len(described["partitions"]) == PARTITIONS and described["error_code"] == 0, described
        assert (await admin.describe_cluster())["cluster_id"]
    with suite.step("describe.configs"):
        configs = await topic_configs(admin, suite.name("none"))
        assert configs["retention.ms"] == "-1" and configs["max.message.bytes"] == "1048588", configs
    with suite.step("delete_records"):
        asked = TopicPartition(suite.name("none"), 0)
        assert (await admin.delete_records({asked: aiokafka.admin.RecordsToDelete(3)}))[asked] == 3
    with suite.step("create_partitions"):
        await admin.create_partitions({suite.name("gzip"): NewPartitions(PARTITIONS + 2)}, timeout_ms=30000)
        deadline = Deadline("the added partitions")
        while len((await admin.describe_topics([suite.name("gzip")]))[0]["partitions"]) != PARTITIONS + 2:
            deadline.check()
    with suite.step("delete_topic"):
        names = [suite.name(codec) for codec in CODECS] + [idempotent_topic, group_topic, resume_topic]
        answer = await admin.delete_topics(names, timeout_ms=30000)
        assert all(code == 0 for _, code in answer.topic_error_codes), answer
        deadline = Deadline("the topics are gone")
        while set(names) & set(await admin.list_topics()):
            deadline.check()
    await admin.close()


asyncio.run(main())
suite.finish()
