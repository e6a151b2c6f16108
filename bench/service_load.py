#!/usr/bin/env python3
"""Figures of the coordinator alone, as a table: latency of submits at 100 a second while 50
watchers watch, restart and memory with 10,000 jobs, one page of a list, metrics, a backup."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
os.environ.setdefault("LLMC_BIN", str(ROOT / "build/release/bin"))
sys.path.insert(0, str(ROOT / "tests/service"))

from control_tower import (BIN, Coordinator, environment, job_service_pb2, spec, submit, write_text)  # noqa: E402


def submit_many(stub, root, first, count, per_second):
    """Seconds that each call took, from when it was due: one that waits for a slow one before
    it counts as slow too."""
    times, begin = [], time.perf_counter()
    for i in range(count):
        start = begin + i / per_second
        time.sleep(max(0, start - time.perf_counter()))
        submit(stub, spec(root, f"out{first + i}", preset="FP8_DYNAMIC", datasets=[]))
        times.append(time.perf_counter() - start)
    return sorted(times)


def median_ms(call, count):
    times = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return sorted(times)[count // 2]


def fsync_times(root, count, per_second):
    """Seconds of a write of 4 KiB and its fsync, as often as submits come: what the disk alone
    takes at this moment."""
    times, begin = [], time.perf_counter()
    with open(root / "disk", "wb", buffering=0) as file:
        for i in range(count):
            time.sleep(max(0, begin + i / per_second - time.perf_counter()))
            start = time.perf_counter()
            file.write(b"x" * 4096)
            os.fsync(file.fileno())
            times.append(time.perf_counter() - start)
    return sorted(times)


def row(what, value):
    print(f"| {what} | {value} |", flush=True)


def main():
    root = pathlib.Path(tempfile.mkdtemp())
    write_text(root / "text.jsonl")
    coordinator = Coordinator(root).start()
    stub = coordinator.stub()
    job = submit(stub, spec(root, "watched"))

    def watch():
        for _ in coordinator.stub().WatchJob(job_service_pb2.WatchJobRequest(name=job.name)):
            pass

    for _ in range(50):
        threading.Thread(target=lambda: _ignore(watch), daemon=True).start()
    while "llmc_watch_streams 50" not in coordinator.read("/metrics"):
        time.sleep(0.05)
    print("| coordinator | measured |\n|---|---|")
    disk = fsync_times(root, 500, 100)
    row("4 KiB and fsync at 100/s on this disk, median and p99",
        f"{1e3 * disk[250]:.1f} ms, {1e3 * disk[495]:.1f} ms")
    submit_many(stub, root, 10_000, 20, 100)  # The first call is of a cold program.
    times = submit_many(stub, root, 0, 1000, 100)
    row("submit at 100/s while 50 watch, median", f"{1e3 * times[500]:.1f} ms")
    row("the same, p99", f"{1e3 * times[990]:.1f} ms")
    submit_many(stub, root, 1000, 9000, 250)  # One submitter may make 300 calls a second.
    list_jobs = lambda: stub.ListJobs(job_service_pb2.ListJobsRequest())  # noqa: E731
    row("a page of 50 of 10,000 jobs", f"{median_ms(list_jobs, 20):.1f} ms")
    metrics = median_ms(lambda: coordinator.read("/metrics"), 20)
    row("`/metrics` with 10,000 jobs", f"{metrics:.1f} ms")
    command = [str(BIN / "llmc"), "backup", str(root / "copy"), "--coordinator",
               coordinator.address]
    copy = median_ms(lambda: subprocess.run(command, check=True, env=environment()), 3)
    row("backup of 10,000 jobs", f"{copy:.0f} ms")
    coordinator.kill()
    begin = time.perf_counter()
    coordinator.start()
    coordinator.stub().GetJob(job_service_pb2.GetJobRequest(name=job.name), wait_for_ready=True)
    row("killed, restart to the first answer with 10,000 jobs",
        f"{time.perf_counter() - begin:.2f} s")
    memory = re.search(r"^process_resident_memory_bytes (\S+)", coordinator.read("/metrics"), re.M)
    row("resident with 10,000 jobs", f"{float(memory[1]) / 2**20:.0f} MiB")
    coordinator.kill()
    shutil.rmtree(root)


def _ignore(call):
    try:
        call()
    except Exception:  # The coordinator was killed, as planned.
        pass


if __name__ == "__main__":
    main()
