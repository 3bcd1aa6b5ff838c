"""A leader is killed with SIGKILL: how long a client with its default settings waits for the next acknowledgement."""

import os
import signal
import statistics
import tempfile
import time

from processes import POLL_SECONDS, Failed, Finished, finish, start, stop
from produce import OneInFlight
from tools import HERE, path_of, report_of
from work import Load, Work

PROGRAM = HERE / "next-ack" / "next_ack.py"
# Served at its own pace by then.
BEFORE_SECONDS = 2
FIRST_SECONDS_MAX = 60
WAIT_SECONDS_MAX = 120
# One death for so many seconds of the profile: most of a death is waiting until everybody is in sync again.
SECONDS_OF_A_DEATH = 3


class Failover(Work):
    """Deaths one after the other; the victim is started again, and every replica in sync, before the next."""

    name = "leader-killed"
    title = "kill -9 of the leader to the next acknowledgement, three brokers (librdkafka, default settings)"
    brokers = 3
    contenders = ["strict", "kafka-default"]
    counts_flushes = False

    def load(self, system, topic, seconds, warm_seconds, rate, least):
        if not warm_seconds:
            # A pilot: what warms the brokers.
            return OneInFlight(32).load(system, topic, seconds, warm_seconds, rate, least)
        deaths = [self._death(system, topic) for _ in range(max(1, round(seconds / SECONDS_OF_A_DEATH)))]
        waits = [death["wait_s"] for death in deaths]
        values = {"wait_s": round(statistics.median(waits), 4), "worst_s": max(waits), "deaths": deaths}
        cpu_seconds = sum(death.pop("client_cpu_s") for death in deaths)
        sent = sum(death["acked"] for death in deaths)
        return Load(values, sent / seconds, sent, sent, Finished("", seconds, cpu_seconds))

    def _death(self, system, topic):
        found, asked = system.wait_whole(topic)
        command = [path_of("next-ack"), PROGRAM, system.brokers, topic, WAIT_SECONDS_MAX]
        with tempfile.TemporaryFile() as output:
            client = start(command, output)
            _wait_for_line(client, output)
            time.sleep(BEFORE_SECONDS)
            victim = system.nodes[found["leader"] - 1]
            begin = time.time()
            victim.stop(signal.SIGKILL)
            # Only what is sent from now on cannot have been acknowledged by the victim.
            os.kill(client.pid, signal.SIGUSR1)
            done = finish(client, output, "next-ack", WAIT_SECONDS_MAX + 10)
        report = report_of(done)
        victim.launch()
        _, waited = system.wait_whole(topic)
        if report["failed"]:
            raise Failed(f"{system.name}: {report['failed']} sends failed when the leader was killed")
        return {
            "wait_s": round(report["acked_unix"] - begin, 4),
            # Who led the partition may have been the active controller as well.
            "was_controller": found["leader"] == found["controller"],
            "acked": report["acked"],
            "client_cpu_s": asked.cpu_seconds + done.cpu_seconds + waited.cpu_seconds,
        }


def _wait_for_line(client, output):
    """Until the client has had its first acknowledgement."""
    limit = time.monotonic() + FIRST_SECONDS_MAX
    while not os.fstat(output.fileno()).st_size and time.monotonic() < limit:
        time.sleep(POLL_SECONDS)
    if not os.fstat(output.fileno()).st_size:
        stop(client)
        raise Failed(f"nothing is acknowledged within {FIRST_SECONDS_MAX} s")
