"""One llmcompressor run in a process of its own: model, recipe, rows of input_ids."""
import json
import sys

import torch
from datasets import Dataset
from llmcompressor import oneshot
from transformers import AutoModelForCausalLM

model, recipe, output, rows = sys.argv[1:5]
torch.manual_seed(0)
if not torch.cuda.is_available():
    # Its AWQ pins host memory unconditionally, which needs CUDA.
    torch.Tensor.pin_memory = lambda self, *_: self
arguments = {"model": AutoModelForCausalLM.from_pretrained(model, dtype="auto"),
             "recipe": recipe, "output_dir": output}
if rows:
    ids = [json.loads(line)["input_ids"] for line in open(rows)]
    arguments["dataset"] = Dataset.from_dict(
        {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]})
    arguments["num_calibration_samples"] = len(ids)
    arguments["max_seq_length"] = max(map(len, ids))
oneshot(**arguments)
