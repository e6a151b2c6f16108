"""Pools lease jobs, and what they publish has the bytes of an undisturbed run."""
import signal

import pytest
from control_tower import (MODEL, SOURCE, Pool, check_history, digest, get, job_events, job_pb2,
                           job_service_pb2, spec, submit, wait_for_end, wait_until)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_job_runs_to_its_end_with_the_bytes_of_a_local_run(coordinator, stub, root, reference,
                                                             ranks):
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, "--once", ranks=ranks) as pool:
        ended = wait_for_end(stub, job.name)
        assert pool.wait() == 0, pool.log.read_text()
    assert ended.state == job_pb2.JOB_STATE_SUCCEEDED, ended.error
    assert digest(root / "out") == reference
    assert ended.partition.world_size == ranks == len(ended.partition.ranks)
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


def test_sigusr1_drains_and_another_pool_goes_on(coordinator, stub, root, reference):
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, name="first",
              LLMC_FAILPOINTS="layer.load=sleep(1500)@2") as pool:
        wait_until(lambda: get(stub, job.name).progress.layers_done >= 1, "one layer is done")
        for pid in pool.rank_pids():
            __import__("os").kill(pid, signal.SIGUSR1)
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


def test_the_python_example_follows_a_job_to_its_end(coordinator, root):
    import subprocess
    import sys

    with Pool(coordinator.address, root, "--once"):
        run = subprocess.run(
            [sys.executable, str(SOURCE / "examples/python/submit_and_watch.py"), "--coordinator",
             coordinator.address, "--model", str(MODEL), "--recipe", "FP8_DYNAMIC", "--output",
             str(root / "out")], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert "JOB_STATE_SUCCEEDED" in run.stdout and (root / "out/config.json").exists()
