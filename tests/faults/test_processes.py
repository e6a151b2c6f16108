"""The fault table: whatever is killed, stopped or cut off, an acknowledged job ends,
once, with the right bytes."""
import os
import signal
import time

import grpc
import pytest
from checks import expect_success, layers_done
from control_tower import (Coordinator, Pool, get, job_pb2, job_service_pb2, spec, submit,
                           wait_until)
from injection import MemoryGroup, run_and_pause

SLOW_SECOND_LAYER = "layer.load=sleep(6000)@2"


@pytest.mark.row(1)
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


@pytest.mark.row(1)
@pytest.mark.parametrize("rank", [0, 1])
def test_one_killed_rank_ends_the_world_and_the_job_moves(coordinator, stub, root, reference, rank):
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, ranks=2, name="doomed",
              LLMC_FAILPOINTS=f"layer.solve=kill@2/r{rank}") as doomed:
        assert doomed.wait(60) != 0
        with Pool(coordinator.address, root, name="heir"):
            expect_success(coordinator, stub, root, reference, job.name)


@pytest.mark.row(2)
def test_a_killed_mpirun_leaves_no_rank_and_the_job_moves(coordinator, stub, root, reference):
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, ranks=2, name="doomed",
              LLMC_FAILPOINTS=SLOW_SECOND_LAYER) as doomed:
        layers_done(stub, job.name, 1)
        doomed.process.kill()
        wait_until(lambda: not doomed.rank_pids(), "its ranks are gone", 20)
        with Pool(coordinator.address, root, name="heir"):
            expect_success(coordinator, stub, root, reference, job.name)


@pytest.mark.row(6)
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


@pytest.mark.row(8)
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


@pytest.mark.row(3)
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


@pytest.mark.row(3)
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


@pytest.mark.row(5)
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


@pytest.mark.row(4)
@pytest.mark.parametrize("number,ranks", [(signal.SIGTERM, 1), (signal.SIGUSR1, 1),
                                          (signal.SIGTERM, 2), (signal.SIGUSR1, 2)])
def test_a_drained_pool_hands_its_job_on_at_once(coordinator, stub, root, reference, number,
                                                 ranks):
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, ranks=ranks, name="leaver",
              LLMC_FAILPOINTS="layer.load=sleep(1500)@2") as leaver:
        layers_done(stub, job.name, 1)
        os.kill(leaver.process.pid, number)
        assert leaver.wait(60) in (0, 143 if ranks > 1 and number == signal.SIGTERM else 0)
    waiting = get(stub, job.name)
    assert waiting.state == job_pb2.JOB_STATE_QUEUED and not waiting.error.message
    with Pool(coordinator.address, root, name="heir"):
        expect_success(coordinator, stub, root, reference, job.name)


@pytest.mark.row(7)
@pytest.mark.parametrize("rank", [1, 0])
def test_a_slow_rank_slows_the_job_and_loses_nothing(coordinator, stub, root, reference, rank):
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, ranks=2):
        found = wait_until(lambda: stub.ListPools(job_service_pb2.ListPoolsRequest()).pools,
                           "the pool attaches")
        run_and_pause(found[0].ranks[rank].pid, 0.05, 0.2,
                      lambda: get(stub, job.name).state == job_pb2.JOB_STATE_SUCCEEDED)
        ended = expect_success(coordinator, stub, root, reference, job.name)
        assert ended.attempt == 1


@pytest.mark.row(8)
def test_a_stopped_coordinator_is_no_reason_to_publish_twice(root, reference):
    """It sleeps for longer than the lease: the pool fences itself, and nothing is lost."""
    flags = ("--lease-ttl-ms", 4000, "--heartbeat-interval-ms", 300, "--backoff-ms", 200)
    with Coordinator(root, *flags) as coordinator:
        stub = coordinator.stub()
        job = submit(stub, spec(root, "out"))
        with Pool(coordinator.address, root, name="first",
                  LLMC_FAILPOINTS="layer.load=sleep(9000)@2") as first:
            layers_done(stub, job.name, 1)
            os.kill(coordinator.process.pid, signal.SIGSTOP)
            assert first.wait(60) == 75
            os.kill(coordinator.process.pid, signal.SIGCONT)
            with Pool(coordinator.address, root, name="second"):
                expect_success(coordinator, stub, root, reference, job.name)


@pytest.mark.row(14)
@pytest.mark.parametrize("ranks", [1, 2])
def test_the_kernels_memory_killer_costs_at_most_a_layer(coordinator, stub, root, reference,
                                                         ranks):
    group = MemoryGroup(f"llmc-{os.getpid()}-{ranks}")
    if group.path is None:
        pytest.skip("memory cgroups may not be made here")
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, ranks=ranks, name="fat", wrap=group.wrap(),
              LLMC_FAILPOINTS="layer.load=sleep(2000)@2") as fat:
        layers_done(stub, job.name, 1)
        group.use_up()
        assert fat.wait(60) != 0
        assert group.kills() > 0
    with Pool(coordinator.address, root, name="heir"):
        expect_success(coordinator, stub, root, reference, job.name)
    group.close()


@pytest.mark.row(43)
def test_a_host_that_cannot_do_its_part_does_not_loop(coordinator, stub, root, reference):
    """A pool whose attempts fail for reasons of its own; another pool takes the job."""
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, name="sick", LLMC_FAILPOINTS="layer.solve=error"):
        wait_until(lambda: get(stub, job.name).attempt >= 2, "it is tried again")
        with Pool(coordinator.address, root, name="sound"):
            ended = expect_success(coordinator, stub, root, reference, job.name)
    assert ended.attempt <= 5
