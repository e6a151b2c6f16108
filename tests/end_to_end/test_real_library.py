"""Outputs as the real library writes and reads them."""
import json

import pytest
from conftest import SOURCE, llmc, make_model

import torch
from safetensors.torch import load_file

DATA_FREE = ["W8A8", "W4A16", "W4A16_ASYM", "W3A16", "W8A16", "W4A8", "FP8_DYNAMIC", "FP8_BLOCK"]
LOADABLE = DATA_FREE + ["W4AFP8", "FP8", "W2A16", "W5A16", "W6A16", "W7A16"]


def tensors_of(directory):
    merged = {}
    for shard in sorted(directory.glob("*.safetensors")):
        merged.update(load_file(shard))
    return merged


def rtn_recipe(tmp_path, scheme):
    path = tmp_path / "recipe.yaml"
    path.write_text("quant_stage:\n  quant_modifiers:\n    QuantizationModifier:\n"
                    f"      targets: [Linear]\n      ignore: [lm_head]\n      scheme: {scheme}\n")
    return path


def adversarial(model_dir):
    """Rows of zeros, outliers, subnormals, one sign only."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype="auto")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "_proj" not in name:
                continue
            weight[0] = 0
            weight[1, 0] = 300
            weight[2] *= 1e-38
            weight[3] = weight[3].abs()
            weight[4] = -weight[4].abs()
            weight[5] = -0.0
    return model


@pytest.fixture(scope="module", params=["bfloat16", "float16", "float32"])
def source(request, tmp_path_factory):
    path = make_model(tmp_path_factory.mktemp("source") / "model", dtype=request.param,
                      num_hidden_layers=1)
    adversarial(path).save_pretrained(path)
    return path


@pytest.mark.parametrize("scheme", DATA_FREE)
def test_round_to_nearest_is_bit_identical(scheme, source, tmp_path):
    from llmcompressor import oneshot

    recipe = rtn_recipe(tmp_path, scheme)
    oneshot(model=str(source), recipe=str(recipe), output_dir=str(tmp_path / "theirs"))
    run = llmc("compress", "--model", source, "--recipe", recipe, "--output", tmp_path / "ours")
    assert run.code == 0, run.err
    ours, theirs = tensors_of(tmp_path / "ours"), tensors_of(tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype and ours[name].shape == tensor.shape, name
        assert torch.equal(ours[name].view(torch.uint8), tensor.view(torch.uint8)), name
    config = {who: json.loads((tmp_path / who / "config.json").read_text())["quantization_config"]
              for who in ("ours", "theirs")}
    assert config["ours"] == config["theirs"]


@pytest.mark.parametrize("scheme", LOADABLE)
def test_transformers_loads_it_and_computes_alike(scheme, model, text, tmp_path):
    from transformers import AutoModelForCausalLM

    run = llmc("compress", "--model", model, "--recipe", scheme, "--dataset", text, "--output",
               tmp_path / "out", "--num-calibration-samples", 24, "--max-seq-length", 128)
    assert run.code == 0, run.err
    verify = llmc("verify", tmp_path / "out", "--against", model)
    assert verify.code == 0, verify.out
    ids = torch.arange(5, 69)[None]
    with torch.no_grad():
        dense = AutoModelForCausalLM.from_pretrained(model, dtype="auto")(ids).logits.float()
        ours = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")(ids).logits.float()
    error = ((ours - dense).norm() / dense.norm()).item()
    # Of random weights, whose rounding errors nothing averages out: about half from bit to bit.
    assert error < {"W2": 1.0, "W3": 0.6, "W4": 0.3}.get(scheme[:2], 0.2)


def test_gptq_beats_round_to_nearest(tmp_path):
    """Perplexity of the trained example in 3 bits."""
    trained = SOURCE / "examples/tiny-llama"
    rows = [p for page in sorted(SOURCE.glob("*.md")) for p in page.read_text().split("\n\n")]
    data, held = tmp_path / "data.jsonl", tmp_path / "held.jsonl"
    data.write_text("".join(json.dumps({"text": p}) + "\n" for p in rows if len(p) > 100))
    held.write_text("".join(json.dumps({"text": p}) + "\n" for p in
                            (SOURCE / "docs/architecture.md").read_text().split("\n\n")))
    common = ["--dataset", data, "--num-calibration-samples", 32, "--max-seq-length", 256]
    gptq = llmc("compress", "--model", trained, "--recipe", "W3A16", *common, "--eval-dataset", held,
                "--output", tmp_path / "gptq", "--json")
    assert gptq.code == 0, gptq.err
    rtn = llmc("compress", "--model", trained, "--recipe", rtn_recipe(tmp_path, "W3A16"),
               "--eval-dataset", held, "--max-seq-length", 256, "--output", tmp_path / "rtn", "--json")
    assert rtn.code == 0, rtn.err
    ours = gptq.json()["evaluation"]["perplexity_after"]
    assert gptq.json()["evaluation"]["perplexity_before"] < ours
    assert ours < rtn.json()["evaluation"]["perplexity_after"]
