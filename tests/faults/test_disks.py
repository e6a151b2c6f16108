"""Disks that are full, fail or forget; checkpoints that were damaged meanwhile."""
import os
import re
import shutil
import subprocess

import grpc
import pytest
from checks import expect_failure, expect_success, expect_success_in_the_end, layers_done
from control_tower import (MODEL, Coordinator, Pool, get, job_pb2, job_service_pb2, spec, submit,
                           wait_for_end, wait_until)
from grpc_health.v1 import health_pb2, health_pb2_grpc
from injection import failing_calls, needs_strace, traced


@pytest.mark.row(15)
def test_a_full_disk_fails_the_job_and_leaves_the_pool(coordinator, stub, root, reference):
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, LLMC_FAILPOINTS="write.tensor=enospc@3"):
        expect_failure(coordinator, stub, root, job.name, "RESOURCE_EXHAUSTED")
        stub.RetryJob(job_service_pb2.RetryJobRequest(name=job.name))
        expect_success(coordinator, stub, root, reference, job.name)


@needs_strace
@pytest.mark.row(15, 17)
@pytest.mark.parametrize("injection", [
    "pwrite64:error=ENOSPC:when=2", "fsync:error=EIO:when=2", "rename:error=EIO:when=1",
    "pwrite64:error=ENOSPC:when=5", "pwrite64:error=EIO:when=3", "fsync:error=EIO:when=1",
    "fsync:error=ENOSPC:when=3", "ftruncate:error=ENOSPC:when=1", "rename:error=ENOSPC:when=1",
    "write:error=ENOSPC:when=40"])
def test_a_disk_that_fails_once_never_costs_the_bytes(coordinator, stub, root, reference,
                                                      injection):
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, name="unlucky", wrap=traced(injection)) as unlucky:
        wait_until(lambda: unlucky.process.poll() is not None or
                   get(stub, job.name).state in (job_pb2.JOB_STATE_FAILED,
                                                 job_pb2.JOB_STATE_SUCCEEDED), "it ends")
        unlucky.kill()
    with Pool(coordinator.address, root, name="heir"):
        expect_success_in_the_end(coordinator, stub, root, reference, job.name)


@needs_strace
@pytest.mark.row(18)
@pytest.mark.parametrize("call,number", [
    ("rename", 1), ("fsync", 3), *[("fsync", n) for n in (1, 2, 5, 8, 12)],
    *[("pwrite64", n) for n in (1, 3, 9, 27)], ("ftruncate", 1), ("unlink", 1)])
def test_a_kill_at_any_call_costs_nothing(coordinator, stub, root, reference, call, number):
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, name="doomed",
              wrap=traced(f"{call}:signal=SIGKILL:when={number}")) as doomed:
        wait_until(lambda: doomed.process.poll() is not None or
                   get(stub, job.name).state == job_pb2.JOB_STATE_SUCCEEDED, "it is killed")
    with Pool(coordinator.address, root, name="heir"):
        expect_success(coordinator, stub, root, reference, job.name)


@needs_strace
@pytest.mark.row(19)
def test_what_is_renamed_was_made_durable_before(coordinator, stub, root, reference):
    log = root / "trace"
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, wrap=[
            "strace", "-f", "-y", "-qq", "--seccomp-bpf", "-o", log, "-e",
            "trace=pwrite64,write,ftruncate,fsync,rename,renameat2"]):
        wait_for_end(stub, job.name)
        expect_success(coordinator, stub, root, reference, job.name)
    unsynced, renamed, parent_synced = set(), False, False
    for line in log.read_text().splitlines():
        call = re.match(r"\d+ +(\w+)\((?:\d+<([^>]*)>)?(.*)", line)
        name, path, rest = call.groups() if call else ("", "", "")
        if name in ("pwrite64", "write", "ftruncate") and "/out.llmc-partial/" in (path or ""):
            assert not renamed, f"written after the rename: {path}"
            unsynced.add(path)
        elif name == "fsync":
            unsynced.discard(path)
            parent_synced = parent_synced or (renamed and path == str(root))
        elif name.startswith("rename") and "/out.llmc-partial" in rest and f'"{root}/out"' in rest:
            renamed = True
            assert not unsynced, f"renamed before these were durable: {unsynced}"
    assert renamed and parent_synced


@pytest.mark.row(15)
def test_an_output_that_cannot_fit_is_refused_at_submit(root, reference):
    small = root / "small"
    small.mkdir()
    with Coordinator(root, wrap=["unshare", "-m", "sh", "-c",
                                 f'mount -t tmpfs -o size=256k none {small} && exec "$@"', "sh"],
                     ) as coordinator:
        with pytest.raises(grpc.RpcError) as raised:
            submit(coordinator.stub(), spec(root, "small/out"))
        assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "is free" in raised.value.details()
        submit(coordinator.stub(), spec(root, "out"))


@pytest.mark.row(15)
@pytest.mark.parametrize("kilobytes", [600, 100])
def test_a_disk_that_fills_up_at_work_fails_the_job_with_the_reason(coordinator, stub, root,
                                                                   reference, kilobytes):
    job = submit(stub, spec(root, "out"))
    place = root / "out.llmc-partial"
    place.mkdir()
    mount = f'mount -t tmpfs -o size={kilobytes}k none {place} && exec "$@"'
    with Pool(coordinator.address, root, name="full", wrap=["unshare", "-m", "sh", "-c", mount, "sh"]):
        expect_failure(coordinator, stub, root, job.name,
                       "RESOURCE_EXHAUSTED|FAILED_PRECONDITION|INVALID_ARGUMENT|PERMISSION_DENIED")
    shutil.rmtree(place)
    stub.RetryJob(job_service_pb2.RetryJobRequest(name=job.name))
    with Pool(coordinator.address, root, name="roomy"):
        expect_success(coordinator, stub, root, reference, job.name)


@pytest.mark.row(15)
def test_a_read_only_output_fails_the_job_with_the_reason(coordinator, stub, root, reference):
    place = root / "place"
    place.mkdir()
    job = submit(stub, spec(root, "place/out"))
    mount = f'mount -t tmpfs -o ro none {place} && exec "$@"'
    with Pool(coordinator.address, root, wrap=["unshare", "-m", "sh", "-c", mount, "sh"]):
        expect_failure(coordinator, stub, root, job.name, "PERMISSION_DENIED", "Read-only")
        good = submit(stub, spec(root, "out"))
        expect_success(coordinator, stub, root, reference, good.name)


@pytest.mark.row(20)
def test_a_file_size_limit_is_an_error_and_not_a_signal(coordinator, stub, root, reference):
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, name="limited", wrap=["prlimit", "--fsize=500000"]):
        expect_failure(coordinator, stub, root, job.name, "RESOURCE_EXHAUSTED")
    stub.RetryJob(job_service_pb2.RetryJobRequest(name=job.name))
    with Pool(coordinator.address, root, name="free"):
        expect_success(coordinator, stub, root, reference, job.name)


def health(coordinator):
    check = health_pb2_grpc.HealthStub(grpc.insecure_channel(coordinator.address)).Check
    return check(health_pb2.HealthCheckRequest(service="llmc.v1.JobService"), timeout=10).status


SERVING = health_pb2.HealthCheckResponse.SERVING


def refused(stub, job_spec):
    with pytest.raises(grpc.RpcError) as raised:
        submit(stub, job_spec)
    return raised.value.code()


@needs_strace
@pytest.mark.row(16)
@pytest.mark.parametrize("injection", ["fdatasync:error=EIO", "pwrite64:error=ENOSPC",
                                       "pwrite64:error=EIO"])
def test_a_store_that_fails_refuses_changes_and_comes_back(coordinator, stub, root, reference,
                                                           injection):
    kept = submit(stub, spec(root, "out"))
    with failing_calls(coordinator.process.pid, injection):
        assert refused(stub, spec(root, "other")) == grpc.StatusCode.UNAVAILABLE
        assert get(stub, kept.name).state == job_pb2.JOB_STATE_QUEUED
        wait_until(lambda: health(coordinator) != SERVING, "it says so", 10)
    # Nobody asks for a change: it must find out by itself.
    wait_until(lambda: health(coordinator) == SERVING, "it serves again", 10)
    with Pool(coordinator.address, root):
        expect_success(coordinator, stub, root, reference, kept.name)
    assert [j.name for j in stub.ListJobs(job_service_pb2.ListJobsRequest()).jobs] == [kept.name]


@pytest.mark.row(16)
def test_a_full_state_disk_refuses_changes_until_there_is_room(root, reference):
    state = root / "state"
    state.mkdir()
    mount = f'mount -t tmpfs -o size=2m none {state} && exec "$@"'
    with Coordinator(root, wrap=["unshare", "-m", "sh", "-c", mount, "sh"]) as coordinator:
        stub = coordinator.stub()
        kept = submit(stub, spec(root, "out"))
        inside = f"/proc/{coordinator.process.pid}/root{state}"
        subprocess.run(["dd", "if=/dev/zero", f"of={inside}/ballast", "bs=64k"],
                       capture_output=True)
        codes = set()
        for i in range(200):
            try:
                submit(stub, spec(root, f"other{i}"))
            except grpc.RpcError as error:
                codes.add(error.code())
                break
        assert codes == {grpc.StatusCode.UNAVAILABLE}
        wait_until(lambda: health(coordinator) != SERVING, "it says so", 10)
        os.unlink(f"{inside}/ballast")
        wait_until(lambda: health(coordinator) == SERVING, "it serves again", 10)
        with Pool(coordinator.address, root):
            expect_success(coordinator, stub, root, reference, kept.name)


def half_done(coordinator, stub, root):
    """A job of which two layers are written and whose pool is gone."""
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, name="doomed",
              LLMC_FAILPOINTS="layer.write=kill@3") as doomed:
        doomed.wait()
    return job


def flip(path, at):
    contents = bytearray(path.read_bytes())
    contents[at(contents)] ^= 1
    path.write_bytes(contents)


def first_data_byte(contents):
    header = int.from_bytes(contents[:8], "little")
    return next(i for i in range(8 + header, len(contents)) if contents[i])


DAMAGES = {
    "bit": lambda shard, journal: flip(shard, first_data_byte),
    "shard_cut": lambda shard, journal: os.truncate(shard, shard.stat().st_size // 2),
    "journal_cut": lambda shard, journal: os.truncate(journal, journal.stat().st_size - 20),
    "header": lambda shard, journal: flip(shard, lambda contents: 20),
    "shard_gone": lambda shard, journal: shard.unlink(),
    "journal_gone": lambda shard, journal: journal.unlink(),
    "journal_flip": lambda shard, journal: flip(journal, lambda contents: len(contents) // 2),
    "journal_first": lambda shard, journal: flip(journal, lambda contents: 5),
    "journal_empty": lambda shard, journal: os.truncate(journal, 0),
    "journal_garbage": lambda shard, journal: journal.write_bytes(os.urandom(4096)),
    "journal_fifo": lambda shard, journal: (journal.unlink(), os.mkfifo(journal)),
}


@pytest.mark.row(21)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_found_and_redone(coordinator, stub, root, reference, damage):
    job = half_done(coordinator, stub, root)
    partial = root / "out.llmc-partial"
    DAMAGES[damage](next(partial.glob("*.safetensors")), partial / "llmc_journal")
    with Pool(coordinator.address, root, name="heir"):
        ended = wait_for_end(stub, job.name)
        if ended.state == job_pb2.JOB_STATE_FAILED:
            # It may not guess; cleared away, the job starts anew.
            assert ended.error.message and not (root / "out").exists()
            shutil.rmtree(partial)
            stub.RetryJob(job_service_pb2.RetryJobRequest(name=job.name))
        expect_success(coordinator, stub, root, reference, job.name)


@pytest.mark.row(22)
def test_the_checkpoint_of_another_job_is_refused(coordinator, stub, root, reference):
    first = half_done(coordinator, stub, root)
    stub.CancelJob(job_service_pb2.CancelJobRequest(name=first.name))
    wait_for_end(stub, first.name)
    other = submit(stub, spec(root, "out", seed=43))
    with Pool(coordinator.address, root, name="heir"):
        expect_failure(coordinator, stub, root, other.name, "FAILED_PRECONDITION", "partial")
        # The first is still whole.
        stub.RetryJob(job_service_pb2.RetryJobRequest(name=first.name))
        expect_success(coordinator, stub, root, reference, first.name)


@pytest.mark.row(23)
def test_junk_where_the_checkpoint_goes_is_never_merged(coordinator, stub, root, reference):
    partial = root / "out.llmc-partial"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(os.urandom(5000))
    (partial / "evil.py").write_text("boom")
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root):
        ended = wait_for_end(stub, job.name)
        if ended.state == job_pb2.JOB_STATE_FAILED:
            assert "out.llmc-partial" in ended.error.message and not (root / "out").exists()
            shutil.rmtree(partial)
            stub.RetryJob(job_service_pb2.RetryJobRequest(name=job.name))
        expect_success(coordinator, stub, root, reference, job.name)


@pytest.mark.row(33)
def test_a_model_that_is_cut_short_while_read_fails_its_job_only(coordinator, stub, root,
                                                                 reference):
    shutil.copytree(MODEL, root / "model")
    bad = submit(stub, spec(root, "bad", model=str(root / "model")))
    good = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, LLMC_FAILPOINTS="layer.load=sleep(3000)@2"):
        layers_done(stub, bad.name, 1)
        os.truncate(root / "model/model.safetensors", 100_000)
        expect_failure(coordinator, stub, root, bad.name, "DATA_LOSS|INVALID_ARGUMENT")
        expect_success(coordinator, stub, root, reference, good.name)


@needs_strace
@pytest.mark.row(7)
def test_a_slow_disk_costs_no_lease(coordinator, stub, root, reference):
    job = submit(stub, spec(root, "out"))
    slow = traced("fsync:delay_enter=400000", "pwrite64:delay_enter=20000")
    with Pool(coordinator.address, root, wrap=slow):
        ended = expect_success(coordinator, stub, root, reference, job.name)
    assert ended.attempt == 1
