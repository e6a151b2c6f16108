"""Makes small random models of every family and option with transformers and
saves, beside each, what transformers computes for one sample.

Usage: make_models.py OUTPUT_DIR COMPRESSED_DIR
OUTPUT_DIR/NAME/ is a model directory; expected/model.safetensors in it holds
  ids    I32 [tokens]
  fp32   F32 [tokens, vocab]  logits in float32
  narrow F32 [tokens, vocab]  logits in float32 of the weights rounded to BF16
  bf16   F32 [tokens, vocab]  logits in BF16
For every compressed model in COMPRESSED_DIR, OUTPUT_DIR/compressed/NAME/ holds
ids and bf16 of it, activations quantised as its config says.
"""

import copy
import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

TOKENS = 40
SMALL = dict(
    vocab_size=128,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    initializer_range=0.2,
)
HALF = SMALL["hidden_size"] // SMALL["num_attention_heads"] // 2


def rope(rope_type, **options):
    return dict(rope_parameters={"rope_type": rope_type, "rope_theta": 1000.0, **options})


# name: (model_type, options of the config, whether to save the old spelling)
MODELS = {
    "llama_plain": ("llama", {}, False),
    "llama_old_spelling": ("llama", rope("default"), True),
    "llama_llama3": (
        "llama",
        rope(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=64,
        ),
        True,
    ),
    "llama_linear": ("llama", rope("linear", factor=4.0), True),
    "llama_yarn": (
        "llama",
        rope("yarn", factor=8.0, original_max_position_embeddings=32),
        True,
    ),
    "llama_yarn_mscale": (
        "llama",
        rope(
            "yarn",
            factor=8.0,
            original_max_position_embeddings=32,
            mscale=0.7,
            mscale_all_dim=0.5,
            beta_fast=16.0,
            truncate=False,
        ),
        False,
    ),
    "llama_dynamic_long": (
        "llama",
        dict(rope("dynamic", factor=2.0), max_position_embeddings=24),
        True,
    ),
    "llama_dynamic_short": ("llama", rope("dynamic", factor=2.0), False),
    "llama_longrope_long": (
        "llama",
        rope(
            "longrope",
            short_factor=[1.0 + 0.1 * i for i in range(HALF)],
            long_factor=[2.0 + 0.3 * i for i in range(HALF)],
            original_max_position_embeddings=32,
        ),
        False,
    ),
    "llama_longrope_short": (
        "llama",
        rope(
            "longrope",
            short_factor=[1.0 + 0.1 * i for i in range(HALF)],
            long_factor=[2.0 + 0.3 * i for i in range(HALF)],
            original_max_position_embeddings=64,
            factor=3.0,
        ),
        False,
    ),
    "llama_biases": ("llama", dict(attention_bias=True, mlp_bias=True), False),
    "llama_tied": ("llama", dict(tie_word_embeddings=True), False),
    "llama_head_dim": ("llama", dict(head_dim=24, num_key_value_heads=1), False),
    "llama_gelu": ("llama", dict(hidden_act="gelu_pytorch_tanh"), False),
    "mistral_sliding": ("mistral", dict(sliding_window=7), False),
    "mistral_full": ("mistral", dict(sliding_window=None, head_dim=8), True),
    "qwen2_plain": ("qwen2", dict(tie_word_embeddings=True), True),
    "qwen2_alternating": (
        "qwen2",
        dict(use_sliding_window=True, sliding_window=9, max_window_layers=1),
        True,
    ),
    "qwen3_plain": ("qwen3", dict(head_dim=24), False),
    "qwen3_layer_types": (
        "qwen3",
        dict(
            head_dim=16,
            attention_bias=True,
            use_sliding_window=True,
            sliding_window=5,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
        False,
    ),
}


def randomise(model):
    """Norm weights and biases start as ones and zeros, which would hide them."""
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "norm" in name:
                tensor.uniform_(0.5, 1.5)
            elif name.endswith(".bias"):
                tensor.normal_(std=0.3)


def rewrite_old_spelling(path, options):
    config = json.loads(path.read_text())
    parameters = config.pop("rope_parameters")
    config["rope_theta"] = parameters.pop("rope_theta")
    kind = parameters.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else {"type": kind, **parameters}
    config["torch_dtype"] = config.pop("dtype")
    if "layer_types" not in options:
        config.pop("layer_types", None)
    path.write_text(json.dumps(config))


def logits_of(model, ids):
    with torch.no_grad():
        return model(ids.unsqueeze(0)).logits[0].float().contiguous()


def make(directory, model_type, options, old_spelling):
    torch.manual_seed(len(directory.name))
    config = CONFIG_MAPPING[model_type](**{**SMALL, **options})
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    randomise(model)
    ids = torch.randint(0, SMALL["vocab_size"], (TOKENS,))
    model.save_pretrained(directory)
    fp32 = logits_of(copy.deepcopy(model), ids)
    bf16 = logits_of(copy.deepcopy(model).to(torch.bfloat16), ids)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.copy_(tensor.to(torch.bfloat16))
    expected = {"ids": ids.int(), "fp32": fp32, "bf16": bf16, "narrow": logits_of(model, ids)}
    save(directory / "expected", expected)
    if old_spelling:
        rewrite_old_spelling(directory / "config.json", options)


def save(directory, tensors):
    directory.mkdir(parents=True)
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text("{}")


def run_compressed(source, directory):
    ids = (torch.arange(48) * 7) % 31 + 1
    # Rounding of activations amplifies the least difference between attention
    # kernels, so the kernel is the one that llmc calls.
    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto", attn_implementation="sdpa")
    save(directory, {"ids": ids.int(), "bf16": logits_of(model.eval(), ids)})


def main():
    torch.set_num_threads(1)
    output = pathlib.Path(sys.argv[1])
    for source in sorted(pathlib.Path(sys.argv[2]).iterdir()):
        run_compressed(source, output / "compressed" / source.name)
    for name, (model_type, options, old_spelling) in MODELS.items():
        make(output / name, model_type, options, old_spelling)


main()
