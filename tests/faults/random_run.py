"""Random faults over small jobs, then a check of the whole history.

    random_run.py --faults 200 --seed 1

What must hold at the end: every acknowledged job has ended, in one of its legal states;
no output is published twice and every published one has the right bytes; a job that did
not succeed has published nothing; sequences have no gaps, incarnations rise; a watcher that
was there all the time has seen exactly the events that the store has; no file is left over.
"""
import argparse
import contextlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "service"))

import grpc  # noqa: E402
from control_tower import (BIN, ENDS, MODEL, Coordinator, Pool, check_history, digest,  # noqa: E402
                           environment, get, job_events, job_pb2, job_service_pb2, spec, submit,
                           wait_until, write_text)
from tcp_proxy import TcpProxy  # noqa: E402

# What a pool or a coordinator may be born with.
POOL_FAULTS = ["", "", "", "layer.solve=kill@2", "layer.write=kill@2", "unit.before_sync=kill@3",
               "journal.append=kill@3", "commit.before_rename=kill", "commit.after_rename=kill",
               "write.tensor=enospc@9", "layer.reduce=error@2", "layer.load=sleep(3500)@3"]
STORE_FAULTS = ["", "", "store.begin=kill@{}", "store.event=kill@{}", "store.before_commit=kill@{}",
                "store.after_commit=kill@{}", "store.before_commit=error@{}"]

FLAGS = ("--lease-ttl-ms", 3000, "--heartbeat-interval-ms", 300, "--rank-silence-ms", 2000,
         "--backoff-ms", 100, "--max-attempts", 1000)


class Watcher(threading.Thread):
    """Follows one job through every loss of the connection."""

    def __init__(self, stub, name):
        super().__init__(daemon=True)
        self.stub, self.name, self.token, self.sequences = stub, name, "", []
        self.stopping = False

    def run(self):
        while not self.stopping:
            with contextlib.suppress(grpc.RpcError):
                request = job_service_pb2.WatchJobRequest(name=self.name, resume_token=self.token)
                for message in self.stub.WatchJob(request, wait_for_ready=True, timeout=60):
                    if not message.HasField("snapshot") and not message.HasField("event"):
                        continue
                    self.token = message.resume_token
                    self.sequences.append(message.sequence)
            time.sleep(0.1)


class RandomRun:
    def __init__(self, root, seed):
        self.root, self.random, self.faulty = root, random.Random(seed), True
        write_text(root / "text.jsonl")
        self.coordinator = Coordinator(root, *FLAGS).start()
        # The port stays, so that a restarted coordinator is found again.
        self.stub = self.coordinator.stub()
        self.proxy = TcpProxy(self.coordinator.grpc_port)
        self.pools = [self.new_pool(i) for i in range(2)]
        self.jobs, self.watchers, self.number = [], [], 0

    def new_pool(self, i):
        return Pool(f"127.0.0.1:{self.proxy.port}", self.root, name=f"pool{i}",
                    ranks=self.random.choice([1, 1, 2]), LLMC_THREADS=1,
                    LLMC_FAILPOINTS=self.random.choice(POOL_FAULTS) if self.faulty else "")

    def start_coordinator(self):
        self.coordinator.env = {}
        if self.faulty:
            fault = self.random.choice(STORE_FAULTS).format(self.random.randrange(1, 30))
            self.coordinator.env = {"LLMC_FAILPOINTS": fault}
        self.coordinator.start()

    def repair(self):
        """A supervisor: what has ended is started again."""
        if self.coordinator.process.poll() is not None:
            self.start_coordinator()
        for i, pool in enumerate(self.pools):
            if pool.process.poll() is not None:
                pool.kill()
                self.pools[i] = self.new_pool(i)

    def new_job(self):
        self.number += 1
        job_spec = spec(self.root, f"out{self.number}")
        request_id = f"request-{self.number}"
        for _ in range(self.random.choice([1, 1, 3])):  # Impatient clients ask again.
            while True:
                try:
                    job = submit(self.stub, job_spec, request_id=request_id)
                    break
                except grpc.RpcError:
                    self.repair()
                    time.sleep(0.1)
            if not self.jobs or self.jobs[-1] != job.name:
                self.jobs.append(job.name)
                self.watchers.append(Watcher(self.stub, job.name))
                self.watchers[-1].start()

    def verb(self):
        name = self.random.choice(self.jobs)
        call, request = self.random.choice([
            (self.stub.PauseJob, job_service_pb2.PauseJobRequest),
            (self.stub.ResumeJob, job_service_pb2.ResumeJobRequest),
            (self.stub.CancelJob, job_service_pb2.CancelJobRequest),
            (self.stub.RetryJob, job_service_pb2.RetryJobRequest)])
        with contextlib.suppress(grpc.RpcError):
            call(request(name=name), timeout=5)

    def stop_a_pool_for_a_while(self):
        pids = self.random.choice(self.pools).rank_pids()
        if not pids:
            return
        pid = self.random.choice(pids)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(self.random.choice([0.5, 4]))
            os.kill(pid, signal.SIGCONT)

    def kill_a_rank(self):
        pids = self.random.choice(self.pools).rank_pids()
        with contextlib.suppress(ProcessLookupError, IndexError):
            os.kill(self.random.choice(pids), self.random.choice([signal.SIGKILL, signal.SIGTERM]))

    def kill_the_coordinator(self):
        if self.random.random() < 0.3:
            self.coordinator.process.terminate()
            self.coordinator.process.wait()
        else:
            self.coordinator.kill()
        time.sleep(self.random.uniform(0, 2))

    def cut_the_network(self):
        self.proxy.mode = self.random.choice(["hold", "hold_up", "hold_down"])
        time.sleep(self.random.choice([0.5, 1.5, 4]))
        self.proxy.mode = "pass"

    def break_connections(self):
        self.random.choice([self.proxy.reset, self.proxy.forget])()

    def stop_the_coordinator_for_a_while(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.coordinator.process.pid, signal.SIGSTOP)
            time.sleep(self.random.choice([0.5, 4]))
            os.kill(self.coordinator.process.pid, signal.SIGCONT)

    def run(self, faults):
        for number in range(faults):
            if number % 5 == 0:
                self.new_job()
            fault = self.random.choice([
                self.kill_a_rank, self.kill_a_rank, self.verb, self.verb, self.verb,
                self.stop_a_pool_for_a_while, self.kill_the_coordinator, self.cut_the_network,
                self.break_connections, self.stop_the_coordinator_for_a_while])
            fault()
            time.sleep(self.random.uniform(0, 1.5))
            self.repair()

    def settle(self):
        """From here on what starts is sound."""
        self.faulty = False

        def all_ended():
            self.repair()
            states = []
            for name in self.jobs:
                try:
                    job = get(self.stub, name)
                except grpc.RpcError:  # The coordinator was born with a fault.
                    return False
                if job.state in (job_pb2.JOB_STATE_PAUSED, job_pb2.JOB_STATE_PAUSING):
                    with contextlib.suppress(grpc.RpcError):
                        self.stub.ResumeJob(job_service_pb2.ResumeJobRequest(name=name))
                states.append(job.state)
            return all(state in ENDS for state in states)

        wait_until(all_ended, "every acknowledged job ends", 60 + 30 * len(self.jobs))
        self.coordinator.kill()  # What is checked is what the disk has.
        self.start_coordinator()

    def check(self, reference):
        # The channel may still wait to try again after the restart.
        listed = self.stub.ListJobs(job_service_pb2.ListJobsRequest(page_size=1000),
                                    wait_for_ready=True, timeout=30).jobs
        assert {j.name for j in listed} == set(self.jobs), "jobs lost or doubled"
        succeeded = 0
        for name, watcher in zip(self.jobs, self.watchers):
            job = get(self.stub, name)
            state = check_history(job_events(self.coordinator, name))
            assert job_pb2.JobState.Value("JOB_STATE_" + state) == job.state, name
            output = pathlib.Path(job.spec.output)
            if job.state == job_pb2.JOB_STATE_SUCCEEDED:
                succeeded += 1
                assert digest(output) == reference, f"{name}: other bytes"
            else:
                assert not output.exists(), f"{name} is {state} and published"
            wait_until(lambda w=watcher, j=job: w.sequences and w.sequences[-1] == j.sequence,
                       f"the watcher of {name} sees its end", 30)
            seen = watcher.sequences
            assert seen == list(range(seen[0], seen[-1] + 1)), f"{name}: watch has gaps or repeats"
        return succeeded

    def close(self):
        for watcher in self.watchers:
            watcher.stopping = True
        for pool in self.pools:
            pool.kill()
        self.coordinator.kill()
        self.proxy.close()


def make_reference(root):
    write_text(root / "text.jsonl")
    subprocess.run([str(BIN / "llmc-worker"), "compress", "--model", str(MODEL), "--recipe",
                    "W4A16", "--dataset", str(root / "text.jsonl"), "--output", str(root / "ref"),
                    "--num-calibration-samples", "32", "--max-seq-length", "64", "--quiet"],
                   check=True, env=environment(), capture_output=True)
    return digest(root / "ref")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    root = pathlib.Path(tempfile.mkdtemp(prefix="llmc-faults-"))
    reference = make_reference(root)
    run = RandomRun(root, args.seed)
    try:
        run.run(args.faults)
        run.settle()
        succeeded = run.check(reference)
    except BaseException:
        print(f"seed {args.seed}: history and logs are in {root}", file=sys.stderr)
        raise
    finally:
        run.close()
    print(f"{args.faults} faults, {len(run.jobs)} jobs, {succeeded} succeeded: all checks hold")
    shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
