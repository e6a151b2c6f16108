"""Backup and restore of the job store, as docs/operations.md tells to do them."""
import stat
import subprocess

import pytest
from control_tower import (BIN, Pool, check_history, digest, environment, get,
                           job_events, job_pb2, job_service_pb2, spec, submit, wait_for_end)


def coordinator_command(*words):
    return subprocess.run([str(BIN / "llmc-coordinator"), *map(str, words)], capture_output=True,
                          text=True, timeout=60, env=environment())


def backup(coordinator, file):
    run = subprocess.run([str(BIN / "llmc"), "backup", str(file), "--coordinator",
                          coordinator.address], capture_output=True, text=True, timeout=60,
                         env=environment())
    assert run.returncode == 0, run.stderr


def test_a_live_backup_restored_elsewhere_goes_on_with_every_job(coordinator, stub, root,
                                                                 reference):
    with Pool(coordinator.address, root, "--once", name="first"):
        done = wait_for_end(stub, submit(stub, spec(root, "done"), job_id="done").name)
    waiting = submit(stub, spec(root, "out"), job_id="waiting", request_id="once")
    before = job_events(coordinator, done.name)
    backup(coordinator, root / "jobs.backup")
    assert stat.S_IMODE((root / "jobs.backup").stat().st_mode) == 0o600
    assert not (root / "jobs.backup.partial").exists()
    # What comes after the backup is not in it.
    submit(stub, spec(root, "late"), job_id="late")
    token = next(stub.WatchJob(job_service_pb2.WatchJobRequest(name=waiting.name))).resume_token
    coordinator.kill()
    (root / "state").rename(root / "broken")
    run = coordinator_command("restore", "--state-dir", root / "state", "--from",
                              root / "jobs.backup")
    assert run.returncode == 0, run.stderr
    coordinator.start()
    stub = coordinator.stub()
    names = {job.name for job in stub.ListJobs(job_service_pb2.ListJobsRequest()).jobs}
    assert names == {"jobs/done", "jobs/waiting"}
    assert job_events(coordinator, done.name) == before
    assert stub.GetReport(job_service_pb2.GetReportRequest(name=done.name)).report_json
    assert submit(stub, spec(root, "out"), job_id="waiting", request_id="once").name == \
        waiting.name, "request ids are kept"
    with Pool(coordinator.address, root, "--once", name="second"):
        assert wait_for_end(stub, waiting.name).state == job_pb2.JOB_STATE_SUCCEEDED
    assert digest(root / "out") == reference
    assert check_history(job_events(coordinator, waiting.name)) == "SUCCEEDED"
    rest = list(stub.WatchJob(job_service_pb2.WatchJobRequest(name=waiting.name,
                                                              resume_token=token), timeout=20))
    assert rest[-1].event.state_change.to == job_pb2.JOB_STATE_SUCCEEDED


def test_a_stopped_coordinator_is_backed_up_from_its_directory(coordinator, stub, root):
    job = submit(stub, spec(root, "out"))
    words = ("backup", "--state-dir", root / "state", "--output", root / "copy")
    busy = coordinator_command(*words)
    assert busy.returncode == 78 and "in use by process" in busy.stderr
    assert coordinator.stop() == 0
    assert coordinator_command(*words).returncode == 0
    again = coordinator_command(*words)
    assert again.returncode == 78 and "exists" in again.stderr
    refused = coordinator_command("restore", "--state-dir", root / "state", "--from", root / "copy")
    assert refused.returncode == 78 and "move it away" in refused.stderr
    (root / "state").rename(root / "old")
    assert coordinator_command("restore", "--state-dir", root / "state", "--from",
                               root / "copy").returncode == 0
    coordinator.start()
    assert get(coordinator.stub(), job.name).spec == job.spec


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0" + b"x" * 5000, b"nonsense" * 1000])
def test_what_is_no_backup_is_refused(root, content):
    (root / "file").write_bytes(content)
    run = coordinator_command("restore", "--state-dir", root / "new", "--from", root / "file")
    assert run.returncode == 78, run.stderr
    assert not (root / "new/jobs.sqlite").exists()


def test_no_store_is_made_by_a_backup(root):
    run = coordinator_command("backup", "--state-dir", root / "typo", "--output", root / "copy")
    assert run.returncode == 78 and "holds no job store" in run.stderr
    assert not (root / "typo").exists() and not (root / "copy").exists()


def test_a_damaged_store_says_how_to_go_on(coordinator, root):
    coordinator.stop()
    database = root / "state/jobs.sqlite"
    database.write_bytes(b"\xff" * database.stat().st_size)
    run = coordinator_command("--state-dir", root / "state", "--allow-root", root, "--insecure",
                              "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")
    assert run.returncode == 78 and "llmc-coordinator restore" in run.stderr
