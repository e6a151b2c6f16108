"""SparseGPT followed by GPTQ on the same linears: one walk over the columns for both, or one
after the other? A double-precision model of both, on the trained example.

    python bench/joint_solve.py "50 %"
    python bench/joint_solve.py 2:4

Prints tr(E H E^T), E against the dense weight, as a fraction of that of pruning alone: the
geometric mean over all linears, and of their sums, in which a few linears with huge inputs
count for nearly all; and the perplexity on held-out rows that the model itself wrote
(docs/decisions/0024-joint-solve.md).
"""
import json
import math
import pathlib
import sys

import torch
from output_error import linears, second_moments
from side_by_side import WORK, text_rows, written_rows
from transformers import AutoModelForCausalLM

MODEL = pathlib.Path(__file__).resolve().parents[1] / "examples/tiny-llama"
GROUP = 128
BLOCK = 128
DAMPENING = 0.01


def upper_factor(hessian):
    """U of (H + lambda I)^-1 = U^T U."""
    n = len(hessian)
    damped = hessian + DAMPENING * hessian.diagonal().mean() * torch.eye(n, dtype=torch.double)
    return torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)


def scales_of(weight):
    """Symmetric, 4 bits, groups of 128 columns."""
    groups = weight.view(weight.shape[0], -1, GROUP)
    return (groups.abs().amax(-1) / 7.5).repeat_interleave(GROUP, 1)


def rounded(column, scale):
    return (column / scale).round().clamp(-8, 7) * scale


def walk(weight, hessian, mask=None, structure=None, scales=None, ordered=False):
    """The columns from left to right, or by falling diagonal: zeroes what `mask` (chosen by
    `structure` where it is None) drops, rounds the rest where there are `scales`, and lets the
    columns to come absorb the error."""
    columns = weight.shape[1]
    order = hessian.diagonal().argsort(descending=True) if ordered else torch.arange(columns)
    upper = upper_factor(hessian[order][:, order])
    w = weight[:, order].clone()
    drop = torch.zeros_like(w, dtype=torch.bool) if mask is None else mask[:, order].clone()
    for begin in range(0, columns, BLOCK):
        end = begin + BLOCK
        errors = torch.zeros_like(w[:, begin:end])
        if structure == "50 %":
            score = (w[:, begin:end] / upper.diagonal()[begin:end]) ** 2
            drop[:, begin:end] = score <= score.flatten().sort().values[score.numel() // 2]
        for i in range(begin, end):
            if structure == "2:4" and i % 4 == 0:
                score = (w[:, i:i + 4] / upper.diagonal()[i:i + 4]) ** 2
                drop[:, i:i + 4].scatter_(1, score.argsort(1)[:, :2], True)
            q = w[:, i] if scales is None else rounded(w[:, i], scales[:, order[i]])
            q = torch.where(drop[:, i], 0.0, q)
            error = (w[:, i] - q) / upper[i, i]
            w[:, i] = q
            errors[:, i - begin] = error
            w[:, i + 1:end] -= error[:, None] * upper[i, i + 1:end]
        w[:, end:] -= errors @ upper[begin:end, end:]
    back = order.argsort()
    return w[:, back], drop[:, back]


def variants(weight, hessian, structure):
    pruned, mask = walk(weight, hessian, structure=structure)
    yield "pruned, not rounded", pruned
    scales = scales_of(pruned)
    yield "one after the other", walk(pruned, hessian, mask, scales=scales)[0]
    yield "one after the other, ordered", walk(pruned, hessian, mask, scales=scales, ordered=True)[0]
    yield "one walk", walk(weight, hessian, structure=structure, scales=scales_of(weight))[0]
    yield "one walk, scales of the pruned", walk(weight, hessian, structure=structure, scales=scales)[0]
    yield ("rounded from the dense, mask kept, ordered",
           walk(weight, hessian, mask, scales=scales, ordered=True)[0])


def perplexity(model, rows):
    with torch.no_grad():
        losses = [model(torch.tensor([row]), labels=torch.tensor([row])).loss.item() for row in rows]
    return math.exp(sum(losses) / len(losses))


def main():
    structure = sys.argv[1]
    torch.set_num_threads(1)
    WORK.mkdir(parents=True, exist_ok=True)
    rows_path, _ = text_rows(64, 512)
    held_path = written_rows(MODEL, 48, 512)
    rows, held = ([json.loads(line)["input_ids"] for line in open(path)]
                  for path in (rows_path, held_path))
    rows, held = rows[:32], held[:32]
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    moments = second_moments(model, rows)
    dense = {name: module.weight.detach().double().clone() for name, module in linears(model).items()}
    print(f"dense perplexity {perplexity(model, held):.3f}")
    print("| mask | solve | error, mean of linears | error, sum | perplexity |\n|---|---|---|---|---|")
    made = {name: dict(variants(w, moments[name], structure)) for name, w in dense.items()}
    first = None
    for variant in next(iter(made.values())):
        errors = {}
        for name, module in linears(model).items():
            error = made[name][variant] - dense[name]
            errors[name] = (error @ moments[name]).mul_(error).sum().item()
            module.weight.data.copy_(made[name][variant])
        first = first or errors
        mean = math.exp(sum(math.log(errors[n] / first[n]) for n in errors) / len(errors))
        print(f"| {structure} | {variant} | {mean:.3f} | "
              f"{sum(errors.values()) / sum(first.values()):.3f} | {perplexity(model, held):.3f} |",
              flush=True)


if __name__ == "__main__":
    main()
