"""Wrong requests: exit code 2, a message that names the culprit, nothing written."""
import json
import shutil
import struct

import pytest
from conftest import llmc, make_model

import numpy
import torch
from safetensors.torch import load_file, save_file


def copy(model, tmp_path):
    return shutil.copytree(model, tmp_path / "broken")


def refused(run, *words):
    assert run.code == 2, (run.code, run.err)
    for word in words:
        assert word in run.err, run.err


def job(model, tmp_path, *words, recipe="FP8_DYNAMIC"):
    run = llmc("compress", "--model", model, "--recipe", recipe, "--output", tmp_path / "out",
               *words)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.llmc-partial").exists() or run.code != 2
    return run


def edit_config(model, tmp_path, **changes):
    broken = copy(model, tmp_path)
    config = json.loads((broken / "config.json").read_text())
    config.update(changes)
    (broken / "config.json").write_text(json.dumps(config))
    return broken


def first_shard(model):
    return sorted(model.glob("*.safetensors"))[0]


def test_model_that_is_not_there(tmp_path):
    refused(job("/nowhere/model", tmp_path), "/nowhere/model")
    refused(job("org/name", tmp_path), "hf download org/name")


def test_truncated_weights(model, tmp_path):
    broken = copy(model, tmp_path)
    shard = first_shard(broken)
    shard.write_bytes(shard.read_bytes()[:-100])
    refused(job(broken, tmp_path), shard.name)


def test_lying_header(model, tmp_path):
    broken = copy(model, tmp_path)
    shard = first_shard(broken)
    shard.write_bytes(struct.pack("<Q", 2**62) + shard.read_bytes()[8:])
    refused(job(broken, tmp_path), shard.name)


def test_absent_shard(model, tmp_path):
    broken = copy(model, tmp_path)
    shard = first_shard(broken)
    shard.unlink()
    refused(job(broken, tmp_path), shard.name)


def test_no_config(model, tmp_path):
    broken = copy(model, tmp_path)
    (broken / "config.json").unlink()
    refused(job(broken, tmp_path), "config.json")


@pytest.mark.parametrize("changes, word", [
    ({"hidden_size": 127}, "embed_tokens"),
    ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
    ({"num_key_value_heads": 3}, "num_key_value_heads"),
    ({"num_hidden_layers": 4}, "model.layers.3"),
])
def test_contradictory_config(changes, word, model, tmp_path):
    refused(job(edit_config(model, tmp_path, **changes), tmp_path), word)


def test_unknown_architecture_says_what_still_works(model, text, tmp_path):
    broken = edit_config(model, tmp_path, model_type="newformer", architectures=["NewForCausalLM"])
    refused(job(broken, tmp_path, "--dataset", text, recipe="W4A16"), "newformer", "FP8_DYNAMIC")
    assert llmc("compress", "--model", broken, "--recipe", "FP8_DYNAMIC", "--output",
                tmp_path / "fine").code == 0


def test_unknown_activation(model, text, tmp_path):
    broken = edit_config(model, tmp_path, hidden_act="swish9")
    refused(job(broken, tmp_path, "--dataset", text, recipe="W4A16"), "hidden_act")


def test_no_tokenizer(model, text, tmp_path):
    broken = copy(model, tmp_path)
    (broken / "tokenizer.json").unlink()
    refused(job(broken, tmp_path, "--dataset", text, recipe="W4A16"), "tokenizer.json")


@pytest.mark.parametrize("content, words", [
    ("", ["data.jsonl"]),
    ('{"body": "text"}\n', ["text", "body"]),
    ('{"text": null}\n', ["data.jsonl:1"]),
    ('{"text": "fine"}\n{"text": \n', ["data.jsonl:2"]),
])
def test_bad_text(content, words, model, tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text(content)
    refused(job(model, tmp_path, "--dataset", data, recipe="W4A16"), *words)


def test_invalid_utf8(model, tmp_path):
    data = tmp_path / "data.txt"
    data.write_bytes(b"fine\n\xff\xfe broken\n")
    refused(job(model, tmp_path, "--dataset", data, recipe="W4A16"), "data.txt:2", "UTF-8")


def test_no_dataset(model, tmp_path):
    refused(job(model, tmp_path, recipe="W4A16"), "--dataset", "GPTQ")


def recipe(tmp_path, body):
    path = tmp_path / "recipe.yaml"
    path.write_text("stage:\n".replace("stage", "quant_stage") +
                    "  quant_modifiers:\n" + body)
    return path


def test_group_size_that_does_not_divide(tmp_path, text):
    odd = make_model(tmp_path / "odd", intermediate_size=200)
    refused(job(odd, tmp_path, "--dataset", text, recipe="W4A16"), "down_proj", "128")


@pytest.mark.parametrize("body, word", [
    ("    GPTQModifier: {scheme: W4A16, targets: [Liner], ignore: [lm_head]}\n", "Liner"),
    ("    GPTQModifier: {scheme: W4A61, targets: [Linear]}\n", "W4A16"),
    ("    GPTQModifer: {scheme: W4A16}\n", "GPTQModifier"),
    ("    GPTQModifier: {scheme: W4A16, dampening_fraction: 0.1}\n", "dampening_frac"),
    ("    GPTQModifier: {scheme: W4A16, ignore: ['re:.*nothing']}\n", "re:.*nothing"),
    ("    AWQModifier: {}\n", "AWQModifier"),
])
def test_bad_recipe(body, word, model, text, tmp_path):
    refused(job(model, tmp_path, "--dataset", text, recipe=recipe(tmp_path, body)), word)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value, model, text, tmp_path):
    broken = copy(model, tmp_path)
    for shard in broken.glob("*.safetensors"):
        tensors = load_file(shard)
        if "model.layers.1.mlp.up_proj.weight" in tensors:
            tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = value
            save_file(tensors, shard, metadata={"format": "pt"})
    run = llmc("compress", "--model", broken, "--recipe", "FP8_DYNAMIC", "--output", tmp_path / "a")
    refused(run, "model.layers.1.mlp.up_proj.weight")
    run = llmc("compress", "--model", broken, "--recipe", "W8A8", "--dataset", text, "--output",
               tmp_path / "b", "--max-seq-length", 64)
    refused(run, "layer")


def test_output_inside_the_model(model):
    run = llmc("compress", "--model", model, "--recipe", "FP8_DYNAMIC", "--output", model / "out")
    refused(run, "out")
    assert not (model / "out").exists()


def test_output_that_is_not_ours(model, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/precious").write_text("keep")
    run = llmc("compress", "--model", model, "--recipe", "FP8_DYNAMIC", "--output",
               tmp_path / "out", "--fresh")
    refused(run, "out")
    assert (tmp_path / "out/precious").read_text() == "keep"


def test_too_little_memory(model, text, tmp_path):
    refused(job(model, tmp_path, "--dataset", text, "--memory-budget", "1MiB", recipe="W4A16"),
            "--memory-budget", "missing")


@pytest.mark.parametrize("words, word", [
    (["--max-seq-length", "0"], "max-seq-length"),
    (["--memory-budget", "lots"], "lots"),
    (["--no-such-flag"], "--no-such-flag"),
    (["--device", "cuda"], "cuda"),
])
def test_bad_flags(words, word, model, tmp_path):
    refused(job(model, tmp_path, *words), word)


def test_config_file(model, tmp_path):
    config = tmp_path / "llmc.toml"
    config.write_text(f'recipe = "FP8_DYNAMIC"\nmodel = "{model}"\nseed = 7\n')
    assert llmc("plan", "--config", config).code == 0
    config.write_text("sede = 7\n")
    refused(llmc("plan", "--config", config), "sede")
