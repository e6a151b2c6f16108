"""A model larger than the budget through FP8_DYNAMIC: peak memory, and speed against cp.

    .venv/bin/python bench/stream_large.py [GIGABYTES]

Makes a random-weight model of that size (default 12) under build/bench, copies it with
cp and sync, compresses it, and deletes everything.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

from bf16_shard import num_bytes, write_shard

ROOT = pathlib.Path(__file__).resolve().parents[1]
WORK = ROOT / "build/bench/large"
HIDDEN, INTERMEDIATE, VOCAB = 4096, 11008, 32000


def layer_shapes(i):
    prefix = f"model.layers.{i}."
    for name in "qkvo":
        yield f"{prefix}self_attn.{name}_proj.weight", [HIDDEN, HIDDEN]
    for name in ("gate", "up"):
        yield f"{prefix}mlp.{name}_proj.weight", [INTERMEDIATE, HIDDEN]
    yield f"{prefix}mlp.down_proj.weight", [HIDDEN, INTERMEDIATE]
    for name in ("input_layernorm", "post_attention_layernorm"):
        yield f"{prefix}{name}.weight", [HIDDEN]


def pieces_of(noise, tensors):
    left = sum(num_bytes(dims) for _, dims in tensors)
    while left > 0:
        yield noise[:left]
        left -= min(left, len(noise))


def make_model(path, gigabytes):
    import torch

    path.mkdir(parents=True)
    noise = (torch.randn(1 << 24) * 0.02).to(torch.bfloat16).view(torch.uint8).numpy().tobytes()
    layer_bytes = 2 * sum(a * b for _, (a, *rest) in layer_shapes(0) for b in (rest or [1]))
    num_layers = int(gigabytes * 1e9 / layer_bytes) + 1
    ends = [("model.embed_tokens.weight", [VOCAB, HIDDEN]),
            ("lm_head.weight", [VOCAB, HIDDEN]), ("model.norm.weight", [HIDDEN])]
    weight_map = write_shard(path / "model-00000.safetensors", ends, pieces_of(noise, ends))
    for first in range(0, num_layers, 8):
        shapes = [s for i in range(first, min(first + 8, num_layers)) for s in layer_shapes(i)]
        weight_map |= write_shard(path / f"model-{first + 1:05d}.safetensors", shapes,
                                  pieces_of(noise, shapes))
    (path / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map}))
    (path / "config.json").write_text(json.dumps({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE, "num_hidden_layers": num_layers,
        "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128, "vocab_size": VOCAB,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 2048, "tie_word_embeddings": False,
        "hidden_act": "silu", "dtype": "bfloat16"}))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ROOT / "examples/tiny-llama" / name, path)


def timed(command):
    start = time.monotonic()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command}: failed")
    return time.monotonic() - start, usage.ru_maxrss * 1024


def forget_pages(path):
    """Takes the model out of the page cache, so that both commands read the disk."""
    for file in path.glob("*.safetensors"):
        fd = os.open(file, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def main():
    gigabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 12.0
    shutil.rmtree(WORK, ignore_errors=True)
    try:
        model = WORK / "model"
        make_model(model, gigabytes)
        os.sync()
        size = sum(file.stat().st_size for file in model.glob("*.safetensors"))
        forget_pages(model)
        copy, _ = timed(["sh", "-c", f"cp -r {model} {WORK / 'copy'} && sync"])
        shutil.rmtree(WORK / "copy")
        os.sync()
        forget_pages(model)
        seconds, peak = timed([ROOT / "build/release/bin/llmc", "compress", "--model", model,
                               "--recipe", "FP8_DYNAMIC", "--output", WORK / "out", "--quiet"])
        print(f"| {size / 1e9:.1f} GB FP8_DYNAMIC | cp and sync {size / copy / 1e6:.0f} MB/s | "
              f"llmc {size / seconds / 1e6:.0f} MB/s of source | {copy / seconds:.2f}x | "
              f"peak {peak / 1e6:.0f} MB |")
    finally:
        shutil.rmtree(WORK, ignore_errors=True)


if __name__ == "__main__":
    main()
