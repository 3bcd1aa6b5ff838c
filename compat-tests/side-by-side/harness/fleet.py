"""The brokers of a run: every system by name, and those that have been started."""

from rocketmq import RocketMqAsync, RocketMqSync
from systems import Kafka, KafkaTuned, Stonelog

SYSTEMS = {system.name: system for system in (Stonelog, Kafka, KafkaTuned, RocketMqSync, RocketMqAsync)}


class Fleet:
    """Brokers started when they are first asked for, and ended together."""

    def __init__(self, place):
        self.place = place
        self.systems = {}

    def get(self, name):
        if name not in self.systems:
            self.systems[name] = system = SYSTEMS[name](self.place)
            system.start()
        return self.systems[name]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for system in self.systems.values():
            system.close()
