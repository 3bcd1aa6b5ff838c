"""A recording relay: clients connect to it, it forwards every byte, and notes which API versions they really used.

It reads only the eight bytes that start each request (length, API key, version); answers pass unread. It is no broker:
it changes nothing and never answers by itself. The broker must advertise the relay's address.
"""

import asyncio
import struct
import threading

CHUNK_BYTES = 1 << 18

API_NAMES = {
    0: "Produce",
    1: "Fetch",
    2: "ListOffsets",
    3: "Metadata",
    8: "OffsetCommit",
    9: "OffsetFetch",
    10: "FindCoordinator",
    11: "JoinGroup",
    12: "Heartbeat",
    13: "LeaveGroup",
    14: "SyncGroup",
    15: "DescribeGroups",
    16: "ListGroups",
    17: "SaslHandshake",
    18: "ApiVersions",
    19: "CreateTopics",
    20: "DeleteTopics",
    21: "DeleteRecords",
    22: "InitProducerId",
    23: "OffsetForLeaderEpoch",
    24: "AddPartitionsToTxn",
    25: "AddOffsetsToTxn",
    26: "EndTxn",
    28: "TxnOffsetCommit",
    29: "DescribeAcls",
    30: "CreateAcls",
    31: "DeleteAcls",
    32: "DescribeConfigs",
    33: "AlterConfigs",
    34: "AlterReplicaLogDirs",
    35: "DescribeLogDirs",
    36: "SaslAuthenticate",
    37: "CreatePartitions",
    42: "DeleteGroups",
    43: "ElectLeaders",
    44: "IncrementalAlterConfigs",
    45: "AlterPartitionReassignments",
    46: "ListPartitionReassignments",
    47: "OffsetDelete",
    48: "DescribeClientQuotas",
    49: "AlterClientQuotas",
    50: "DescribeUserScramCredentials",
    55: "DescribeQuorum",
    57: "UpdateFeatures",
    60: "DescribeCluster",
    61: "DescribeProducers",
    65: "DescribeTransactions",
    66: "ListTransactions",
    68: "ConsumerGroupHeartbeat",
    69: "ConsumerGroupDescribe",
    71: "GetTelemetrySubscriptions",
    72: "PushTelemetry",
    74: "ListConfigResources",
    75: "DescribeTopicPartitions",
    76: "ShareGroupHeartbeat",
    77: "ShareGroupDescribe",
    78: "ShareFetch",
    79: "ShareAcknowledge",
}


class RequestHeads:
    """Follows one direction of one connection and yields (API key, version) of each request."""

    def __init__(self):
        self._head = bytearray()
        self._skip = 0

    def feed(self, data):
        found = []
        at = 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
                continue
            step = min(8 - len(self._head), len(data) - at)
            self._head += data[at : at + step]
            at += step
            if len(self._head) == 8:
                length, key, version = struct.unpack(">ihh", self._head)
                self._head.clear()
                self._skip = max(length - 4, 0)
                found.append((key, version))
        return found


class Recorder:
    """Listens on a loopback port and relays to `target` once that is set. `take` returns and clears what was seen."""

    def __init__(self, port=0):
        self.target = None
        self.port = port
        self._seen = {}
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._failure = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait(10)
        if self._failure:
            raise self._failure

    def take(self):
        """API name to sorted versions, since the last call."""
        with self._lock:
            seen, self._seen = self._seen, {}
        return {API_NAMES.get(key, str(key)): sorted(versions) for key, versions in sorted(seen.items())}

    def _run(self):
        asyncio.set_event_loop(self._loop)
        try:
            server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port))
        except OSError as problem:
            self._failure = problem
            self._ready.set()
            return
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()

    async def _serve(self, reader, writer):
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.close()
            return
        heads = RequestHeads()
        await asyncio.gather(self._pump(reader, upstream_writer, heads), self._pump(upstream_reader, writer, None))

    async def _pump(self, reader, writer, heads):
        try:
            while data := await reader.read(CHUNK_BYTES):
                if heads:
                    for key, version in heads.feed(data):
                        with self._lock:
                            self._seen.setdefault(key, set()).add(version)
                writer.write(data)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
