"""The brokers of a run: every system by name, and those that have been started."""

from rocketmq import RocketMqAsync, RocketMqSync
from system import common_settings
from systems import Kafka, KafkaTuned, Stonelog, kafka_heap

SYSTEMS = {system.name: system for system in (Stonelog, Kafka, KafkaTuned, RocketMqSync, RocketMqAsync)}


def settings(count):
    """What `count` brokers of each system are started with, kept with the raw values."""
    return {"common": common_settings(count), "kafka heap": kafka_heap(count)} | {
        name: system.settings for name, system in SYSTEMS.items()
    }


class Fleet:
    """Brokers started when they are first asked for, and ended together."""

    def __init__(self, place):
        self.place = place
        self.systems = {}

    def get(self, name, count):
        """`count` brokers of a system."""
        if (name, count) not in self.systems:
            self.systems[name, count] = system = SYSTEMS[name](self.place, count)
            system.start()
        return self.systems[name, count]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for system in self.systems.values():
            system.close()
