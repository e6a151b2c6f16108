"""What must hold after a fault."""
from control_tower import (check_history, digest, get, job_events, job_pb2, job_service_pb2,
                           wait_for_end, wait_until)


def expect_success(coordinator, stub, root, reference, name):
    """It ended well, once, with the bytes of an undisturbed run, and left nothing."""
    ended = wait_for_end(stub, name)
    assert ended.state == job_pb2.JOB_STATE_SUCCEEDED, ended
    assert digest(root / "out") == reference
    assert check_history(job_events(coordinator, name)) == "SUCCEEDED"
    assert sorted(p.name for p in root.iterdir() if p.name.startswith("out.")) == []
    return ended


def expect_failure(coordinator, stub, root, name, code, words=""):
    """It failed with a reason, at the first attempt, and published nothing."""
    ended = wait_for_end(stub, name)
    assert ended.state == job_pb2.JOB_STATE_FAILED, ended
    assert ended.error.code in code.split("|"), ended.error
    assert words in ended.error.message, ended.error
    assert not (root / "out").exists()
    assert check_history(job_events(coordinator, name)) == "FAILED"
    return ended


def expect_success_in_the_end(coordinator, stub, root, reference, name):
    """It may fail, with a reason and nothing published; asked again it succeeds."""
    ended = wait_for_end(stub, name)
    if ended.state == job_pb2.JOB_STATE_FAILED:
        assert ended.error.message and not (root / "out").exists()
        stub.RetryJob(job_service_pb2.RetryJobRequest(name=name))
    return expect_success(coordinator, stub, root, reference, name)


def layers_done(stub, name, count):
    return wait_until(lambda: get(stub, name).progress.layers_done >= count, f"{count} layers")


def pools(stub):
    return stub.ListPools(job_service_pb2.ListPoolsRequest(), wait_for_ready=True, timeout=20).pools
