"""The brokers that are compared: started in a fresh directory on free loopback ports, stopped by process id.

All get the same machine, user and priority, and the settings of `COMMON`; what differs is named in `settings`, which is
kept with the raw values.
"""

import base64
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid

from pathlib import Path

import machine
from processes import Failed, run, start, stop
from tools import java_tool, path_of, workload

START_SECONDS = 90
# A broker that uses less than this has finished with the load before.
SETTLED_CORES = 0.1

# Kafka's own names; each system gets them all.
COMMON = {
    "num.partitions": "1",
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "5",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "log.segment.delete.delay.ms": "1000",
}
NEVER = str(2**63 - 1)
STRICT = {"flush.messages": "1"}
RELAXED = {"flush.messages": NEVER}
TUNED = {"num.io.threads": "16", "num.network.threads": "4", "num.replica.fetchers": "4"}

# The flags of Kafka's own start script; equal minimum and maximum, as its users set it.
KAFKA_HEAP = ["-Xms1g", "-Xmx1g"]
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


def free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class System:
    """A broker that runs, and what is asked of every one."""

    name = ""
    # What every broker of this kind is started with beyond COMMON, kept with the raw values.
    settings = {}

    def __init__(self, place):
        self.directory = Path(place) / f"{self.name}-{uuid.uuid4().hex[:8]}"
        self.directory.mkdir(parents=True)
        self.log = open(self.directory / "output.log", "ab", buffering=0)
        self.process = None
        self.brokers = ""
        self._topics = 0

    def launch(self):
        """Starts the process and returns at once; a directory that holds data already is taken up again."""
        raise NotImplementedError

    def start(self):
        """Starts and returns when a topic can be made."""
        self.launch()
        self.create_topic(STRICT, 1)
        return self

    def pids(self):
        return [self.process.pid]

    def stop(self, how=signal.SIGTERM):
        return stop(self.process, how)

    def close(self):
        """Stops and removes everything."""
        if self.process:
            self.stop(signal.SIGKILL)
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def create_topic(self, config, partitions):
        """A fresh topic; returns its name and the seconds it took, the client's start included."""
        self._topics += 1
        topic = f"{self.name}-{self._topics}"
        settings = ",".join(f"{key}={value}" for key, value in {**config, "retention.ms": "-1"}.items())
        begin = time.monotonic()
        try:
            report, _ = workload(
                "create",
                self.brokers,
                START_SECONDS + 30,
                topic=topic,
                partitions=partitions,
                configs=settings,
                limit=f"{START_SECONDS}s",
            )
        except Failed as failure:
            raise Failed(f"{failure}\n{self.tail()}") from None
        return topic, report.get("seconds", time.monotonic() - begin)

    def delete_topic(self, topic):
        workload("delete", self.brokers, 90, topic=topic)

    def tail(self):
        text = b""
        for path in (self.directory / "output.log", self.directory / "server.log"):
            if path.exists():
                text += path.read_bytes()[-2000:]
        return f"{self.name} said last:\n{text.decode(errors='replace')}"

    def one_in_flight(self, topic, producers, partitions, record_bytes, seconds, warm_seconds, acks):
        """Producers with one record in flight each, through franz-go; the report and the `Finished`."""
        return workload(
            "one-in-flight",
            self.brokers,
            seconds + warm_seconds + 90,
            topic=topic,
            partitions=partitions,
            producers=producers,
            bytes=record_bytes,
            acks=acks,
            warm=f"{warm_seconds}s",
            counted=f"{seconds}s",
        )

    def alive(self):
        return self.process.poll() is None

    def cpu_seconds(self):
        return sum(machine.cpu_seconds(pid) for pid in self.pids())

    def device_read_bytes(self):
        return sum(machine.device_read_bytes(pid) for pid in self.pids())

    def memory(self):
        parts = [machine.memory(pid) for pid in self.pids()]
        return {key: round(sum(part[key] for part in parts), 1) for key in parts[0]}

    def settle(self, limit_seconds):
        """Waits until the broker has nothing left to do from the load before."""
        limit = time.monotonic() + limit_seconds
        while time.monotonic() < limit:
            begin, used = time.monotonic(), self.cpu_seconds()
            time.sleep(0.5)
            if (self.cpu_seconds() - used) / (time.monotonic() - begin) < SETTLED_CORES:
                return

    def flush_count(self):
        """Flushes of logs by the broker's own account; None where it keeps none."""
        return None


class Stonelog(System):
    name = "stonelog"
    binary = None

    def __init__(self, place):
        super().__init__(place)
        self.port = free_ports(1)[0]
        self.brokers = f"127.0.0.1:{self.port}"

    def launch(self):
        command = [self.binary, "serve", "--data-dir", self.directory / "data"]
        for key, value in {"listeners": f"PLAINTEXT://{self.brokers}", **COMMON, **self.settings}.items():
            command += ["--set", f"{key}={value}"]
        self.process = start(command, self.log)

    @classmethod
    def size(cls):
        """Bytes of what is installed."""
        return cls.binary.stat().st_size

    @classmethod
    def version(cls):
        return subprocess.run([cls.binary, "--version"], stdout=subprocess.PIPE, text=True).stdout.strip()


class Kafka(System):
    name = "kafka"

    def __init__(self, place):
        super().__init__(place)
        self.jars = path_of("kafka-broker")
        self.port, controller, self.jmx_port = free_ports(3)
        self.brokers = f"127.0.0.1:{self.port}"
        properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://{self.brokers},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.brokers}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": self.directory / "data",
            **COMMON,
            **self.settings,
        }
        self.properties = self.directory / "server.properties"
        self.properties.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        log4j = self.directory / "log4j2.xml"
        log4j.write_text(LOG4J.format(path=self.directory / "server.log"))
        self.java = ["java", f"-Dlog4j2.configurationFile={log4j}"]
        # A leading dash would be taken for an option.
        cluster = "A" + base64.urlsafe_b64encode(os.urandom(16)).decode()[1:22]
        format_ = self.java + ["-Xmx128m", "-cp", f"{self.jars}/*", "kafka.tools.StorageTool", "format"]
        run(format_ + ["-t", cluster, "-c", self.properties], 60)

    def launch(self):
        jmx = {
            "port": self.jmx_port,
            "rmi.port": self.jmx_port,
            "host": "127.0.0.1",
            "authenticate": "false",
            "ssl": "false",
        }
        flags = [f"-Dcom.sun.management.jmxremote.{key}={value}" for key, value in jmx.items()]
        flags += ["-Djava.rmi.server.hostname=127.0.0.1"]
        command = self.java + KAFKA_HEAP + KAFKA_FLAGS + flags + ["-cp", f"{self.jars}/*", "kafka.Kafka", self.properties]
        self.process = start(command, self.log)

    def flush_count(self):
        done = run(
            java_tool(
                "JmxTool",
                "--jmx-url",
                f"service:jmx:rmi:///jndi/rmi://127.0.0.1:{self.jmx_port}/jmxrmi",
                "--object-name",
                "kafka.log:type=LogFlushStats,name=LogFlushRateAndTimeMs",
                "--attributes",
                "Count",
                "--report-format",
                "properties",
                "--one-time",
            ),
            60,
        )
        for line in done.text.splitlines():
            if line.startswith("kafka.log:") and ":Count=" in line:
                return int(float(line.rsplit("=", 1)[1]))
        raise Failed(f"no flush count in what the JMX tool says:\n{done.text[-1000:]}")

    @classmethod
    def size(cls):
        """Bytes of what is installed; the Java machine comes on top."""
        return sum(jar.stat().st_size for jar in path_of("kafka-broker").glob("*.jar"))

    @classmethod
    def version(cls):
        jar = next(path_of("kafka-broker").glob("kafka_2.13-*.jar"))
        return f"Apache Kafka {jar.stem.rsplit('-', 1)[1]}"


class KafkaTuned(Kafka):
    name = "kafka-tuned"
    settings = TUNED
