"""Random recipes on two small models, with the quantization_config that the reference makes of them.

Prints one JSON object: "models" (name, class, weight shape per module) and "cases"
(model, recipe as YAML, config or null when the reference refuses the recipe).
"""
import contextlib
import json
import random
import sys

import torch
import yaml
from compressed_tensors.compressors.format import infer_model_format
from compressed_tensors.quantization import QuantizationConfig, QuantizationStatus, apply_quantization_config
from llmcompressor.recipe import Recipe
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3MoeConfig

NUM_CASES = 90

SMALL = dict(vocab_size=32, hidden_size=256, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=64, tie_word_embeddings=False)


def make_model(name):
    config = LlamaConfig(**SMALL) if name == "llama" else Qwen3MoeConfig(
        **SMALL, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=128)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def modules_of(model):
    shapes = ("Linear", "Embedding")
    return [[n, type(m).__name__, list(m.weight.shape) if type(m).__name__ in shapes else []]
            for n, m in model.named_modules()]


PRESETS = ["W4A16", "W4A16_ASYM", "W8A8", "FP8", "FP8_DYNAMIC", "FP8_BLOCK", "MXFP4", "MXFP8A16", "W3A16", "w4a8",
           "INT8", "MXFP4A16"]
TARGETS = ["Linear", "re:.*self_attn.*", "re:.*q_proj$", "re:.*[kv]_proj$", "re:.*layers.0.*", "lm_head",
           r"re:model\.layers\.1\..*", "model.layers.0.self_attn.o_proj", "re:.*o_proj", "re:.*lm_head"]
IGNORES = ["lm_head", "re:.*layers.1.*", "re:.*k_proj", "model.layers.0.self_attn.q_proj", "re:.*self_attn.*"]


def random_entry(rng):
    weights = {"num_bits": rng.choice([3, 4, 8]), "type": "int", "symmetric": rng.random() < 0.6}
    strategy = rng.choice(["group", "channel", "tensor", "none"])
    if strategy == "group":
        weights.update(strategy="group", group_size=rng.choice([32, 64, 128]))
    elif strategy != "none":
        weights["strategy"] = strategy
    if rng.random() < 0.3:
        weights.update(type="float", num_bits=8, symmetric=True)
    if rng.random() < 0.2:
        weights["actorder"] = rng.choice(["weight", "static"])
    if rng.random() < 0.2:
        weights["observer"] = rng.choice(["minmax", "mse", "memoryless_mse"])
    entry = {"weights": weights}
    if rng.random() < 0.4:
        entry["input_activations"] = rng.choice([
            {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True},
            {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True},
            {"num_bits": 8, "type": "int", "symmetric": False, "observer": "static_minmax"}])
    return entry


def random_fields(rng, modifier):
    pool = rng.sample(TARGETS, rng.randint(1, 5))
    fields = {}
    form = rng.random()
    if form < 0.35:
        fields.update(scheme=rng.choice(PRESETS), targets=pool)
    elif form < 0.55:
        cut = rng.randint(0, len(pool) - 1)
        names = rng.sample(PRESETS[:6], 2)
        fields["scheme"] = {name: part for name, part in zip(names, (pool[:cut], pool[cut:])) if part}
    else:
        groups = [[] for _ in range(rng.randint(1, 3))]
        for target in pool:
            rng.choice(groups).append(target)
        fields["config_groups"] = {f"g{i}": {"targets": g, **random_entry(rng)} for i, g in enumerate(groups) if g}
    fields["ignore"] = rng.sample(IGNORES, rng.randint(0, 2))
    if rng.random() < 0.2:
        fields["kv_cache_scheme"] = {"num_bits": 8, "type": "float",
                                     "strategy": rng.choice(["tensor", "attn_head"])}
    if rng.random() < 0.2:
        fields["weight_observer"] = rng.choice(["mse", "memoryless_mse"])
    if rng.random() < 0.2:
        fields["observer"] = {"weights": "memoryless_mse", "input": "static_minmax"}
    if modifier == "GPTQModifier" and rng.random() < 0.4:
        fields["actorder"] = rng.choice(["weight", "static", None])
    return fields


def reference_config(text, model):
    modifier = Recipe.create_instance(text).modifiers[0]
    config = modifier.resolved_config
    # llmc's default for calibrated inputs is the true extremes.
    for scheme in config.config_groups.values():
        if scheme.input_activations is not None and scheme.input_activations.observer == "minmax":
            scheme.input_activations.observer = "static_minmax"
    apply_quantization_config(model, config, show_progress=False)
    for module in model.modules():
        if hasattr(module, "quantization_status"):
            module.quantization_status = QuantizationStatus.COMPRESSED
    form = infer_model_format(model)
    written = QuantizationConfig.from_pretrained(model, form)
    return None if written is None else json.loads(written.model_dump_json())


def main():
    rng = random.Random(11)
    cases = []
    with contextlib.redirect_stdout(sys.stderr):
        models = {name: modules_of(make_model(name)) for name in ("llama", "qwen3_moe")}
        for _ in range(NUM_CASES):
            name = rng.choice(list(models))
            modifier = rng.choice(["GPTQModifier", "QuantizationModifier"])
            text = yaml.safe_dump({"a_stage": {"q_modifiers": {modifier: random_fields(rng, modifier)}}})
            try:
                case = {"accepted": True, "config": reference_config(text, make_model(name))}
            except Exception as error:
                case = {"accepted": False, "error": repr(error)[:300]}
            cases.append({"model": name, "recipe": text, **case})
    json.dump({"models": models, "cases": cases}, sys.stdout)


main()
