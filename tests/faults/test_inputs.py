"""Hostile and broken files. They are refused at submit, or fail their own job, with the
reason; nobody else notices."""
import gzip
import importlib.util
import json
import os
import shutil
import socket
import struct
import time

import grpc
import pytest
from checks import expect_failure, expect_success
from control_tower import MODEL, SOURCE, Pool, job_service_pb2, spec, submit
from test_api import refused


def refusal(stub, job_spec):
    """The fields that submit complains of, and what it says; it must refuse in time."""
    begin = time.monotonic()
    found = refused(lambda: submit(stub, job_spec), grpc.StatusCode.INVALID_ARGUMENT)
    assert time.monotonic() - begin < 10
    return {v.field: v.description for v in found["BadRequest"].field_violations}


@pytest.fixture
def model(root):
    shutil.copytree(MODEL, root / "model")
    return root / "model"


def still_works(coordinator, stub, root, reference):
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, name="last"):
        expect_success(coordinator, stub, root, reference, job.name)


def hostile_corpus():
    path = SOURCE / "tests/checkpoint/hostile_corpus.py"
    loaded = importlib.util.module_from_spec(importlib.util.spec_from_file_location("corpus", path))
    loaded.__spec__.loader.exec_module(loaded)
    return loaded


@pytest.mark.row(31)
def test_hostile_weights_are_refused_with_their_field(coordinator, stub, root, model, reference):
    corpus = hostile_corpus()
    files = {**corpus.sizes_and_lengths(), **corpus.json_text(), **corpus.entries(),
             **corpus.numbers(), **corpus.placement()}
    weights = model / "model.safetensors"
    for name, contents in files.items():
        weights.write_bytes(contents)
        # Also the sound ones: they do not hold this model's tensors.
        fields = refusal(stub, spec(root, "out", model=str(model)))
        assert fields.keys() & {"job.spec.model", "job.spec"}, (name, fields)
    with open(weights, "wb") as sparse:  # 100 GB that take no space.
        sparse.write(struct.pack("<Q", 99_000_000))
        sparse.truncate(100 << 30)
    assert "job.spec.model" in refusal(stub, spec(root, "out", model=str(model)))
    still_works(coordinator, stub, root, reference)


def index_of(files, size=0):
    return {"metadata": {"total_size": size}, "weight_map": files}


@pytest.mark.row(32)
def test_hostile_indices_are_refused(coordinator, stub, root, model):
    names = {"model.embed_tokens.weight": "model.safetensors"}
    (root / "outside.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    (model / "loop-a.safetensors").symlink_to("loop-b.safetensors")
    (model / "loop-b.safetensors").symlink_to("loop-a.safetensors")
    os.mkfifo(model / "pipe.safetensors")
    (model / "folder.safetensors").mkdir()
    shard = "model.embed_tokens.weight"
    cases = {
        "absent": json.dumps(index_of({shard: "absent.safetensors"})),
        "up": json.dumps(index_of({shard: "../outside.safetensors"})),
        "absolute": json.dumps(index_of({shard: str(root / "outside.safetensors")})),
        "nul": json.dumps(index_of({shard: "model.safetensors\0x"})),
        "wrong_shard": json.dumps(index_of({**names, "not.there": "model.safetensors"})),
        "twice": '{"weight_map": {"%s": "model.safetensors", "%s": "x"}}' % (shard, shard),
        "loop": json.dumps(index_of({shard: "loop-a.safetensors"})),
        "fifo": json.dumps(index_of({shard: "pipe.safetensors"})),
        "folder": json.dumps(index_of({shard: "folder.safetensors"})),
        "list": "[]", "cut": '{"weight_map": {', "number": json.dumps(index_of({shard: 3})),
        "deep": '{"weight_map":' + "[" * 100_000,
    }
    for name, text in cases.items():
        (model / "model.safetensors.index.json").write_text(text)
        fields = refusal(stub, spec(root, "out", model=str(model)))
        assert "job.spec.model" in fields, (name, fields)


@pytest.mark.row(36)
def test_a_config_that_lies_is_refused_with_the_field(coordinator, stub, root, model):
    config = json.loads((model / "config.json").read_text())
    lies = [("num_hidden_layers", 10**9), ("num_hidden_layers", -1), ("hidden_size", 2**62),
            ("hidden_size", "big"), ("num_attention_heads", 0), ("num_key_value_heads", 3),
            ("vocab_size", 1e30), ("head_dim", 7), ("intermediate_size", None),
            ("rms_norm_eps", "x"), ("hidden_act", "exec"), ("rope_parameters", {"rope_type": "?"}),
            ("dtype", "float999"), ("quantization_config", {"quant_method": "evil"}),
            ("quantization_config", {"quant_method": "compressed-tensors", "config_groups": 7})]
    for key, value in lies:
        (model / "config.json").write_text(json.dumps({**config, key: value}))
        fields = refusal(stub, spec(root, "out", model=str(model)))
        assert fields.keys() & {"job.spec.model", "job.spec"}, (key, fields)
        assert key in str(fields) or "quant" in str(fields) or "rope" in str(fields), (key, fields)
    for text in ("", "[]", "{", '{"a":1,"a":2}', "[" * 100_000, "\xff"):
        (model / "config.json").write_text(text, encoding="latin-1")
        assert "job.spec.model" in refusal(stub, spec(root, "out", model=str(model)))


@pytest.mark.row(37)
def test_broken_tokenizers_are_refused(coordinator, stub, root, model):
    good = json.loads((model / "tokenizer.json").read_text())
    vocabulary = good["model"]["vocab"]
    one = next(iter(vocabulary))
    cases = ["", "null", "{}", '{"model": {"type": "BPE"}}', "[" * 100_000,
             json.dumps({**good, "model": {**good["model"], "type": "WordPiece"}}),
             json.dumps({**good, "model": {**good["model"], "vocab": {**vocabulary, one: -5}}}),
             json.dumps({**good, "model": {**good["model"], "vocab": {**vocabulary,
                                                                      one: 2**40}}}),
             json.dumps({**good, "model": {**good["model"], "merges": [["zz", "qq"]]}}),
             json.dumps({**good, "pre_tokenizer": {
                 "type": "Split", "pattern": {"Regex": "(((((a*)*)*)*)*"},
                 "behavior": "Isolated", "invert": False}})]
    for text in cases:
        (model / "tokenizer.json").write_text(text)
        fields = refusal(stub, spec(root, "out", model=str(model)))
        assert fields, text[:80]


def bad_datasets(root):
    row = json.dumps({"text": "word " * 20}) + "\n"
    files = {"empty.jsonl": "", "blank.jsonl": "\n\n", "cut.jsonl": '{"text": "a',
             "null.jsonl": '{"text": null}\n', "number.jsonl": '{"text": 3}\n',
             "column.jsonl": '{"words": "a"}\n',
             "deep.json": "[" * 200_000, "ids.jsonl": '{"input_ids": [99999999]}\n',
             "negative.jsonl": '{"input_ids": [-1]}\n', "name.exe": row,
             "quote.csv": 'text\n"never closed', "fake.parquet": "PAR1xxxxPAR1",
             "fake.jsonl.gz": "not gzip", "fake.jsonl.zst": "not zstd"}
    for name, text in files.items():
        (root / name).write_text(text)
    (root / "latin.jsonl").write_bytes(b'{"text": "caf\xe9"}\n')
    (root / "line.jsonl").write_bytes(b'{"text": "' + b"a" * (70 << 20) + b'"}\n')
    # 300 MB in one row, a few kilobytes compressed.
    chunk = b" " * (1 << 20)
    with gzip.open(root / "bomb.jsonl.gz", "wb", compresslevel=1) as bomb:
        bomb.write(b'{"text": "')
        for _ in range(300):
            bomb.write(chunk)
    os.mkfifo(root / "pipe.jsonl")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket.jsonl"))
    (root / "folder.jsonl").mkdir()
    (root / "device.jsonl").symlink_to("/dev/zero")
    (root / "loop.jsonl").symlink_to("loop.jsonl")
    return [*files, "latin.jsonl", "line.jsonl", "bomb.jsonl.gz", "pipe.jsonl", "socket.jsonl",
            "folder.jsonl", "device.jsonl", "loop.jsonl", "absent.jsonl"]


@pytest.mark.row(37)
def test_bad_datasets_are_refused_without_waiting_or_swelling(coordinator, stub, root, reference):
    for name in bad_datasets(root):
        fields = refusal(stub, spec(root, "out", datasets=[str(root / name)]))
        assert "job.spec.datasets[0]" in fields, (name, fields)
    with open(f"/proc/{coordinator.process.pid}/status") as status:
        peak = next(line for line in status if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < (1 << 20), peak
    still_works(coordinator, stub, root, reference)


@pytest.mark.row(37)
def test_a_row_that_is_bad_later_fails_its_job_with_the_line(coordinator, stub, root, reference):
    lines = (root / "text.jsonl").read_text().splitlines()
    (root / "later.jsonl").write_text("\n".join([*lines[:30], '{"text": 5}', *lines]) + "\n")
    bad = submit(stub, spec(root, "bad", datasets=[str(root / "later.jsonl")]))
    good = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root):
        expect_failure(coordinator, stub, root, bad.name, "INVALID_ARGUMENT", "later.jsonl:31")
        expect_success(coordinator, stub, root, reference, good.name)


@pytest.mark.row(38)
def test_a_link_that_comes_after_the_check_is_not_followed(coordinator, stub, root,
                                                           tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    shutil.copy(root / "text.jsonl", outside / "text.jsonl")
    job = submit(stub, spec(root, "out"))
    (root / "text.jsonl").unlink()
    (root / "text.jsonl").symlink_to(outside / "text.jsonl")
    with Pool(coordinator.address, root, "--allow-root", root, "--allow-root", MODEL.parent):
        expect_failure(coordinator, stub, root, job.name, "PERMISSION_DENIED", "text.jsonl")


@pytest.mark.row(38)
def test_paths_that_leave_the_roots_are_refused(coordinator, stub, root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (root / "link").symlink_to(outside)
    (root / "up").symlink_to("..")
    for path in (outside / "out", root / "link/out", root / "up/out", f"{root}/../out", "out",
                 f"{root}/a/../../../etc/out", "/proc/self/root/tmp/out", "", "/",
                 f"{root}/%2e%2e/../../out"):
        assert "job.spec.output" in refusal(stub, spec(root, "x", output=str(path))), path


@pytest.mark.row(36)
def test_recipes_of_strangers_are_refused_in_time(coordinator, stub, root):
    bombs = ["a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n"
        for i in range(20)), "[" * 10_000, "!!python/object/apply:os.system [id]",
        "default_stage:\n  default_modifiers:\n    GPTQModifier: {targets: ['re:(a+)+$'], "
        "scheme: W4A16, dampening_frac: eval(1)}\n", "\0", "- " * 5000, "x: ${x}\n",
        "default_stage: {default_modifiers: {SmoothQuantModifier: {smoothing_strength: .nan}}}"]
    for text in bombs:
        fields = refusal(stub, spec(root, "out", recipe_text=text))
        assert fields.keys() & {"job.spec.recipe_text", "job.spec"}, (text[:60], fields)
    assert not stub.ListJobs(job_service_pb2.ListJobsRequest()).jobs
