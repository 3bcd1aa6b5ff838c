"""A process of a system, in a directory of its own: started, ended, started again there, and what it has used so far."""

import signal

from dataclasses import dataclass

import machine

from processes import start, stop

OUTPUT = "output.log"
TAIL_BYTES = 2000


@dataclass
class Used:
    """What the lives of a process that are over used."""

    cpu_seconds: float = 0.0
    device_read_bytes: int = 0


class Node:
    def __init__(self, directory, command, environment=None):
        self.directory = directory
        self.command = command
        self.environment = environment
        self.process = None
        self._before = Used()
        directory.mkdir(parents=True, exist_ok=True)
        self._log = open(directory / OUTPUT, "ab", buffering=0)

    def launch(self):
        """Starts the process and returns at once; a directory that holds data already is taken up again."""
        self.process = start(self.command, self._log, env=self.environment)

    def stop(self, how=signal.SIGTERM):
        """Ends the process; True when it left by itself in time."""
        if not self.alive():
            return True
        self._before = Used(self.cpu_seconds(), self.device_read_bytes())
        return stop(self.process, how)

    def close(self):
        self.stop(signal.SIGKILL)
        self._log.close()

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def cpu_seconds(self):
        return self._before.cpu_seconds + machine.cpu_seconds(self.process.pid)

    def device_read_bytes(self):
        return self._before.device_read_bytes + machine.device_read_bytes(self.process.pid)

    def memory(self):
        return machine.memory(self.process.pid)

    def tail(self):
        """The end of what it said, and of its own log where it keeps one."""
        paths = [self.directory / OUTPUT, self.directory / "server.log"]
        return b"".join(path.read_bytes()[-TAIL_BYTES:] for path in paths if path.exists()).decode(errors="replace")
