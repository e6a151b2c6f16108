"""What reporting to a coordinator costs the work: the same job on the same rows, alone
and leased from a coordinator, one directly after the other. Prints a table.

Wall time is that of the run's own report, from the plan to the verified output, so that
the start of the processes and the wait for the lease do not count; processor time is that
of the whole process."""
import json
import os
import shutil
import statistics
import subprocess
import sys

import side_by_side as bench

sys.path.insert(0, str(bench.ROOT / "tests/service"))
os.environ["LLMC_BIN"] = str(bench.BIN)

import control_tower as tower  # noqa: E402

ROWS, LENGTH, PAIRS = 64, 512, 4


def cpu_seconds(command, env):
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, env=env)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return usage.ru_utime + usage.ru_stime


def report_of(output):
    report = json.loads((output / "llmc_report/report.json").read_text())
    return report["wall_time_s"]


def alone(model, rows, output):
    cpu = cpu_seconds([bench.BIN / "llmc-worker", "compress", "--model", model, "--recipe", "W4A16",
                       "--dataset", rows, "--no-shuffle", "--max-seq-length", LENGTH, "--output",
                       output, "--quiet"], tower.environment())
    return report_of(output), cpu


def leased(coordinator, model, rows, output):
    stub = coordinator.stub()
    job = tower.submit(stub, tower.spec(bench.WORK, output.name, model=str(model),
                                        datasets=[str(rows)], no_shuffle=True,
                                        num_calibration_samples=512, max_seq_length=LENGTH))
    cpu = cpu_seconds([bench.BIN / "llmc-worker", "pool", "--coordinator", coordinator.address,
                       "--once"], tower.environment())
    events = sum(len(e["steps"]["steps"]) for e in tower.job_events(coordinator, job.name)
                 if "steps" in e)
    return report_of(output), cpu, events


def main():
    bench.WORK.mkdir(parents=True, exist_ok=True)
    model = bench.random_model()
    rows, _ = bench.text_rows(ROWS, LENGTH)
    shutil.rmtree(bench.WORK / "state", ignore_errors=True)
    pairs = []
    print("| pair | alone | leased | ratio | alone, CPU | leased, CPU | ratio | step events |\n"
          "|---|---|---|---|---|---|---|---|")
    with tower.Coordinator(bench.WORK) as coordinator:
        for i in range(PAIRS):
            outputs = [bench.WORK / "out-alone", bench.WORK / f"out-leased-{i}"]
            for output in outputs:
                shutil.rmtree(output, ignore_errors=True)
            wall, cpu = alone(model, rows, outputs[0])
            wall_leased, cpu_leased, events = leased(coordinator, model, rows, outputs[1])
            assert tower.digest(outputs[0]) == tower.digest(outputs[1]), "the same bytes"
            pairs.append((wall_leased / wall, cpu_leased / cpu))
            print(f"| {i + 1} | {wall:.2f} s | {wall_leased:.2f} s | {pairs[-1][0]:.3f}x | "
                  f"{cpu:.2f} s | {cpu_leased:.2f} s | {pairs[-1][1]:.3f}x | {events} |", flush=True)
            for output in outputs:
                shutil.rmtree(output)
    print(f"| median | | | {statistics.median(p[0] for p in pairs):.3f}x | | | "
          f"{statistics.median(p[1] for p in pairs):.3f}x | |")


if __name__ == "__main__":
    main()
