"""Llama-3-8B's shape through GPTQ W4A16 and FP8_DYNAMIC on a GPU, measured step by step.

    python3 bench/gpu_llama.py --bin build/cuda/bin --work DIR --output FILE
        [--layers N] [--samples M] [--shape tiny --device cpu] [--reference]

Makes a seeded random checkpoint and random token rows under DIR, measures the device's
own BF16 GEMM rate and the disk, runs llmc-worker, and writes one JSON object. Needs
torch and nothing else; --reference also runs llmcompressor where it can be imported.
"""
import argparse
import importlib.util
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time

import torch

from bf16_shard import write_shard

HERE = pathlib.Path(__file__).resolve().parent

SHAPES = {
    "llama-3-8b": dict(vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
                       num_attention_heads=32, num_key_value_heads=8, head_dim=128,
                       max_position_embeddings=8192),
    "tiny": dict(vocab_size=1024, hidden_size=256, intermediate_size=512, num_hidden_layers=2,
                 num_attention_heads=4, num_key_value_heads=2, head_dim=64, max_position_embeddings=512),
}
RECIPES = {"GPTQ W4A16": "W4A16", "FP8_DYNAMIC": "FP8_DYNAMIC"}
# What an H200 is to reach; shares of the whole, seconds, fractions of the GEMM rate.
GOALS = {"wall_s": 150, "gemm_frac": 0.6, "solve_frac": 0.2}


def config_of(shape):
    return dict(shape, architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu",
                attention_bias=False, mlp_bias=False, rms_norm_eps=1e-5, rope_theta=500000.0,
                tie_word_embeddings=False, torch_dtype="bfloat16", bos_token_id=0, eos_token_id=1)


def layer_tensors(shape, layer):
    hidden, width = shape["hidden_size"], shape["intermediate_size"]
    queries = shape["num_attention_heads"] * shape["head_dim"]
    values = shape["num_key_value_heads"] * shape["head_dim"]
    prefix = f"model.layers.{layer}."
    yield prefix + "input_layernorm.weight", [hidden]
    for name, dims in (("q", [queries, hidden]), ("k", [values, hidden]), ("v", [values, hidden]),
                       ("o", [hidden, queries])):
        yield f"{prefix}self_attn.{name}_proj.weight", dims
    yield prefix + "post_attention_layernorm.weight", [hidden]
    for name, dims in (("gate", [width, hidden]), ("up", [width, hidden]), ("down", [hidden, width])):
        yield f"{prefix}mlp.{name}_proj.weight", dims


def tensor_bytes(name, dims, generator):
    """Norms are ones. A linear is scaled so that random layers keep their inputs' size."""
    if len(dims) == 1:
        tensor = torch.ones(dims, dtype=torch.bfloat16)
    else:
        scale = 1.0 if "embed" in name else dims[1] ** -0.5
        tensor = torch.randn(dims, generator=generator, device=generator.device, dtype=torch.float32)
        tensor = tensor.mul_(scale).to(torch.bfloat16).cpu()
    return memoryview(tensor.view(torch.uint8).flatten().numpy())


def make_checkpoint(path, shape, seed, device):
    """One shard a layer, so that no more than a layer is in memory."""
    path.mkdir(parents=True)
    generator = torch.Generator(device=device).manual_seed(seed)
    ends = [("model.embed_tokens.weight", [shape["vocab_size"], shape["hidden_size"]]),
            ("model.norm.weight", [shape["hidden_size"]]),
            ("lm_head.weight", [shape["vocab_size"], shape["hidden_size"]])]
    shards = [list(layer_tensors(shape, i)) for i in range(shape["num_hidden_layers"])] + [ends]
    weight_map, begin = {}, time.monotonic()
    for i, tensors in enumerate(shards):
        weight_map |= write_shard(path / f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors", tensors,
                                  (tensor_bytes(name, dims, generator) for name, dims in tensors))
    seconds = time.monotonic() - begin
    (path / "config.json").write_text(json.dumps(config_of(shape), indent=1))
    # Asked for by every calibrated job, though the rows hold ids already.
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(HERE.parent / "examples/tiny-llama" / name, path)
    size = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    (path / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": size}, "weight_map": weight_map}))
    return {"bytes": size, "seconds": seconds, "gb_per_s": size / seconds / 1e9}


def make_rows(path, shape, samples, length, seed):
    generator = torch.Generator().manual_seed(seed)
    with open(path, "w") as file:
        for _ in range(samples):
            ids = torch.randint(2, shape["vocab_size"], (length,), generator=generator).tolist()
            file.write(json.dumps({"input_ids": ids}) + "\n")


def directory_bytes(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def read_rate(path):
    """GB/s of reading the checkpoint from disk, the page cache dropped for it."""
    files = sorted(path.glob("*.safetensors"))
    for file in files:
        with open(file, "rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    begin, total, buffer = time.monotonic(), 0, bytearray(16 << 20)
    for file in files:
        with open(file, "rb", buffering=0) as stream:
            while count := stream.readinto(buffer):
                total += count
    return total / (time.monotonic() - begin) / 1e9


def gemm_rate(device, n, repeats):
    """TFLOP/s of one n x n x n BF16 product on random operands."""
    generator = torch.Generator(device=device).manual_seed(1)
    a, b = (torch.randn((n, n), generator=generator, device=device).to(torch.bfloat16) for _ in range(2))
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for _ in range(3):
        a @ b
    wait()
    begin = time.monotonic()
    for _ in range(repeats):
        a @ b
    wait()
    return 2 * n**3 * repeats / (time.monotonic() - begin) / 1e12


def measure_device(device, model):
    facts = {"kind": device, "disk_read_gb_per_s": read_rate(model)}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts |= {"name": properties.name, "memory_bytes": properties.total_memory,
                  "gemm_n": 8192, "gemm_tflops": gemm_rate("cuda", 8192, 20)}
        torch.cuda.empty_cache()
    else:
        facts |= {"gemm_n": 1024, "gemm_tflops": gemm_rate("cpu", 1024, 2)}
    return facts


class MemoryWatch:
    """The most device memory in use while a command runs, as nvidia-smi sees it."""

    def __init__(self, device):
        self.peak, self.before, self.ended = None, None, threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.enabled = device == "cuda" and shutil.which("nvidia-smi") is not None

    def used(self):
        run = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits",
                              "-i", "0"], capture_output=True, text=True)
        return int(run.stdout.split()[0]) << 20 if run.returncode == 0 else None

    def watch(self):
        while not self.ended.wait(0.3):
            used = self.used()
            if used is not None:
                self.peak = max(self.peak or 0, used)

    def __enter__(self):
        if self.enabled:
            self.before = self.used()
            self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        if self.enabled:
            self.thread.join()

    def bytes(self):
        return None if self.peak is None or self.before is None else self.peak - self.before


def products(shape, samples, length):
    """Floating-point operations of the job's products, counted from the shapes.

    A Hessian is symmetric: half of it is computed. Attention is causal: likewise."""
    tokens, hidden = samples * length, shape["hidden_size"]
    queries = shape["num_attention_heads"] * shape["head_dim"]
    weights = sum(math.prod(dims) for _, dims in layer_tensors(shape, 0) if len(dims) == 2)
    down = hidden * shape["intermediate_size"]
    inputs = [hidden, queries, hidden, shape["intermediate_size"]]
    attention = 2 * tokens * length * queries
    layers = shape["num_hidden_layers"]
    return {"propagate": layers * (2 * tokens * weights + attention),
            # Capture ends at the input of down_proj.
            "capture_forward": layers * (2 * tokens * (weights - down) + attention),
            "hessian": layers * sum(tokens * n * n for n in inputs)}


def covered(spans):
    """Seconds that lie in at least one span."""
    total, end = 0.0, 0.0
    for begin, finish in sorted(spans):
        total += max(0.0, finish - max(begin, end))
        end = max(end, finish)
    return total


def step_seconds(report):
    """Step -> the seconds in which rank 0 was in it; steps of streams and threads overlap."""
    spans, columns = {}, report["steps"]
    for step, rank, begin, end in zip(columns["step"], columns["rank"], columns["begin_s"],
                                      columns["end_s"]):
        if rank == 0 and end is not None:
            spans.setdefault(step, []).append((begin, end))
    return {step: covered(of_step) for step, of_step in spans.items()}


def rate(amount, seconds, unit):
    return amount / seconds / unit if seconds else None


def run_llmc(arguments, name, recipe, model, rows, shape, device):
    output = arguments.work / name.replace(" ", "-")
    shutil.rmtree(output, ignore_errors=True)
    command = [arguments.bin / "llmc-worker", "compress", "--model", model, "--recipe", recipe,
               "--output", output, "--device", arguments.device, "--fresh", "--no-shuffle", "--json",
               "--num-calibration-samples", arguments.samples, "--max-seq-length", arguments.length]
    if recipe == "W4A16":
        command += ["--dataset", rows]
    begin = time.monotonic()
    with MemoryWatch(arguments.device) as watch:
        run = subprocess.run([str(word) for word in command], capture_output=True, text=True, errors="replace",
                             env=dict(os.environ, LD_LIBRARY_PATH=arguments.library_path))
    wall = time.monotonic() - begin
    if run.returncode != 0:
        return {"name": name, "exit_code": run.returncode, "error": run.stderr[-2000:]}
    report = json.loads(run.stdout)
    result = {"name": name, "exit_code": 0, "wall_s": wall, "report_wall_s": report["wall_time_s"],
              "device": report["environment"]["device"], "steps_s": step_seconds(report),
              "device_peak_bytes": watch.bytes(),
              "device_peak_bytes_own_count": report.get("device_peak_bytes"),
              "device_peak_bytes_planned": report.get("planned_device_peak_bytes"),
              "host_peak_bytes": max(report["memory"]["rss_bytes"], default=None),
              "fallbacks": sum(linear["fallback"] for linear in report["linears"]),
              "warnings": [warning["message"] for warning in report["warnings"]][:20]}
    result |= rates(result["steps_s"], wall, model, output, device)
    if recipe == "W4A16":
        result |= calibrated_rates(result["steps_s"], wall, products(shape, arguments.samples,
                                                                     arguments.length), device)
    shutil.rmtree(output)
    return result


def rates(steps, wall, model, output, device):
    bytes_in, bytes_out = directory_bytes(model), directory_bytes(output)
    return {"bytes_read": bytes_in, "bytes_written": bytes_out,
            "load_gb_per_s": rate(bytes_in, steps.get("Load"), 1e9),
            "save_gb_per_s": rate(bytes_out, steps.get("Write"), 1e9),
            "read_gb_per_s_of_wall": bytes_in / wall / 1e9,
            "disk_read_frac": bytes_in / wall / 1e9 / device["disk_read_gb_per_s"]}


def calibrated_rates(steps, wall, operations, device):
    forward = rate(operations["propagate"], steps.get("Propagate"), 1e12)
    capture = rate(operations["capture_forward"] + operations["hessian"], steps.get("Capture"), 1e12)
    busy = (steps.get("Capture") or 0) + (steps.get("Propagate") or 0)
    both = rate(sum(operations.values()), busy, 1e12)
    return {"operations": operations, "propagate_tflops": forward, "capture_tflops": capture,
            "forward_and_hessian_tflops": both,
            "forward_and_hessian_gemm_frac": both and both / device["gemm_tflops"],
            "solve_frac": steps.get("Solve", 0) / wall}


def run_reference(arguments, name, recipe, model, rows):
    """llmcompressor on the same checkpoint and rows; a recipe of the same meaning."""
    modifier = "GPTQModifier" if recipe == "W4A16" else "QuantizationModifier"
    path = arguments.work / "reference.yaml"
    path.write_text(f"s:\n  s_modifiers:\n    {modifier}: {{targets: [Linear], ignore: [lm_head], scheme: {recipe}}}\n")
    output = arguments.work / "reference"
    command = [sys.executable, HERE / "peer_oneshot.py", model, path, output,
               rows if recipe == "W4A16" else ""]
    begin = time.monotonic()
    with MemoryWatch(arguments.device) as watch:
        run = subprocess.run([str(word) for word in command], capture_output=True, text=True, errors="replace",
                             env=dict(os.environ, HF_HUB_OFFLINE="1"))
    result = {"name": name, "exit_code": run.returncode, "wall_s": time.monotonic() - begin,
              "device_peak_bytes": watch.bytes()}
    if run.returncode != 0:
        result["error"] = run.stderr[-2000:]
    shutil.rmtree(output, ignore_errors=True)
    return result


def judge(arguments, results):
    """Each goal against what was measured; none without a GPU or on another size of job."""
    if arguments.device != "cuda" or (arguments.layers, arguments.samples, arguments.length) != (32, 512, 2048):
        return {"judged": False, "why": "not the whole job on a GPU"}
    gptq = next((r for r in results if r["name"] == "GPTQ W4A16" and r["exit_code"] == 0), None)
    if gptq is None:
        return {"judged": False, "why": "GPTQ W4A16 did not end"}
    return {"judged": True, "goals": GOALS, "wall": gptq["wall_s"] <= GOALS["wall_s"],
            "gemm_frac": gptq["forward_and_hessian_gemm_frac"] >= GOALS["gemm_frac"],
            "solve_frac": gptq["solve_frac"] <= GOALS["solve_frac"]}


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, required=True, help="where llmc-worker is")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="for checkpoints and outputs")
    parser.add_argument("--library-path", default=os.environ.get("LD_LIBRARY_PATH", ""),
                        help="LD_LIBRARY_PATH of llmc-worker")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="the JSON file")
    parser.add_argument("--shape", choices=SHAPES, default="llama-3-8b")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--layers", type=int, help="fewer layers than the shape has")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--length", type=int, default=2048, help="tokens a sample")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--reference", action="store_true", help="llmcompressor as well")
    return parser.parse_args()


def main():
    arguments = parse()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu_llama: torch finds no GPU; --device cpu --shape tiny runs without one")
    shape = dict(SHAPES[arguments.shape])
    arguments.layers = shape["num_hidden_layers"] = arguments.layers or shape["num_hidden_layers"]
    arguments.work.mkdir(parents=True, exist_ok=True)
    model, rows = arguments.work / "model", arguments.work / "rows.jsonl"
    shutil.rmtree(model, ignore_errors=True)
    result = {"shape": arguments.shape, "layers": arguments.layers, "samples": arguments.samples,
              "length": arguments.length, "checkpoint": make_checkpoint(model, shape, 1, arguments.device)}
    make_rows(rows, shape, arguments.samples, arguments.length, 2)
    result["device"] = measure_device(arguments.device, model)
    result["llmc"] = []
    for name in arguments.recipes:
        result["llmc"].append(run_llmc(arguments, name, RECIPES[name], model, rows, shape, result["device"]))
        arguments.output.write_text(json.dumps(result, indent=1))
    if not arguments.reference:
        result["llmcompressor"] = "not asked for"
    elif importlib.util.find_spec("llmcompressor") is None:
        result["llmcompressor"] = "cannot be imported here"
    else:
        result["llmcompressor"] = [run_reference(arguments, name, RECIPES[name], model, rows)
                                   for name in arguments.recipes]
    result["goals"] = judge(arguments, result["llmc"])
    arguments.output.write_text(json.dumps(result, indent=1))
    shutil.rmtree(model)
    return 0 if all(run["exit_code"] == 0 for run in result["llmc"]) else 1


if __name__ == "__main__":
    sys.exit(main())
