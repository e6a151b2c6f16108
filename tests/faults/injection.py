"""Ways to make the system fail under a process: strace, cgroups, false clocks."""
import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest

FAKETIME = next(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


def tracing_works():
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"],
                          capture_output=True).returncode == 0


needs_strace = pytest.mark.skipif(not tracing_works(), reason="strace is missing or not allowed")
needs_faketime = pytest.mark.skipif(FAKETIME is None, reason="libfaketime is missing")


def traced(*injections):
    """Words before a command whose system calls fail: "fsync:error=EIO:when=3"."""
    calls = ",".join(sorted({call for i in injections for call in i.split(":")[0].split(",")}))
    words = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", f"trace={calls}"]
    for injection in injections:
        words += ["-e", f"inject={injection}"]
    return words


@contextlib.contextmanager
def failing_calls(pid, injection):
    """The system calls of a running process fail meanwhile."""
    call = injection.split(":")[0]
    tracer = subprocess.Popen(["strace", "-f", "-o", "/dev/null", "-p", str(pid), "-e",
                               f"trace={call}", "-e", f"inject={injection}"],
                              stderr=subprocess.PIPE, text=True)
    assert "attached" in tracer.stderr.readline()
    try:
        yield
    finally:
        tracer.send_signal(signal.SIGINT)  # It lets the process go.
        tracer.wait(20)


class FalseClock:
    """A wall clock that a test sets while the process runs; its other clocks are true."""

    def __init__(self, root):
        self.file = pathlib.Path(root) / "wall-clock"
        self.set("+0")
        self.environment = dict(LD_PRELOAD=FAKETIME, FAKETIME_TIMESTAMP_FILE=self.file,
                                FAKETIME_NO_CACHE=1, FAKETIME_DONT_FAKE_MONOTONIC=1)

    def set(self, offset):
        """As faketime takes it: "+1h", "-3600", "@2040-01-01 00:00:00"."""
        new = self.file.with_suffix(".new")
        new.write_text(offset + "\n")
        new.rename(self.file)


class MemoryGroup:
    """A cgroup (version 1) whose limit ends its processes by the kernel's OOM killer."""

    def __init__(self, name):
        own = re.search(r":memory:(.*)", pathlib.Path("/proc/self/cgroup").read_text())
        self.path = None
        for parent in ([own.group(1).strip("/")] if own else []) + [""]:
            path = pathlib.Path("/sys/fs/cgroup/memory") / parent / name
            with contextlib.suppress(OSError):
                path.mkdir()
                self.path = path
                return

    def wrap(self):
        return ["sh", "-c", f'echo $$ >{self.path}/cgroup.procs && exec "$@"', "sh"]

    def use_up(self):
        """No further page is granted."""
        used = int((self.path / "memory.usage_in_bytes").read_text())
        for _ in range(50):
            try:
                (self.path / "memory.limit_in_bytes").write_text(str(used))
                return
            except OSError:
                used += 1 << 20

    def kills(self):
        control = (self.path / "memory.oom_control").read_text()
        found = re.search(r"oom_kill (\d+)", control)
        return int(found.group(1)) if found else 0

    def close(self):
        for _ in range(100):
            with contextlib.suppress(OSError):
                self.path.rmdir()
                return
            time.sleep(0.1)


def run_and_pause(pid, running_s, stopped_s, until):
    """Lets a process run only part of the time."""
    while not until():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(stopped_s)
            os.kill(pid, signal.SIGCONT)
        time.sleep(running_s)
