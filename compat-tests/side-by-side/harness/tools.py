"""The programs a measurement needs: fetched or built by the `run` of their own folder, and commands made of them."""

import json
import subprocess

from pathlib import Path

from processes import Failed, run

HERE = Path(__file__).resolve().parent.parent
SKIPPED = 77
CLIENT_HEAP = "-Xmx512m"


class Skipped(Exception):
    """A toolchain is absent."""


_found = {}


def path_of(name):
    """Runs `<name>/run` (once) and returns the path it prints."""
    if name not in _found:
        done = subprocess.run([str(HERE / name / "run")], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        last = done.stdout.strip().split("\n")[-1]
        if done.returncode == SKIPPED:
            raise Skipped(last)
        if done.returncode != 0:
            raise Failed(f"{name}/run ended with {done.returncode}:\n{done.stdout}")
        _found[name] = Path(last)
    return _found[name]


def workload(work, brokers, limit_seconds, **flags):
    """Runs our franz-go program and returns its report and the `Finished`."""
    command = [path_of("workload"), work, "-brokers", brokers]
    for name, value in flags.items():
        command += [f"-{name}", str(value)]
    done = run(command, limit_seconds)
    return report_of(done), done


def report_of(done):
    """The line of JSON that our own programs end with."""
    try:
        return json.loads(done.text.strip().split("\n")[-1])
    except ValueError:
        raise Failed(f"no report in what a client says:\n{done.text[-1500:]}") from None


def java_tool(main, *arguments):
    """The command line of one of Kafka's own tools."""
    jars = path_of("kafka-tools")
    return ["java", CLIENT_HEAP, "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", f"{jars}/*"] + [
        f"org.apache.kafka.tools.{main}",
        *map(str, arguments),
    ]
