"""The programs of the preset cuda: what they link, and what they do without a GPU."""
import os
import pathlib
import re
import subprocess

import pytest

BIN = pathlib.Path(os.environ["LLMC_BIN"])
SOURCE = pathlib.Path(__file__).resolve().parents[2]


def needed(program):
    listing = subprocess.run(["readelf", "-d", str(BIN / program)], capture_output=True, text=True, check=True)
    return re.findall(r"\(NEEDED\).*\[(.*)\]", listing.stdout)


def compress(tmp_path, *words):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join('{"input_ids": [%s]}\n' % ", ".join(str(7 * i % 4000 + 2) for i in range(k, k + 40))
                            for k in range(16)))
    return subprocess.run([str(BIN / "llmc-worker"), "compress", "--model", str(SOURCE / "examples/tiny-llama"),
                           "--recipe", "W4A16", "--dataset", str(rows), "--num-calibration-samples", "16",
                           "--max-seq-length", "64", "--output", str(tmp_path / "out"), *words],
                          capture_output=True, text=True, timeout=300,
                          env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})


def test_llmc_links_neither_libtorch_nor_cuda():
    for library in needed("llmc"):
        assert not re.match(r"libtorch|libc10|libcu|libnccl", library)


def test_worker_loads_the_operators_of_cuda():
    """They register themselves, so the linker sees no use of the library."""
    assert {"libtorch_cuda.so", "libc10_cuda.so", "libnccl.so.2"} <= set(needed("llmc-worker"))


def test_one_runtime_in_the_process():
    listing = subprocess.run(["ldd", str(BIN / "llmc-worker")], capture_output=True, text=True, check=True).stdout
    assert "not found" not in listing
    runtimes = re.findall(r"(libcudart\S*|libcublas\.\S*) => (\S+)", listing)
    assert {name.split(".")[0] for name, _ in runtimes} == {"libcudart", "libcublas"}
    # All of LibTorch's package, none of the toolkit's.
    assert all("site-packages" in path for _, path in runtimes)


def test_auto_takes_the_cpu_and_says_so(tmp_path):
    run = compress(tmp_path, "--device", "auto")
    assert run.returncode == 0, run.stderr
    assert "computing on the CPU" in run.stderr


def test_cuda_is_refused_with_the_reason(tmp_path):
    run = compress(tmp_path, "--device", "cuda")
    assert run.returncode == 2
    assert re.search(r"--device cuda: .*CUDA", run.stderr)
