"""GPTQ beside llmcompressor on the trained example: output errors and perplexity."""
import json
import subprocess
import sys

import pytest
from conftest import SOURCE, llmc

sys.path.insert(0, str(SOURCE / "bench"))
from output_error import output_errors

MODEL = SOURCE / "examples/tiny-llama"
LENGTH = 192


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Token rows that the model itself wrote: for calibration, and held out. On text of
    another kind the perplexities of equally good models differ by a percent."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(11)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    start = torch.full((64, 1), model.config.bos_token_id or 0)
    written = model.generate(start, do_sample=True, top_k=0, max_length=LENGTH,
                             min_length=LENGTH, pad_token_id=0)
    folder = tmp_path_factory.mktemp("rows")
    paths = []
    for name, part in (("calibration", written[:24]), ("held-out", written[24:])):
        paths.append(folder / f"{name}.jsonl")
        paths[-1].write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in part.tolist()))
    return paths


def perplexity(model, held):
    run = llmc("eval", "--model", model, "--dataset", held, "--max-seq-length", LENGTH, "--json")
    assert run.code == 0, run.err
    return run.json()["perplexity"]


@pytest.mark.parametrize("scheme", ["W4A16", "W4A16_ASYM", "W8A8"])
def test_gptq_is_no_worse_than_the_library(scheme, rows, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("quant_stage:\n  quant_modifiers:\n    GPTQModifier:\n      targets: [Linear]\n"
                      f"      ignore: [lm_head]\n      scheme: {scheme}\n")
    subprocess.run([sys.executable, SOURCE / "bench/peer_oneshot.py", MODEL, recipe,
                    tmp_path / "theirs", rows[0]], check=True, capture_output=True)
    run = llmc("compress", "--model", MODEL, "--recipe", recipe, "--dataset", rows[0],
               "--max-seq-length", LENGTH, "--output", tmp_path / "ours")
    assert run.code == 0, run.err
    calibration = [json.loads(line)["input_ids"] for line in open(rows[0])]
    ours, theirs = output_errors(MODEL, calibration, tmp_path / "ours", tmp_path / "theirs")
    assert len(ours) == 28
    assert sum(ours.values()) <= 1.01 * sum(theirs.values())
    assert (perplexity(tmp_path / "ours", rows[1]) <=
            1.005 * perplexity(tmp_path / "theirs", rows[1]))
