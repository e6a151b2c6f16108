"""Calibrated scales of activations and of the key-value cache, against the real library."""
import json

import pytest
from conftest import digest, llmc, make_model, mpirun
from test_real_library import tensors_of

import torch

KV = {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False, "symmetric": True}
INPUT = {"num_bits": 8, "type": "int", "strategy": "tensor", "dynamic": False, "symmetric": False}
WEIGHT = {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True}


def recipe_file(tmp_path, **fields):
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps({"quant_stage": {"quant_modifiers": {"QuantizationModifier": fields}}}))
    return path


@pytest.fixture(scope="module")
def float_model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("float") / "model", dtype="float32",
                      num_hidden_layers=2)


@pytest.fixture(scope="module")
def token_rows():
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(3, 200, (length,), generator=generator).tolist()
            for length in (48,) * 6]


def theirs(model, recipe, rows, out):
    from datasets import Dataset
    from llmcompressor import oneshot

    data = Dataset.from_list([{"input_ids": r, "attention_mask": [1] * len(r)} for r in rows])
    oneshot(model=str(model), recipe=str(recipe), dataset=data, output_dir=str(out),
            num_calibration_samples=len(rows), max_seq_length=64, shuffle_calibration_samples=False)
    return tensors_of(out)


def ours(model, recipe, rows, out, *more):
    data = out.parent / "rows.jsonl"
    data.write_text("".join(json.dumps({"input_ids": r}) + "\n" for r in rows))
    run = llmc("compress", "--model", model, "--recipe", recipe, "--dataset", data, "--output", out,
               "--num-calibration-samples", len(rows), "--max-seq-length", 64, "--no-shuffle", *more)
    assert run.code == 0, run.err
    verify = llmc("verify", out, "--against", model)
    assert verify.code == 0, verify.out
    return tensors_of(out)


def compare(model, recipe, rows, tmp_path):
    expected = theirs(model, recipe, rows, tmp_path / "theirs")
    found = ours(model, recipe, rows, tmp_path / "ours")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape, name
        torch.testing.assert_close(found[name].float(), tensor.float(), rtol=2e-5, atol=0, msg=name)
    configs = [json.loads((tmp_path / who / "config.json").read_text())["quantization_config"]
               for who in ("ours", "theirs")]
    assert configs[0] == configs[1]
    return found


@pytest.mark.parametrize("strategy", ["tensor", "attn_head"])
@pytest.mark.parametrize("observer", ["static_minmax", "minmax"])
def test_cache_scales_are_the_library_s(strategy, observer, float_model, token_rows, tmp_path):
    kv = KV | {"strategy": strategy, "observer": observer}
    found = compare(float_model, recipe_file(tmp_path, kv_cache_scheme=kv), token_rows, tmp_path)
    heads = json.loads((float_model / "config.json").read_text())["num_key_value_heads"]
    shape = (1,) if strategy == "tensor" else (heads, 1, 1)
    assert found["model.layers.1.self_attn.k_scale"].shape == shape


@pytest.mark.parametrize("observer", ["static_minmax", "minmax", "mse", "memoryless_minmax"])
def test_input_scales_are_the_library_s(observer, float_model, token_rows, tmp_path):
    groups = {"group_0": {"targets": ["Linear"], "weights": WEIGHT,
                          "input_activations": INPUT | {"observer": observer}}}
    recipe = recipe_file(tmp_path, config_groups=groups, ignore=["lm_head"])
    compare(float_model, recipe, token_rows, tmp_path)


def absmax_in_transformers(model_dir, rows):
    """Largest magnitudes of queries after rope, and of linears' outputs, by name."""
    from transformers import AutoModelForCausalLM
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    largest = {}

    def keep(name, value):
        largest[name] = max(largest.get(name, 0.0), value.abs().max().item())

    def probe(module, query, key, value, mask, **kwargs):
        keep(f"model.layers.{module.layer_idx}.self_attn.q", query)
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)

    ALL_ATTENTION_FUNCTIONS.register("probe", probe)
    model = AutoModelForCausalLM.from_pretrained(model_dir, attn_implementation="probe")
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda m, i, y, name=name: keep(name + ".output", y))
    with torch.no_grad():
        for row in rows:
            model(torch.tensor([row]))
    return largest


def test_attention_group_stores_query_scales_too(float_model, token_rows, tmp_path):
    groups = {"group_0": {"targets": ["LlamaAttention"], "input_activations": KV}}
    found = ours(float_model, recipe_file(tmp_path, config_groups=groups), token_rows,
                 tmp_path / "ours")
    largest = absmax_in_transformers(float_model, token_rows)
    for layer in range(2):
        name = f"model.layers.{layer}.self_attn.q"
        assert found[name + "_scale"].item() == pytest.approx(largest[name] / 448, rel=2e-5)
        assert f"model.layers.{layer}.self_attn.q_zero_point" not in found
    config = json.loads((tmp_path / "ours/config.json").read_text())["quantization_config"]
    assert config["kv_cache_scheme"] == config["config_groups"]["group_0"]["input_activations"]
    assert config["format"] == "dense"


def test_output_scales_are_the_outputs_extrema(float_model, token_rows, tmp_path):
    groups = {"group_0": {"targets": ["Linear"], "weights": WEIGHT, "output_activations":
                          INPUT | {"symmetric": True, "observer": "static_minmax"}}}
    recipe = recipe_file(tmp_path, config_groups=groups, ignore=["lm_head"])
    found = ours(float_model, recipe, token_rows, tmp_path / "ours")
    largest = absmax_in_transformers(float_model, token_rows)
    names = [name for name in found if name.endswith(".output_scale")]
    assert len(names) == 14
    for name in names:
        expected = largest[name.removesuffix("_scale")] / 127.5
        assert found[name].item() == pytest.approx(expected, rel=2e-5), name


def test_activations_alone_leave_weights_dense(float_model, token_rows, tmp_path):
    groups = {"group_0": {"targets": ["re:.*down_proj$"],
                          "input_activations": INPUT | {"observer": "static_minmax"}}}
    compare(float_model, recipe_file(tmp_path, config_groups=groups), token_rows, tmp_path)


def test_cache_scales_beside_gptq_are_the_same_bytes_on_any_ranks(model, text, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"quant_stage": {"quant_modifiers": {"GPTQModifier": {
        "targets": ["Linear"], "ignore": ["lm_head"], "scheme": "W4A16",
        "kv_cache_scheme": KV | {"strategy": "attn_head", "observer": "minmax"}}}}}))
    common = ["compress", "--model", model, "--recipe", recipe, "--dataset", text,
              "--num-calibration-samples", 40, "--max-seq-length", 128, "--output"]
    one = llmc(*common, tmp_path / "one")
    assert one.code == 0, one.err
    two = mpirun(2, *common, tmp_path / "two")
    assert two.code == 0, two.err
    stopped = llmc(*common, tmp_path / "resumed", LLMC_FAILPOINTS="layer.write=kill@2")
    assert stopped.code != 0
    resumed = llmc(*common, tmp_path / "resumed")
    assert resumed.code == 0, resumed.err
    assert digest(tmp_path / "one") == digest(tmp_path / "two") == digest(tmp_path / "resumed")


def test_quantised_cache_changes_evaluation(float_model, token_rows, text, tmp_path):
    """`eval` reads the stored scales: a cache of 8 bits moves perplexity, and only a little."""
    recipe = recipe_file(tmp_path, kv_cache_scheme=KV | {"observer": "static_minmax"})
    ours(float_model, recipe, token_rows, tmp_path / "ours")
    perplexity = []
    for path in (float_model, tmp_path / "ours"):
        run = llmc("eval", "--model", path, "--dataset", text, "--max-seq-length", 128, "--json")
        assert run.code == 0, run.err
        perplexity.append(run.json()["perplexity"])
    assert perplexity[0] != perplexity[1]
    assert perplexity[1] == pytest.approx(perplexity[0], rel=0.02)


IMATRIX = {
    "int4 group": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32,
                   "symmetric": True, "observer": "imatrix_mse"},
    "int4 asymmetric": {"num_bits": 4, "type": "int", "strategy": "channel", "symmetric": False,
                        "observer": "imatrix_mse"},
    "nvfp4 expanded": {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16,
                       "symmetric": True, "observer": "nvfp4_expanded_imatrix"},
    "nvfp4 expanded mse": {"num_bits": 4, "type": "float", "strategy": "tensor_group",
                           "group_size": 16, "symmetric": True, "observer": "nvfp4_expanded_mse"},
}


@pytest.mark.parametrize("name", IMATRIX)
def test_importance_of_inputs_chooses_the_library_s_scales(name, float_model, token_rows, tmp_path):
    groups = {"group_0": {"targets": ["Linear"], "weights": IMATRIX[name]}}
    recipe = recipe_file(tmp_path, config_groups=groups, ignore=["lm_head"])
    expected = theirs(float_model, recipe, token_rows, tmp_path / "theirs")
    found = ours(float_model, recipe, token_rows, tmp_path / "ours")
    assert found.keys() == expected.keys()
    for tensor in expected:
        if not tensor.endswith(("_scale", "zero_point")):
            continue
        same = (found[tensor].float() == expected[tensor].float()).float().mean().item()
        # Importance is summed in another order: a near tie may go the other way.
        assert same > 0.99, tensor
