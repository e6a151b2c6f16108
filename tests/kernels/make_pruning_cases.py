"""Prunes random layers with llmcompressor's SparseGPT and Wanda and stores what they give.

usage: make_pruning_cases.py FOLDER

Writes FOLDER/pruning.json and FOLDER/pruning.safetensors, as pruning_library_test.cc reads them.
"""

import json
import sys

import torch
from llmcompressor.modifiers.pruning.sparsegpt import sgpt_sparsify
from llmcompressor.modifiers.pruning.wanda import wanda_sparsify
from make_gptq_cases import layer
from safetensors.torch import save_file


def sparsegpt(linear, inputs, fields):
    hessian, count = sgpt_sparsify.make_empty_hessian(linear), 0
    for sample in inputs:
        hessian, count = sgpt_sparsify.accumulate_hessian(sample[None], linear, hessian, count)
    tensors = {"hessian": hessian.clone()}
    if fields["preserve_sparsity_mask"]:
        linear.weight.data.view(-1)[::5] = 0
    loss, pruned = sgpt_sparsify.sparsify_weight(
        linear, {linear: hessian}, fields["sparsity"], fields["n"], fields["m"], fields["block_size"],
        0.01, fields["preserve_sparsity_mask"])
    return tensors | {"pruned": pruned.float()}, loss


def wanda(linear, inputs, fields):
    scalars, count = wanda_sparsify.make_empty_row_scalars(linear), 0
    for sample in inputs:
        scalars, count = wanda_sparsify.accumulate_row_scalars(sample[None], linear, scalars, count)
    tensors = {"statistic": scalars.clone()}
    pruned = wanda_sparsify.sparsify_weight(
        linear, {linear: scalars}, fields["sparsity"], fields["n"], fields["m"])
    return tensors | {"pruned": pruned.float()}, 0.0


def cases():
    for sparsity, n, m in ((0.5, 0, 0), (0.3, 0, 0), (0.75, 0, 0), (0.5, 2, 4), (0.5, 1, 4), (0.5, 4, 8)):
        fields = dict(sparsity=sparsity, n=n, m=m, preserve_sparsity_mask=False)
        for block_size in (128, 64):
            yield dict(method="sparsegpt", block_size=block_size, **fields)
        yield dict(method="wanda", **fields)
    for sparsity, n, m in ((0.5, 0, 0), (0.5, 2, 4)):
        # One block, so that the library's skipping of zeros between blocks has no part.
        yield dict(method="sparsegpt", block_size=256, sparsity=sparsity, n=n, m=m,
                   preserve_sparsity_mask=True)


def main(folder):
    records, tensors = [], {}
    for seed, fields in enumerate(cases()):
        for dtype in (torch.float32, torch.bfloat16):
            linear, inputs = layer(dtype, seed)
            stored, loss = (sparsegpt if fields["method"] == "sparsegpt" else wanda)(linear, inputs, fields)
            name = f"{fields['method']}_{seed}_{str(dtype)[6:]}"
            records.append(dict(name=name, loss=loss, dtype=str(dtype)[6:], **fields))
            stored["weight"] = linear.weight.data.float()
            tensors.update({f"{name}/{key}": value.contiguous() for key, value in stored.items()})
    save_file(tensors, f"{folder}/pruning.safetensors")
    with open(f"{folder}/pruning.json", "w") as file:
        json.dump(records, file)


if __name__ == "__main__":
    main(sys.argv[1])
