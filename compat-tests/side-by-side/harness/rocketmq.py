"""Apache RocketMQ: another protocol and its own client, but it groups commits, so it is the peer to beat on small records.

A name server and a broker make one system. Flushing is a setting of the whole broker there, hence two systems.
"""

import json
import os

from processes import run, start, stop
from systems import KAFKA_FLAGS, System, free_ports
from tools import CLIENT_HEAP, path_of

HEAP = ["-Xms1g", "-Xmx1g"]
SENDER_SECONDS_MAX = 120


class RocketMq(System):
    def __init__(self, place):
        super().__init__(place)
        self.home = path_of("rocketmq")
        # The broker takes the port two below its own as well, and one for its replicas.
        names, self.port, replicas = free_ports(3)
        self.brokers = f"127.0.0.1:{names}"
        self.names_properties = self.directory / "namesrv.properties"
        self.names_properties.write_text(f"listenPort={names}\nbindAddress=127.0.0.1\n")
        properties = {
            "brokerClusterName": "side-by-side",
            "brokerName": "a",
            "brokerId": "0",
            "brokerRole": "ASYNC_MASTER",
            "brokerIP1": "127.0.0.1",
            "bindAddress": "127.0.0.1",
            "listenPort": self.port,
            "haListenPort": replicas,
            "namesrvAddr": self.brokers,
            "storePathRootDir": self.directory / "data",
            "storePathCommitLog": self.directory / "data" / "commitlog",
            "autoCreateTopicEnable": "true",
            # Its default is three quarters of the disk, whoever filled it.
            "diskMaxUsedSpaceRatio": "95",
            **self.settings,
        }
        self.properties = self.directory / "broker.properties"
        self.properties.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        self.names = None

    def launch(self):
        jars = f"{self.home}/jars/*"
        # Both write their logs below the user's home.
        java = ["java", f"-Duser.home={self.directory}", *KAFKA_FLAGS]
        environment = dict(os.environ, ROCKETMQ_HOME=str(self.directory))
        main = "org.apache.rocketmq.namesrv.NamesrvStartup"
        self.names = start([*java, "-Xmx256m", "-cp", jars, main, "-c", self.names_properties], self.log, env=environment)
        main = "org.apache.rocketmq.broker.BrokerStartup"
        self.process = start([*java, *HEAP, "-cp", jars, main, "-c", self.properties], self.log, env=environment)

    def pids(self):
        return [self.process.pid, self.names.pid]

    def close(self):
        if self.names:
            stop(self.names)
        super().close()

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
