"""The client commands of llmc: words, exit codes, JSON."""
import json
import os
import pty
import signal
import subprocess
import time

import pytest
from control_tower import (BIN, MODEL, Pool, environment, get, job_pb2, wait_for_end, wait_until)


@pytest.fixture
def llmc(coordinator):
    def run(*words, timeout=120, **env):
        return subprocess.run([str(BIN / "llmc"), *map(str, words)], capture_output=True, text=True,
                              timeout=timeout,
                              env=environment(LLMC_COORDINATOR=coordinator.address, **env))
    return run


@pytest.fixture
def job_flags(root):
    return ["--model", MODEL, "--recipe", "W4A16", "--dataset", root / "text.jsonl",
            "--num-calibration-samples", 32, "--max-seq-length", 64]


def test_submit_prints_the_name_and_get_shows_it(llmc, job_flags, root):
    run = llmc("submit", *job_flags, "--output", root / "out", "--label", "team=x", "--priority", 70)
    assert run.returncode == 0, run.stderr
    name = run.stdout.strip()
    job = json.loads(llmc("get", name, "--json").stdout)
    assert job["name"] == name and job["state"] == "JOB_STATE_QUEUED"
    assert job["labels"] == {"team": "x"} and job["priority"] == 70
    assert "QUEUED" in llmc("get", name.removeprefix("jobs/")).stdout
    listed = json.loads(llmc("list", "--json", "--filter", "labels.team = x").stdout)
    assert [j["name"] for j in listed["jobs"]] == [name]
    assert llmc("list", "--filter", "labels.team = y").stdout.count("\n") == 1


def test_get_and_pools_show_who_does_what_and_escape_names(llmc, coordinator, stub, job_flags,
                                                           root):
    run = llmc("submit", *job_flags, "--output", root / "out", "--label", "note=\x1b[31mred\n",
               "--min-ranks", 2)
    name = run.stdout.strip()
    assert "waits for  a pool; none is attached" in llmc("get", name).stdout
    assert llmc("pools").stdout == "no pool is attached\n"
    with Pool(coordinator.address, root, ranks=2, name="p\x1b[2J"):
        wait_for_end(stub, name)
        shown, pools = llmc("get", name).stdout, llmc("pools").stdout
    assert "\x1b" not in shown + pools and "red" in shown
    assert "rank 0     sample batches 0, 2, ...; rows 0-" in shown
    assert "rank 1     sample batches 1, 3, ...; rows " in shown
    assert "  rank 0 " in pools and "thread(s)" in pools and "idle" in pools
    assert llmc("watch", name).stderr.startswith(f"{name}: SUCCEEDED")


def test_exit_codes_tell_what_happened(llmc, job_flags, root):
    assert llmc("get", "none").returncode == 3
    assert llmc("submit", *job_flags, "--output", "/usr/x").returncode == 6
    assert llmc("submit", "--no-such-flag").returncode == 2
    assert llmc("submit", "--model", MODEL).returncode == 2
    assert llmc("list", "--token-file", root / "none").returncode == 2
    unreached = llmc("list", "--coordinator", "127.0.0.1:1", "--timeout", 1)
    assert unreached.returncode == 5 and "127.0.0.1:1: " in unreached.stderr
    name = llmc("submit", *job_flags, "--output", root / "out").stdout.strip()
    assert llmc("resume", name).returncode == 6
    error = json.loads(llmc("resume", name, "--json").stdout)["error"]
    assert error["code"] == "FAILED_PRECONDITION" and error["reason"] == "JOB_STATE"
    assert llmc("pause", name).returncode == 0
    assert llmc("resume", name).returncode == 0
    assert llmc("report", name).returncode == 3
    assert llmc("cancel", name).returncode == 0
    assert llmc("watch", name).returncode == 7
    assert llmc("retry", name).returncode == 0
    assert llmc("cancel", name).returncode == 0
    assert llmc("delete", name).returncode == 0
    assert llmc("get", name).returncode == 3


def test_submit_wait_follows_the_job_to_its_end(llmc, coordinator, job_flags, root):
    with Pool(coordinator.address, root):
        run = llmc("submit", *job_flags, "--output", root / "out", "--wait")
        assert run.returncode == 0, run.stderr
        assert "SUCCEEDED" in run.stderr
        name = run.stdout.strip()
        report = json.loads(llmc("report", name, "--json").stdout)
        assert report["schema_version"]
        page = root / "report.html"
        assert llmc("report", name, "--html", page).returncode == 0 and page.stat().st_size > 5000
        (root / "text.jsonl").write_text('{"no": 1}\n' * 40)
        lines = llmc("watch", name, "--json").stdout.splitlines()
        assert json.loads(lines[0])["snapshot"]["state"] == "JOB_STATE_SUCCEEDED"


def test_a_failed_job_gives_exit_code_1(llmc, coordinator, stub, job_flags, root):
    name = llmc("submit", *job_flags, "--output", root / "out").stdout.strip()
    (root / "text.jsonl").write_text('{"no": 1}\n' * 40)
    with Pool(coordinator.address, root):
        assert wait_for_end(stub, name).state == job_pb2.JOB_STATE_FAILED
    assert llmc("watch", name).returncode == 1


def test_ctrl_c_detaches_and_the_job_goes_on(coordinator, stub, job_flags, llmc, root):
    name = llmc("submit", *job_flags, "--output", root / "out").stdout.strip()
    leader, follower = pty.openpty()
    watch = subprocess.Popen([str(BIN / "llmc"), "watch", name], stderr=follower, stdout=follower,
                             env=environment(LLMC_COORDINATOR=coordinator.address))
    os.close(follower)
    with Pool(coordinator.address, root, LLMC_FAILPOINTS="layer.load=sleep(1500)"):
        wait_until(lambda: get(stub, name).state == job_pb2.JOB_STATE_RUNNING, "it runs")
        watch.send_signal(signal.SIGINT)
        assert watch.wait(10) == 130
        assert b"llmc watch " + name.encode() in os.read(leader, 1 << 16)
        assert get(stub, name).state == job_pb2.JOB_STATE_RUNNING
    os.close(leader)


def test_a_recipe_file_travels_as_text(llmc, root, job_flags):
    recipe = root / "recipe.yaml"
    recipe.write_text("default_stage:\n  default_modifiers:\n    QuantizationModifier:\n"
                      "      targets: [Linear]\n      scheme: FP8_DYNAMIC\n      ignore: [lm_head]\n")
    run = llmc("submit", "--model", MODEL, "--recipe", recipe, "--output", root / "o", "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["spec"]["recipeText"] == recipe.read_text()


def test_completion_knows_commands_and_flags(llmc):
    assert set(llmc("__complete", "re").stdout.split()) == {"report", "resume", "retry"}
    assert "--num-calibration-samples" in llmc("__complete", "submit", "--num").stdout
    assert llmc("__complete", "nonsense", "--x").stdout == ""
    script = llmc("completion", "bash").stdout
    words = subprocess.run(
        ["bash", "-c", f"PATH={BIN}:$PATH; {script}\nCOMP_WORDS=(llmc wat); COMP_CWORD=1; _llmc; "
         "echo ${COMPREPLY[@]}"], capture_output=True, text=True, env=environment()).stdout
    assert words.strip() == "watch"


@pytest.mark.parametrize("command", ["submit", "get", "watch", "list", "report", "backup"])
def test_help_is_readable_text(llmc, command):
    text = llmc(command, "--help").stdout
    assert "--coordinator" in text
    assert all(c == "\n" or c.isprintable() for c in text)


def test_llmc_starts_without_libtorch():
    for program in ("llmc", "llmc-coordinator"):
        libraries = subprocess.run(["ldd", str(BIN / program)], capture_output=True, text=True).stdout
        assert "torch" not in libraries and "libmpi" not in libraries
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        subprocess.run([str(BIN / "llmc"), "--version"], capture_output=True, check=True)
        times.append(time.perf_counter() - begin)
    print("llmc --version takes", min(times), "s")
