"""A coordinator, pools and clients for the tests of the service, and the checks that
every history must pass."""
import contextlib
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid

import grpc

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ["LLMC_BIN"])
MODEL = SOURCE / "examples/tiny-llama"
STARTUP_S = 60


def generate_stubs():
    """Python stubs of the protos, made for this process."""
    from grpc_tools import protoc

    out = tempfile.mkdtemp(prefix="llmc-stubs-")
    files = [str(p) for p in sorted((SOURCE / "proto/llmc/v1").glob("*.proto"))]
    assert protoc.main(["protoc", f"-I{SOURCE / 'proto'}",
                        f"-I{pathlib.Path(protoc.__file__).parent / '_proto'}",
                        f"--python_out={out}", f"--grpc_python_out={out}", *files]) == 0
    sys.path.insert(0, out)


generate_stubs()
from llmc.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc  # noqa: E402
from llmc.v1 import worker_service_pb2, worker_service_pb2_grpc  # noqa: E402,F401

ENDS = {job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED}


def environment(**extra):
    env = {k: v for k, v in os.environ.items() if not k.startswith("LLMC_")}
    env.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", NO_COLOR="1",
               OMPI_MCA_btl_base_warn_component_unused="0")
    env.update({k: str(v) for k, v in extra.items()})
    return env


def wait_until(condition, what, seconds=STARTUP_S):
    """The condition's value once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


class Coordinator:
    """llmc-coordinator on free ports of the loopback."""

    def __init__(self, root, *flags, insecure=True, grpc_port=0, http_port=0, wrap=(), **env):
        self.root, self.flags = pathlib.Path(root), [str(f) for f in flags]
        self.log = self.root / "coordinator.log"
        self.env, self.insecure, self.wrap = env, insecure, list(map(str, wrap))
        self.grpc_port, self.http_port, self.process = grpc_port, http_port, None

    def command(self):
        words = [*self.wrap, BIN / "llmc-coordinator", "--listen", f"127.0.0.1:{self.grpc_port}",
                 "--http-listen", f"127.0.0.1:{self.http_port}", "--state-dir",
                 self.root / "state", "--allow-root", self.root, "--allow-root",
                 SOURCE / "examples", *self.flags]
        return [str(w) for w in words] + (["--insecure"] if self.insecure else [])

    def start(self):
        with open(self.log, "ab") as log:
            offset = log.tell()
            self.process = subprocess.Popen(self.command(), stderr=log,
                                            env=environment(**self.env))

        def serving():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            for line in self.log.read_bytes()[offset:].decode(errors="replace").splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    fields = json.loads(line)
                    if fields.get("message") == "serving":
                        return fields
            return None

        fields = wait_until(serving, "the coordinator serves")
        self.grpc_port, self.http_port = int(fields["grpc_port"]), int(fields["http_port"])
        return self

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        return self.process.wait(timeout=30)

    @property
    def address(self):
        return f"127.0.0.1:{self.grpc_port}"

    def url(self, path):
        return f"http://127.0.0.1:{self.http_port}{path}"

    def read(self, path):
        with urllib.request.urlopen(self.url(path), timeout=10) as answer:
            return answer.read().decode()

    def stub(self):
        channel = grpc.insecure_channel(self.address, options=[
            ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)])
        return job_service_pb2_grpc.JobServiceStub(channel)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        if self.process is not None and self.process.poll() is None:
            self.kill()


class Pool:
    """`llmc-worker pool`, alone or under mpirun."""

    def __init__(self, address, root, *flags, ranks=1, name="pool", wrap=(), sigkill_s=10,
                 **env):
        command = [*wrap, BIN / "llmc-worker", "pool", "--coordinator", address, "--name", name,
                   "--beat-interval-ms", 200, *flags]
        if ranks > 1:
            command = ["mpirun", "--oversubscribe", "--bind-to", "none", "--mca",
                       "odls_base_sigkill_timeout", sigkill_s, "-np", ranks, *command]
        # Ranks are found by it: other tests may run pools of the same name beside this one.
        self.mark = f"TEST_POOL={uuid.uuid4()}".encode()
        env["TEST_POOL"] = self.mark.decode().split("=")[1]
        self.log = pathlib.Path(root) / f"pool-{name}.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([str(w) for w in command], stdout=log, stderr=log,
                                            start_new_session=True, env=environment(**env))

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        # mpirun gives its ranks groups of their own.
        for pid in self.rank_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def rank_pids(self):
        """Process ids of the ranks, in no order."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                is_rank = ((entry / "comm").read_text() == "llmc-worker\n" and
                           self.mark in (entry / "environ").read_bytes().split(b"\0"))
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
                if is_rank and state != "Z":
                    found.append(int(entry.name))
        return found

    def wait(self, timeout=120):
        return self.process.wait(timeout=timeout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


def digest(directory):
    """Relative name -> SHA-256 of every file of an output but its report."""
    return {str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(pathlib.Path(directory).rglob("*"))
            if p.is_file() and p.relative_to(directory).parts[0] != "llmc_report"}


def write_text(path, rows=48):
    words = (SOURCE / "README.md").read_text().split()
    lines = [json.dumps({"text": " ".join(words[(7 * i) % 150:(7 * i) % 150 + 20 + i % 60])})
             for i in range(rows)]
    pathlib.Path(path).write_text("\n".join(lines) + "\n")
    return path


def spec(root, output_name, /, **changes):
    """A small GPTQ job."""
    fields = dict(model=str(MODEL), preset="W4A16", datasets=[str(pathlib.Path(root) / "text.jsonl")],
                  output=str(pathlib.Path(root) / output_name), num_calibration_samples=32,
                  max_seq_length=64)
    fields.update(changes)
    if "recipe_text" in fields:
        fields.pop("preset", None)
    return job_pb2.JobSpec(**fields)


def submit(stub, job_spec, **request):
    return stub.CreateJob(job_service_pb2.CreateJobRequest(job=job_pb2.Job(spec=job_spec),
                                                           **request), timeout=20)


def get(stub, name):
    return stub.GetJob(job_service_pb2.GetJobRequest(name=name), timeout=20, wait_for_ready=True)


def wait_for_end(stub, name, seconds=120):
    def ended():
        job = get(stub, name)
        return job if job.state in ENDS else None

    return wait_until(ended, f"{name} ends", seconds)


EDGES = {
    "UNSPECIFIED": {"QUEUED"}, "QUEUED": {"LEASED", "PAUSED", "CANCELLED"},
    "LEASED": {"RUNNING", "QUEUED", "PAUSING", "CANCELLING", "SUCCEEDED", "FAILED"},
    "RUNNING": {"QUEUED", "PAUSING", "CANCELLING", "SUCCEEDED", "FAILED"},
    "PAUSING": {"PAUSED", "CANCELLING", "SUCCEEDED", "FAILED"}, "PAUSED": {"QUEUED", "CANCELLED"},
    "CANCELLING": {"CANCELLED", "SUCCEEDED"}, "FAILED": {"QUEUED"}, "CANCELLED": {"QUEUED"},
}


def check_history(events):
    """Gap-free, legal edges, rising incarnations, one success. `events`: of one job, from
    its first, as dictionaries of the page's JSON."""
    state, incarnation, successes = "UNSPECIFIED", 0, 0
    for number, event in enumerate(events, start=1):
        assert int(event["sequence"]) == number, f"gap before {event['sequence']}"
        if "stateChange" not in event:
            continue
        move = event["stateChange"]
        source = move["from"].replace("JOB_STATE_", "")
        target = move["to"].replace("JOB_STATE_", "")
        assert source == state and target in EDGES[source], (state, source, target)
        assert int(move["incarnation"]) >= incarnation
        state, incarnation = target, int(move["incarnation"])
        successes += target == "SUCCEEDED"
    assert successes <= 1
    return state


def job_events(coordinator, name):
    """Every event that is kept, as the page reads them."""
    events, after = [], 0
    while True:
        answer = json.loads(coordinator.read(f"/api/{name}?after={after}"))
        events += answer["events"]
        if not answer["more"]:
            return events
        after = events[-1]["sequence"]
