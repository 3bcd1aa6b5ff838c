"""kafka-python 2.0.2: the oldest protocol versions that a common client still sends."""

import compat
import kafka

from compat import PARTITIONS, wait_until
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource, NewPartitions, NewTopic
from kafka_python import CODECS, Steps

suite = compat.Suite("kafka-python-2.0.2", kafka.__version__)
admin = KafkaAdminClient(bootstrap_servers=suite.bootstrap, request_timeout_ms=30000)
steps = Steps(suite, null_header=False, idempotence=False)
group = suite.name("group")
group_topic = suite.name("grouped")
resume_topic = suite.name("resume")


def create(topic, partitions):
    admin.create_topics([NewTopic(topic, partitions, compat.NODES, topic_configs={"retention.ms": "-1"})], timeout_ms=30000)


def topic_configs(topic):
    (answer,) = admin.describe_configs([ConfigResource("TOPIC", topic)])
    ((error, _message, _type, name, entries),) = answer.resources
    assert (error, name) == (0, topic), answer
    return {entry[0]: entry[1] for entry in entries}


def describe_group():
    global admin
    if compat.NODES > 1:
        compat.whole()
        # The old one does not ask again when a connection it has turns out to be gone.
        admin = KafkaAdminClient(bootstrap_servers=suite.bootstrap, request_timeout_ms=30000)
    with suite.step("describe.group"):
        (described,) = admin.describe_consumer_groups([group])
        assert described.state == "Stable" and len(described.members) == 1, described
        assert (group, "consumer") in admin.list_consumer_groups()
        offsets = admin.list_consumer_group_offsets(group)
        assert offsets[TopicPartition(resume_topic, 0)].offset == 100, offsets


with suite.step("create_topic"):
    for codec in CODECS:
        create(suite.name(codec), PARTITIONS)
    create(group_topic, 4)
    create(resume_topic, 1)

steps.codecs()
steps.by_time()
suite.lacks("idempotent", "added in kafka-python 2.1")
suite.lacks("null_header", "the producer takes bytes only")
steps.rebalance(group_topic)
steps.resume(resume_topic, group, describe_group)

with suite.step("delete_group"):
    ((name, error),) = admin.delete_consumer_groups([group])
    assert name == group and error.__name__ == "NoError", error
    assert (group, "consumer") not in admin.list_consumer_groups()

with suite.step("describe.topic"):
    (described,) = admin.describe_topics([suite.name("none")])
    assert len(described["partitions"]) == PARTITIONS and described["error_code"] == 0, described
    assert admin.describe_cluster()["cluster_id"]

with suite.step("describe.configs"):
    configs = topic_configs(suite.name("none"))
    assert configs["retention.ms"] == "-1" and configs["max.message.bytes"] == "1048588", configs

with suite.step("alter_configs"):
    # AlterConfigs replaces the whole set: what is not named goes back to its default.
    admin.alter_configs([ConfigResource("TOPIC", suite.name("none"), {"segment.bytes": "1048576"})])
    configs = topic_configs(suite.name("none"))
    assert configs["segment.bytes"] == "1048576" and configs["retention.ms"] != "-1", configs

with suite.step("create_partitions"):
    admin.create_partitions({suite.name("gzip"): NewPartitions(PARTITIONS + 2)}, timeout_ms=30000)
    wait_until(
        "the added partitions",
        lambda: len(admin.describe_topics([suite.name("gzip")])[0]["partitions"]) == PARTITIONS + 2,
    )

with suite.step("delete_topic"):
    names = [suite.name(codec) for codec in CODECS] + [group_topic, resume_topic]
    admin.delete_topics(names, timeout_ms=30000)
    wait_until("the topics are gone", lambda: not set(names) & set(admin.list_topics()))

suite.finish()
