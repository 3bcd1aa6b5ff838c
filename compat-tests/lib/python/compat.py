"""What every Python suite shares: the record set, the comparison, the step list and its deadline.

Not a client and not a test. Each suite imports this, runs its steps through `Suite.step`, and ends with `Suite.finish`,
which prints the one `COMPAT {...}` line that the runner collects.

Invariants: every wait has a deadline; a step that did not run is either `fail` or `lacks`, never silent; the process
cannot outlive `WATCHDOG_SECONDS`.
"""

import contextlib
import faulthandler
import json
import os
import random
import sys
import time
import traceback

WATCHDOG_SECONDS = 280
STEP_SECONDS = 40
PARTITIONS = 3
# Just below max.message.bytes (1,048,588): incompressible, so codecs that expand it still fit.
LARGE_BYTES = 1_040_000
BATCH_RECORDS = 120


class Record:
    """One record as it was sent, or as it came back; equality is byte for byte."""

    def __init__(self, partition, key, value, headers=(), timestamp=None):
        self.partition = partition
        self.key = key
        self.value = value
        self.headers = [(name, None if data is None else bytes(data)) for name, data in (headers or [])]
        self.timestamp = timestamp

    def fields(self):
        return (self.partition, self.key, self.value, self.headers, self.timestamp)

    def __eq__(self, other):
        return self.fields() == other.fields()

    def __repr__(self):
        def short(data):
            return data if data is None or len(data) <= 24 else data[:24] + b"...(%d bytes)" % len(data)

        key, value = short(self.key), short(self.value)
        return f"Record(p{self.partition} key={key} value={value} {self.headers} t={self.timestamp})"


def base_timestamp():
    """An hour ago in milliseconds, so that retention by time never touches the records."""
    return (int(time.time()) - 3600) * 1000


def record_set(seed, base_ms, null_header=True, empty_key=True, headers=True, large=True):
    """Nulls, empties, duplicate headers, one large record and a batch of small ones, over all partitions.

    Timestamps rise within each partition; the flags drop only what a client cannot express.
    """
    chance = random.Random(seed)
    rows = [
        (b"key", b"value", [("trace", b"\x00\x01\xfe\xff")]),
        (None, b"null key", []),
        (b"null value", None, []),
        (b"empty value", b"", []),
        (b"" if empty_key else b"k", b"empty key", []),
        (b"headers", b"many", [("a", b"1"), ("a", b"2"), ("empty", b""), ("null", None if null_header else b"")]),
        ("schlüssel-鍵".encode(), "wert-値-🪨".encode(), [("ünicode", "✓".encode())]),
    ]
    if large:
        rows.append((b"large", chance.randbytes(LARGE_BYTES), []))
    for index in range(BATCH_RECORDS):
        rows.append((b"key-%d" % (index % 7), b"value-%06d " % index + b"compressible " * 8, []))
    return [
        Record(index % PARTITIONS, key, value, marks if headers else [], base_ms + index * 10)
        for index, (key, value, marks) in enumerate(rows)
    ]


def compare(sent, received):
    """Raises unless each partition holds exactly the records sent to it, in order, unchanged."""
    for partition in range(PARTITIONS):
        want = [record for record in sent if record.partition == partition]
        have = [record for record in received if record.partition == partition]
        for index, (left, right) in enumerate(zip(want, have)):
            if left != right:
                raise AssertionError(f"partition {partition} record {index}: sent {left}, received {right}")
        if len(want) != len(have):
            raise AssertionError(f"partition {partition}: sent {len(want)} records, received {len(have)}")


def wait_until(what, attempt, seconds=STEP_SECONDS):
    """Calls `attempt` until it returns something true. `attempt` itself must block for at most a short poll."""
    limit = time.monotonic() + seconds
    while True:
        result = attempt()
        if result:
            return result
        if time.monotonic() > limit:
            raise TimeoutError(f"not reached within {seconds} s: {what}")


# Brokers of the cluster under test. With several, topics have as many replicas, and producers that can be are
# idempotent, because the runner kills leaders meanwhile.
NODES = int(os.environ.get("COMPAT_NODES", "1"))


def whole():
    """Returns when the runner kills no broker any more and all are back: before what is asked of a whole cluster."""
    if "COMPAT_WHOLE" in os.environ:
        wait_until("every broker is back", lambda: os.path.exists(os.environ["COMPAT_WHOLE"]) or time.sleep(0.05))


class Deadline:
    """A point in time after which `check` raises."""

    def __init__(self, what, seconds=STEP_SECONDS):
        self.what = what
        self.seconds = seconds
        self.limit = time.monotonic() + seconds

    def check(self, detail=""):
        if time.monotonic() > self.limit:
            raise TimeoutError(f"not reached within {self.seconds} s: {self.what} {detail}")


class Suite:
    """The list of steps of one client and their outcomes."""

    def __init__(self, client, version):
        self.client = client
        self.version = str(version)
        self.bootstrap = os.environ["BOOTSTRAP"]
        self.prefix = f"compat-{client}-{os.getpid()}-{random.SystemRandom().getrandbits(32):08x}"
        self.steps = {}
        faulthandler.dump_traceback_later(WATCHDOG_SECONDS, exit=True)
        print(f"client {client} {self.version}", flush=True)

    def name(self, suffix):
        """A topic, group or client id of this run only."""
        return f"{self.prefix}-{suffix}"

    def failed(self, name, then):
        """Whether step `name` failed; if so, step `then` needs it and counts as failed too, without its long waits."""
        if not self.steps.get(name, "pass").startswith("fail"):
            return False
        self.steps[then] = f"fail: not run, {name} failed"
        print(f"  FAIL {then}: not run, {name} failed", flush=True)
        return True

    @contextlib.contextmanager
    def step(self, name):
        """Runs one step; a failure is recorded and printed, and the suite goes on."""
        started = time.monotonic()
        try:
            yield
        except Exception as problem:  # noqa: BLE001 - any error of the client is the finding
            self.steps[name] = f"fail: {type(problem).__name__}: {problem}"[:400]
            print(f"  FAIL {name}: {type(problem).__name__}: {problem}", flush=True)
            print("    " + "    ".join(traceback.format_exc().splitlines(keepends=True)[-8:]), flush=True)
        else:
            self.steps[name] = "pass"
            print(f"  pass {name} ({time.monotonic() - started:.1f} s)", flush=True)

    def lacks(self, name, reason):
        """Records that the client, not the broker, has no such feature."""
        self.steps[name] = "lacks"
        print(f"  lacks {name}: {reason}", flush=True)

    def finish(self):
        """Prints the line that the runner collects and leaves the process."""
        print("COMPAT " + json.dumps({"client": self.client, "version": self.version, "steps": self.steps}), flush=True)
        failed = any(outcome.startswith("fail") for outcome in self.steps.values())
        sys.stdout.flush()
        sys.stderr.flush()
        # Client threads that do not end are the client's; the outcome is already known and printed.
        os._exit(1 if failed else 0)
