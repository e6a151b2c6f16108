"""A run that was killed anywhere goes on, and ends with the same bytes."""
import os
import random
import subprocess
import time

import pytest
from conftest import BIN, digest, environment, kill_group, llmc, mpirun

STEPS = ["layer.load", "layer.chunk", "layer.reduce", "layer.solve", "layer.write",
         "unit.before_sync", "unit.marked", "layer.propagate"]
LAYERS = 3


@pytest.fixture(scope="module")
def reference(tmp_path_factory, model, text):
    out = tmp_path_factory.mktemp("reference") / "out"
    run = llmc("compress", "--model", model, "--recipe", "W4A16", "--dataset", text,
               "--num-calibration-samples", 180, "--max-seq-length", 256, "--output", out)
    assert run.code == 0, run.err
    return digest(out)


@pytest.mark.parametrize("layer", range(1, LAYERS + 1))
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_every_step_of_every_layer(step, layer, gptq, reference, tmp_path):
    out = tmp_path / "out"
    run = llmc(*gptq, "--output", out, LLMC_FAILPOINTS=f"{step}=kill@{layer}")
    if run.code == 0:  # The last layer is not propagated.
        assert step == "layer.propagate" and layer == LAYERS
        return
    assert not out.exists()
    ranks = 1 + (layer + STEPS.index(step)) % 2
    again = llmc(*gptq, "--output", out, "--ranks", ranks)
    assert again.code == 0, again.err
    assert digest(out) == reference
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("point", ["commit.before_rename", "commit.after_rename", "journal.append",
                                   "write.tensor"])
def test_killed_while_publishing(point, gptq, reference, tmp_path):
    out = tmp_path / "out"
    run = llmc(*gptq, "--output", out, LLMC_FAILPOINTS=f"{point}=kill")
    assert run.code != 0
    again = llmc(*gptq, "--output", out)
    assert again.code == 0, again.err
    assert digest(out) == reference


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_random_times(seed, gptq, reference, tmp_path):
    out = tmp_path / "out"
    rng = random.Random(seed)
    for _ in range(3):
        process = subprocess.Popen([str(BIN / "llmc-worker"), *map(str, gptq), "--output", str(out)],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   start_new_session=True, env=environment())
        time.sleep(rng.uniform(0.05, 2.0))  # The fault's moment, not a wait for a result.
        kill_group(process)
    run = llmc(*gptq, "--output", out)
    assert run.code == 0, run.err
    assert digest(out) == reference


def test_a_lost_rank_ends_the_world_and_the_job_resumes(gptq, reference, tmp_path):
    out = tmp_path / "out"
    run = mpirun(3, *gptq, "--output", out, LLMC_FAILPOINTS="layer.solve=kill@2/r1")
    assert run.code != 0
    again = llmc(*gptq, "--output", out)
    assert again.code == 0, again.err
    assert digest(out) == reference


def test_sigterm_finishes_the_layer_and_exits_3(gptq, reference, tmp_path):
    out = tmp_path / "out"
    run = llmc(*gptq, "--output", out, LLMC_FAILPOINTS="layer.load=term@2")
    assert run.code == 3, run.err
    assert "stopped by a signal" in run.err
    again = llmc(*gptq, "--output", out)
    assert again.code == 0, again.err
    assert "resuming: 2 of" in again.err
    assert digest(out) == reference


def test_a_full_disk_is_an_error_and_the_job_resumes(gptq, reference, tmp_path):
    out = tmp_path / "out"
    run = llmc(*gptq, "--output", out, LLMC_FAILPOINTS="write.tensor=enospc@9")
    assert run.code == 2
    assert "no space left" in run.err
    again = llmc(*gptq, "--output", out)
    assert again.code == 0, again.err
    assert digest(out) == reference


def test_another_job_does_not_take_over_a_partial_output(gptq, tmp_path):
    out = tmp_path / "out"
    assert llmc(*gptq, "--output", out, LLMC_FAILPOINTS="layer.write=kill@2").code != 0
    run = llmc(*gptq, "--output", out, "--seed", 43)
    assert run.code == 2
    assert "calibration" in run.err
    assert llmc(*gptq, "--output", out, "--seed", 43, "--fresh").code == 0


def test_a_finished_job_is_not_done_again(gptq, reference, tmp_path):
    out = tmp_path / "out"
    assert llmc(*gptq, "--output", out).code == 0
    before = os.stat(out / "model.safetensors").st_mtime_ns
    run = llmc(*gptq, "--output", out)
    assert run.code == 0 and "finished before" in run.err
    assert os.stat(out / "model.safetensors").st_mtime_ns == before
    assert digest(out) == reference
