"""Who may connect, what they may do, and which paths they may name."""
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import time

import grpc
import pytest
from control_tower import (BIN, MODEL, Coordinator, environment, get, job_pb2, job_service_pb2,
                           job_service_pb2_grpc, spec, submit, wait_until, write_text)

TOKENS = {"ann-secret": ("ann", "submit"), "eve-secret": ("eve", "watch"),
          "pool-secret": ("pool", "work"), "root-secret": ("root", "admin")}


def write_tokens(path, tokens):
    lines = [f"{hashlib.sha256(t.encode()).hexdigest()} {name} {roles}"
             for t, (name, roles) in tokens.items()]
    path.write_text("# tokens\n" + "\n".join(lines) + "\n")
    path.chmod(0o600)
    return path


def make_certificate(directory, name, ca=None):
    """A key and a certificate for 127.0.0.1, signed by `ca` or by itself."""
    key, crt = directory / f"{name}.key", directory / f"{name}.crt"
    subprocess.run(["openssl", "req", "-x509" if ca is None else "-new", "-newkey", "rsa:2048",
                    "-nodes", "-keyout", key, "-out", crt if ca is None else directory / "csr",
                    "-subj", f"/CN={name}", *(["-days", "2"] if ca is None else [])],
                   check=True, capture_output=True)
    if ca is not None:
        (directory / "ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        subprocess.run(["openssl", "x509", "-req", "-in", directory / "csr", "-CA",
                        directory / f"{ca}.crt", "-CAkey", directory / f"{ca}.key",
                        "-CAcreateserial", "-days", "2", "-extfile", directory / "ext", "-out",
                        crt], check=True, capture_output=True)
    return key, crt


def as_user(token):
    return [("authorization", f"Bearer {token}")] if token else []


def code_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.fixture
def guarded(root):
    tokens = write_tokens(root / "tokens", TOKENS)
    with Coordinator(root, "--token-file", tokens, insecure=False) as coordinator:
        yield coordinator


def test_every_role_may_do_its_part_and_no_more(guarded, root):
    stub = guarded.stub()
    lists = lambda token: code_of(lambda: stub.ListJobs(  # noqa: E731
        job_service_pb2.ListJobsRequest(), metadata=as_user(token)))
    creates = lambda token, i: code_of(lambda: stub.CreateJob(  # noqa: E731
        job_service_pb2.CreateJobRequest(job=job_pb2.Job(spec=spec(root, f"out{i}"))),
        metadata=as_user(token)))
    OK, DENIED = grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED
    assert lists("") == lists("wrong") == grpc.StatusCode.UNAUTHENTICATED
    assert [lists(t) for t in TOKENS] == [OK, OK, DENIED, OK]
    assert [creates(t, i) for i, t in enumerate(TOKENS)] == [OK, DENIED, DENIED, OK]
    job = stub.ListJobs(job_service_pb2.ListJobsRequest(), metadata=as_user("ann-secret")).jobs[-1]
    assert job.submitter == "ann"


def test_permission_is_checked_before_existence(guarded):
    stub = guarded.stub()
    cancel = lambda name: code_of(lambda: stub.CancelJob(  # noqa: E731
        job_service_pb2.CancelJobRequest(name=name), metadata=as_user("eve-secret")))
    assert cancel("jobs/none") == grpc.StatusCode.PERMISSION_DENIED


def test_submitters_change_their_own_jobs_and_administrators_all(root):
    tokens = write_tokens(root / "tokens", {**TOKENS, "bob-secret": ("bob", "submit")})
    with Coordinator(root, "--token-file", tokens, insecure=False) as guarded:
        stub = guarded.stub()
        job = stub.CreateJob(job_service_pb2.CreateJobRequest(job=job_pb2.Job(
            spec=spec(root, "out"))), metadata=as_user("ann-secret"))
        pause = lambda token: code_of(lambda: stub.PauseJob(  # noqa: E731
            job_service_pb2.PauseJobRequest(name=job.name), metadata=as_user(token)))
        assert pause("bob-secret") == grpc.StatusCode.PERMISSION_DENIED
        assert pause("ann-secret") == grpc.StatusCode.OK
        cancel = job_service_pb2.CancelJobRequest(name=job.name)
        assert code_of(lambda: stub.CancelJob(cancel, metadata=as_user("root-secret"))) == \
            grpc.StatusCode.OK
        delete = job_service_pb2.DeleteJobRequest(name=job.name)
        assert code_of(lambda: stub.DeleteJob(delete, metadata=as_user("bob-secret"))) == \
            grpc.StatusCode.PERMISSION_DENIED
        backup = job_service_pb2.BackupStoreRequest()
        assert code_of(lambda: list(stub.BackupStore(backup, metadata=as_user("ann-secret")))) == \
            grpc.StatusCode.PERMISSION_DENIED
        parts = stub.BackupStore(backup, metadata=as_user("root-secret"))
        assert b"".join(p.part for p in parts).startswith(b"SQLite format 3")
        log = [json.loads(line) for line in guarded.log.read_text().splitlines()]
        audit = [(e["message"], e["by"], e["code"]) for e in log if "by" in e and "job" in e]
        assert ("PauseJob", "bob", "PERMISSION_DENIED") in audit
        assert ("CancelJob", "root", "OK") in audit


def test_a_broken_token_file_leaves_the_tokens_as_they_were(guarded, root):
    stub = guarded.stub()
    (root / "broken").write_text("not a digest\n")
    (root / "broken").chmod(0o600)
    (root / "broken").rename(root / "tokens")
    assert code_of(lambda: stub.ListJobs(job_service_pb2.ListJobsRequest(),
                                         metadata=as_user("ann-secret"))) == grpc.StatusCode.OK
    assert "the old tokens are kept" in guarded.log.read_text()


def test_secrets_that_others_may_read_are_warned_of(guarded, root):
    token = root / "my-token"
    token.write_text("eve-secret\n")
    for mode, warned in ((0o644, True), (0o600, False)):
        token.chmod(mode)
        run = subprocess.run([str(BIN / "llmc"), "list", "--coordinator", guarded.address,
                              "--token-file", str(token)], capture_output=True, text=True,
                             env=environment())
        assert run.returncode == 0 and ("others may read" in run.stderr) == warned
        assert "eve-secret" not in run.stdout + run.stderr


def test_tokens_are_read_again_when_the_file_changes(guarded, root):
    stub = guarded.stub()
    lists = lambda token: code_of(lambda: stub.ListJobs(  # noqa: E731
        job_service_pb2.ListJobsRequest(), metadata=as_user(token)))
    assert lists("new-secret") == grpc.StatusCode.UNAUTHENTICATED
    write_tokens(root / "tokens.new", {"new-secret": ("new", "watch")}).rename(root / "tokens")
    assert lists("new-secret") == grpc.StatusCode.OK
    assert lists("ann-secret") == grpc.StatusCode.UNAUTHENTICATED


def test_the_page_asks_for_a_token_and_health_does_not(guarded):
    import urllib.error
    import urllib.request

    assert guarded.read("/healthz") == "ok\n"
    for path in ("/", "/metrics", "/api/state", "/events"):
        with pytest.raises(urllib.error.HTTPError) as raised:
            guarded.read(path)
        assert raised.value.code == 401
    request = urllib.request.Request(guarded.url("/metrics"),
                                     headers={"Authorization": "Bearer eve-secret"})
    assert b"llmc_auth_failures_total" in urllib.request.urlopen(request).read()


def test_no_secret_is_in_the_log(guarded, root):
    stub = guarded.stub()
    for token in [*TOKENS, "wrong-secret"]:
        code_of(lambda t=token: stub.ListJobs(job_service_pb2.ListJobsRequest(),
                                              metadata=as_user(t)))
    submit_code = code_of(lambda: stub.CreateJob(job_service_pb2.CreateJobRequest(
        job=job_pb2.Job(spec=spec(root, "out"))), metadata=as_user("ann-secret")))
    assert submit_code == grpc.StatusCode.OK
    text = guarded.log.read_text()
    assert "submitted" in text and "-secret" not in text


@pytest.mark.parametrize("flags,message", [
    (["--listen", "0.0.0.0:0", "--insecure"], "loopback"),
    (["--listen", "0.0.0.0:0", "--token-file", "TOKENS"], "--tls-cert"),
    (["--http-listen", "0.0.0.0:0", "--insecure"], "loopback"),
    (["--listen", "127.0.0.1:0"], "--token-file"),
    (["--listen", "127.evil.example:0", "--insecure"], "loopback"),
])
def test_an_open_door_is_refused(root, flags, message):
    tokens = write_tokens(root / "tokens", TOKENS)
    words = [str(tokens) if w == "TOKENS" else w for w in flags]
    run = subprocess.run([str(BIN / "llmc-coordinator"), "--state-dir", str(root / "s"),
                          "--allow-root", str(root), *words], capture_output=True, text=True,
                         timeout=20, env=environment())
    assert run.returncode == 78 and message in run.stderr


def test_a_token_file_that_others_may_write_is_refused(root):
    tokens = write_tokens(root / "tokens", TOKENS)
    tokens.chmod(0o666)
    with pytest.raises(AssertionError, match="0600"):
        Coordinator(root, "--token-file", tokens, insecure=False).start()


def mutual_tls_coordinator(root):
    """Asks for certificates of `ca`; `client` has one, `stranger` one of another authority."""
    make_certificate(root, "ca")
    make_certificate(root, "otherca")
    key, crt = make_certificate(root, "server", ca="ca")
    make_certificate(root, "client", ca="ca")
    make_certificate(root, "stranger", ca="otherca")
    tokens = write_tokens(root / "tokens", TOKENS)
    return Coordinator(root, "--token-file", tokens, "--tls-cert", crt, "--tls-key", key,
                       "--tls-client-ca", root / "ca.crt", insecure=False)


def test_mutual_tls_refuses_strangers_and_reloads_its_certificate(root):
    with mutual_tls_coordinator(root) as coordinator:
        def lists(name):
            client = [(root / f"{name}.{end}").read_bytes() for end in ("key", "crt")] \
                if name else [None, None]
            channel = grpc.secure_channel(coordinator.address, grpc.ssl_channel_credentials(
                (root / "ca.crt").read_bytes(), *client))
            stub = job_service_pb2_grpc.JobServiceStub(channel)
            return code_of(lambda: stub.ListJobs(job_service_pb2.ListJobsRequest(),
                                                 metadata=as_user("eve-secret"), timeout=10))

        def serial():
            out = subprocess.run(["openssl", "s_client", "-connect", coordinator.address],
                                 input="", capture_output=True, text=True, timeout=10).stdout
            pem = out[out.find("-----BEGIN"):out.find("-----END")] + "-----END CERTIFICATE-----"
            return subprocess.run(["openssl", "x509", "-noout", "-serial"], input=pem,
                                  capture_output=True, text=True).stdout

        assert lists("client") == grpc.StatusCode.OK
        assert lists("stranger") == lists(None) == grpc.StatusCode.UNAVAILABLE
        run = subprocess.run([str(BIN / "llmc"), "list", "--json", "--coordinator",
                              coordinator.address, "--tls-ca", root / "ca.crt", "--tls-cert",
                              root / "client.crt", "--tls-key", root / "client.key"],
                             capture_output=True, text=True, env=environment())
        assert run.returncode == 4 and "UNAUTHENTICATED" in run.stdout
        before = serial()
        assert "serial" in before
        make_certificate(root, "server", ca="ca")
        wait_until(lambda: serial() not in ("", before), "the new certificate is served", 30)
        assert lists("client") == grpc.StatusCode.OK


def https(coordinator, path, root, client=None, token="eve-secret"):
    """The answer's code and the serial number of the certificate that was shown."""
    import http.client
    import ssl

    context = ssl.create_default_context(cafile=str(root / "ca.crt"))
    if client:
        context.load_cert_chain(root / f"{client}.crt", root / f"{client}.key")
    connection = http.client.HTTPSConnection("127.0.0.1", coordinator.http_port, timeout=10,
                                             context=context)
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    serial = connection.sock.getpeercert()["serialNumber"]
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, serial, body


def test_the_http_port_speaks_tls_and_reloads_its_certificate(root):
    import ssl

    with mutual_tls_coordinator(root) as coordinator:
        status, serial, page = https(coordinator, "/metrics", root, "client")
        assert status == 200
        expiry = re.search(r'^llmc_tls_certificate_expiry_timestamp_seconds{cert="server"} (\S+)',
                           page, re.M)
        assert 86400 < float(expiry[1]) - time.time() < 3 * 86400
        assert https(coordinator, "/", root, "client", token="wrong")[0] == 401
        for client in ("stranger", None):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                https(coordinator, "/healthz", root, client)
        with pytest.raises(OSError):
            coordinator.read("/healthz")  # In clear.
        # A certificate whose key is not there yet is not taken.
        make_certificate(root, "next", ca="ca")
        (root / "next.crt").replace(root / "server.crt")
        assert https(coordinator, "/healthz", root, "client")[1] == serial
        assert "the old certificate is kept" in coordinator.log.read_text()
        (root / "next.key").replace(root / "server.key")
        status, renewed, _ = https(coordinator, "/healthz", root, "client")
        assert status == 200 and renewed != serial
        # So is the CA of the clients.
        (root / "otherca.crt").replace(root / "ca2.crt")
        shutil.copy(root / "ca.crt", root / "both.crt")
        with open(root / "both.crt", "a") as both:
            both.write((root / "ca2.crt").read_text())
        (root / "both.crt").replace(root / "ca.crt")
        assert https(coordinator, "/healthz", root, "stranger")[0] == 200


def test_a_key_of_another_certificate_is_refused_at_the_start(root):
    make_certificate(root, "ca")
    _, crt = make_certificate(root, "server", ca="ca")
    key, _ = make_certificate(root, "other", ca="ca")
    tokens = write_tokens(root / "tokens", TOKENS)
    with pytest.raises(AssertionError, match="not the key of"):
        Coordinator(root, "--token-file", tokens, "--tls-cert", crt, "--tls-key", key,
                    insecure=False).start()


@pytest.fixture
def outside(tmp_path_factory):
    directory = tmp_path_factory.mktemp("outside")
    shutil.copytree(MODEL, directory / "model")
    write_text(directory / "text.jsonl")
    return directory


def test_paths_cannot_leave_the_allowed_roots(coordinator, stub, root, outside):
    (root / "link").symlink_to(outside / "model")
    (root / "up").symlink_to("..")
    (root / "magic").symlink_to("/proc/self/root")
    shutil.copytree(MODEL, root / "tampered")
    weights = next((root / "tampered").glob("*.safetensors"))
    weights.unlink()
    weights.symlink_to(next((outside / "model").glob("*.safetensors")))
    (root / "secret.jsonl").symlink_to(outside / "text.jsonl")
    cases = [("model", root / "link"), ("model", outside / "model"), ("model", root / "tampered"),
             ("model", str(root) + "/../" + outside.name + "/model"), ("model", root / "magic/etc"),
             ("output", root / "up" / "x"), ("output", outside / "x"), ("output", root / "link"),
             ("work_dir", outside)]
    for field, path in cases:
        code = code_of(lambda f=field, p=path: submit(stub, spec(root, "out", **{f: str(p)})))
        assert code == grpc.StatusCode.INVALID_ARGUMENT, (field, path)
    assert code_of(lambda: submit(stub, spec(root, "out", datasets=[str(root / "secret.jsonl")]))) \
        == grpc.StatusCode.INVALID_ARGUMENT
    (root / "inner").symlink_to(root / "text.jsonl")
    submit(stub, spec(root, "out"))


def test_a_link_swapped_under_the_check_never_gets_outside(coordinator, stub, root, outside):
    """The path that is stored holds no link, so a later swap of the link changes nothing."""
    inside = root / "inside"
    shutil.copytree(MODEL, inside)
    for i in range(10):
        link = root / f"link{i}"
        link.symlink_to("inside")
        job = submit(stub, spec(root, f"out{i}", model=str(link)))
        link.unlink()
        link.symlink_to(outside / "model")
        assert get(stub, job.name).spec.model == str(inside)


def test_oversized_and_garbage_input_is_refused_and_the_server_lives(coordinator, stub, root):
    big = job_pb2.Job(spec=spec(root, "out", recipe_text="x" * (5 << 20)))
    assert code_of(lambda: stub.CreateJob(job_service_pb2.CreateJobRequest(job=big))) == \
        grpc.StatusCode.RESOURCE_EXHAUSTED
    many = [(f"key{i}", "v" * 50) for i in range(1000)]
    assert code_of(lambda: stub.ListJobs(job_service_pb2.ListJobsRequest(), metadata=many,
                                         timeout=10)) != grpc.StatusCode.OK
    for port in (coordinator.grpc_port, coordinator.http_port):
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port)) as raw:
                raw.sendall(os.urandom(4096))
    labels = {f"k{i}": "v" for i in range(100)}
    assert code_of(lambda: stub.CreateJob(job_service_pb2.CreateJobRequest(job=job_pb2.Job(
        spec=spec(root, "out"), labels=labels)))) == grpc.StatusCode.INVALID_ARGUMENT
    assert stub.ListJobs(job_service_pb2.ListJobsRequest()) is not None


def test_one_submitter_cannot_flood(guarded, root):
    stub = guarded.stub()
    request = job_service_pb2.CancelJobRequest(name="jobs/none")
    calls = [stub.CancelJob.future(request, metadata=as_user("ann-secret")) for _ in range(2500)]
    codes = {call.exception().code() for call in calls}
    assert grpc.StatusCode.RESOURCE_EXHAUSTED in codes
    assert code_of(lambda: stub.CancelJob(request, metadata=as_user("root-secret"))) == \
        grpc.StatusCode.NOT_FOUND
