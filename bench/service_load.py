#!/usr/bin/env python3
"""Figures of the coordinator alone: restart with 10,000 jobs, latency of submits at 100 a
second while 50 watchers watch, memory. LLMC_BIN names the programs' directory."""
import pathlib
import re
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests/service"))

from control_tower import (Coordinator, job_service_pb2, spec, submit, write_text)  # noqa: E402


def submit_many(stub, root, first, count, per_second):
    """Seconds that each call took."""
    times, begin = [], time.perf_counter()
    for i in range(count):
        if per_second:
            time.sleep(max(0, begin + i / per_second - time.perf_counter()))
        start = time.perf_counter()
        submit(stub, spec(root, f"out{first + i}", preset="FP8_DYNAMIC", datasets=[]))
        times.append(time.perf_counter() - start)
    return sorted(times)


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
    time.sleep(2)
    times = submit_many(stub, root, 0, 1000, 100)
    print(f"submit at 100/s, 50 watchers: p50 {1e3 * times[500]:.1f} ms, p99 {1e3 * times[990]:.1f} ms")
    threads = [threading.Thread(target=submit_many, args=(coordinator.stub(), root, 1000 + 2250 * t,
                                                          2250, 0)) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    coordinator.kill()
    begin = time.perf_counter()
    coordinator.start()
    coordinator.stub().GetJob(job_service_pb2.GetJobRequest(name=job.name), wait_for_ready=True)
    print(f"restart to the first answer with 10,000 jobs: {time.perf_counter() - begin:.2f} s")
    memory = re.search(r"^process_resident_memory_bytes (\S+)", coordinator.read("/metrics"), re.M)
    print(f"resident: {float(memory[1]) / 2**20:.0f} MiB")
    coordinator.kill()


def _ignore(call):
    try:
        call()
    except Exception:  # The coordinator was killed, as planned.
        pass


if __name__ == "__main__":
    main()
