"""Writes testdata/modules.json: config, module tree and tensors of small models,
as the transformers classes build them. Usage: make_modules.py OUTPUT"""

import json
import sys

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

SMALL = dict(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)

MODELS = {
    "llama": ("llama", {}),
    "llama_biases_head_dim": (
        "llama",
        dict(attention_bias=True, mlp_bias=True, head_dim=16, hidden_act="gelu"),
    ),
    "llama_tied_relu": ("llama", dict(tie_word_embeddings=True, hidden_act="relu")),
    "mistral": ("mistral", dict(hidden_act="gelu_pytorch_tanh")),
    "qwen2": ("qwen2", dict(tie_word_embeddings=True)),
    "qwen3": ("qwen3", dict(hidden_act="swish")),
    "qwen3_bias": ("qwen3", dict(head_dim=8, attention_bias=True)),
}


def describe(model_type, options):
    config = CONFIG_MAPPING[model_type](**SMALL, **options)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    config.architectures = [type(model).__name__]
    modules = [[name, type(module).__name__] for name, module in model.named_modules()]
    tensors = {name: list(tensor.shape) for name, tensor in model.named_parameters()}
    return {"config": config.to_dict(), "modules": modules, "tensors": tensors}


def main():
    models = {name: describe(*model) for name, model in MODELS.items()}
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(models, file, indent=0, sort_keys=True)
        file.write("\n")


main()
