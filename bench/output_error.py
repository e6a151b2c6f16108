"""tr(E H E^T) of every linear of a compressed model: the error of its output on given
rows, with the inputs that the dense model gives it."""
import json
import sys

import torch
from transformers import AutoModelForCausalLM


def linears(model):
    return {name: module for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and "lm_head" not in name}


def second_moments(model, rows):
    """X^T X of every linear's input, in double; X in float32."""
    moments = {}

    def add(name, x):
        x = x.reshape(-1, x.shape[-1]).double()
        moments[name] = moments.get(name, 0) + x.T @ x

    hooks = [module.register_forward_hook(lambda m, inputs, y, name=name: add(name, inputs[0]))
             for name, module in linears(model).items()]
    with torch.no_grad():
        for row in rows:
            model(torch.tensor([row]))
    for hook in hooks:
        hook.remove()
    return moments


def output_errors(dense_dir, rows, *compressed_dirs):
    """One {linear: error} for each compressed model."""
    dense = AutoModelForCausalLM.from_pretrained(dense_dir, dtype=torch.float32)
    moments = second_moments(dense, rows)
    weights = {name: module.weight.detach().double() for name, module in linears(dense).items()}
    found = []
    for path in compressed_dirs:
        model = AutoModelForCausalLM.from_pretrained(path, dtype="auto")
        with torch.no_grad():
            model(torch.tensor([rows[0][:4]]))  # Weights are unpacked by the first call.
        errors = {}
        for name, module in linears(model).items():
            error = module.weight.detach().double() - weights[name]
            errors[name] = (error @ moments[name]).mul_(error).sum().item()
        found.append(errors)
    return found


if __name__ == "__main__":
    ours, theirs = output_errors(sys.argv[1], [json.loads(line)["input_ids"]
                                               for line in open(sys.argv[2])], *sys.argv[3:5])
    print(json.dumps({"ratio": sum(ours.values()) / sum(theirs.values()),
                      "by_linear": {name: ours[name] / theirs[name] for name in theirs}}))
