"""The machine: CPU time and memory of processes from /proc, the disk's rate of fsync, a cgroup to hold a process in."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
MIB = 1024 * 1024
ROOT = Path(__file__).resolve().parent.parent
CGROUP_MEMORY = Path("/sys/fs/cgroup/memory")
CGROUP_UNIFIED = Path("/sys/fs/cgroup")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def tree(pid: int) -> list[int]:
    """`pid` and the processes below it."""
    found = [pid]
    for one in found:
        with suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def cpu_s(pid: int) -> float:
    """CPU seconds of `pid` and all below it, those that have ended and were waited for included."""
    ticks = 0
    for one in tree(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            ticks += sum(map(int, _stat(one)[11:15]))
    return ticks * TICK_S


def busy_ns(pid: int) -> int:
    """CPU nanoseconds of the threads that `pid` has, those below it not included; 0 for one that is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())
    return 0


def memory_mib(pid: int, *, peak: bool = False) -> float:
    """Resident memory of one process now, or its peak since `reset_peak`."""
    name = "VmHWM:" if peak else "VmRSS:"
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def reset_peak(pid: int) -> None:
    """Let the peak begin again at what is used now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def fsync_rate(directory: Path, seconds: float = 2.0) -> float:
    """How often per second 8 KiB are written and made durable, one after the other."""
    path = directory / "fsync"
    handle = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.write(handle, bytes(MIB))
        count, until = 0, time.monotonic() + seconds
        while time.monotonic() < until:
            os.pwrite(handle, b"x" * 8192, 8192 * (count % 128))
            os.fdatasync(handle)
            count += 1
        return count / seconds
    finally:
        os.close(handle)
        path.unlink()


@contextmanager
def memory_limit(mib: int) -> Generator[Path | None]:
    """A cgroup that holds its processes to `mib`; -> the file that takes a process's number, or None where none can be made."""
    parent, file = (CGROUP_MEMORY, "memory.limit_in_bytes") if CGROUP_MEMORY.is_dir() else (CGROUP_UNIFIED, "memory.max")
    group = parent / f"talon-bench-{os.getpid()}"
    try:
        group.mkdir()
        (group / file).write_text(str(mib * MIB))
    except OSError:
        with suppress(OSError):
            group.rmdir()
        yield None
        return
    try:
        yield group / "cgroup.procs"
    finally:
        with suppress(OSError):  # a process that has not quite ended keeps it
            group.rmdir()


def held(command: list[str], cpu: int, procs: Path | None) -> list[str]:
    """`command` on one CPU, and in the cgroup if there is one."""
    enter = f"echo $$ > {procs} && " if procs else ""
    return ["/bin/sh", "-c", f'{enter}exec taskset -c {cpu} "$@"', "held", *command]


def describe(directory: Path) -> dict[str, Any]:
    """What the numbers were measured on."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        cpu = names[0] if names else platform.machine()
        memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1024
        return {
            "cpu": cpu,
            "cpus": os.cpu_count(),
            "memory_mib": memory,
            "kernel": platform.release(),
            "python": platform.python_version(),
            "fsync_per_s": round(fsync_rate(directory)),
            "load_before": [round(value, 2) for value in os.getloadavg()],
        }
    return {"python": platform.python_version()}


def commit() -> str:
    """The checkout's commit, with `+` if something in it is changed."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--", "src", "bench") else "")
