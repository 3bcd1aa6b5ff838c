"""Reads the codecs of the batches a topic holds, with a hand-written Fetch v4 on a plain socket.

Some clients silently send uncompressed when they misread the broker's ApiVersions. Consuming the records cannot show
that, so the suites look at the stored batches themselves. Not a client: it knows this one request and nothing else.
"""

import os
import socket
import struct
import sys
import time

CODECS = {0: "none", 1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
SOCKET_SECONDS = 10
# How long a partition may be without a leader when there are several brokers.
LEADER_SECONDS = 20
BATCH_HEADER_BYTES = 61


def fetch(host, port, topic, partition, offset):
    """The record bytes of one Fetch v4 from `offset`, as stored (a partial batch may end them)."""
    name = topic.encode()
    body = struct.pack(">hhih", 1, 4, 1, 6) + b"compat"
    body += struct.pack(">iiiib", -1, 500, 1, 4 << 20, 0)
    body += struct.pack(">ih", 1, len(name)) + name
    body += struct.pack(">iiqi", 1, partition, offset, 4 << 20)
    with socket.create_connection((host, port), SOCKET_SECONDS) as connection:
        connection.settimeout(SOCKET_SECONDS)
        connection.sendall(struct.pack(">i", len(body)) + body)
        (size,) = struct.unpack(">i", _exactly(connection, 4))
        answer = _exactly(connection, size)
    # correlation id, throttle, topic count, name, partition count, index, error, high watermark, last stable offset
    at = 4 + 4 + 4 + 2 + len(name) + 4 + 4
    error, high_watermark, _last_stable = struct.unpack_from(">hqq", answer, at)
    if error:
        raise RuntimeError(f"Fetch of {topic}/{partition} answered error {error}")
    at += 18
    (aborted,) = struct.unpack_from(">i", answer, at)
    at += 4 + 16 * max(aborted, 0)
    (length,) = struct.unpack_from(">i", answer, at)
    return high_watermark, answer[at + 4 : at + 4 + max(length, 0)]


def fetch_from_leader(addresses, topic, partition, offset):
    """The same from whichever broker leads the partition; one that is gone, or does not lead, is passed over."""
    limit = time.monotonic() + LEADER_SECONDS
    while True:
        for address in addresses:
            host, port = address.rsplit(":", 1)
            try:
                return fetch(host, int(port), topic, partition, offset)
            except (OSError, RuntimeError) as found:
                problem = found
        if len(addresses) == 1 or time.monotonic() > limit:
            raise problem
        time.sleep(0.1)


def _exactly(connection, count):
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            raise RuntimeError("the broker closed the connection")
        parts += part
    return bytes(parts)


class Stored:
    """What the batches of a topic say: the codec names, and the producer ids (-1 is not idempotent)."""

    def __init__(self):
        self.codecs = set()
        self.producer_ids = set()


def stored(bootstrap, topic, partitions):
    """Reads every batch of every partition; past the runner's relay, so that this is not counted as the client's."""
    addresses = os.environ.get("BOOTSTRAP_DIRECT", bootstrap).split(",")
    found = Stored()
    for partition in range(partitions):
        offset = 0
        while True:
            high_watermark, data = fetch_from_leader(addresses, topic, partition, offset)
            at = 0
            while at + BATCH_HEADER_BYTES <= len(data):
                base, size = struct.unpack_from(">qi", data, at)
                attributes, last_delta = struct.unpack_from(">hi", data, at + 21)
                (producer_id,) = struct.unpack_from(">q", data, at + 43)
                found.codecs.add(CODECS.get(attributes & 7, f"unknown {attributes & 7}"))
                found.producer_ids.add(producer_id)
                offset = base + last_delta + 1
                at += 12 + size
            if offset >= high_watermark or not data:
                break
    return found


if __name__ == "__main__":
    print(" ".join(sorted(stored(sys.argv[1], sys.argv[2], int(sys.argv[3])).codecs)))
