"""Kills a writing job at every one of its system calls, and makes each of them fail, then resumes it.

    fault_injection.py CHECKPOINT_TEST

CHECKPOINT_TEST is the test program, whose `--child run DIR` writes DIR/out from DIR/model. After a fault the output
must be absent or complete, the resumed job must finish, and its bytes must be those of an undisturbed one. Ends with
77 (skipped) where strace is missing or may not trace.
"""
import json
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile

CALLS = {"pwrite64": "ENOSPC", "fsync": "EIO", "ftruncate": "ENOSPC", "rename": "EIO", "write": "ENOSPC"}
MOST_CALLS = 200


def make_model(directory):
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    (directory / "tokenizer.json").write_text('{"t": 1}')
    header = json.dumps({"copied": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"12345678")


def tree(directory):
    return {p.relative_to(directory): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def run(program, job, inject=None):
    command = [program, "--child", "run", str(job)]
    if inject:
        call = inject.split(":")[0]
        command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={inject}"] + command
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode


def count_calls(program, job, call):
    log = job / "trace"
    subprocess.run(["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={call}", program, "--child", "run", str(job)])
    return sum(f"{call}(" in line for line in log.read_text().splitlines())


def check(program, scratch, expected, fault):
    job = scratch / "job"
    shutil.rmtree(job, ignore_errors=True)
    make_model(job / "model")
    status = run(program, job, fault)
    out = job / "out"
    if out.exists():
        assert {k: v for k, v in tree(out).items() if k.name != "llmc_journal"} == expected, f"{fault}: half an output"
    assert status != 0 or out.exists(), f"{fault}: said done, but there is no output"
    assert run(program, job) == 0, f"{fault}: cannot be resumed"
    assert tree(out) == expected, f"{fault}: other bytes after resuming"
    assert not (job / "out.llmc-partial").exists(), f"{fault}: staging left behind"


def check_durability_order(program, job):
    """Every written file is fsynced before the directory is renamed, and the parent directory after it."""
    make_model(job / "model")
    log = job / "trace"
    calls = "pwrite64,write,ftruncate,fsync,rename,renameat2"
    subprocess.run(["strace", "-f", "-y", "-qq", "-o", str(log), "-e", f"trace={calls}", program, "--child", "run",
                    str(job)], check=True)
    unsynced, renamed, parent_synced = set(), False, False
    for line in log.read_text().splitlines():
        call = re.match(r"\d+ +(\w+)\((?:\d+<([^>]*)>)?(.*)", line)
        if not call:
            continue
        name, path, rest = call.groups()
        if name in ("pwrite64", "write", "ftruncate") and path and ".llmc-partial/" in path:
            assert not renamed, f"written after the rename: {path}"
            unsynced.add(path)
        elif name == "fsync":
            unsynced.discard(path)
            parent_synced = parent_synced or (renamed and path == str(job))
        elif name.startswith("rename") and rest.count(".llmc-partial") == 1 and str(job / "out") + '"' in rest:
            assert not unsynced, f"not fsynced before the rename: {unsynced}"
            renamed = True
    assert renamed and parent_synced, "the rename is not durable"


def main():
    program = sys.argv[1]
    if shutil.which("strace") is None or subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"]).returncode != 0:
        sys.exit(77)
    # In memory, where an fsync costs nothing.
    memory = pathlib.Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        scratch = pathlib.Path(name)
        make_model(scratch / "good" / "model")
        assert run(program, scratch / "good") == 0
        expected = tree(scratch / "good" / "out")
        check_durability_order(program, scratch / "order")
        faults = 0
        for call, error in CALLS.items():
            make_model(scratch / call / "model")
            for when in range(1, min(MOST_CALLS, count_calls(program, scratch / call, call)) + 1):
                for action in ("signal=SIGKILL", f"error={error}"):
                    check(program, scratch, expected, f"{call}:{action}:when={when}")
                    faults += 1
        assert faults > 50, faults
        print(f"{faults} faults survived")


if __name__ == "__main__":
    main()
