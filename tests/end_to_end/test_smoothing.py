"""SmoothQuant and AWQ: function, parity with the real library, quality, resume, ranks."""
import json
import sys

import pytest
from conftest import SOURCE, digest, llmc, make_model, mpirun

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(SOURCE / "bench"))
from outlier_twin import make_twin  # noqa: E402

# All under grouped-query attention; qwen2 has biases of q, k and v.
FAMILIES = {
    "llama": ("llama", {}), "mistral": ("mistral", {}), "qwen2": ("qwen2", {}), "qwen3": ("qwen3", {}),
    "tied": ("qwen2", {"tie_word_embeddings": True}),
    "all biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "one key head": ("llama", {"num_key_value_heads": 1}),
    "wide heads": ("qwen3", {"head_dim": 64}),
}
ALL_MAPPINGS = """
        mappings:
        - [['re:.*q_proj', 're:.*k_proj', 're:.*v_proj'], 're:.*input_layernorm']
        - [['re:.*o_proj'], 're:.*v_proj']
        - [['re:.*gate_proj', 're:.*up_proj'], 're:.*post_attention_layernorm']
        - [['re:.*down_proj'], 're:.*up_proj']
"""


def write(tmp_path, modifiers, name="recipe.yaml"):
    path = tmp_path / name
    path.write_text("a_stage:\n  a_modifiers:\n" + "".join(f"    {m}\n" for m in modifiers))
    return path


def quantizer(kind, scheme):
    return f"{kind}: {{targets: [Linear], ignore: [lm_head], scheme: {scheme}}}"


def tensors_of(directory):
    merged = {}
    for shard in sorted(directory.glob("*.safetensors")):
        merged.update(load_file(shard))
    return merged


def logits(directory):
    from transformers import AutoModelForCausalLM

    ids = torch.arange(5, 133)[None]
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(directory, dtype="auto")(ids).logits


def randomise(path):
    """Biases and norms that are not 0 and 1, so that a forgotten one is seen."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype="auto")
    torch.manual_seed(5)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("bias"):
                value.normal_(std=0.1)
            elif "norm" in name:
                value.uniform_(0.25, 2.0)
    model.save_pretrained(path)
    return path


def common(model, text):
    return ["compress", "--model", model, "--dataset", text]


FEW = ["--num-calibration-samples", 24, "--max-seq-length", 128]


@pytest.mark.parametrize("name", FAMILIES)
def test_smoothing_keeps_the_function(name, text, tmp_path):
    kind, changes = FAMILIES[name]
    model = randomise(make_model(tmp_path / "model", kind=kind, dtype="float32", **changes))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("a_stage:\n  a_modifiers:\n    SmoothQuantModifier:\n"
                      "        smoothing_strength: 0.7" + ALL_MAPPINGS)
    run = llmc(*common(model, text), *FEW, "--recipe", recipe, "--output", tmp_path / "out")
    assert run.code == 0, run.err
    before, after = tensors_of(model), tensors_of(tmp_path / "out")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {n.split(".")[-2] for n in changed} == {
        "input_layernorm", "post_attention_layernorm", "q_proj", "k_proj", "v_proj", "o_proj",
        "gate_proj", "up_proj", "down_proj"}
    assert (logits(model) - logits(tmp_path / "out")).abs().max().item() < 1e-5


def rows_of(tmp_path, count=12, length=96):
    generator = torch.Generator().manual_seed(3)
    rows = torch.randint(5, 4000, (count, length), generator=generator).tolist()
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))
    return path, rows


def oneshot_on(model, recipe, rows, output, monkeypatch):
    from datasets import Dataset
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM

    # Its AWQ pins host memory, which needs CUDA.
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self, *_: self)
    oneshot(model=AutoModelForCausalLM.from_pretrained(model, dtype="auto"), recipe=str(recipe),
            output_dir=str(output), num_calibration_samples=len(rows),
            max_seq_length=len(rows[0]),
            dataset=Dataset.from_dict({"input_ids": rows,
                                       "attention_mask": [[1] * len(r) for r in rows]}))


@pytest.mark.parametrize("strength", [0.5, 0.8])
def test_smoothquant_gives_the_real_librarys_weights(strength, tmp_path, monkeypatch):
    model = randomise(make_model(tmp_path / "model", dtype="float32", num_hidden_layers=2))
    path, rows = rows_of(tmp_path)
    recipe = write(tmp_path, [f"SmoothQuantModifier: {{smoothing_strength: {strength}}}"])
    oneshot_on(model, recipe, rows, tmp_path / "theirs", monkeypatch)
    run = llmc("compress", "--model", model, "--recipe", recipe, "--dataset", path, "--no-shuffle",
               "--max-seq-length", 96, "--output", tmp_path / "ours")
    assert run.code == 0, run.err
    ours, theirs = tensors_of(tmp_path / "ours"), tensors_of(tmp_path / "theirs")
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=3e-5, atol=1e-7, msg=name)


# From 16,384 tokens on llmc's candidates race; the library tries all on all rows.
@pytest.mark.parametrize("duo, scheme, count", [
    ("true", "W4A16", 12), ("false", "W4A16", 12), ("both", "W4A16", 12), ("true", "W4A16_ASYM", 12),
    ("true", "W4A16", 180)])
def test_awq_gives_the_real_librarys_factors(duo, scheme, count, tmp_path, monkeypatch):
    """Every key-value head has one query head, so that both smooth v_proj too."""
    model = randomise(make_model(tmp_path / "model", dtype="float32", num_hidden_layers=2,
                                 num_key_value_heads=4))
    path, rows = rows_of(tmp_path, count)
    recipe = write(tmp_path, [f"AWQModifier: {{duo_scaling: {duo}, n_grid: 8}}",
                              quantizer("QuantizationModifier", scheme)])
    oneshot_on(model, recipe, rows, tmp_path / "theirs", monkeypatch)
    run = llmc("compress", "--model", model, "--recipe", recipe, "--dataset", path, "--no-shuffle",
               "--max-seq-length", 96, "--output", tmp_path / "ours")
    assert run.code == 0, run.err
    before = tensors_of(model)
    ours, theirs = tensors_of(tmp_path / "ours"), tensors_of(tmp_path / "theirs")
    norms = [name for name in before if "layers" in name and "layernorm" in name]
    assert len(norms) == 4
    assert any(not torch.equal(before[name], theirs[name]) for name in norms)
    # Two candidates of nearly equal loss may be told apart differently.
    equal = [name for name in norms
             if torch.allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6)]
    assert len(equal) >= 3, equal
    scales = [name for name in theirs if name.endswith("o_proj.weight_scale")
              or name.endswith("down_proj.weight_scale")]
    close = [name for name in scales if torch.allclose(ours[name], theirs[name], rtol=1e-3)]
    assert len(close) >= len(scales) - 1, close


def text_of(path, pages):
    rows = [p for page in pages for p in page.read_text().split("\n\n")]
    path.write_text("".join(json.dumps({"text": p}) + "\n" for p in rows if len(p) > 100))
    return path


def perplexity(model, recipe, data, held, output):
    run = llmc("compress", "--model", model, "--recipe", recipe, "--dataset", data,
               "--num-calibration-samples", 32, "--max-seq-length", 256, "--output", output)
    assert run.code == 0, run.err
    run = llmc("eval", "--model", output, "--dataset", held, "--max-seq-length", 256, "--json")
    assert run.code == 0, run.err
    return run.json()["perplexity"]


def test_on_the_outlier_twin_smoothquant_wins_back_what_w8a8_loses(tmp_path):
    trained = SOURCE / "examples/tiny-llama"
    twin = make_twin(trained, tmp_path / "twin")
    data = text_of(tmp_path / "data.jsonl", sorted(SOURCE.glob("*.md")))
    held = text_of(tmp_path / "held.jsonl", [SOURCE / "docs/architecture.md"])
    dense = [llmc("eval", "--model", m, "--dataset", held, "--max-seq-length", 256,
                  "--json").json()["perplexity"] for m in (trained, twin)]
    assert dense[1] == pytest.approx(dense[0], rel=1e-3)
    rtn = quantizer("QuantizationModifier", "W8A8")
    plain = perplexity(twin, write(tmp_path, [rtn]), data, held, tmp_path / "plain")
    smooth = perplexity(
        twin, write(tmp_path, ["SmoothQuantModifier: {smoothing_strength: 0.8}", rtn]),
        data, held, tmp_path / "smooth")
    assert plain > 1.02 * dense[1]
    assert smooth - dense[1] < 0.25 * (plain - dense[1])


RECIPES = {
    "smoothquant-gptq": ["SmoothQuantModifier: {smoothing_strength: 0.8}",
                         quantizer("GPTQModifier", "W8A8")],
    "awq-gptq": ["AWQModifier: {n_grid: 4}", quantizer("GPTQModifier", "W4A16")],
    "awq-race": ["AWQModifier: {n_grid: 6}", quantizer("QuantizationModifier", "W4A16")],
    "awq-rtn": ["AWQModifier: {n_grid: 4}", quantizer("QuantizationModifier", "W4A16_ASYM")],
    "smoothquant-static": ["SmoothQuantModifier: {}",
                           quantizer("QuantizationModifier", "FP8")],
}
STEPS = ["layer.load", "layer.chunk", "layer.reduce", "layer.solve", "layer.write",
         "unit.before_sync", "unit.marked", "layer.propagate"]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory, model, text):
    """Recipe name -> the job's flags and the digest of its output."""
    made = {}
    for name, modifiers in RECIPES.items():
        directory = tmp_path_factory.mktemp(name)
        # Enough tokens for a race of the candidates.
        extent = ["--num-calibration-samples", 220, "--max-seq-length", 256] if "race" in name else FEW
        words = [*common(model, text), *extent, "--recipe", write(directory, modifiers)]
        run = llmc(*words, "--output", directory / "out")
        assert run.code == 0, run.err
        verify = llmc("verify", directory / "out", "--against", model)
        assert verify.code == 0, verify.out
        made[name] = words, digest(directory / "out")
    return made


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_give_the_same_bytes(name, ranks, jobs, tmp_path):
    words, reference = jobs[name]
    run = mpirun(ranks, *words, "--output", tmp_path / "out", LLMC_THREADS=1)
    assert run.code == 0, run.err
    assert digest(tmp_path / "out") == reference


@pytest.mark.parametrize("name, step", [
    *[(name, step) for name in ("smoothquant-gptq", "awq-gptq") for step in STEPS],
    ("awq-rtn", "layer.solve"), ("awq-rtn", "layer.propagate"), ("smoothquant-static", "layer.write")])
def test_killed_at_every_step_it_goes_on_to_the_same_bytes(step, name, jobs, tmp_path):
    words, reference = jobs[name]
    out = tmp_path / "out"
    run = llmc(*words, "--output", out, LLMC_FAILPOINTS=f"{step}=kill@2")
    if run.code == 0:  # A layer that keeps its function is captured and propagated in one pass.
        assert step == "layer.propagate"
        return
    again = llmc(*words, "--output", out)
    assert again.code == 0, again.err
    assert digest(out) == reference


BAD = {
    "absent module": (["SmoothQuantModifier: {mappings: [[['re:.*q_prj'], 're:.*input_layernorm']]}"],
                      ["q_prj", "no layer has"]),
    "consumers outside": (
        ["SmoothQuantModifier: {mappings: [[['re:.*q_proj', 're:.*k_proj'], 're:.*input_layernorm']]}"],
        ["input_layernorm", "also feeds", "v_proj"]),
    "does not feed": (["SmoothQuantModifier: {mappings: [[['re:.*down_proj'], 're:.*v_proj']]}"],
                      ["v_proj", "does not feed", "down_proj"]),
    "not smoothable": (["SmoothQuantModifier: {mappings: [[['re:.*down_proj'], 're:.*gate_proj']]}"],
                       ["gate_proj", "changes the model"]),
    "strength": (["SmoothQuantModifier: {smoothing_strength: 7}"], ["smoothing_strength", "0 to 1"]),
    "unknown field": (["SmoothQuantModifier: {smoothing_strenght: 0.5}"],
                      ["smoothing_strenght", "smoothing_strength"]),
    "nothing after": (["AWQModifier: {}"], ["AWQModifier", "after it"]),
    "before": ([quantizer("QuantizationModifier", "W4A16"), "AWQModifier: {}"],
               ["AWQModifier", "after it"]),
    "smoothed after": ([quantizer("GPTQModifier", "W8A8"), "SmoothQuantModifier: {}"],
                       ["SmoothQuantModifier", "GPTQModifier", "quantised"]),
    "two quantisers": (["AWQModifier: {}", quantizer("QuantizationModifier", "W4A16"),
                        quantizer("GPTQModifier", "W4A16")], ["q_proj", "two modifiers", "QuantizationModifier and GPTQModifier"]),
    "nothing ignored": (["SmoothQuantModifier: {ignore: ['re:.*input_layernrom']}"],
                        ["re:.*input_layernrom", "match no module"]),
    "duo": (["AWQModifier: {duo_scaling: maybe}", quantizer("QuantizationModifier", "W4A16")],
            ["duo_scaling", "maybe"]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_recipe_is_refused(case, model, text, tmp_path):
    modifiers, words = BAD[case]
    run = llmc(*common(model, text), *FEW, "--recipe", write(tmp_path, modifiers), "--output",
               tmp_path / "out")
    assert run.code == 2, (run.code, run.err)
    for word in words:
        assert word in run.err, run.err
    assert not (tmp_path / "out").exists()
