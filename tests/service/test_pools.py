"""Pools lease jobs, and what they publish has the bytes of an undisturbed run."""
import json
import os
import shutil
import signal
import subprocess

import pytest
from control_tower import (BIN, MODEL, SOURCE, Pool, check_history, digest, environment, get,
                           job_events, job_pb2, job_service_pb2, spec, submit, wait_for_end, wait_until)


def check_partition(job, ranks):
    """Decided by the coordinator, of every row of every linear of a layer exactly once."""
    assert job.partition.world_size == ranks == len(job.partition.ranks)
    assert job.partition.num_layers == job.plan.num_layers > 0
    shapes = job.plan.layer_weights
    assert sum(s.count for s in shapes) == 7, "q, k, v, o, gate, up, down"
    for i, shape in enumerate(shapes):
        edges = [(r.rows[i].begin, r.rows[i].end) for r in job.partition.ranks]
        assert edges[0][0] == 0 and edges[-1][1] == shape.out_features
        assert all(a[1] == b[0] for a, b in zip(edges, edges[1:]))
    assert sum(r.rows_per_layer for r in job.partition.ranks) == \
        sum(s.count * s.out_features for s in shapes)
    assert [r.first_piece for r in job.partition.ranks] == list(range(ranks))


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_job_runs_to_its_end_with_the_bytes_of_a_local_run(coordinator, stub, root, reference,
                                                             ranks):
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, "--once", ranks=ranks) as pool:
        ended = wait_for_end(stub, job.name)
        assert pool.wait() == 0, pool.log.read_text()
    assert ended.state == job_pb2.JOB_STATE_SUCCEEDED, ended.error
    assert digest(root / "out") == reference
    check_partition(ended, ranks)
    events = job_events(coordinator, job.name)
    assert check_history(events) == "SUCCEEDED"
    steps = [s for e in events if "steps" in e for s in e["steps"]["steps"]]
    assert {s["rank"] for s in steps} == set(range(ranks))
    assert {"Capture", "Solve", "Write", "Commit"} <= {s["step"] for s in steps}
    report = stub.GetReport(job_service_pb2.GetReportRequest(name=job.name))
    assert '"succeeded"' in report.report_json.lower()


def test_a_pool_is_shown_and_serves_one_job_after_the_other(coordinator, stub, root):
    with Pool(coordinator.address, root, ranks=2, name="twins"):
        pools = wait_until(lambda: stub.ListPools(job_service_pb2.ListPoolsRequest()).pools,
                           "the pool attaches")
        assert pools[0].name == "twins" and len(pools[0].ranks) == 2
        assert all(r.memory_bytes > 0 and r.pid > 0 for r in pools[0].ranks)
        names = [submit(stub, spec(root, f"out{i}", preset="W8A16", max_seq_length=16)).name
                 for i in range(3)]
        for name in names:
            assert wait_for_end(stub, name).state == job_pb2.JOB_STATE_SUCCEEDED


def test_a_bad_job_fails_once_and_the_pool_goes_on(coordinator, stub, root):
    bad = submit(stub, spec(root, "bad"))
    (root / "text.jsonl").write_text('{"other": 1}\n')
    with Pool(coordinator.address, root):
        ended = wait_for_end(stub, bad.name)
        assert ended.state == job_pb2.JOB_STATE_FAILED and ended.attempt == 1
        assert "text" in ended.error.message
        good = submit(stub, spec(root, "good", preset="FP8_DYNAMIC", datasets=[]))
        assert wait_for_end(stub, good.name).state == job_pb2.JOB_STATE_SUCCEEDED


def test_a_pool_works_by_the_plan_that_was_submitted_or_not_at_all(coordinator, stub, root):
    shutil.copytree(MODEL, root / "model")
    job = submit(stub, spec(root, "out", model=str(root / "model")))
    config = json.loads((root / "model/config.json").read_text())
    config["num_hidden_layers"] -= 1
    (root / "model/config.json").write_text(json.dumps(config))
    with Pool(coordinator.address, root):
        ended = wait_for_end(stub, job.name)
    assert ended.state == job_pb2.JOB_STATE_FAILED and ended.attempt == 1
    assert "not the one that was submitted" in ended.error.message
    assert "num_layers" in ended.error.message and not (root / "out").exists()


def test_a_job_that_needs_no_data_is_shared_by_tensors(coordinator, stub, root):
    job = submit(stub, spec(root, "out", preset="FP8_DYNAMIC", datasets=[]))
    with Pool(coordinator.address, root, "--once", ranks=2):
        ended = wait_for_end(stub, job.name)
    assert ended.state == job_pb2.JOB_STATE_SUCCEEDED and ended.partition.shares_tensors
    assert [list(r.rows) for r in ended.partition.ranks] == [[], []]


def test_the_exit_code_of_once_comes_through_mpirun(coordinator, stub, root):
    bad = submit(stub, spec(root, "bad"))
    (root / "text.jsonl").write_text('{"other": 1}\n')
    with Pool(coordinator.address, root, "--once", ranks=2, sigkill_s=1) as pool:
        assert pool.wait() == 1, pool.log.read_text()
    assert get(stub, bad.name).state == job_pb2.JOB_STATE_FAILED


def test_a_job_waits_for_a_pool_that_it_fits(coordinator, stub, root):
    wide = stub.CreateJob(job_service_pb2.CreateJobRequest(job=job_pb2.Job(
        spec=spec(root, "wide"), min_ranks=2)))
    narrow = submit(stub, spec(root, "narrow", preset="FP8_DYNAMIC", datasets=[]))
    with Pool(coordinator.address, root, name="one"):
        assert wait_for_end(stub, narrow.name).state == job_pb2.JOB_STATE_SUCCEEDED
        waiting = get(stub, wide.name)
        assert waiting.state == job_pb2.JOB_STATE_QUEUED
        assert waiting.waits_for == "a pool that it fits; one: has 1 rank(s), 2 are asked for"
        with Pool(coordinator.address, root, "--once", ranks=2, name="two"):
            assert wait_for_end(stub, wide.name).pool == "two"


def test_sigusr1_drains_and_another_pool_goes_on(coordinator, stub, root, reference):
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, name="first",
              LLMC_FAILPOINTS="layer.load=sleep(1500)@2") as pool:
        wait_until(lambda: get(stub, job.name).progress.layers_done >= 1, "one layer is done")
        for pid in pool.rank_pids():
            os.kill(pid, signal.SIGUSR1)
        assert pool.wait() == 0, pool.log.read_text()
    waiting = get(stub, job.name)
    assert waiting.state == job_pb2.JOB_STATE_QUEUED and not waiting.error.message
    with Pool(coordinator.address, root, "--once", name="second"):
        assert wait_for_end(stub, job.name).state == job_pb2.JOB_STATE_SUCCEEDED
    assert digest(root / "out") == reference


def test_pause_stops_after_a_layer_and_resume_goes_on(coordinator, stub, root, reference):
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, LLMC_FAILPOINTS="layer.load=sleep(1500)@2"):
        wait_until(lambda: get(stub, job.name).progress.layers_done >= 1, "one layer is done")
        stub.PauseJob(job_service_pb2.PauseJobRequest(name=job.name))
        wait_until(lambda: get(stub, job.name).state == job_pb2.JOB_STATE_PAUSED, "it pauses")
        assert not (root / "out").exists()
        stub.ResumeJob(job_service_pb2.ResumeJobRequest(name=job.name))
        assert wait_for_end(stub, job.name).state == job_pb2.JOB_STATE_SUCCEEDED
    assert digest(root / "out") == reference


def test_cancel_stops_a_running_job_and_retry_finishes_it(coordinator, stub, root, reference):
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, LLMC_FAILPOINTS="layer.load=sleep(1500)@2"):
        wait_until(lambda: get(stub, job.name).progress.layers_done >= 1, "one layer is done")
        stub.CancelJob(job_service_pb2.CancelJobRequest(name=job.name))
        assert wait_for_end(stub, job.name).state == job_pb2.JOB_STATE_CANCELLED
        assert not (root / "out").exists()
        stub.RetryJob(job_service_pb2.RetryJobRequest(name=job.name))
        assert wait_for_end(stub, job.name).state == job_pb2.JOB_STATE_SUCCEEDED
    assert digest(root / "out") == reference
    assert check_history(job_events(coordinator, job.name)) == "SUCCEEDED"


def test_the_slurm_example_drains_and_queues_itself_again(coordinator, stub, root, reference):
    """The batch script as it is, with a scontrol that only notes what it is asked."""
    job = submit(stub, spec(root, "out"))
    (root / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {root}/scontrol.log\n')
    (root / "scontrol").chmod(0o755)
    env = environment(PATH=f"{root}:{BIN}:{os.environ['PATH']}", SLURM_JOB_ID="77",
                      LLMC_COORDINATOR=coordinator.address, OMPI_MCA_ras="^slurm",
                      OMPI_MCA_plm="^slurm", OMPI_MCA_rmaps_base_oversubscribe="1")

    def run(**failpoints):
        with open(root / "batch.log", "ab") as log:
            return subprocess.Popen(["bash", str(SOURCE / "examples/slurm/pool.sbatch")],
                                    env={**env, **failpoints}, stdout=log, stderr=log)

    first = run(LLMC_FAILPOINTS="layer.load=sleep(1500)@2")
    wait_until(lambda: get(stub, job.name).progress.layers_done >= 1, "one layer is done")
    first.send_signal(signal.SIGUSR1)
    assert first.wait(60) == 0, (root / "batch.log").read_text()
    assert (root / "scontrol.log").read_text() == "requeue 77\n"
    waiting = get(stub, job.name)
    assert waiting.state == job_pb2.JOB_STATE_QUEUED and waiting.pool == "slurm-77"
    assert run().wait(120) == 0, (root / "batch.log").read_text()
    assert get(stub, job.name).state == job_pb2.JOB_STATE_SUCCEEDED
    assert (root / "scontrol.log").read_text() == "requeue 77\n", "not again"
    assert digest(root / "out") == reference


def test_the_python_example_follows_a_job_to_its_end(coordinator, root):
    import sys

    with Pool(coordinator.address, root, "--once"):
        run = subprocess.run(
            [sys.executable, str(SOURCE / "examples/python/submit_and_watch.py"), "--coordinator",
             coordinator.address, "--model", str(MODEL), "--recipe", "FP8_DYNAMIC", "--output",
             str(root / "out")], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert "JOB_STATE_SUCCEEDED" in run.stdout and (root / "out/config.json").exists()
