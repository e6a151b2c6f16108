"""A twin of a Llama-like model with activation outliers, which small models lack.

A few channels of every norm's weight are multiplied by a power of two and the columns of
the linears that read them divided by it: the same function, to the bit where nothing
underflows, but inputs as hard to quantise as those of large models.

    python bench/outlier_twin.py MODEL TWIN [--channels 8] [--factor 64]
"""
import argparse
import pathlib
import shutil

import torch
from safetensors.torch import load_file, save_file

CONSUMERS = {"input_layernorm": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
             "post_attention_layernorm": ["mlp.gate_proj", "mlp.up_proj"]}


def make_twin(model, twin, channels=8, factor=64.0, seed=0):
    """Writes the twin of directory `model` to `twin`; returns its path."""
    model, twin = pathlib.Path(model), pathlib.Path(twin)
    twin.mkdir(parents=True, exist_ok=True)
    for path in model.iterdir():
        if path.is_file() and path.suffix != ".safetensors":
            shutil.copy(path, twin)
    shards = {path.name: load_file(path) for path in sorted(model.glob("*.safetensors"))}
    where = {name: shard for shard in shards.values() for name in shard}
    generator = torch.Generator().manual_seed(seed)
    for name in sorted(where):
        norm = name.removesuffix(".weight").rpartition(".")
        if norm[2] not in CONSUMERS:
            continue
        weight = where[name][name]
        picked = torch.randperm(weight.numel(), generator=generator)[:channels]
        weight[picked] *= factor
        for consumer in CONSUMERS[norm[2]]:
            linear = f"{norm[0]}.{consumer}.weight"
            where[linear][linear][:, picked] /= factor
    for file, tensors in shards.items():
        save_file(tensors, twin / file, metadata={"format": "pt"})
    return twin


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("twin")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--factor", type=float, default=64.0)
    arguments = parser.parse_args()
    make_twin(arguments.model, arguments.twin, arguments.channels, arguments.factor)
