"""What reporting to a coordinator costs the work: the same job on the same rows, alone
and leased from a coordinator, one directly after the other. Prints a table.

Wall time is that of the run's own report, from the plan to the verified output, so that
the start of the processes and the wait for the lease do not count; processor time is that
of the whole process, and of its threads that only report."""
import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import side_by_side as bench

sys.path.insert(0, str(bench.ROOT / "tests/service"))
os.environ["LLMC_BIN"] = str(bench.BIN)

import control_tower as tower  # noqa: E402

ROWS, LENGTH, PAIRS = 64, 512, 4


def threads_of(pid):
    """Thread -> seconds of processor time so far."""
    times = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError, IndexError):
            times[int(task.name)] = int((task / "schedstat").read_text().split()[0]) * 1e-9
    return times


def run(command, env):
    """Seconds of processor time of a whole process, and the share of the threads that do not
    compute: those of gRPC, the session and the sign of life. Every computing thread does far
    more than a tenth of the work."""
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, env=env)
    threads = {}
    while True:
        with contextlib.suppress(OSError):
            threads.update(threads_of(process.pid))
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        time.sleep(0.05)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    total = sum(threads.values())
    reporting = sum(t for tid, t in threads.items() if tid != process.pid and t < 0.1 * total)
    return usage.ru_utime + usage.ru_stime, reporting / total


def report_of(output):
    report = json.loads((output / "llmc_report/report.json").read_text())
    return report["wall_time_s"]


def alone(model, rows, output):
    cpu, _ = run([bench.BIN / "llmc-worker", "compress", "--model", model, "--recipe", "W4A16",
                  "--dataset", rows, "--no-shuffle", "--max-seq-length", LENGTH, "--output", output,
                  "--quiet"], tower.environment())
    return report_of(output), cpu


def leased(coordinator, model, rows, output):
    stub = coordinator.stub()
    job = tower.submit(stub, tower.spec(bench.WORK, output.name, model=str(model),
                                        datasets=[str(rows)], no_shuffle=True,
                                        num_calibration_samples=512, max_seq_length=LENGTH))
    cpu, share = run([bench.BIN / "llmc-worker", "pool", "--coordinator", coordinator.address,
                      "--once"], tower.environment())
    events = sum(len(e["steps"]["steps"]) for e in tower.job_events(coordinator, job.name)
                 if "steps" in e)
    return report_of(output), cpu, share, events


def main():
    bench.WORK.mkdir(parents=True, exist_ok=True)
    model = bench.ROOT / "examples/tiny-llama" if "--quick" in sys.argv else bench.random_model()
    rows, _ = bench.text_rows(ROWS, LENGTH)
    shutil.rmtree(bench.WORK / "state", ignore_errors=True)
    pairs = []
    print("| pair | alone | leased | ratio | alone, CPU | leased, CPU | ratio | "
          "CPU of reporting | step events |\n|---|---|---|---|---|---|---|---|---|")
    with tower.Coordinator(bench.WORK) as coordinator:
        for i in range(PAIRS):
            outputs = [bench.WORK / "out-alone", bench.WORK / f"out-leased-{i}"]
            for output in outputs:
                shutil.rmtree(output, ignore_errors=True)
            wall, cpu = alone(model, rows, outputs[0])
            wall_leased, cpu_leased, share, events = leased(coordinator, model, rows, outputs[1])
            assert tower.digest(outputs[0]) == tower.digest(outputs[1]), "the same bytes"
            pairs.append((wall_leased / wall, cpu_leased / cpu))
            print(f"| {i + 1} | {wall:.2f} s | {wall_leased:.2f} s | {pairs[-1][0]:.3f}x | "
                  f"{cpu:.2f} s | {cpu_leased:.2f} s | {pairs[-1][1]:.3f}x | {100 * share:.2f} % | "
                  f"{events} |", flush=True)
            for output in outputs:
                shutil.rmtree(output)
    print(f"| median | | | {statistics.median(p[0] for p in pairs):.3f}x | | | "
          f"{statistics.median(p[1] for p in pairs):.3f}x | | |")


if __name__ == "__main__":
    main()
