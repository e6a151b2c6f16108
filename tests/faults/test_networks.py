"""Networks that part, break, lag or are hostile."""
import json
import os
import socket
import subprocess
import time

import grpc
import pytest
from checks import expect_success, layers_done, pools
from control_tower import (BIN, Coordinator, Pool, check_history, digest, environment, get, job_events,
                           job_pb2, job_service_pb2, spec, submit, wait_until,
                           worker_service_pb2, worker_service_pb2_grpc)
from tcp_proxy import TcpProxy
from test_security import TOKENS, make_certificate, write_tokens


@pytest.fixture
def proxy(coordinator):
    made = TcpProxy(coordinator.grpc_port)
    yield made
    made.close()


@pytest.mark.row(9)
@pytest.mark.parametrize("mode", ["hold", "hold_up", "hold_down"])
@pytest.mark.parametrize("cut,survives", [(1.5, True), (10.0, False)])
def test_a_partition_shorter_than_the_lease_is_survived(coordinator, stub, root, reference, proxy,
                                                        mode, cut, survives):
    job = submit(stub, spec(root, "out"))
    with Pool(f"127.0.0.1:{proxy.port}", root, name="island",
              LLMC_FAILPOINTS="layer.load=sleep(12000)@2") as island:
        layers_done(stub, job.name, 1)
        proxy.mode = mode
        time.sleep(cut)  # The length of the fault.
        if survives:
            proxy.mode = "pass"
            ended = expect_success(coordinator, stub, root, reference, job.name)
            assert ended.attempt == 1
        else:
            assert island.wait(30) == 75, "it fences itself"
            with Pool(coordinator.address, root, name="mainland"):
                expect_success(coordinator, stub, root, reference, job.name)


@pytest.mark.row(9)
def test_a_long_partition_of_two_ranks_ends_their_world(coordinator, stub, root, reference, proxy):
    job = submit(stub, spec(root, "out"))
    with Pool(f"127.0.0.1:{proxy.port}", root, ranks=2, name="island",
              LLMC_FAILPOINTS="layer.load=sleep(15000)@2") as island:
        layers_done(stub, job.name, 1)
        proxy.mode = "hold"
        with Pool(coordinator.address, root, name="mainland"):
            assert island.wait(60) != 0
            expect_success(coordinator, stub, root, reference, job.name)
        assert not island.rank_pids()


@pytest.mark.row(10)
def test_reset_connections_lose_no_event(coordinator, stub, root, reference, proxy):
    job = submit(stub, spec(root, "out"))
    with Pool(f"127.0.0.1:{proxy.port}", root, LLMC_FAILPOINTS="layer.load=sleep(800)"):
        for _ in range(6):
            time.sleep(0.4)  # The rhythm of the fault.
            proxy.reset()
        ended = expect_success(coordinator, stub, root, reference, job.name)
        assert ended.attempt == 1


@pytest.mark.row(11)
def test_a_half_open_connection_is_found_and_opened_anew(root, reference):
    with Coordinator(root, "--lease-ttl-ms", 20000, "--heartbeat-interval-ms", 500) as coordinator:
        stub, proxy = coordinator.stub(), TcpProxy(coordinator.grpc_port)
        job = submit(stub, spec(root, "out"))
        with Pool(f"127.0.0.1:{proxy.port}", root, LLMC_FAILPOINTS="layer.load=sleep(6000)@2"):
            layers_done(stub, job.name, 1)
            proxy.forget()
            ended = expect_success(coordinator, stub, root, reference, job.name)
            assert ended.attempt == 1, "the lease was saved over a new connection"
        proxy.close()


@pytest.mark.row(12)
@pytest.mark.parametrize("delay_s,piece_bytes", [(0.3, 65536), (0.01, 1250)])
def test_a_slow_network_expires_no_lease(coordinator, stub, root, reference, proxy, delay_s,
                                         piece_bytes):
    """300 ms each way; 1 Mbit/s."""
    proxy.mode, proxy.delay_s, proxy.piece_bytes = "delay", delay_s, piece_bytes
    job = submit(stub, spec(root, "out"))
    with Pool(f"127.0.0.1:{proxy.port}", root):
        ended = expect_success(coordinator, stub, root, reference, job.name)
        assert ended.attempt == 1


@pytest.mark.row(41)
def test_slow_watchers_hold_nobody_up(coordinator, stub, root):
    job = submit(stub, spec(root, "out"))
    # Open, and never read from.
    streams = [stub.WatchJob(job_service_pb2.WatchJobRequest(name=job.name)) for _ in range(20)]
    for _ in range(10):
        stub.PauseJob(job_service_pb2.PauseJobRequest(name=job.name), timeout=5)
        stub.ResumeJob(job_service_pb2.ResumeJobRequest(name=job.name), timeout=5)
    for stream in streams:
        stream.cancel()


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + \
        payload


def rapid_resets():
    headers = bytes([0x83, 0x86, 0x44, 1]) + b"/" + bytes([0x41, 1]) + b"a"
    return PREFACE + SETTINGS + b"".join(
        frame(1, 5, 2 * i + 1, headers) + frame(3, 0, 2 * i + 1, b"\0\0\0\x08")
        for i in range(2000))


ATTACKS = {
    "noise": lambda: os.urandom(8192),
    "rapid_reset": rapid_resets,
    "huge_frame": lambda: PREFACE + SETTINGS + b"\xff\xff\xff\1\4\0\0\0\1" + b"x" * 4096,
    "endless_headers": lambda: PREFACE + SETTINGS + frame(1, 0, 1, b"\x83") +
    frame(9, 0, 1, b"\0\1a\1b" * 2000) * 20,
    "pings": lambda: PREFACE + SETTINGS + frame(6, 0, 0, b"12345678") * 5000,
    "http_smuggling": lambda: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
                              b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x",
    "long_line": lambda: b"GET /" + b"a" * 100_000,
}


@pytest.mark.row(41)
def test_hostile_connections_disturb_nobody(coordinator, stub, root, reference):
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root):
        slow = []
        for port in (coordinator.grpc_port, coordinator.http_port):
            for attack in ATTACKS.values():
                for _ in range(3):
                    attacker = socket.create_connection(("127.0.0.1", port))
                    attacker.settimeout(5)
                    try:
                        attacker.sendall(attack())
                    except OSError:
                        pass
                    slow.append(attacker)
            for _ in range(40):  # Those that begin a request and never end it.
                crawler = socket.create_connection(("127.0.0.1", port))
                crawler.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
                slow.append(crawler)
        expect_success(coordinator, stub, root, reference, job.name)
        for attacker in slow:
            attacker.close()
        wait_until(lambda: coordinator.read("/healthz") == "ok\n", "the page answers", 30)


@pytest.mark.row(42)
def test_a_worker_of_another_version_is_understood(coordinator, stub, root, reference):
    """It sends steps and fields that are not known here, and leaves; the job goes on."""
    job = submit(stub, spec(root, "out"))
    messages = worker_service_pb2
    lease, answers = messages.LeaseId(), []

    def talk():
        attach = messages.Attach(pool="newer", instance="newer-1", version="9.0.0",
                                 ranks=[job_service_pb2.PoolRank(rank=0, device="npu")])
        attach.MergeFromString(b"\xfa\x3f\x03new")  # Field 1023 of a later version.
        yield messages.SessionRequest(attach=attach)
        wait_until(lambda: answers, "it is attached")
        yield messages.SessionRequest(heartbeat=messages.Heartbeat(number=1, idle=True))
        wait_until(lambda: lease.job, "it is offered the job")
        step = job_pb2.StepRecord(step="Transmogrify", layer=1)
        step.MergeFromString(b"\x08\x63")
        yield messages.SessionRequest(steps=messages.ReportSteps(lease=lease, batch=1,
                                                                 steps=[step]))
        yield messages.SessionRequest(goodbye=messages.Goodbye())

    session = worker_service_pb2_grpc.WorkerServiceStub(
        grpc.insecure_channel(coordinator.address)).Session(talk())
    for answer in session:
        answers.append(answer)
        if answer.HasField("offer"):
            lease.CopyFrom(answer.offer.lease)
    assert "Transmogrify" in str(job_events(coordinator, job.name))
    assert coordinator.read("/" + job.name)
    with Pool(coordinator.address, root, name="older"):
        expect_success(coordinator, stub, root, reference, job.name)


@pytest.mark.row(39)
def test_a_pool_without_a_token_ends_and_is_not_let_in(root):
    tokens = write_tokens(root / "tokens", TOKENS)
    with Coordinator(root, "--token-file", tokens, insecure=False) as coordinator:
        for name, token in (("stranger", "wrong"), ("watcher", "eve-secret")):
            (root / name).write_text(token)
            with Pool(coordinator.address, root, "--token-file", root / name, name=name) as pool:
                assert pool.wait(60) == 78
        channel = coordinator.stub()
        assert not channel.ListPools(job_service_pb2.ListPoolsRequest(),
                                     metadata=[("authorization", "Bearer eve-secret")]).pools
        assert "wrong" not in coordinator.log.read_text()


@pytest.mark.row(40)
def test_certificates_change_under_work_and_no_job_is_dropped(root, reference):
    make_certificate(root, "ca")
    key, crt = make_certificate(root, "server", ca="ca")
    make_certificate(root, "client", ca="ca")
    tokens = write_tokens(root / "tokens", TOKENS)
    for name in ("pool", "ann"):
        (root / name).write_text(f"{name}-secret")
    client = ["--tls-ca", root / "ca.crt", "--tls-cert", root / "client.crt", "--tls-key",
              root / "client.key", "--token-file"]

    def llmc(*words):
        run = subprocess.run([str(w) for w in (BIN / "llmc", *words, *client, root / "ann")],
                             capture_output=True, text=True, timeout=120,
                             env=environment(LLMC_COORDINATOR=coordinator.address))
        assert run.returncode == 0, run.stderr
        return run.stdout

    with Coordinator(root, "--token-file", tokens, "--tls-cert", crt, "--tls-key", key,
                     "--tls-client-ca", root / "ca.crt", "--lease-ttl-ms", 6000,
                     "--heartbeat-interval-ms", 500, insecure=False) as coordinator:
        name = llmc("submit", "--model", spec(root, "out").model, "--recipe", "W4A16", "--dataset",
                    root / "text.jsonl", "--output", root / "out", "--num-calibration-samples", 32,
                    "--max-seq-length", 64).split()[-1]
        with Pool(coordinator.address, root, *client, root / "pool",
                  LLMC_FAILPOINTS="layer.load=sleep(2500)"):
            for _ in range(3):
                make_certificate(root, "server", ca="ca")
                time.sleep(2.5)  # It looks every two seconds.
            wait_until(lambda: "SUCCEEDED" in llmc("get", name, "--json"), "it succeeds", 120)
            assert json.loads(llmc("get", name, "--json"))["attempt"] == 1
        assert digest(root / "out") == reference


@pytest.mark.row(3)
@pytest.mark.parametrize("outage", [1, 8])
def test_an_outage_of_the_coordinator_is_waited_for(root, reference, outage):
    flags = ("--lease-ttl-ms", 30000, "--heartbeat-interval-ms", 500)
    first = Coordinator(root, *flags).start()
    job = submit(first.stub(), spec(root, "out"))
    with Pool(first.address, root, LLMC_FAILPOINTS="layer.load=sleep(500)"):
        wait_until(lambda: get(first.stub(), job.name).state == job_pb2.JOB_STATE_RUNNING, "runs")
        first.kill()
        time.sleep(outage)  # The length of the fault.
        with Coordinator(root, *flags, grpc_port=first.grpc_port) as again:
            stub = again.stub()
            wait_until(lambda: pools(stub), "the pool comes back")
            ended = expect_success(again, stub, root, reference, job.name)
            assert ended.attempt == 1
            assert check_history(job_events(again, job.name)) == "SUCCEEDED"
