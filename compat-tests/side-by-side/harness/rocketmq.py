"""Apache RocketMQ: another protocol and its own client, but it groups commits, so it is the peer to beat on small records.

A name server and a broker make one system. Flushing is a setting of the whole broker there, hence two systems.
"""

import json
import os

from node import Node
from processes import run
from system import System, free_ports
from systems import KAFKA_FLAGS
from tools import CLIENT_HEAP, path_of

HEAP = ["-Xms1g", "-Xmx1g"]
SENDER_SECONDS_MAX = 120


class RocketMq(System):
    """Always one broker."""

    def __init__(self, place, count=1):
        super().__init__(place, count)
        self.home = path_of("rocketmq")
        # The broker takes the port two below its own as well, and one for its replicas.
        names, port, replicas = free_ports(3)
        self.brokers = f"127.0.0.1:{names}"
        broker = {
            "brokerClusterName": "side-by-side",
            "brokerName": "a",
            "brokerId": "0",
            "brokerRole": "ASYNC_MASTER",
            "brokerIP1": "127.0.0.1",
            "bindAddress": "127.0.0.1",
            "listenPort": port,
            "haListenPort": replicas,
            "namesrvAddr": self.brokers,
            "storePathRootDir": self.directory / "data",
            "storePathCommitLog": self.directory / "data" / "commitlog",
            "autoCreateTopicEnable": "true",
            # Its default is three quarters of the disk, whoever filled it.
            "diskMaxUsedSpaceRatio": "95",
            **self.settings,
        }
        self.nodes = [
            self._node("namesrv.NamesrvStartup", ["-Xmx256m"], {"listenPort": names, "bindAddress": "127.0.0.1"}),
            self._node("broker.BrokerStartup", HEAP, broker),
        ]

    def _node(self, main, heap, properties):
        directory = self.directory / main.split(".")[0]
        path = directory.with_suffix(".properties")
        path.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        # Both write their logs below the user's home.
        command = ["java", f"-Duser.home={self.directory}", *KAFKA_FLAGS, *heap, "-cp", f"{self.home}/jars/*"]
        environment = dict(os.environ, ROCKETMQ_HOME=str(self.directory))
        return Node(directory, command + [f"org.apache.rocketmq.{main}", "-c", path], environment)

    def _sender(self, *arguments):
        command = ["java", CLIENT_HEAP, f"-Duser.home={self.directory}", "-cp", f"{self.home}/classes:{self.home}/jars/*"]
        done = run(command + ["Sender", self.brokers, *arguments], SENDER_SECONDS_MAX)
        return json.loads(done.text.strip().split("\n")[-1]), done

    def create_topic(self, config, partitions):
        """One queue; the brokers' own setting says how it is flushed."""
        self._topics += 1
        topic = f"{self.name}-{self._topics}"
        self._sender(topic, 0)
        return topic, 0

    def delete_topic(self, topic):
        """All topics share one log; it goes when the broker is closed."""

    def one_in_flight(self, topic, producers, partitions, record_bytes, seconds, warm_seconds, acks):
        return self._sender(topic, producers, record_bytes, warm_seconds, seconds)

    @classmethod
    def size(cls):
        """Bytes of what is installed; the Java machine comes on top."""
        return sum(jar.stat().st_size for jar in (path_of("rocketmq") / "jars").glob("*.jar"))

    @classmethod
    def version(cls):
        jar = next((path_of("rocketmq") / "jars").glob("rocketmq-broker-*.jar"))
        return f"Apache RocketMQ {jar.stem.rsplit('-', 1)[1]}"


class RocketMqSync(RocketMq):
    name = "rocketmq-sync"
    settings = {"flushDiskType": "SYNC_FLUSH"}


class RocketMqAsync(RocketMq):
    name = "rocketmq-async"
    settings = {"flushDiskType": "ASYNC_FLUSH"}
