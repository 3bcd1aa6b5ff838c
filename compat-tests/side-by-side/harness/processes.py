"""Child processes: each in a session of its own, each stopped by its process id, whatever way the harness ends.

A child that outlives the harness would hold a port, a disk and a core that the next measurement needs, so the kernel is
told as well: it kills the child when the harness dies without a chance to clean up.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import tempfile
import time

PR_SET_PDEATHSIG = 1
STOP_SECONDS = 60
POLL_SECONDS = 0.005

_libc = ctypes.CDLL(None, use_errno=True)
_running = {}


class Failed(Exception):
    """A program that is part of a measurement did not do its work."""


def _before_exec():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start(command, output, **options):
    """A child whose standard output and error go to the open file `output`."""
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_before_exec,
        **options,
    )
    _running[process.pid] = process
    return process


def stop(process, how=signal.SIGTERM):
    """Ends a child; True when it left by itself in time."""
    left = True
    if process.poll() is None:
        os.killpg(process.pid, how)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            left = False
    _end_group(process)
    return left


def stop_all():
    """Ends every child that still runs, at once."""
    for process in list(_running.values()):
        _end_group(process)


def _end_group(process):
    # The leader is reaped only after its group has been ended, so the id cannot have become somebody else's; a leader
    # that `wait` reaped already had nobody beside it but its own threads.
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
    _running.pop(process.pid, None)


class Finished:
    """What a client program did: its output, how long it took and the processor time it used."""

    def __init__(self, text, seconds, cpu_seconds):
        self.text = text
        self.seconds = seconds
        self.cpu_seconds = cpu_seconds


def run(command, limit_seconds):
    """Runs a program to its end and returns a `Finished`; raises `Failed` when it fails or takes too long."""
    with tempfile.TemporaryFile() as output:
        return finish(start(command, output), output, " ".join(map(str, command)), limit_seconds)


def run_all(commands, limit_seconds):
    """Runs programs beside each other and returns the `Finished` of each, as `run` does."""
    with contextlib.ExitStack() as files:
        outputs = [files.enter_context(tempfile.TemporaryFile()) for _ in commands]
        children = [start(command, output) for command, output in zip(commands, outputs)]
        names = [" ".join(map(str, command)) for command in commands]
        return [finish(*each, limit_seconds) for each in zip(children, outputs, names)]


def finish(process, output, name, limit_seconds):
    """Waits for a child whose output goes to `output`, as `run` does."""
    begin = time.monotonic()
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        if time.monotonic() - begin > limit_seconds:
            _end_group(process)
            raise Failed(f"{name} took longer than {limit_seconds:.0f} s:\n{_tail(output)}")
        time.sleep(POLL_SECONDS)
    seconds = time.monotonic() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    _running.pop(process.pid, None)
    if process.returncode != 0:
        raise Failed(f"{name} ended with {process.returncode}:\n{_tail(output)}")
    output.seek(0)
    text = output.read().decode(errors="replace")
    return Finished(text, seconds, usage.ru_utime + usage.ru_stime)


def _tail(output):
    output.seek(0)
    return output.read()[-3000:].decode(errors="replace")
