"""Beside llmcompressor on the trained example and its outlier twin: perplexity, and output
errors of GPTQ."""
import json
import subprocess
import sys

import pytest
from conftest import SOURCE, llmc

sys.path.insert(0, str(SOURCE / "bench"))
from outlier_twin import make_twin
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


def compress_both(model, modifiers, rows, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("quant_stage:\n  quant_modifiers:\n" + "".join(f"    {m}\n" for m in modifiers))
    subprocess.run([sys.executable, SOURCE / "bench/peer_oneshot.py", model, recipe,
                    tmp_path / "theirs", rows], check=True, capture_output=True)
    run = llmc("compress", "--model", model, "--recipe", recipe, "--dataset", rows,
               "--max-seq-length", LENGTH, "--output", tmp_path / "ours")
    assert run.code == 0, run.err
    return tmp_path / "ours", tmp_path / "theirs"


def quantiser(modifier, scheme):
    return f"{modifier}: {{targets: [Linear], ignore: [lm_head], scheme: {scheme}}}"


@pytest.mark.parametrize("scheme", ["W4A16", "W4A16_ASYM", "W8A8"])
def test_gptq_is_no_worse_than_the_library(scheme, rows, tmp_path):
    outputs = compress_both(MODEL, [quantiser("GPTQModifier", scheme)], rows[0], tmp_path)
    calibration = [json.loads(line)["input_ids"] for line in open(rows[0])]
    ours, theirs = output_errors(MODEL, calibration, *outputs)
    assert len(ours) == 28
    assert sum(ours.values()) <= 1.01 * sum(theirs.values())
    assert perplexity(outputs[0], rows[1]) <= 1.005 * perplexity(outputs[1], rows[1])


PRUNE_24 = "SparseGPTModifier: {sparsity: 0.5, mask_structure: '2:4', ignore: ['re:.*lm_head']}"
TRANSFORMS = {
    "awq": ["AWQModifier: {n_grid: 8}", quantiser("QuantizationModifier", "W4A16")],
    "awq_asym": ["AWQModifier: {n_grid: 8}", quantiser("QuantizationModifier", "W4A16_ASYM")],
    "sparsegpt_50": ["SparseGPTModifier: {sparsity: 0.5, ignore: ['re:.*lm_head']}"],
    "sparsegpt_24": [PRUNE_24],
    "sparsegpt_24_fp8": [PRUNE_24, quantiser("QuantizationModifier", "FP8_DYNAMIC")],
    **{f"smoothquant_{strength}_{name}": [f"SmoothQuantModifier: {{smoothing_strength: {strength}}}",
                                          quantiser(modifier, "W8A8")]
       for strength in (0.5, 0.8)
       for name, modifier in (("rtn", "QuantizationModifier"), ("gptq", "GPTQModifier"))},
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_is_no_worse_than_the_library(name, rows, tmp_path):
    model = make_twin(MODEL, tmp_path / "twin") if "smoothquant" in name else MODEL
    data = rows[0]
    if "awq" in name:  # There AWQ takes a minute for 24 rows.
        data = tmp_path / "fewer.jsonl"
        data.write_text("".join(rows[0].read_text().splitlines(keepends=True)[:10]))
    outputs = compress_both(model, TRANSFORMS[name], data, tmp_path)
    ours, theirs = (perplexity(output, rows[1]) for output in outputs)
    print(f"{name}: llmc {ours:.3f}, llmcompressor {theirs:.3f}, {ours / theirs:.4f} of it")
    assert ours <= 1.005 * theirs
