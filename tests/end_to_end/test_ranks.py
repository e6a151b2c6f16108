"""The output's bytes do not depend on ranks, threads or the memory budget."""
import pytest
from conftest import digest, llmc, mpirun


@pytest.fixture(scope="module")
def reference(tmp_path_factory, model, text):
    out = tmp_path_factory.mktemp("reference") / "out"
    run = llmc("compress", "--model", model, "--recipe", "W4A16", "--dataset", text,
               "--num-calibration-samples", 180, "--max-seq-length", 256, "--output", out)
    assert run.code == 0, run.err
    return digest(out)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_mpirun_gives_the_same_bytes(ranks, gptq, reference, tmp_path):
    run = mpirun(ranks, *gptq, "--output", tmp_path / "out", LLMC_THREADS=1)
    assert run.code == 0, run.err
    assert digest(tmp_path / "out") == reference


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_give_the_same_bytes(threads, gptq, reference, tmp_path):
    run = llmc(*gptq, "--output", tmp_path / "out", LLMC_THREADS=threads)
    assert run.code == 0, run.err
    assert digest(tmp_path / "out") == reference


def test_ranks_flag_starts_mpirun(gptq, reference, tmp_path):
    run = llmc(*gptq, "--output", tmp_path / "out", "--ranks", 2)
    assert run.code == 0, run.err
    assert digest(tmp_path / "out") == reference


def test_spilled_activations_give_the_same_bytes(gptq, reference, tmp_path):
    plan = llmc("plan", *gptq[1:], "--json").json()
    budget = plan["min_memory_bytes"] + 100_000
    run = llmc(*gptq, "--output", tmp_path / "out", "--memory-budget", budget, "--work-dir",
               tmp_path)
    assert run.code == 0, run.err
    assert digest(tmp_path / "out") == reference
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_data_free_gives_the_same_bytes(model, tmp_path):
    words = ["compress", "--model", model, "--recipe", "FP8_DYNAMIC", "--output"]
    assert llmc(*words, tmp_path / "one").code == 0
    assert mpirun(3, *words, tmp_path / "three").code == 0
    assert digest(tmp_path / "one") == digest(tmp_path / "three")


def test_a_rank_that_fails_stops_all(gptq, tmp_path):
    run = mpirun(3, *gptq, "--output", tmp_path / "out", timeout=120,
                 LLMC_FAILPOINTS="layer.chunk=error/r1")
    assert run.code == 1
    assert "failpoint layer.chunk" in run.err
    assert not (tmp_path / "out").exists()
