"""Solves random layers with llmcompressor's quantize_weight and stores what it gives.

usage: make_gptq_cases.py FOLDER

Writes FOLDER/gptq.json and FOLDER/gptq.safetensors, as gptq_library_test.cc reads them.
"""

import json
import sys

import torch
from compressed_tensors.quantization import QuantizationArgs
from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight
from llmcompressor.modifiers.gptq.helpers import accumulate_hessian, make_empty_hessian
from llmcompressor.observers import Observer
from safetensors.torch import save_file

torch.set_num_threads(1)
ROWS, COLUMNS, SEQUENCES, TOKENS = 96, 256, 8, 96


def layer(dtype, seed):
    """A weight [ROWS, COLUMNS] and inputs whose features are correlated."""
    generator = torch.Generator().manual_seed(seed)
    linear = torch.nn.Linear(COLUMNS, ROWS, bias=False, dtype=dtype)
    linear.weight.data = (torch.randn(ROWS, COLUMNS, generator=generator) * 0.05).to(dtype)
    mix = torch.randn(COLUMNS, COLUMNS, generator=generator) / COLUMNS**0.5
    size = torch.exp2(torch.rand(COLUMNS, generator=generator) * 5 - 2.5)
    inputs = torch.randn(SEQUENCES, TOKENS, COLUMNS, generator=generator)
    return linear, ((inputs + inputs @ mix) * size).to(dtype)


def hessian_of(linear, inputs):
    hessian, count = make_empty_hessian(linear), torch.zeros(())
    for sample in inputs:
        hessian, count = accumulate_hessian(sample[None], linear, hessian, count)
    return hessian / count


def schemes():
    for actorder in (None, "static"):
        for bits in (4, 8):
            for symmetric in (True, False):
                for strategy in (dict(strategy="group", group_size=32), dict(strategy="channel"),
                                 dict(strategy="tensor")):
                    yield dict(num_bits=bits, type="int", symmetric=symmetric, actorder=actorder, **strategy)
        fp8 = dict(num_bits=8, type="float", actorder=actorder)
        yield dict(strategy="channel", **fp8)
        yield dict(strategy="tensor", **fp8)
        yield dict(strategy="block", block_structure=[32, 64], **fp8)
        yield dict(num_bits=4, type="float", strategy="tensor_group", group_size=16,
                   scale_dtype=torch.float8_e4m3fn, actorder=actorder)
        yield dict(num_bits=4, type="float", strategy="group", group_size=32,
                   scale_dtype=torch.uint8, actorder=actorder)


def solve(name, args, linear, inputs):
    observer = Observer.load_from_registry("memoryless_minmax", base_name="weight", args=args)
    observer(linear.weight.data)
    found = observer.get_qparams()
    global_scale = found.get("global_scale")
    hessian = hessian_of(linear, inputs)
    solved, loss, fell_back = quantize_weight(
        linear.weight.data.float()[None].clone(), hessian[None].clone(), found["scale"][None],
        found["zero_point"][None], None if global_scale is None else global_scale.reshape(1), args)
    assert not fell_back.any()
    effective = found["scale"].float()
    if global_scale is not None:
        effective = effective / global_scale.float().reshape(1, 1)
    tensors = {"weight": linear.weight.data.float(), "hessian": hessian, "scale": effective,
               "zero_point": found["zero_point"].float(), "solved": solved[0].float()}
    dtype = "F32" if args.scale_dtype is not None else {torch.float32: "F32", torch.bfloat16: "BF16"}[
        found["scale"].dtype]
    record = {"name": name, "weights": json.loads(args.model_dump_json()), "loss": loss.item(),
              "scale_dtype": dtype}
    return record, {f"{name}/{key}": value.contiguous() for key, value in tensors.items()}


def main(folder):
    records, tensors = [], {}
    for dtype in (torch.float32, torch.bfloat16):
        for seed, fields in enumerate(schemes()):
            record, stored = solve(f"{str(dtype)[6:]}_{seed}", QuantizationArgs(**fields),
                                   *layer(dtype, seed))
            records.append(record)
            tensors.update(stored)
    save_file(tensors, f"{folder}/gptq.safetensors")
    with open(f"{folder}/gptq.json", "w") as file:
        json.dump(records, file)


if __name__ == "__main__":
    main(sys.argv[1])
