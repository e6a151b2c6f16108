"""What the reference libraries do with a list of tensors.

    split_shards.py SPECS.json DIRECTORY

SPECS.json is {"max_shard_bytes": N, "tensors": [[name, torch dtype, shape], ...]}. Writes DIRECTORY/reference.json,
{"files": [[tensor, ...], ...]} as huggingface_hub splits them, and DIRECTORY/single.safetensors with zeros as
safetensors writes it.
"""
import json
import pathlib
import sys

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file

specs = json.load(open(sys.argv[1]))
out = pathlib.Path(sys.argv[2])
state = {name: torch.zeros(shape, dtype=getattr(torch, dtype)) for name, dtype, shape in specs["tensors"]}
split = split_torch_state_dict_into_shards(state, max_shard_size=specs["max_shard_bytes"])
files = [sorted(split.filename_to_tensors[name]) for name in sorted(split.filename_to_tensors)]
json.dump({"names": sorted(split.filename_to_tensors), "files": files}, open(out / "reference.json", "w"))
save_file(state, out / "single.safetensors", metadata={"format": "pt"})
