"""The systems that are compared: Stonelog, and Kafka with its defaults and tuned. Every node of several votes as well."""

import base64
import os
import subprocess

from node import Node
from processes import Failed, run_all
from system import System, common_settings, free_members, voters
from tools import java_tool, path_of

TUNED = {"num.io.threads": "16", "num.network.threads": "4", "num.replica.fetchers": "4"}

# By the number of brokers on the machine; minimum and maximum are equal, as Kafka's users set them.
KAFKA_HEAP_MB = {1: 1024, 3: 768}
# The flags of Kafka's own start script.
KAFKA_FLAGS = [
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
]
LOG4J = """<Configuration status="WARN">
  <Appenders><File name="F" fileName="{path}"><PatternLayout pattern="%d %p %c %m%n"/></File></Appenders>
  <Loggers><Root level="INFO"><AppenderRef ref="F"/></Root></Loggers>
</Configuration>
"""


def kafka_heap(count):
    """The heap of each of `count` brokers, as flags."""
    return [f"-Xms{KAFKA_HEAP_MB[count]}m", f"-Xmx{KAFKA_HEAP_MB[count]}m"]


class Stonelog(System):
    name = "stonelog"
    binary = None

    def __init__(self, place, count=1):
        super().__init__(place, count)
        members = free_members(count)
        self.brokers = ",".join(member.client for member in members)
        self.nodes = [self._node(member, members) for member in members]

    def _node(self, member, members):
        directory = self.directory / str(member.number)
        own = {"listeners": f"PLAINTEXT://{member.client}"}
        if len(members) > 1:
            own = {
                "node.id": member.number,
                "listeners": f"PLAINTEXT://{member.client},CONTROLLER://{member.controller}",
                "controller.listener.names": "CONTROLLER",
                "controller.quorum.voters": voters(members),
            }
        command = [self.binary, "serve", "--data-dir", directory / "data"]
        for key, value in {**own, **common_settings(self.count), **self.settings}.items():
            command += ["--set", f"{key}={value}"]
        return Node(directory, command)

    @classmethod
    def size(cls):
        """Bytes of what is installed."""
        return cls.binary.stat().st_size

    @classmethod
    def version(cls):
        return subprocess.run([cls.binary, "--version"], stdout=subprocess.PIPE, text=True).stdout.strip()


class Kafka(System):
    name = "kafka"

    def __init__(self, place, count=1):
        super().__init__(place, count)
        self.jars = path_of("kafka-broker")
        self.members = free_members(count)
        self.brokers = ",".join(member.client for member in self.members)
        self.nodes = [self._node(member) for member in self.members]
        # A leading dash would be taken for an option.
        cluster = "A" + base64.urlsafe_b64encode(os.urandom(16)).decode()[1:22]
        tool = ["-Xmx128m", "-cp", f"{self.jars}/*", "kafka.tools.StorageTool", "format", "-t", cluster, "-c"]
        run_all([self._java(node.directory) + tool + [self._properties(node.directory)] for node in self.nodes], 60)

    @staticmethod
    def _properties(directory):
        return directory / "server.properties"

    @staticmethod
    def _java(directory):
        return ["java", f"-Dlog4j2.configurationFile={directory / 'log4j2.xml'}"]

    def _node(self, member):
        directory = self.directory / str(member.number)
        directory.mkdir()
        properties = {
            "process.roles": "broker,controller",
            "node.id": member.number,
            "controller.quorum.voters": voters(self.members),
            "listeners": f"PLAINTEXT://{member.client},CONTROLLER://{member.controller}",
            "advertised.listeners": f"PLAINTEXT://{member.client}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": directory / "data",
            **common_settings(self.count),
            **self.settings,
        }
        self._properties(directory).write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        (directory / "log4j2.xml").write_text(LOG4J.format(path=directory / "server.log"))
        jmx = {
            "port": member.jmx_port,
            "rmi.port": member.jmx_port,
            "host": "127.0.0.1",
            "authenticate": "false",
            "ssl": "false",
        }
        flags = [f"-Dcom.sun.management.jmxremote.{key}={value}" for key, value in jmx.items()]
        flags += ["-Djava.rmi.server.hostname=127.0.0.1"]
        main = ["-cp", f"{self.jars}/*", "kafka.Kafka", self._properties(directory)]
        return Node(directory, self._java(directory) + kafka_heap(self.count) + KAFKA_FLAGS + flags + main)

    def flush_counts(self):
        return [flush_count(done.text) for done in run_all([self._ask_flushes(member) for member in self.members], 60)]

    @staticmethod
    def _ask_flushes(member):
        return java_tool(
            "JmxTool",
            "--jmx-url",
            f"service:jmx:rmi:///jndi/rmi://127.0.0.1:{member.jmx_port}/jmxrmi",
            "--object-name",
            "kafka.log:type=LogFlushStats,name=LogFlushRateAndTimeMs",
            "--attributes",
            "Count",
            "--report-format",
            "properties",
            "--one-time",
        )

    @classmethod
    def size(cls):
        """Bytes of what is installed; the Java machine comes on top."""
        return sum(jar.stat().st_size for jar in path_of("kafka-broker").glob("*.jar"))

    @classmethod
    def version(cls):
        jar = next(path_of("kafka-broker").glob("kafka_2.13-*.jar"))
        return f"Apache Kafka {jar.stem.rsplit('-', 1)[1]}"


def flush_count(said):
    """The count in what Kafka's JMX tool says."""
    for line in said.splitlines():
        if line.startswith("kafka.log:") and ":Count=" in line:
            return int(float(line.rsplit("=", 1)[1]))
    raise Failed(f"no flush count in what the JMX tool says:\n{said[-1000:]}")


class KafkaTuned(Kafka):
    name = "kafka-tuned"
    settings = TUNED
