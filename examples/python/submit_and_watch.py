#!/usr/bin/env python3
"""Submits a job to a coordinator and follows it to its end, whatever happens to the
connection. Needs grpcio and grpcio-tools; the stubs are made from proto/ at the start.

    submit_and_watch.py --coordinator 127.0.0.1:7180 --model DIR --recipe W4A16 \\
        --dataset text.jsonl --output DIR
"""
import argparse
import pathlib
import sys
import tempfile
import time
import uuid

import grpc
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"


def make_stubs():
    out = tempfile.mkdtemp()
    wellknown = pathlib.Path(protoc.__file__).parent / "_proto"
    files = [str(p) for p in (PROTO / "llmc/v1").glob("*.proto")]
    if protoc.main(["", f"-I{PROTO}", f"-I{wellknown}", f"--python_out={out}",
                    f"--grpc_python_out={out}", *files]) != 0:
        sys.exit("the stubs cannot be made")
    sys.path.insert(0, out)


def open_channel(args):
    if not args.tls_ca:
        return grpc.insecure_channel(args.coordinator)
    return grpc.secure_channel(args.coordinator, grpc.ssl_channel_credentials(
        pathlib.Path(args.tls_ca).read_bytes()))


def create(stub, job, metadata):
    """The request id makes it safe to ask again: there will be one job."""
    from llmc.v1 import job_service_pb2

    request = job_service_pb2.CreateJobRequest(job=job, request_id=str(uuid.uuid4()))
    while True:
        try:
            return stub.CreateJob(request, timeout=30, metadata=metadata)
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise
            time.sleep(1)


def watch(stub, name, metadata):
    """Messages in order and once; the token continues after a broken connection."""
    from llmc.v1 import job_service_pb2

    token, wait = "", 0.5
    while True:
        try:
            request = job_service_pb2.WatchJobRequest(name=name, resume_token=token)
            for message in stub.WatchJob(request, metadata=metadata):
                token, wait = message.resume_token, 0.5
                yield message
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.OUT_OF_RANGE:
                token = ""
            elif error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
        time.sleep(wait)
        wait = min(10, 2 * wait)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--coordinator", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--recipe", required=True, help="preset or recipe file")
    parser.add_argument("--dataset", action="append", default=[])
    parser.add_argument("--output", required=True)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--tls-ca")
    parser.add_argument("--token-file")
    args = parser.parse_args()
    make_stubs()
    from llmc.v1 import job_pb2, job_service_pb2_grpc

    metadata = []
    if args.token_file:
        token = pathlib.Path(args.token_file).read_text().strip()
        metadata = [("authorization", f"Bearer {token}")]
    absolute = lambda path: str(pathlib.Path(path).absolute())  # noqa: E731
    spec = job_pb2.JobSpec(model=absolute(args.model), output=absolute(args.output),
                           datasets=[absolute(d) for d in args.dataset],
                           num_calibration_samples=args.samples)
    recipe = pathlib.Path(args.recipe)
    if recipe.is_file():
        spec.recipe_text = recipe.read_text()
    else:
        spec.preset = args.recipe
    stub = job_service_pb2_grpc.JobServiceStub(open_channel(args))
    job = create(stub, job_pb2.Job(spec=spec), metadata)
    print(job.name, flush=True)
    state = job.state
    for message in watch(stub, job.name, metadata):
        if message.HasField("snapshot"):
            state = message.snapshot.state
        elif message.event.HasField("state_change"):
            change = message.event.state_change
            state = change.to
            print(job_pb2.JobState.Name(change.to), change.reason, flush=True)
        elif message.event.HasField("steps"):
            progress = message.event.steps.progress
            print(f"{progress.layers_done} of {progress.num_layers} layers, {progress.step}",
                  flush=True)
        if state == job_pb2.JOB_STATE_SUCCEEDED:
            return 0
        if state in (job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED):
            return 1
    return 1


if __name__ == "__main__":
    sys.exit(main())
