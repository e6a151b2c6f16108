"""JobService, driven by a Python client that is generated from the protos."""
import subprocess
import threading
import uuid

import grpc
import pytest
from control_tower import SOURCE, Coordinator, get, job_pb2, job_service_pb2, spec, submit
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc


def details(error):
    """Error details as any client of Google's error model reads them."""
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    assert status.code == error.code().value[0]
    found = {}
    for detail in status.details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest,
                     error_details_pb2.RetryInfo):
            message = kind()
            if detail.Unpack(message):
                found[kind.__name__] = message
    return found


def refused(call, code):
    with pytest.raises(grpc.RpcError) as raised:
        call()
    assert raised.value.code() == code, raised.value
    return details(raised.value)


def test_buf_lint_is_clean():
    run = subprocess.run([str(SOURCE / ".venv/bin/buf"), "lint", str(SOURCE / "proto")],
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_all_violations_come_in_one_bad_request(stub, root):
    bad = job_pb2.Job(spec=job_pb2.JobSpec(
        model="/etc", preset="W99", output="/usr/x", datasets=[str(root / "none.jsonl")],
        num_calibration_samples=0, device="tpu"), priority=200)
    found = refused(lambda: stub.CreateJob(job_service_pb2.CreateJobRequest(job=bad)),
                    grpc.StatusCode.INVALID_ARGUMENT)
    fields = {v.field for v in found["BadRequest"].field_violations}
    assert fields == {"job.spec.model", "job.spec.preset", "job.spec.output", "job.spec.datasets[0]",
                      "job.spec.num_calibration_samples", "job.spec.device", "job.priority"}
    assert found["ErrorInfo"].domain == "llmc.dev"
    assert found["ErrorInfo"].reason == "INVALID_JOB"


@pytest.mark.parametrize("changes,field", [
    ({"recipe_text": "quant_stage: ["}, "job.spec.recipe_text"),
    ({"datasets": []}, "job.spec.datasets"),
    ({"output": "relative"}, "job.spec.output"),
    ({"memory_budget_bytes": 1000}, "job.spec.memory_budget_bytes"),
    ({"text_column": "absent"}, "job.spec.datasets[0]"),
])
def test_a_job_that_cannot_work_is_refused_with_its_field(stub, root, changes, field):
    found = refused(lambda: submit(stub, spec(root, "out", **changes)),
                    grpc.StatusCode.INVALID_ARGUMENT)
    assert field in {v.field for v in found["BadRequest"].field_violations}


def test_the_plan_is_stored_with_the_job(stub, root):
    job = submit(stub, spec(root, "out"))
    assert job.plan.num_layers > 0 and job.plan.calibrated
    assert job.plan.output_bytes > 0 and job.plan.rank_memory_bytes[1] > 0
    found = get(stub, job.name)
    assert found.waits_for == "a pool; none is attached"
    found.ClearField("waits_for")
    assert found == job


def test_validate_only_makes_nothing(stub, root):
    job = submit(stub, spec(root, "out"), validate_only=True)
    assert job.name == "" and job.plan.num_layers > 0
    assert not stub.ListJobs(job_service_pb2.ListJobsRequest()).jobs


def test_a_request_id_makes_one_job_whoever_repeats_it(stub, root):
    request_id = str(uuid.uuid4())
    names, errors = [], []

    def create():
        try:
            names.append(submit(stub, spec(root, "out"), request_id=request_id).name)
        except grpc.RpcError as error:
            errors.append(error)

    threads = [threading.Thread(target=create) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(names) == 20 and len(set(names)) == 1
    found = refused(lambda: submit(stub, spec(root, "other"), request_id=request_id),
                    grpc.StatusCode.ALREADY_EXISTS)
    assert found["ErrorInfo"].reason == "REQUEST_ID_REUSED"


def test_pages_show_every_job_once_and_filters_hold(stub, root):
    names = [submit(stub, spec(root, f"out{i}"), job_id=f"job{i}").name for i in range(7)]
    stub.PauseJob(job_service_pb2.PauseJobRequest(name=names[3]))
    seen, token = [], ""
    while True:
        page = stub.ListJobs(job_service_pb2.ListJobsRequest(page_size=3, page_token=token))
        seen += [job.name for job in page.jobs]
        token = page.next_page_token
        if not token:
            break
    assert sorted(seen) == sorted(names) and len(seen) == 7
    paused = stub.ListJobs(job_service_pb2.ListJobsRequest(filter="state = PAUSED")).jobs
    assert [job.name for job in paused] == [names[3]]
    first = stub.ListJobs(job_service_pb2.ListJobsRequest(page_size=3))
    for request in (job_service_pb2.ListJobsRequest(page_size=-1),
                    job_service_pb2.ListJobsRequest(filter="colour = red"),
                    job_service_pb2.ListJobsRequest(page_token="made-up"),
                    job_service_pb2.ListJobsRequest(page_token=first.next_page_token,
                                                    filter="state = PAUSED")):
        refused(lambda r=request: stub.ListJobs(r), grpc.StatusCode.INVALID_ARGUMENT)


def test_a_list_of_long_recipes_fits_into_its_message(stub, root):
    recipe = ("quant_stage:\n  m_modifiers:\n    QuantizationModifier: {targets: [Linear], scheme: W8A16}\n" +
              "# " + "x" * 1_000_000 + "\n")
    for i in range(8):
        submit(stub, spec(root, f"out{i}", recipe_text=recipe, datasets=[]), job_id=f"job{i}")
    page = stub.ListJobs(job_service_pb2.ListJobsRequest())
    assert len(page.jobs) == 8 and page.ByteSize() < 100_000
    assert get(stub, "jobs/job0").spec.recipe_text == recipe


def test_verbs_follow_the_state_graph_and_etags(stub, root):
    job = submit(stub, spec(root, "out"))
    paused = stub.PauseJob(job_service_pb2.PauseJobRequest(name=job.name, etag=job.etag))
    assert paused.state == job_pb2.JOB_STATE_PAUSED
    found = refused(lambda: stub.ResumeJob(job_service_pb2.ResumeJobRequest(
        name=job.name, etag=job.etag)), grpc.StatusCode.ABORTED)
    assert found["ErrorInfo"].reason == "ETAG_MISMATCH"
    assert stub.ResumeJob(job_service_pb2.ResumeJobRequest(name=job.name)).state == \
        job_pb2.JOB_STATE_QUEUED
    refused(lambda: stub.RetryJob(job_service_pb2.RetryJobRequest(name=job.name)),
            grpc.StatusCode.FAILED_PRECONDITION)
    refused(lambda: stub.DeleteJob(job_service_pb2.DeleteJobRequest(name=job.name)),
            grpc.StatusCode.FAILED_PRECONDITION)
    assert stub.CancelJob(job_service_pb2.CancelJobRequest(name=job.name)).state == \
        job_pb2.JOB_STATE_CANCELLED
    stub.DeleteJob(job_service_pb2.DeleteJobRequest(name=job.name))
    found = refused(lambda: get(stub, job.name), grpc.StatusCode.NOT_FOUND)
    assert found["ErrorInfo"].reason == "JOB_NOT_FOUND"


def test_a_watch_begins_with_a_snapshot_and_resumes_without_gaps(stub, root):
    job = submit(stub, spec(root, "out"))
    stream = stub.WatchJob(job_service_pb2.WatchJobRequest(name=job.name))
    snapshot = next(stream)
    assert snapshot.snapshot.name == job.name and snapshot.sequence == job.sequence
    for _ in range(5):
        stub.PauseJob(job_service_pb2.PauseJobRequest(name=job.name))
        stub.ResumeJob(job_service_pb2.ResumeJobRequest(name=job.name))
    first = next(stream)
    stream.cancel()
    stub.CancelJob(job_service_pb2.CancelJobRequest(name=job.name))
    rest = list(stub.WatchJob(job_service_pb2.WatchJobRequest(
        name=job.name, resume_token=first.resume_token), timeout=20))
    sequences = [snapshot.sequence, first.sequence] + [m.sequence for m in rest]
    assert sequences == list(range(snapshot.sequence, snapshot.sequence + 12))
    assert rest[-1].event.state_change.to == job_pb2.JOB_STATE_CANCELLED
    refused(lambda: list(stub.WatchJob(job_service_pb2.WatchJobRequest(
        name=job.name, resume_token="made-up"))), grpc.StatusCode.INVALID_ARGUMENT)


def test_a_token_of_dropped_events_is_out_of_range(root):
    with Coordinator(root, "--max-events-per-job", 4) as coordinator:
        stub = coordinator.stub()
        job = submit(stub, spec(root, "out"))
        token = next(stub.WatchJob(job_service_pb2.WatchJobRequest(name=job.name))).resume_token
        # Only steps are dropped: a session reports more of them than are kept.
        from control_tower import worker_service_pb2 as worker, worker_service_pb2_grpc
        import queue

        outgoing = queue.Queue()
        session = worker_service_pb2_grpc.WorkerServiceStub(
            grpc.insecure_channel(coordinator.address)).Session(iter(outgoing.get, None))
        outgoing.put(worker.SessionRequest(attach=worker.Attach(
            pool="p", instance="i", ranks=[job_service_pb2.PoolRank(rank=0)])))
        outgoing.put(worker.SessionRequest(heartbeat=worker.Heartbeat(number=1, idle=True)))
        lease = next(m for m in session if m.HasField("offer")).offer.lease
        for batch in range(1, 9):
            outgoing.put(worker.SessionRequest(steps=worker.ReportSteps(
                lease=lease, batch=batch, steps=[job_pb2.StepRecord(message="x")])))
            assert next(m for m in session if m.HasField("steps_ack")).steps_ack.batch == batch
        found = refused(lambda: list(stub.WatchJob(job_service_pb2.WatchJobRequest(
            name=job.name, resume_token=token))), grpc.StatusCode.OUT_OF_RANGE)
        assert found["ErrorInfo"].reason == "RESUME_TOKEN_EXPIRED"
        outgoing.put(None)


def test_health_and_reflection_are_on(coordinator):
    channel = grpc.insecure_channel(coordinator.address)
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "llmc.v1.JobService", "llmc.v1.WorkerService"):
        assert health.Check(health_pb2.HealthCheckRequest(service=service)).status == \
            health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    answer = next(reflection.ServerReflectionInfo(iter(
        [reflection_pb2.ServerReflectionRequest(list_services="")])))
    names = {s.name for s in answer.list_services_response.service}
    assert {"llmc.v1.JobService", "llmc.v1.WorkerService"} <= names
