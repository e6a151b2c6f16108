"""The coordinator's own state: damaged, doubled, flooded, and clocks that jump."""
import contextlib
import json
import os
import random
import shutil
import sqlite3
import threading

import grpc
import pytest
from checks import expect_failure, expect_success, pools
from control_tower import (Coordinator, Pool, check_history, get, job_events, job_pb2,
                           job_service_pb2, spec, submit, wait_for_end, wait_until)
from injection import FalseClock, needs_faketime

FLAGS = ("--lease-ttl-ms", 6000, "--heartbeat-interval-ms", 500, "--backoff-ms", 200)


@pytest.mark.row(25)
def test_a_second_coordinator_on_one_store_is_refused(coordinator, root):
    second = Coordinator(root)
    second.log = root / "second.log"
    with pytest.raises(AssertionError, match=f"in use by process {coordinator.process.pid}"):
        second.start()
    assert second.process.wait(10) == 78


@pytest.mark.row(24)
def test_a_lease_shorter_than_three_heartbeats_is_refused(root):
    with pytest.raises(AssertionError, match="three times"):
        Coordinator(root, "--lease-ttl-ms", 6000, "--heartbeat-interval-ms", 5000).start()


def half(path):
    os.truncate(path, path.stat().st_size // 2)


def newer_schema(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=99")


def garbage_in_a_row(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE jobs SET record=?", (b"\xff\xff\xff\xff",))
        connection.commit()


def random_pages(path):
    contents = bytearray(path.read_bytes())
    for page in range(1, len(contents) // 4096):
        contents[page * 4096:page * 4096 + 64] = random.Random(page).randbytes(64)
    path.write_bytes(contents)


@pytest.mark.row(26)
@pytest.mark.parametrize("damage,words", [
    (lambda path: path.write_bytes(b"garbage" * 1000), "damaged"),
    (half, "damaged"), (random_pages, "damaged"), (newer_schema, "schema 99"),
    (garbage_in_a_row, "damaged|not a job"), (lambda path: (path.unlink(), path.mkdir()), "open"),
], ids=["garbage", "half", "pages", "newer", "row", "directory"])
def test_a_damaged_store_is_refused(root, damage, words):
    with Coordinator(root) as coordinator:
        for i in range(20):
            submit(coordinator.stub(), spec(root, f"out{i}"))
        coordinator.stop()
    damage(root / "state/jobs.sqlite")
    again = Coordinator(root)
    with pytest.raises(AssertionError, match=words):
        again.start()
    assert again.process.wait(10) in (1, 78)


@pytest.mark.row(26)
def test_a_torn_write_ahead_log_loses_nothing_that_was_acknowledged(root):
    with Coordinator(root) as coordinator:
        names = {submit(coordinator.stub(), spec(root, f"out{i}")).name for i in range(10)}
        coordinator.kill()
        wal = root / "state/jobs.sqlite-wal"
        with open(wal, "ab") as log:  # What a crash in the middle of a write leaves.
            log.write(os.urandom(3000))
        with Coordinator(root) as again:
            listed = again.stub().ListJobs(job_service_pb2.ListJobsRequest()).jobs
            assert {j.name for j in listed} == names


@pytest.mark.row(27)
def test_a_hundred_equal_requests_at_once_make_one_job(coordinator, stub, root):
    request = job_service_pb2.CreateJobRequest(job=job_pb2.Job(spec=spec(root, "out")),
                                               request_id="the-one")
    calls = [stub.CreateJob.future(request, timeout=60) for _ in range(100)]
    names = {call.result().name for call in calls}
    assert len(names) == 1
    assert len(stub.ListJobs(job_service_pb2.ListJobsRequest()).jobs) == 1
    request.job.priority = 7
    with pytest.raises(grpc.RpcError) as raised:
        stub.CreateJob(request)
    assert raised.value.code() == grpc.StatusCode.ALREADY_EXISTS


def try_verb(stub, name, kind):
    call, request = {"cancel": (stub.CancelJob, job_service_pb2.CancelJobRequest),
                     "pause": (stub.PauseJob, job_service_pb2.PauseJobRequest),
                     "resume": (stub.ResumeJob, job_service_pb2.ResumeJobRequest),
                     "retry": (stub.RetryJob, job_service_pb2.RetryJobRequest)}[kind]
    try:
        call(request(name=name), timeout=20)
    except grpc.RpcError as error:
        assert error.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ABORTED), error


@pytest.mark.row(28)
def test_cancel_racing_with_everything_ends_in_one_state(coordinator, stub, root):
    with Pool(coordinator.address, root):
        wait_until(lambda: pools(stub), "the pool attaches")
        for i in range(12):
            job = submit(stub, spec(root, f"race{i}", preset="FP8_DYNAMIC", datasets=[]))
            racer = threading.Timer(i * 0.03, try_verb, (stub, job.name, "cancel"))
            racer.start()
            ended = wait_for_end(stub, job.name)
            racer.join()
            assert (root / f"race{i}").exists() == (ended.state == job_pb2.JOB_STATE_SUCCEEDED)
            check_history(job_events(coordinator, job.name))


@pytest.mark.row(28)
@pytest.mark.parametrize("seed", range(5))
def test_verbs_of_many_users_at_once_keep_the_state_legal(coordinator, stub, root, reference, seed):
    job = submit(stub, spec(root, "out"))

    def user(number):
        chance = random.Random(100 * seed + number)
        for _ in range(25):
            try_verb(stub, job.name, chance.choice(["cancel", "pause", "resume", "retry"]))

    with Pool(coordinator.address, root, LLMC_FAILPOINTS="layer.load=sleep(100)"):
        users = [threading.Thread(target=user, args=(n,)) for n in range(8)]
        for one in users:
            one.start()
        for one in users:
            one.join()

        def ends_well():
            for kind in ("resume", "retry"):
                try_verb(stub, job.name, kind)
            return get(stub, job.name).state == job_pb2.JOB_STATE_SUCCEEDED

        wait_until(ends_well, "it can still end well", 120)
        expect_success(coordinator, stub, root, reference, job.name)


@pytest.mark.row(29)
def test_a_poison_job_is_given_up_and_others_proceed(coordinator, stub, root):
    poison = submit(stub, spec(root, "out"), job_id="poison")
    for attempt in range(5):
        victim = Pool(coordinator.address, root, name=f"victim{attempt}",
                      LLMC_FAILPOINTS="layer.load=kill")
        victim.wait()
        wait_until(lambda n=attempt: len([e for e in job_events(coordinator, poison.name)
                                          if e.get("stateChange", {}).get("from") ==
                                          "JOB_STATE_RUNNING"]) > n, "the loss is seen")
    assert get(stub, poison.name).state == job_pb2.JOB_STATE_FAILED
    other = submit(stub, spec(root, "other", preset="FP8_DYNAMIC", datasets=[]))
    with Pool(coordinator.address, root, name="healthy"):
        assert wait_for_end(stub, other.name).state == job_pb2.JOB_STATE_SUCCEEDED


def resident_megabytes(process):
    with open(f"/proc/{process.pid}/status") as status:
        line = next(line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@pytest.mark.row(30)
def test_many_jobs_and_watchers_stay_small_and_survive_a_restart(root):
    with Coordinator(root, *FLAGS) as coordinator:
        stub = coordinator.stub()
        names = {submit(stub, spec(root, f"out{i}")).name for i in range(300)}
        streams = [stub.WatchJob(job_service_pb2.WatchJobRequest(name=name))
                   for name in list(names)[:100]]
        for stream in streams:
            assert next(stream).HasField("snapshot")
        assert resident_megabytes(coordinator.process) < 500
        coordinator.kill()
        with Coordinator(root, *FLAGS, grpc_port=coordinator.grpc_port) as again:
            listed, token = set(), ""
            while True:
                page = again.stub().ListJobs(job_service_pb2.ListJobsRequest(
                    page_size=70, page_token=token), wait_for_ready=True)
                listed |= {j.name for j in page.jobs}
                token = page.next_page_token
                if not token:
                    break
            assert listed == names


@needs_faketime
@pytest.mark.row(24)
@pytest.mark.parametrize("who", ["coordinator", "pool"])
def test_a_wall_clock_that_jumps_costs_no_lease(root, reference, who):
    clock = FalseClock(root)
    of = lambda name: clock.environment if name == who else {}  # noqa: E731
    with Coordinator(root, *FLAGS, **of("coordinator")) as coordinator:
        stub = coordinator.stub()
        job = submit(stub, spec(root, "out"))
        with Pool(coordinator.address, root, LLMC_FAILPOINTS="layer.load=sleep(1500)",
                  **of("pool")):
            wait_until(lambda: get(stub, job.name).state == job_pb2.JOB_STATE_RUNNING, "it runs")
            # Forward, back over a change to summer time, past the end of 32-bit time.
            for number, offset in enumerate(["+1h", "-2h", "@2040-02-01 00:00:00", "+0"]):
                clock.set(offset)
                wait_until(lambda n=number: get(stub, job.name).progress.layers_done >= n
                           or get(stub, job.name).state == job_pb2.JOB_STATE_SUCCEEDED, "a layer")
            ended = expect_success(coordinator, stub, root, reference, job.name)
            assert ended.attempt == 1


@pytest.mark.row(44)
def test_hostile_names_are_escaped_everywhere(coordinator, stub, root):
    hostile = "<script>alert(1)</script>\x1b[31m\n\"'&"
    request = job_service_pb2.CreateJobRequest(job=job_pb2.Job(
        spec=spec(root, "out<b>\x1b[2J"), labels={"k<script>": hostile}))
    job = stub.CreateJob(request)
    assert job.labels["k<script>"] == hostile
    for path in ("/", "/" + job.name, "/metrics"):
        text = coordinator.read(path)
        assert "<script>alert" not in text and "\x1b" not in text, path
    text = coordinator.log.read_text()
    assert "\x1b" not in text
    (root / "text.jsonl").write_text('{"other\\u001b<script>": 1}\n')
    with Pool(coordinator.address, root) as pool:
        ended = wait_for_end(stub, job.name)
        assert ended.state == job_pb2.JOB_STATE_FAILED
        assert "\x1b" not in pool.log.read_text()


@pytest.mark.row(34)
def test_weights_that_are_no_numbers_fail_the_job_with_the_place(coordinator, stub, root):
    import torch
    from control_tower import MODEL
    from safetensors.torch import load_file, save_file

    shutil.copytree(MODEL, root / "model")
    tensors = load_file(root / "model/model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = torch.nan
    save_file(tensors, root / "model/model.safetensors", {"format": "pt"})
    job = submit(stub, spec(root, "out", model=str(root / "model")))
    with Pool(coordinator.address, root):
        expect_failure(coordinator, stub, root, job.name, "FAILED_PRECONDITION", "not finite")


@pytest.mark.row(35)
def test_a_singular_hessian_is_reported_and_kills_no_job(coordinator, stub, root):
    (root / "text.jsonl").write_text('{"text": "a a a a"}\n' * 4)
    recipe = """default_stage:
  default_modifiers:
    GPTQModifier: {targets: [Linear], scheme: W4A16, ignore: [lm_head], dampening_frac: 1.0e-12}
"""
    job = submit(stub, spec(root, "out", recipe_text=recipe))
    with Pool(coordinator.address, root):
        ended = wait_for_end(stub, job.name)
        assert ended.state == job_pb2.JOB_STATE_SUCCEEDED, ended.error
    report = json.loads(stub.GetReport(
        job_service_pb2.GetReportRequest(name=job.name)).report_json)
    assert any(row["fallback"] or (row["damping_frac"] or 0) > 1e-12 for row in report["linears"])

