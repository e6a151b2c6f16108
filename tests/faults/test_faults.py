"""The fault table: whatever is killed, stopped or cut off, an acknowledged job ends,
once, with the right bytes."""
import os
import signal
import threading
import time

import grpc
import pytest
from control_tower import (Coordinator, Pool, check_history, digest, get, job_events, job_pb2,
                           job_service_pb2, spec, submit, wait_for_end, wait_until)
from tcp_proxy import TcpProxy

SLOW_SECOND_LAYER = "layer.load=sleep(6000)@2"


def expect_success(coordinator, stub, root, reference, name):
    ended = wait_for_end(stub, name)
    assert ended.state == job_pb2.JOB_STATE_SUCCEEDED, ended
    assert digest(root / "out") == reference
    assert check_history(job_events(coordinator, name)) == "SUCCEEDED"
    assert sorted(p.name for p in root.iterdir() if "partial" in p.name) == []
    return ended


def layers_done(stub, name, count):
    return wait_until(lambda: get(stub, name).progress.layers_done >= count, f"{count} layers")


@pytest.mark.parametrize("point", [
    "layer.load=kill@2", "layer.chunk=kill@2", "layer.reduce=kill@2", "layer.solve=kill@1",
    "layer.write=kill@2", "unit.before_sync=kill@2", "unit.marked=kill@1",
    "layer.propagate=kill@1", "journal.append=kill@2", "commit.before_rename=kill",
    "commit.after_rename=kill"])
def test_a_pool_killed_at_any_point_is_replaced(coordinator, stub, root, reference, point):
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, name="doomed", LLMC_FAILPOINTS=point) as doomed:
        doomed.wait()
        with Pool(coordinator.address, root, name="heir"):
            ended = expect_success(coordinator, stub, root, reference, job.name)
    assert ended.attempt == 2


@pytest.mark.parametrize("rank", [0, 1])
def test_one_killed_rank_ends_the_world_and_the_job_moves(coordinator, stub, root, reference, rank):
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, ranks=2, name="doomed",
              LLMC_FAILPOINTS=f"layer.solve=kill@2/r{rank}") as doomed:
        assert doomed.wait(60) != 0
        with Pool(coordinator.address, root, name="heir"):
            expect_success(coordinator, stub, root, reference, job.name)


def test_a_killed_mpirun_leaves_no_rank_and_the_job_moves(coordinator, stub, root, reference):
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, ranks=2, name="doomed",
              LLMC_FAILPOINTS=SLOW_SECOND_LAYER) as doomed:
        layers_done(stub, job.name, 1)
        doomed.process.kill()
        wait_until(lambda: not doomed.rank_pids(), "its ranks are gone", 20)
        with Pool(coordinator.address, root, name="heir"):
            expect_success(coordinator, stub, root, reference, job.name)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_stopped_rank_is_named_and_the_job_moves(coordinator, stub, root, reference, rank):
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, ranks=2, name="stuck",
              LLMC_FAILPOINTS=SLOW_SECOND_LAYER) as stuck:
        layers_done(stub, job.name, 1)
        pools = stub.ListPools(job_service_pb2.ListPoolsRequest()).pools
        os.kill(pools[0].ranks[rank].pid, signal.SIGSTOP)
        assert stuck.wait(60) != 0
        assert f"rank {rank} hangs" in stuck.log.read_text()
        with Pool(coordinator.address, root, name="heir"):
            expect_success(coordinator, stub, root, reference, job.name)


def test_a_zombie_that_wakes_after_its_lease_publishes_nothing(coordinator, stub, root, reference):
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, name="zombie",
              LLMC_FAILPOINTS=SLOW_SECOND_LAYER) as zombie:
        layers_done(stub, job.name, 1)
        os.kill(zombie.process.pid, signal.SIGSTOP)
        wait_until(lambda: get(stub, job.name).state == job_pb2.JOB_STATE_QUEUED, "it expires")
        with Pool(coordinator.address, root, name="heir"):
            # The zombie still holds the output's lock: the heir waits for it.
            wait_until(lambda: get(stub, job.name).attempt >= 2, "the heir tries")
            os.kill(zombie.process.pid, signal.SIGCONT)
            assert zombie.wait(30) == 75
            assert "lease" in zombie.log.read_text()
            expect_success(coordinator, stub, root, reference, job.name)


@pytest.mark.parametrize("point", ["store.begin", "store.job", "store.event",
                                   "store.before_commit", "store.after_commit"])
@pytest.mark.parametrize("hit", [1, 2, 4])
def test_a_coordinator_killed_at_any_write_loses_nothing(root, reference, point, hit):
    # Longer than a restart takes: else the pool would, rightly, end itself.
    flags = ("--lease-ttl-ms", 20000, "--heartbeat-interval-ms", 300, "--backoff-ms", 200)
    doomed = Coordinator(root, *flags, LLMC_FAILPOINTS=f"{point}=kill@{hit}").start()
    with Pool(doomed.address, root, name="pool"):
        job_spec, request_id = spec(root, "out"), "the-one-request"
        try:
            submit(doomed.stub(), job_spec, request_id=request_id)
        except grpc.RpcError as error:
            assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        doomed.process.wait(timeout=60)
        with Coordinator(root, *flags, grpc_port=doomed.grpc_port) as heir:
            stub = heir.stub()
            wait_until(lambda: stub.ListPools(job_service_pb2.ListPoolsRequest(),
                                              wait_for_ready=True).pools, "the pool comes back")
            # The same request again: one job, whether or not the first was kept.
            job = submit(stub, job_spec, request_id=request_id)
            expect_success(heir, stub, root, reference, job.name)
            assert len(stub.ListJobs(job_service_pb2.ListJobsRequest()).jobs) == 1


def test_a_coordinator_that_restarts_finds_its_pool_at_work(root, reference):
    flags = ("--lease-ttl-ms", 15000, "--heartbeat-interval-ms", 300)
    coordinator = Coordinator(root, *flags).start()
    job = submit(coordinator.stub(), spec(root, "out"))
    with Pool(coordinator.address, root, LLMC_FAILPOINTS=SLOW_SECOND_LAYER):
        layers_done(coordinator.stub(), job.name, 1)
        coordinator.kill()
        with Coordinator(root, *flags, grpc_port=coordinator.grpc_port) as again:
            ended = expect_success(again, again.stub(), root, reference, job.name)
            assert ended.attempt == 1, "the same attempt went on"


def test_sigterm_ends_streams_and_the_coordinator_in_time(coordinator, stub, root):
    job = submit(stub, spec(root, "out"))
    stream = stub.WatchJob(job_service_pb2.WatchJobRequest(name=job.name))
    next(stream)
    begin = time.monotonic()
    assert coordinator.stop() == 0
    assert time.monotonic() - begin < 10
    with pytest.raises(grpc.RpcError) as raised:
        next(stream)
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("cut,survives", [(1.5, True), (10.0, False)])
def test_a_partition_shorter_than_the_lease_is_survived(coordinator, stub, root, reference, cut,
                                                        survives):
    proxy = TcpProxy(coordinator.grpc_port)
    job = submit(stub, spec(root, "out"))
    with Pool(f"127.0.0.1:{proxy.port}", root, name="island",
              LLMC_FAILPOINTS="layer.load=sleep(12000)@2") as island:
        layers_done(stub, job.name, 1)
        proxy.mode = "hold"
        time.sleep(cut)  # The length of the fault.
        if survives:
            proxy.mode = "pass"
            ended = expect_success(coordinator, stub, root, reference, job.name)
            assert ended.attempt == 1
        else:
            assert island.wait(30) == 75, "it fences itself"
            with Pool(coordinator.address, root, name="mainland"):
                expect_success(coordinator, stub, root, reference, job.name)
    proxy.close()


def test_reset_connections_lose_no_event(coordinator, stub, root, reference):
    proxy = TcpProxy(coordinator.grpc_port)
    job = submit(stub, spec(root, "out"))
    with Pool(f"127.0.0.1:{proxy.port}", root, LLMC_FAILPOINTS="layer.load=sleep(800)"):
        for _ in range(6):
            time.sleep(0.4)  # The rhythm of the fault.
            proxy.reset()
        ended = expect_success(coordinator, stub, root, reference, job.name)
        assert ended.attempt == 1
    proxy.close()


def test_a_slow_network_expires_no_lease(coordinator, stub, root, reference):
    proxy = TcpProxy(coordinator.grpc_port)
    proxy.mode, proxy.delay_s = "delay", 0.3
    job = submit(stub, spec(root, "out"))
    with Pool(f"127.0.0.1:{proxy.port}", root):
        ended = expect_success(coordinator, stub, root, reference, job.name)
        assert ended.attempt == 1
    proxy.close()


def test_a_poison_job_is_given_up_and_others_proceed(coordinator, stub, root):
    poison = submit(stub, spec(root, "out"), job_id="poison")
    pools = []
    for attempt in range(5):
        pools.append(Pool(coordinator.address, root, name=f"victim{attempt}",
                          LLMC_FAILPOINTS="layer.load=kill"))
        pools[-1].wait()
        wait_until(lambda n=attempt: len([e for e in job_events(coordinator, poison.name)
                                          if e.get("stateChange", {}).get("from") ==
                                          "JOB_STATE_RUNNING"]) > n, "the loss is seen")
    assert get(stub, poison.name).state == job_pb2.JOB_STATE_FAILED
    other = submit(stub, spec(root, "other", preset="FP8_DYNAMIC", datasets=[]))
    with Pool(coordinator.address, root, name="healthy"):
        assert wait_for_end(stub, other.name).state == job_pb2.JOB_STATE_SUCCEEDED


def test_cancel_racing_with_everything_ends_in_one_state(coordinator, stub, root):
    with Pool(coordinator.address, root):
        for i in range(12):
            job = submit(stub, spec(root, f"race{i}", preset="FP8_DYNAMIC", datasets=[]))

            def cancel(name=job.name, delay=i * 0.03):
                time.sleep(delay)  # The moment of the race.
                try:
                    stub.CancelJob(job_service_pb2.CancelJobRequest(name=name))
                except grpc.RpcError as error:
                    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION

            racer = threading.Thread(target=cancel)
            racer.start()
            ended = wait_for_end(stub, job.name)
            racer.join()
            assert (root / f"race{i}").exists() == (ended.state == job_pb2.JOB_STATE_SUCCEEDED)
            check_history(job_events(coordinator, job.name))


def test_a_full_disk_fails_the_job_and_leaves_the_pool(coordinator, stub, root, reference):
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, LLMC_FAILPOINTS="write.tensor=enospc@3"):
        ended = wait_for_end(stub, job.name)
        assert ended.state == job_pb2.JOB_STATE_FAILED
        assert ended.error.code == "RESOURCE_EXHAUSTED" and not (root / "out").exists()
        stub.RetryJob(job_service_pb2.RetryJobRequest(name=job.name))
        expect_success(coordinator, stub, root, reference, job.name)


def test_a_second_coordinator_on_one_store_is_refused(coordinator, root):
    second = Coordinator(root)
    second.log = root / "second.log"
    with pytest.raises(AssertionError, match="in use by process"):
        second.start()
    assert second.process.wait(10) == 78


def test_a_damaged_store_is_refused(root):
    with Coordinator(root) as coordinator:
        submit(coordinator.stub(), spec(root, "out"))
        coordinator.stop()
    (root / "state/jobs.sqlite").write_bytes(b"garbage" * 1000)
    with pytest.raises(AssertionError, match="damaged"):
        Coordinator(root).start()


def test_a_flipped_bit_in_a_finished_layer_is_found_and_redone(coordinator, stub, root, reference):
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, name="doomed",
              LLMC_FAILPOINTS="layer.write=kill@3") as doomed:
        doomed.wait()
    shard = next((root / "out.llmc-partial").glob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    header = int.from_bytes(data[:8], "little")
    start = next(i for i in range(8 + header, len(data)) if data[i])
    data[start] ^= 1
    shard.write_bytes(data)
    with Pool(coordinator.address, root, name="heir"):
        expect_success(coordinator, stub, root, reference, job.name)


def test_slow_watchers_hold_nobody_up(coordinator, stub, root):
    job = submit(stub, spec(root, "out"))
    # Open, and never read from.
    streams = [stub.WatchJob(job_service_pb2.WatchJobRequest(name=job.name)) for _ in range(20)]
    for _ in range(10):
        stub.PauseJob(job_service_pb2.PauseJobRequest(name=job.name), timeout=5)
        stub.ResumeJob(job_service_pb2.ResumeJobRequest(name=job.name), timeout=5)
    for stream in streams:
        stream.cancel()
