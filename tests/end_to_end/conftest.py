"""Programs under test, small models and text for the end-to-end tests."""
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess

import pytest

BIN = pathlib.Path(os.environ["LLMC_BIN"])
SOURCE = pathlib.Path(__file__).resolve().parents[2]

# Files of an output that may differ between runs: they hold times.
UNSTABLE = {"llmc_report"}


class Run:
    """What a finished command left behind."""

    def __init__(self, process):
        self.code, self.out, self.err = process.returncode, process.stdout, process.stderr

    def json(self):
        return json.loads(self.out)


def environment(**extra):
    env = {k: v for k, v in os.environ.items() if not k.startswith("LLMC_") or k == "LLMC_BIN"}
    env.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", NO_COLOR="1")
    env.update({k: str(v) for k, v in extra.items()})
    return env


def llmc(*words, program="llmc", timeout=300, **extra):
    command = [str(BIN / program), *map(str, words)]
    return Run(subprocess.run(command, capture_output=True, text=True, timeout=timeout,
                              env=environment(**extra), errors="replace"))


def mpirun(num_ranks, *words, timeout=300, **extra):
    command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(num_ranks),
               str(BIN / "llmc-worker"), *map(str, words)]
    return Run(subprocess.run(command, capture_output=True, text=True, timeout=timeout,
                              env=environment(**extra), errors="replace"))


def digest(directory):
    """Relative name -> SHA-256 of every stable file of an output."""
    found = {}
    for path in sorted(pathlib.Path(directory).rglob("*")):
        relative = path.relative_to(directory)
        if path.is_file() and relative.parts[0] not in UNSTABLE:
            found[str(relative)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def make_model(path, kind="llama", seed=0, dtype="bfloat16", shards="5GB", **changes):
    """A random model of a real class, saved by transformers, with a real tokenizer."""
    import torch
    import transformers

    config_class = {"llama": transformers.LlamaConfig, "qwen2": transformers.Qwen2Config,
                    "qwen3": transformers.Qwen3Config, "mistral": transformers.MistralConfig}[kind]
    sizes = dict(vocab_size=4096, hidden_size=128, intermediate_size=256, num_hidden_layers=3,
                 num_attention_heads=4, num_key_value_heads=2, head_dim=32,
                 max_position_embeddings=512, bos_token_id=0, eos_token_id=1,
                 tie_word_embeddings=False)
    sizes.update(changes)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config_class(**sizes))
    model.to(getattr(torch, dtype)).save_pretrained(path, max_shard_size=shards)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(SOURCE / "examples/tiny-llama" / name, path)
    return pathlib.Path(path)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model") / "llama", shards="400KB")


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    """Calibration text of very different lengths."""
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    rng = random.Random(7)
    words = (SOURCE / "README.md").read_text().split() + (SOURCE / "CONTRIBUTING.md").read_text().split()
    rows = [" ".join(rng.choice(words) for _ in range(rng.choice([3, 40, 150, 400])))
            for _ in range(220)]
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return path


@pytest.fixture
def gptq(model, text):
    """The flags of a small GPTQ job, but for the output."""
    return ["compress", "--model", model, "--recipe", "W4A16", "--dataset", text,
            "--num-calibration-samples", 180, "--max-seq-length", 256]


def kill_group(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
