"""The machine: what it is, how steady it is just now (probes), and what processes use of it (/proc, /sys).

Probes run before and after each measurement, never during one. Linux only.
"""

import concurrent.futures
import hashlib
import os
import platform
import resource
import time

from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count()

DISK_PROBE_BYTES = 4096
DISK_PROBE_COUNT = 300
CPU_PROBE_BYTES = 1 << 24
CPU_PROBE_ROUNDS = 8
# 1-based columns of /sys/block/<device>/stat, kernel 5.5 and later: flush requests completed.
FLUSH_COLUMN = 16
KERNEL_THREADS_PARENT = "2"
VOLATILE = {"tmpfs", "ramfs", "overlay", "devtmpfs"}


def describe(directory):
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // (1 << 20)
    mount, file_system = mount_of(directory)
    return {
        "cpu": model,
        "cores": CORES,
        "memory_gib": memory,
        "kernel": platform.release().split("-")[0],
        "arch": platform.machine(),
        "file_system": file_system,
    }


def mount_of(directory):
    """The mount point that holds a directory, and its file system's name."""
    path = os.path.realpath(directory)
    best = ("/", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= len(best[0]):
            best = (point, kind)
    return best


def device_of(directory):
    """The whole block device below a directory, as its folder in /sys; None where there is none (a network disk)."""
    number = os.stat(directory).st_dev
    folder = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not folder.exists():
        return None
    folder = folder.resolve()
    return folder.parent if (folder / "partition").exists() else folder


def device_flushes(device):
    """Flush requests the device has completed since it was there; None where the kernel does not count them."""
    if device is None:
        return None
    columns = (device / "stat").read_text().split()
    return int(columns[FLUSH_COLUMN - 1]) if len(columns) >= FLUSH_COLUMN else None


def disk_probe(directory):
    """Median and 99th percentile, in microseconds, of overwriting 4 KiB and making it durable."""
    path = Path(directory) / "probe"
    took = []
    block = os.urandom(DISK_PROBE_BYTES)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(descriptor, block, 0)
        os.fsync(descriptor)
        for _ in range(DISK_PROBE_COUNT):
            begin = time.perf_counter_ns()
            os.pwrite(descriptor, block, 0)
            os.fdatasync(descriptor)
            took.append(time.perf_counter_ns() - begin)
    finally:
        os.close(descriptor)
        path.unlink()
    took.sort()
    return {"p50_us": round(took[len(took) // 2] / 1000, 1), "p99_us": round(took[len(took) * 99 // 100] / 1000, 1)}


_block = bytes(CPU_PROBE_BYTES)


def cpu_probe():
    """Milliseconds that a fixed piece of work takes on every core at once: longer when somebody else is at work."""

    def work(_):
        for _ in range(CPU_PROBE_ROUNDS):
            hashlib.sha256(_block).digest()

    begin = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(CORES) as pool:
        list(pool.map(work, range(CORES)))
    return round((time.perf_counter() - begin) * 1000, 1)


def probe(directory):
    return {"disk": disk_probe(directory), "cpu_ms": cpu_probe()}


def cpu_seconds(pid):
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def device_read_bytes(pid):
    """Bytes that a process has had fetched from the device, as far as the kernel lets us see."""
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("read_bytes:"):
            return int(line.split()[1])
    return 0


def drop_cache(folder):
    """Has the kernel forget the pages of every file below a folder that it need not keep."""
    os.sync()
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                descriptor = os.open(os.path.join(root, name), os.O_RDONLY)
            except FileNotFoundError:
                continue
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def raise_open_files():
    """As many open files as we may have, for every child: a broker of many partitions needs them."""
    for wanted in (1 << 20, resource.getrlimit(resource.RLIMIT_NOFILE)[1]):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return wanted
        except (ValueError, OSError):
            continue
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def memory(pid):
    """Resident memory of a process in MB: all of it, and the part that is its own (not pages of files)."""
    values = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, rest = line.partition(":")
        if key in ("VmRSS", "RssAnon", "VmHWM"):
            values[key] = int(rest.split()[0]) * 1024 / 1e6
    return {"rss_mb": round(values["VmRSS"], 1), "anon_mb": round(values["RssAnon"], 1), "peak_mb": round(values["VmHWM"], 1)}


def descriptors_and_threads(pid):
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


def busy_seconds():
    """Processor time of all programs on the machine: without interrupts and the kernel's own threads (which write the
    page cache back), because nobody's processes are charged for those."""
    user, nice, system, *_ = (int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system - _kernel_thread_ticks()) / TICKS


def _kernel_thread_ticks():
    ticks = 0
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[1] == KERNEL_THREADS_PARENT:
            ticks += int(fields[11]) + int(fields[12])
    return ticks
