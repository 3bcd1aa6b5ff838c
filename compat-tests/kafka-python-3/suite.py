"""kafka-python 3: every codec, groups, offsets, idempotence and the admin client."""

import time
import uuid

import compat
import kafka
import wire

from compat import PARTITIONS, wait_until
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource
from kafka.errors import KafkaConnectionError
from kafka_python import CODECS, Steps, offset_and_metadata

suite = compat.Suite("kafka-python-3", kafka.__version__)
admin = KafkaAdminClient(bootstrap_servers=suite.bootstrap, request_timeout_ms=30000)
steps = Steps(suite, null_header=False, idempotence=True)
group = suite.name("group")
group_topic = suite.name("grouped")
resume_topic = suite.name("resume")
idempotent_topic = suite.name("idempotent")


def create(topic, partitions):
    options = {"num_partitions": partitions, "replication_factor": compat.NODES, "configs": {"retention.ms": "-1"}}
    admin.create_topics({topic: options}, timeout_ms=30000, wait_for_metadata=True)


def groups(**wanted):
    """The admin client asks every broker it knows, and gives up when one is dead: that one is waited for."""

    def attempt():
        try:
            found = admin.list_groups(**wanted)
        except KafkaConnectionError:
            if compat.NODES == 1:
                raise
            time.sleep(0.1)
            return None
        return [entry["group_id"] for entry in found] or [None]

    return wait_until("every broker lists its groups", attempt)


def describe_group():
    global admin
    if compat.NODES > 1:
        compat.whole()
        # The old one asks the brokers that it saw when it last looked, dead or not, and no others.
        admin = KafkaAdminClient(bootstrap_servers=suite.bootstrap, request_timeout_ms=30000)
    with suite.step("describe.group"):
        described = admin.describe_groups([group])[group]
        assert described["group_state"] == "Stable" and len(described["members"]) == 1, described
        assert group in groups()
        assert group in groups(states_filter=["Stable"])
        assert group not in groups(states_filter=["Empty"])


with suite.step("create_topic"):
    for codec in CODECS:
        create(suite.name(codec), PARTITIONS)
    create(idempotent_topic, PARTITIONS)
    create(group_topic, 4)
    create(resume_topic, 1)

suite.lacks("null_header", "the producer takes bytes only")
steps.codecs()
steps.by_time()

with suite.step("idempotent"):
    records = compat.record_set("idempotent", steps.base_ms, null_header=False)
    steps.produce(idempotent_topic, records, enable_idempotence=True)
    compat.compare(records, steps.consume_all(idempotent_topic, len(records)))
    assert -1 not in wire.stored(suite.bootstrap, idempotent_topic, PARTITIONS).producer_ids

steps.rebalance(group_topic)
steps.resume(resume_topic, group, describe_group)

with suite.step("group.admin_offsets"):
    asked = TopicPartition(resume_topic, 0)
    outcome = admin.alter_group_offsets(group, {asked: offset_and_metadata(7, "")})
    assert [error.__name__ for error in outcome.values()] == ["NoError"], outcome
    assert admin.list_group_offsets(group)[group][asked].offset == 7
    assert admin.delete_groups([group]) == {group: "OK"}
    assert group not in groups()

with suite.step("describe.topic"):
    (described,) = admin.describe_topics([suite.name("none")])
    assert len(described["partitions"]) == PARTITIONS and described["error_code"] == 0
    (by_id,) = admin.describe_topics([uuid.UUID(described["topic_id"])])
    assert by_id["name"] == suite.name("none"), (described["topic_id"], by_id)
    paged = admin.describe_topic_partitions([suite.name("none")])
    assert [len(topic["partitions"]) for topic in paged["topics"]] == [PARTITIONS], paged
    assert admin.describe_cluster()["cluster_id"]

with suite.step("describe.configs"):
    topic = suite.name("none")
    entries = admin.describe_configs([ConfigResource("TOPIC", topic)], config_filter="all")["topic"][topic]
    assert entries["retention.ms"]["value"] == "-1" and entries["max.message.bytes"]["value"] == "1048588"
    admin.alter_configs([ConfigResource("TOPIC", topic, {"segment.bytes": "1048576"})])
    entries = admin.describe_configs([ConfigResource("TOPIC", topic)], config_filter="all")["topic"][topic]
    assert entries["segment.bytes"]["value"] == "1048576" and entries["retention.ms"]["value"] == "-1"

with suite.step("delete_records"):
    asked = TopicPartition(suite.name("none"), 0)
    assert admin.delete_records({asked: 3})[asked]["low_watermark"] == 3

with suite.step("create_partitions"):
    admin.create_partitions({suite.name("gzip"): PARTITIONS + 2}, timeout_ms=30000)
    wait_until(
        "the added partitions",
        lambda: len(admin.describe_topics([suite.name("gzip")])[0]["partitions"]) == PARTITIONS + 2,
    )

with suite.step("delete_topic"):
    names = [suite.name(codec) for codec in CODECS] + [idempotent_topic, group_topic, resume_topic]
    admin.delete_topics(names, timeout_ms=30000)
    wait_until("the topics are gone", lambda: not set(names) & set(admin.list_topics()))

suite.finish()
