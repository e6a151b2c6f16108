"""Compresses adversarial weights with compressed-tensors and stores what it gives.

usage: make_library_cases.py FOLDER

Writes FOLDER/NAME.json and FOLDER/NAME.safetensors, in the form that
library_parity_test.cc reads. Weights mix, row by row, what breaks quantisers:
zeros, -0.0, subnormals, one-sided rows, outliers, extreme magnitudes, exact ties.
"""

import json
import sys

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from llmcompressor.observers import Observer
from safetensors.torch import save_file

torch.set_num_threads(1)
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


def adversarial(rows, cols, dtype, seed, extreme=True):
    """[rows, cols]; `extreme` adds rows near the largest finite number."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, cols, generator=generator) * 0.05
    tiny = torch.finfo(dtype).tiny
    largest = torch.finfo(dtype).max
    kinds = [
        lambda w: w,
        lambda w: w * 0,
        lambda w: -(w * 0).abs(),
        lambda w: w.abs(),
        lambda w: -w.abs(),
        lambda w: torch.where(torch.arange(cols) % 17 == 3, w * 1000, w),
        lambda w: w * tiny * 8,
        lambda w: (w * 40).round() / 16,
        lambda w: torch.where(torch.arange(cols) % 3 == 0, -0.0, w),
        lambda w: w * 1e-4,
        lambda w: torch.where(w > 0, 1.0, -1.0),
    ]
    if extreme:
        kinds.append(lambda w: (w / w.abs().max()).double().mul(largest).float())
    for row in range(rows):
        weight[row] = kinds[row % len(kinds)](weight[row])
    return weight.clamp(-largest, largest).to(dtype)


def args_of(**fields):
    return QuantizationArgs(**fields)


def integer_schemes():
    for bits in range(2, 9):
        for symmetric in (True, False):
            kind = dict(num_bits=bits, type="int", symmetric=symmetric)
            name = f"int{bits}_{'sym' if symmetric else 'asym'}"
            yield f"{name}_tensor", "pack-quantized", (13, 37), args_of(strategy="tensor", **kind)
            yield f"{name}_channel", "pack-quantized", (37, 43), args_of(strategy="channel", **kind)
            yield (f"{name}_group36", "pack-quantized", (35, 1044),
                   args_of(strategy="group", group_size=36, **kind))
            yield (f"{name}_group128", "pack-quantized", (12, 2176),
                   args_of(strategy="group", group_size=128, **kind))
            if bits in (4, 8):
                yield f"{name}_bytes", "int-quantized", (24, 1100), args_of(strategy="channel", **kind)


def float_schemes():
    fp8 = dict(num_bits=8, type="float")
    for form in ("float-quantized", "naive-quantized"):
        name = form[:5]
        yield f"fp8_{name}_tensor", form, (12, 1030), args_of(strategy="tensor", **fp8)
        yield f"fp8_{name}_channel", form, (25, 1030), args_of(strategy="channel", **fp8)
        for shape in ((24, 64), (33, 70), (5, 300)):
            yield (f"fp8_{name}_block_{shape[0]}x{shape[1]}", form, shape,
                   args_of(strategy="block", block_structure=[16, 32], **fp8))
    yield ("fp8_group", "naive-quantized", (12, 128),
           args_of(strategy="group", group_size=32, **fp8))
    fp4 = dict(num_bits=4, type="float")
    yield ("nvfp4", "nvfp4-pack-quantized", (24, 1056),
           args_of(strategy="tensor_group", group_size=16, scale_dtype=torch.float8_e4m3fn, **fp4))
    yield ("mxfp4", "mxfp4-pack-quantized", (24, 1056),
           args_of(strategy="group", group_size=32, scale_dtype=torch.uint8, **fp4))
    yield ("mxfp8", "mxfp8-quantized", (24, 1056),
           args_of(strategy="group", group_size=32, scale_dtype=torch.uint8, **fp8))


def searching_schemes():
    """Observers that search; one of them weighted."""
    int4 = dict(num_bits=4, type="int", strategy="group", group_size=128)
    nvfp4 = dict(num_bits=4, type="float", strategy="tensor_group", group_size=16,
                 scale_dtype=torch.float8_e4m3fn)
    fp8 = dict(num_bits=8, type="float")
    for observer in ("memoryless_mse", "mse", "imatrix_mse"):
        yield (f"{observer}_int4", "pack-quantized", (64, 512),
               args_of(observer=observer, **int4))
        yield (f"{observer}_int4_asym", "pack-quantized", (64, 512),
               args_of(observer=observer, symmetric=False, **int4))
        yield (f"{observer}_int8_channel", "int-quantized", (64, 768),
               args_of(observer=observer, num_bits=8, type="int", strategy="channel"))
        yield (f"{observer}_fp8_block", "float-quantized", (64, 128),
               args_of(observer=observer, strategy="block", block_structure=[32, 64], **fp8))
        yield (f"{observer}_mxfp4", "mxfp4-pack-quantized", (64, 256),
               args_of(observer=observer, num_bits=4, type="float", strategy="group", group_size=32,
                       scale_dtype=torch.uint8))
        yield f"{observer}_nvfp4", "nvfp4-pack-quantized", (64, 256), args_of(observer=observer, **nvfp4)
    for observer in ("nvfp4_expanded_mse", "nvfp4_expanded_imatrix"):
        yield f"{observer}_nvfp4", "nvfp4-pack-quantized", (48, 256), args_of(observer=observer, **nvfp4)
    yield ("mse_options", "pack-quantized", (32, 256),
           args_of(observer="mse", observer_kwargs={"maxshrink": 0.5, "grid": 40, "norm": 2.0, "patience": 2},
                   **int4))


def observe(weight, args, importance):
    """The weight observer as the modifiers set it up."""
    name = {"mse": "memoryless_mse", None: "memoryless_minmax"}.get(args.observer, args.observer)
    observer = Observer.load_from_registry(name, base_name="weight", args=args)
    if importance is not None:
        observer._imatrix_sum = importance * 1000.0
        observer._imatrix_count = torch.tensor(1000)
    observer(weight)
    return {k: v for k, v in observer.get_qparams().items() if v is not None}


def run_case(name, form, weight, args, flow, importance=None):
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    found = observe(weight, args, importance)
    scale = found["scale"].to(weight.dtype)
    state = {"weight": weight, "weight_scale": scale}
    if flow == "oneshot" or not args.symmetric:
        state["weight_zero_point"] = found["zero_point"]
    if "global_scale" in found:
        state["weight_global_scale"] = found["global_scale"]
    compressor = BaseCompressor.get_value_from_registry(form)
    stored = compressor.compress(dict(state), scheme)
    tensors = {"in.weight": weight, "dequant.weight": compressor.decompress(dict(stored), scheme)["weight"]}
    fake = fake_quantize(weight, scale, state.get("weight_zero_point"), args,
                         global_scale=found.get("global_scale")).to(weight.dtype)
    # Stored integers have no -0.0; the library's simulation does.
    tensors["fake.weight"] = fake + 0.0 if args.type == "int" else fake
    for key, value in state.items():
        if key != "weight" and not (key == "weight_zero_point" and args.symmetric):
            tensors["qparam." + key] = value
    tensors.update({"out." + key: value for key, value in stored.items()})
    if importance is not None:
        tensors["importance"] = importance
    record = {"name": name, "format": form, "flow": flow, "variant": "minmax",
              "scheme": {"weights": json.loads(args.model_dump_json())}}
    return record, {f"{name}/{key}": value.clone().contiguous() for key, value in tensors.items()}


def extreme_is_exact(args):
    """Where the library overflows to infinity or NaN, llmc does not follow."""
    return args.symmetric and args.scale_dtype is not torch.uint8 and args.num_bits > 2


def write(folder, stem, cases):
    records, tensors = [], {}
    for record, stored in cases:
        records.append(record)
        tensors.update(stored)
    save_file(tensors, f"{folder}/{stem}.safetensors")
    with open(f"{folder}/{stem}.json", "w") as file:
        json.dump(records, file)


def minmax_cases(dtype):
    for seed, (name, form, shape, args) in enumerate([*integer_schemes(), *float_schemes()]):
        weight = adversarial(*shape, dtype, seed, extreme_is_exact(args))
        if args.strategy == "tensor" or name == "nvfp4":
            weight = adversarial(*shape, dtype, seed, extreme=False)
        yield run_case(name, form, weight, args, "oneshot")
        if name in ("fp8_float_channel", "int4_asym_channel", "nvfp4"):
            yield run_case(name + "_model_free", form, weight, args, "model_free")


def search_cases(dtype):
    for seed, (name, form, shape, args) in enumerate(searching_schemes()):
        generator = torch.Generator().manual_seed(seed)
        weight = (torch.randn(*shape, generator=generator) * 0.03).to(dtype)
        weight[3] = 0
        importance = None
        if "imatrix" in name and args.strategy != "block":
            importance = torch.rand(shape[1], generator=generator) ** 4 + 1e-3
        yield run_case(name, form, weight, args, "oneshot", importance)


def main(folder):
    for stem, dtype in DTYPES.items():
        write(folder, "minmax_" + stem, minmax_cases(dtype))
        write(folder, "search_" + stem, search_cases(dtype))


if __name__ == "__main__":
    main(sys.argv[1])
