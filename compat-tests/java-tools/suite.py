"""The command-line tools of Apache Kafka's kafka-tools artifact, each run as its own process, as a user would."""

import base64
import glob
import json
import os
import random
import re
import shutil
import subprocess
import tempfile
import time

import compat
import wire

from compat import PARTITIONS, Deadline, wait_until

JARS = os.path.join(os.environ["CACHE"], "jars")
(version,) = (
    re.search(r"kafka-tools-(\d.*)\.jar", path).group(1) for path in glob.glob(f"{JARS}/kafka-tools-[0-9]*.jar")
)
suite = compat.Suite("java-tools", version)
JAVA = ["java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xlog:disable"]
JAVA += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{JARS}/*"]
TOOLS = "org.apache.kafka.tools"
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
LARGE_CHARACTERS = 1_000_000

group = suite.name("group")
group_topic = suite.name("grouped")
resume_topic = suite.name("resume")
verify_topic = suite.name("verify")
scratch = tempfile.TemporaryDirectory(prefix="stonelog-compat-tools-")


def share_classes():
    """Writes the classes of one tool's run into an archive that halves the start of the others; left out if it fails."""
    archive = os.path.join(os.environ["CACHE"], "tools.jsa")
    if not os.path.exists(archive):
        command = [f"{TOOLS}.TopicCommand", "--bootstrap-server", suite.bootstrap, "--list"]
        subprocess.run(
            JAVA[:1] + [f"-XX:ArchiveClassesAtExit={archive}"] + JAVA[1:] + command,
            capture_output=True,
            timeout=compat.STEP_SECONDS,
        )
    if os.path.exists(archive):
        JAVA.insert(1, f"-XX:SharedArchiveFile={archive}")


def tool(name, *arguments, given=None, code=0, seconds=compat.STEP_SECONDS):
    """Runs one tool to its end and returns its standard output; any other exit code than `code` is a failure."""
    main = name if name.startswith("kafka.") else f"{TOOLS}.{name}"
    command = JAVA + [main, "--bootstrap-server", suite.bootstrap, *arguments]
    done = subprocess.run(command, input=given, capture_output=True, timeout=seconds)
    output = done.stdout.decode()
    if done.returncode != code:
        raise AssertionError(f"{name} ended with {done.returncode}: {output[-300:]} {done.stderr.decode()[-700:]}")
    return output


class Background:
    """A tool that goes on until it is told to stop; it prints one JSON event per line."""

    def __init__(self, name, *arguments):
        self.path = os.path.join(scratch.name, f"{name}-{random.randrange(1 << 30)}")
        self._output = open(self.path, "wb")
        self.process = subprocess.Popen(
            JAVA + [f"{TOOLS}.{name}", "--bootstrap-server", suite.bootstrap, *arguments],
            stdout=self._output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )

    def events(self):
        """All events so far; the last line may still be in the making."""
        with open(self.path, "rb") as output:
            lines = output.read().split(b"\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith(b"{")]

    def owned(self, topic_name):
        """The partitions of `topic_name` after the last assignment event."""
        owned = set()
        for event in self.events():
            partitions = {
                one["partition"]
                for one in event.get("partitions", [])
                if isinstance(one, dict) and one["topic"] == topic_name
            }
            if event["name"] == "partitions_assigned":
                owned |= partitions
            elif event["name"] == "partitions_revoked":
                owned -= partitions
        return owned

    def wait_for(self, what, condition):
        def attempt():
            if condition():
                return True
            if self.process.poll() is not None and not condition():
                with open(self.path, "rb") as output:
                    raise AssertionError(
                        f"the tool ended with {self.process.returncode}: "
                        + output.read()[-600:].decode(errors="replace")
                    )
            time.sleep(0.05)
            return False

        wait_until(what, attempt)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def create(name, partitions):
    tool(
        "TopicCommand",
        "--create",
        "--topic",
        name,
        "--partitions",
        str(partitions),
        "--replication-factor",
        str(compat.NODES),
        "--config",
        "retention.ms=-1",
    )


def lines_for(codec):
    """(headers, key, value) as the console tools write them; NIL is null."""
    noise = random.Random(codec).randbytes(LARGE_CHARACTERS * 3 // 4)
    rows = [
        ("trace:1", "key", "value"),
        ("NIL", "NIL", "null key"),
        ("NIL", "null value", "NIL"),
        ("NIL", "empty value", ""),
        ("NIL", "", "empty key"),
        ("a:1,a:2,empty:", "headers", "many"),
        ("ü:✓", "schlüssel-鍵", "wert-値-🪨"),
        ("NIL", "large", base64.b64encode(noise).decode()),
    ]
    return rows + [("NIL", f"key-{index % 7}", f"value-{index:06d} " + "compressible " * 8) for index in range(120)]


def produce(name, rows, *arguments):
    given = "".join("\t".join(row) + "\n" for row in rows).encode()
    tool(
        "ConsoleProducer",
        "--topic",
        name,
        "--reader-property",
        "parse.key=true",
        "--reader-property",
        "parse.headers=true",
        "--reader-property",
        "null.marker=NIL",
        "--command-property",
        "linger.ms=20",
        *arguments,
        given=given,
    )


def consume(name, count, *arguments):
    """Rows as (partition, headers, key, value)."""
    output = tool(
        "consumer.ConsoleConsumer",
        "--topic",
        name,
        "--max-messages",
        str(count),
        "--timeout-ms",
        "30000",
        *(
            part
            for setting in ["print.partition=true", "print.headers=true", "print.key=true", "null.literal=NIL"]
            for part in ("--formatter-property", setting)
        ),
        *arguments,
    )
    rows = []
    for line in output.splitlines():
        partition, headers, key, value = line.split("\t")
        rows.append(
            (int(partition.removeprefix("Partition:")), "NIL" if headers == "NO_HEADERS" else headers, key, value)
        )
    return rows


def compare(sent, received):
    """Each record once, and within a partition in the order it was sent."""
    numbered = {row: index for index, row in enumerate(sent)}
    assert len(received) == len(sent), f"sent {len(sent)} records, received {len(received)}"
    last = {}
    for partition, *row in received:
        index = numbered.pop(tuple(row), None)
        assert index is not None, f"changed or twice: {[text[:60] for text in row]}"
        assert index > last.get(partition, -1), f"out of order in partition {partition}: record {index}"
        last[partition] = index


def dump(files):
    """What Kafka's own DumpLogSegments reads in copies of `.log` files: for each, its batch and record lines as matches.

    Copies, since that tool does not expect a file to grow under it.
    """
    copies = {}
    for number, path in enumerate(files):
        folder = os.path.join(scratch.name, f"dump-{number}")
        os.makedirs(folder, exist_ok=True)
        copies[shutil.copy(path, folder)] = path
    command = JAVA[:1] + ["-Dfile.encoding=UTF-8", "-Dsun.stdout.encoding=UTF-8"] + JAVA[1:]
    command += [f"{TOOLS}.DumpLogSegments", "--files", ",".join(copies), "--deep-iteration", "--print-data-log"]
    done = subprocess.run(command, capture_output=True, timeout=compat.STEP_SECONDS)
    output = done.stdout.decode()
    assert done.returncode == 0, f"{output[-300:]} {done.stderr.decode()[-700:]}"
    dumped = {}
    for section in re.split(r"^Dumping ", output, flags=re.MULTILINE)[1:]:
        copy, *lines = section.split("\n")
        batches = [DUMPED_BATCH.match(line) for line in lines if line.startswith("baseOffset: ")]
        records = [DUMPED_RECORD.match(line) for line in lines if line.startswith("| offset: ")]
        assert None not in batches and None not in records, lines[:9]
        dumped[copies[copy]] = batches, records
    assert set(dumped) == set(files), output[:600]
    return dumped


DUMPED_BATCH = re.compile(
    r"baseOffset: (?P<base>\d+) lastOffset: (?P<last>\d+) count: (?P<count>\d+) .* position: (?P<position>\d+) "
    r".* size: (?P<size>\d+) magic: 2 compresscodec: (?P<codec>\w+) crc: \d+ isvalid: (?P<valid>\w+)"
)
DUMPED_RECORD = re.compile(
    r"\| offset: (?P<offset>\d+) .*?keySize: (?P<key_size>-?\d+) valueSize: (?P<value_size>-?\d+) .*?"
    r"headerKeys: \[(?P<headers>.*?)\](?: key: (?P<key>.*?))?(?: payload: (?P<value>.*))?$"
)


def rows_of_partition(segments):
    """The records of one partition as (header keys, key, value), after checking what its batches say of them."""
    rows, next_offset = [], 0
    for batches, records in segments:
        position = 0
        for batch in batches:
            assert batch["valid"] == "true", batch[0]
            assert (int(batch["base"]), int(batch["position"])) == (next_offset, position), batch[0]
            next_offset = int(batch["last"]) + 1
            position += int(batch["size"])
        assert sum(int(batch["count"]) for batch in batches) == len(records)
        assert [int(record["offset"]) for record in records] == list(range(len(rows), next_offset))
        for record in records:
            key = "NIL" if record["key_size"] == "-1" else record["key"]
            value = "NIL" if record["value_size"] == "-1" else record["value"]
            rows.append((record["headers"], key, value))
    return rows


share_classes()

with suite.step("create_topic"):
    for codec in CODECS:
        create(suite.name(codec), PARTITIONS)
    create(group_topic, 4)
    create(resume_topic, 1)
    create(verify_topic, PARTITIONS)
    answer = tool("TopicCommand", "--create", "--topic", group_topic, "--partitions", "1", code=1)
    assert "TopicExistsException" in answer or "already exists" in answer, answer

for codec in CODECS:
    rows = lines_for(codec)
    with suite.step(f"produce.{codec}"):
        produce(suite.name(codec), rows, "--compression-codec", codec)
        stored = wire.stored(suite.bootstrap, suite.name(codec), PARTITIONS)
        assert codec in stored.codecs and stored.codecs <= {
            codec,
            "none",
        }, f"asked for {codec}, stored as {stored.codecs}"
    if suite.failed(f"produce.{codec}", f"consume.{codec}"):
        continue
    with suite.step(f"consume.{codec}"):
        compare(rows, consume(suite.name(codec), len(rows), "--from-beginning"))
suite.lacks("timestamps", "the console producer cannot set them")

with suite.step("idempotent"):
    assert (
        -1 not in wire.stored(suite.bootstrap, suite.name("none"), PARTITIONS).producer_ids
    ), "the console producer's default"

with suite.step("offsets_by_time"):
    name = suite.name("none")

    def ends(time_spec):
        output = tool("GetOffsetShell", "--topic", name, "--time", time_spec)
        return sum(int(line.rsplit(":", 1)[1] or 0) for line in output.split())

    total = len(lines_for("none"))
    assert (ends("earliest"), ends("latest")) == (0, total), (ends("earliest"), ends("latest"))
    assert ends("1") == 0, "by a time before all records"
    assert 0 < ends("max-timestamp") <= total - PARTITIONS

with suite.step("verifiable"):
    count = 2000
    producer = Background(
        "VerifiableProducer",
        "--topic",
        verify_topic,
        "--max-messages",
        str(count),
        "--acks",
        "-1",
        "--throughput",
        "-1",
    )
    try:
        producer.wait_for(
            "the producer's last acknowledgement",
            lambda: any(event["name"] == "tool_data" for event in producer.events()),
        )
        acknowledged = [event for event in producer.events() if event["name"] == "producer_send_success"]
        assert len(acknowledged) == count, f"{len(acknowledged)} of {count} acknowledged"
    finally:
        producer.stop()
    consumer = Background(
        "VerifiableConsumer",
        "--topic",
        verify_topic,
        "--group-id",
        suite.name("verifier"),
        "--max-messages",
        str(count),
        "--reset-policy",
        "earliest",
    )
    try:

        def consumed():
            return sum(event["count"] for event in consumer.events() if event["name"] == "records_consumed")

        consumer.wait_for("the consumer's last record", lambda: consumed() >= count)
        consumer.wait_for(
            "its commit",
            lambda: any(event["name"] == "offsets_committed" and event["success"] for event in consumer.events()),
        )
        assert consumed() == count
    finally:
        consumer.stop()

with suite.step("group.rebalance"):
    arguments = ["--topic", group_topic, "--group-id", suite.name("rebalance"), "--session-timeout", "10000"]
    one, two = Background("VerifiableConsumer", *arguments), Background("VerifiableConsumer", *arguments)
    try:
        one.wait_for(
            "both members own two partitions",
            lambda: [len(one.owned(group_topic)), len(two.owned(group_topic))] == [2, 2],
        )
        two.stop()
        one.wait_for("the remaining member owns all four", lambda: len(one.owned(group_topic)) == 4)
        with suite.step("describe.group"):
            described = tool(
                "consumer.group.ConsumerGroupCommand", "--describe", "--state", "--group", suite.name("rebalance")
            )
            assert "Stable" in described, described
            members = tool(
                "consumer.group.ConsumerGroupCommand",
                "--describe",
                "--members",
                "--verbose",
                "--group",
                suite.name("rebalance"),
            )
            assert sum(suite.name("rebalance") in line for line in members.splitlines()) == 1, members
            assert suite.name("rebalance") in tool("consumer.group.ConsumerGroupCommand", "--list").split()
            assert suite.name("rebalance") in tool("GroupsCommand", "--list")
    finally:
        one.stop()
        two.stop()

with suite.step("group.resume"):
    produce(resume_topic, [("NIL", "NIL", str(index)) for index in range(100)])
    first = consume(resume_topic, 40, "--group", group, "--from-beginning")
    second = consume(resume_topic, 60, "--group", group)
    assert [row[3] for row in first + second] == [str(index) for index in range(100)], "gap or overlap"

with suite.step("group.admin_offsets"):
    command = "consumer.group.ConsumerGroupCommand"

    def described_offset():
        output = tool(command, "--describe", "--offsets", "--group", group)
        (line,) = (line.split() for line in output.splitlines() if resume_topic in line.split())
        return line[3:6]

    assert described_offset() == ["100", "100", "0"], described_offset()
    tool(command, "--reset-offsets", "--to-offset", "7", "--topic", resume_topic, "--group", group, "--execute")
    assert described_offset() == ["7", "100", "93"], described_offset()
    tool(command, "--delete-offsets", "--topic", resume_topic, "--group", group)
    # With its last offset and last member gone, the group may be gone too.
    if group in tool(command, "--list").split():
        tool(command, "--delete", "--group", group)

with suite.step("describe.topic"):
    described = tool("TopicCommand", "--describe", "--topic", suite.name("none"))
    assert f"PartitionCount: {PARTITIONS}" in described and "retention.ms=-1" in described, described
    assert suite.name("none") in tool("TopicCommand", "--list").split()

with suite.step("describe.configs"):
    entity = ["--entity-type", "topics", "--entity-name", suite.name("none")]
    assert "retention.ms=-1" in tool("kafka.admin.ConfigCommand", "--describe", *entity)
    assert "max.message.bytes=1048588" in tool("kafka.admin.ConfigCommand", "--describe", "--all", *entity)
    tool("kafka.admin.ConfigCommand", "--alter", "--add-config", "segment.bytes=1048576", *entity)
    described = tool("kafka.admin.ConfigCommand", "--describe", *entity)
    assert "segment.bytes=1048576" in described and "retention.ms=-1" in described, described
    tool("kafka.admin.ConfigCommand", "--alter", "--delete-config", "segment.bytes", *entity)
    assert "segment.bytes=1048576" not in tool("kafka.admin.ConfigCommand", "--describe", *entity)

with suite.step("describe.broker"):
    versions = tool("BrokerApiVersionsCommand")
    for api in ["Produce", "Fetch", "JoinGroup", "CreateTopics"]:
        assert re.search(rf"{api}\(\d+\): \d", versions), versions[-600:]
    (broker_id,) = re.findall(r"\(id: (\d+) ", versions)
    configs = tool(
        "kafka.admin.ConfigCommand", "--describe", "--all", "--entity-type", "brokers", "--entity-name", broker_id
    )
    assert "log.retention" in configs, configs[-300:]

with suite.step("describe.log_dirs"):
    output = tool("LogDirsCommand", "--describe", "--topic-list", suite.name("none"))
    (line,) = (line for line in output.splitlines() if line.startswith("{"))
    replicas = [
        replica for broker in json.loads(line)["brokers"] for one in broker["logDirs"] for replica in one["partitions"]
    ]
    assert len(replicas) == PARTITIONS and sum(replica["size"] for replica in replicas) > LARGE_CHARACTERS, replicas

with suite.step("dump_log"):
    output = tool("LogDirsCommand", "--describe", "--topic-list", suite.name("none"))
    (line,) = (line for line in output.splitlines() if line.startswith("{"))
    directories = [one["logDir"] for broker in json.loads(line)["brokers"] for one in broker["logDirs"]]
    described = tool("TopicCommand", "--describe", "--topic", "|".join(re.escape(suite.name(codec)) for codec in CODECS))
    topic_ids = dict(re.findall(r"Topic: (\S+)\s+TopicId: (\S+)", described))

    def segments_of(codec, partition):
        # Ours is named by the topic's id; a directory of Kafka's by the topic.
        names = [f"{topic_ids[suite.name(codec)]}-{partition}", f"{suite.name(codec)}-{partition}"]
        return sorted(path for top in directories for name in names for path in glob.glob(f"{top}/{name}/*.log"))

    def all_dumped():
        """Whether segments hold every record: batches are written there some seconds after they are durable."""
        places = [(codec, partition) for codec in CODECS for partition in range(PARTITIONS)]
        dumped = dump([path for place in places for path in segments_of(*place)])
        complete = True
        for codec in CODECS:
            rows = [(",".join(re.findall(r"([^:,]+):", marks)), key, value) for marks, key, value in lines_for(codec)]
            numbered = {row: index for index, row in enumerate(rows)}
            seen, codecs = [], set()
            for partition in range(PARTITIONS):
                segments = [dumped[path] for path in segments_of(codec, partition) if path in dumped]
                found = [numbered.get(row) for row in rows_of_partition(segments)]
                assert None not in found and found == sorted(found), f"{codec}, {partition}: changed or out of order"
                seen += found
                codecs |= {batch["codec"] for batches, _ in segments for batch in batches}
            assert len(set(seen)) == len(seen), f"{codec}: a record twice"
            assert codecs <= {codec, "none"}, f"{codec}: {codecs}"
            complete = complete and len(seen) == len(rows) and codec in codecs
        return complete

    wait_until("segments with every record", all_dumped)

with suite.step("delete_records"):
    path = os.path.join(scratch.name, "offsets.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"version": 1, "partitions": [{"topic": resume_topic, "partition": 0, "offset": 3}]}, file)
    tool("DeleteRecordsCommand", "--offset-json-file", path)
    assert tool("GetOffsetShell", "--topic", resume_topic, "--time", "earliest").strip() == f"{resume_topic}:0:3"

with suite.step("create_partitions"):
    tool("TopicCommand", "--alter", "--topic", suite.name("gzip"), "--partitions", str(PARTITIONS + 2))
    deadline = Deadline("the added partitions")
    while f"PartitionCount: {PARTITIONS + 2}" not in tool("TopicCommand", "--describe", "--topic", suite.name("gzip")):
        deadline.check()

with suite.step("delete_topic"):
    names = [suite.name(codec) for codec in CODECS] + [group_topic, resume_topic, verify_topic]
    tool("TopicCommand", "--delete", "--topic", "|".join(map(re.escape, names)))
    deadline = Deadline("the topics are gone")
    while set(names) & set(tool("TopicCommand", "--list").split()):
        deadline.check()

scratch.cleanup()
suite.finish()
