"""Pruning: masks, ranks, restarts, what quantises afterwards, and the real library."""
import json

import pytest
from conftest import SOURCE, digest, llmc, mpirun

import torch
from safetensors.torch import load_file

QUANTISERS = {
    "gptq": "GPTQModifier: {targets: [Linear], ignore: [lm_head], scheme: W4A16}",
    "gptq_natural": "GPTQModifier: {targets: [Linear], ignore: [lm_head], scheme: W4A16, actorder: none}",
    "gptq_asym": "GPTQModifier: {targets: [Linear], ignore: [lm_head], scheme: W4A16_ASYM}",
    "fp8": "QuantizationModifier: {targets: [Linear], ignore: [lm_head], scheme: FP8_DYNAMIC}",
    "rtn_asym": "QuantizationModifier: {targets: [Linear], ignore: [lm_head], scheme: W4A16_ASYM}",
}
PRUNERS = {
    "sparsegpt_50": "SparseGPTModifier: {sparsity: 0.5, ignore: [lm_head]}",
    "sparsegpt_24": "SparseGPTModifier: {sparsity: 0.5, mask_structure: '2:4', ignore: [lm_head]}",
    "wanda_24": "WandaPruningModifier: {sparsity: 0.5, mask_structure: '2:4', ignore: [lm_head]}",
    "wanda_owl": "WandaPruningModifier: {sparsity: 0.5, sparsity_profile: owl, owl_m: 3,"
                 " owl_lmbda: 0.1, ignore: ['re:.*lm_head']}",
    "magnitude": "MagnitudePruningModifier: {init_sparsity: 0.0, final_sparsity: 0.6,"
                 " targets: [Linear], ignore: [lm_head]}",
    "magnitude_24": "MagnitudePruningModifier: {init_sparsity: 0.0, final_sparsity: 0.5,"
                    " mask_structure: '2:4', targets: [Linear], ignore: [lm_head]}",
}
COMBINATIONS = ["sparsegpt_50", "sparsegpt_50+gptq_natural", "sparsegpt_24+gptq", "sparsegpt_24+fp8",
                "wanda_24", "wanda_owl", "magnitude", "magnitude_24+gptq_asym"]


def recipe_file(directory, name):
    directory.mkdir(exist_ok=True)
    path = directory / f"{name}.yaml"
    parts = [PRUNERS.get(part) or QUANTISERS[part] for part in name.split("+")]
    path.write_text("stage_stage:\n  prune_modifiers:\n" + "".join(f"    {p}\n" for p in parts))
    return path


def needs_data(name):
    return name.split("+")[0] not in ("magnitude", "magnitude_24") or "gptq" in name


def words_of(name, model, text, directory):
    words = ["compress", "--model", model, "--recipe", recipe_file(directory, name)]
    if needs_data(name):
        words += ["--dataset", text, "--num-calibration-samples", 60, "--max-seq-length", 128]
    return words


def tensors_of(directory):
    merged = {}
    for shard in sorted(directory.glob("*.safetensors")):
        merged.update(load_file(shard))
    return merged


def dense_weights(directory):
    """The linears of the layers as transformers multiplies them."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype="auto")
    with torch.no_grad():
        model(torch.arange(5, 9)[None])  # Its first use decompresses a compressed model.
    return {name: weight.data.float() for name, weight in model.named_parameters()
            if name.endswith("_proj.weight")}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory, model, text):
    """Every combination, made once by one rank."""
    made = {}

    def get(name):
        if name not in made:
            directory = tmp_path_factory.mktemp("out")
            run = llmc(*words_of(name, model, text, directory / "recipe"), "--output",
                       directory / "out")
            assert run.code == 0, run.err
            made[name] = directory / "out"
        return made[name]

    return get


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("name", COMBINATIONS)
def test_ranks_give_the_same_bytes(name, ranks, outputs, model, text, tmp_path):
    run = mpirun(ranks, *words_of(name, model, text, tmp_path), "--output", tmp_path / "out",
                 LLMC_THREADS=1)
    assert run.code == 0, run.err
    assert digest(tmp_path / "out") == digest(outputs(name))


@pytest.mark.parametrize("name", COMBINATIONS)
def test_sound_and_as_sparse_as_asked(name, outputs, model):
    assert llmc("verify", outputs(name), "--against", model).code == 0
    weights = dense_weights(outputs(name))
    assert len(weights) == 21
    for weight_name, weight in weights.items():
        zeros = weight == 0
        if "24" in name:
            assert (zeros.view(weight.shape[0], -1, 4).sum(-1) >= 2).all(), weight_name
        elif name.startswith("sparsegpt_50"):  # One more than half in every block of 128 columns.
            blocks = weight.shape[1] // 128
            assert zeros.sum() >= weight.numel() // 2 + blocks
            if name == "sparsegpt_50":  # Else small weights may round to 0, too.
                assert zeros.sum() <= weight.numel() // 2 + 4 * blocks
        elif name == "magnitude":
            assert (zeros.sum(1) == int(weight.shape[1] * 0.6)).all(), weight_name
    if name == "wanda_owl":
        total = sum((w == 0).sum().item() for w in weights.values())
        assert 0.45 < total / sum(w.numel() for w in weights.values()) < 0.55
        layer = [(weights[f"model.layers.{i}.mlp.up_proj.weight"] == 0).float().mean().item()
                 for i in range(3)]
        assert max(layer) - min(layer) > 0.05 and max(layer) <= 0.7


def test_dense_output_has_no_quantization_config(outputs):
    config = json.loads((outputs("sparsegpt_50") / "config.json").read_text())
    assert "quantization_config" not in config


@pytest.mark.parametrize("pruner, quantiser", [
    ("sparsegpt_24", "gptq"), ("sparsegpt_24", "fp8"), ("sparsegpt_50", "gptq_asym"),
    ("sparsegpt_50", "gptq_natural"),
    ("magnitude", "rtn_asym")])
def test_quantisers_keep_the_mask_exactly(pruner, quantiser, outputs):
    pruned = dense_weights(outputs(pruner))
    quantised = dense_weights(outputs(f"{pruner}+{quantiser}"))
    for name, weight in pruned.items():
        # Layers behind the first see other inputs and have masks of their own.
        if needs_data(pruner) and "layers.0." not in name:
            continue
        lost = (weight == 0) & (quantised[name] != 0)
        assert not lost.any(), (name, int(lost.sum()))


def test_gptq_without_a_pruner_before_it_fills_zeros(outputs, model, text, tmp_path):
    """The mask is kept because the recipe prunes, not because a weight is 0."""
    pruned = outputs("magnitude")
    run = llmc("compress", "--model", pruned, "--recipe", "W4A16", "--dataset", text,
               "--num-calibration-samples", 60, "--max-seq-length", 128, "--output",
               tmp_path / "filled")
    assert run.code == 0, run.err
    recipe = tmp_path / "constant.yaml"
    recipe.write_text("a_stage:\n  a_modifiers:\n    ConstantPruningModifier: {targets: [Linear]}\n    "
                      + QUANTISERS["gptq"] + "\n")
    run = llmc("compress", "--model", pruned, "--recipe", recipe, "--dataset", text,
               "--num-calibration-samples", 60, "--max-seq-length", 128, "--output",
               tmp_path / "kept")
    assert run.code == 0, run.err
    before = dense_weights(pruned)
    kept, filled = dense_weights(tmp_path / "kept"), dense_weights(tmp_path / "filled")
    assert all(not ((before[n] == 0) & (kept[n] != 0)).any() for n in before)
    assert any(((before[n] == 0) & (filled[n] != 0)).any() for n in before)


def test_the_report_has_the_sparsity_of_every_linear(outputs):
    report = json.loads((outputs("sparsegpt_24+gptq") / "llmc_report/report.json").read_text())
    assert len(report["linears"]) == 21
    for row in report["linears"]:
        assert row["method"] == "SparseGPT + GPTQ"
        assert abs(row["sparsity"] - 0.5) < 0.01
        assert 0 < row["output_error"] < 1


STEPS = ["layer.load", "layer.chunk", "layer.reduce", "layer.solve", "layer.write",
         "unit.before_sync", "unit.marked", "layer.propagate"]


@pytest.mark.parametrize("name, step", [
    *[("sparsegpt_24+gptq", step) for step in STEPS],
    *[("sparsegpt_24+fp8", step) for step in ("layer.solve", "unit.marked", "layer.propagate")],
    ("sparsegpt_50+gptq_natural", "layer.write")])
def test_killed_at_every_step(name, step, outputs, model, text, tmp_path):
    words = words_of(name, model, text, tmp_path / "recipe")
    out = tmp_path / "out"
    assert llmc(*words, "--output", out, LLMC_FAILPOINTS=f"{step}=kill@2").code != 0
    assert not out.exists()
    again = llmc(*words, "--output", out, "--ranks", 1 + STEPS.index(step) % 2)
    assert again.code == 0, again.err
    assert digest(out) == digest(outputs(name))


def test_owl_goes_on_after_a_kill(outputs, model, text, tmp_path):
    words = words_of("wanda_owl", model, text, tmp_path / "recipe")
    assert llmc(*words, "--output", tmp_path / "out", LLMC_FAILPOINTS="layer.write=kill@2").code != 0
    again = llmc(*words, "--output", tmp_path / "out", "--ranks", 2)
    assert again.code == 0, again.err
    assert digest(tmp_path / "out") == digest(outputs("wanda_owl"))


def test_plan_says_what_is_pruned_and_what_is_shared(model, text, tmp_path):
    words = words_of("sparsegpt_24+gptq", model, text, tmp_path)[1:]
    plan = llmc("plan", *words)
    assert plan.code == 0, plan.err
    assert "SparseGPTModifier: q_proj 2:4, target Linear (layers 0-2)" in plan.out
    shared = "input of q_proj, k_proj, v_proj: Hessian for SparseGPTModifier and GPTQModifier"
    assert shared in plan.out
    assert "its factor" not in plan.out  # GPTQ visits columns in another order.
    words = words_of("sparsegpt_50+gptq_natural", model, text, tmp_path)[1:]
    plan = llmc("plan", *words)
    assert shared + "; its factor for SparseGPTModifier and GPTQModifier" in plan.out, plan.out


@pytest.mark.parametrize("fields, words", [
    ("SparseGPTModifier: {sparsity: 1.0}", ["sparsity", "less than 1"]),
    ("SparseGPTModifier: {sparsity: -0.1}", ["sparsity", "at least 0"]),
    ("SparseGPTModifier: {mask_structure: '2:4'}", ["sparsity: missing"]),
    ("SparseGPTModifier: {sparsity: 0.5, mask_structure: '4:2'}", ["mask_structure", "N:M"]),
    ("SparseGPTModifier: {sparsity: 0.5, mask_structure: 'half'}", ["mask_structure", "'half'"]),
    ("SparseGPTModifier: {sparsity: 0.5, mask_structure: '2:4', block_size: 126}",
     ["block_size 126", "multiple of 4"]),
    ("SparseGPTModifier: {sparsity: 0.7, mask_structure: '2:4'}", ["0.7", "2:4", "0.5"]),
    ("SparseGPTModifier: {sparsity: 0.4, mask_structure: '2:5', block_size: 125, ignore: [lm_head]}",
     ["2:5", "in_features 128", "model.layers.0.self_attn.q_proj"]),
    ("WandaPruningModifier: {sparsity: 0.5, owl_m: 5}", ["sparsity_profile: owl and owl_lmbda"]),
    ("WandaPruningModifier: {sparsity: 0.5, sparsity_profile: owl, owl_m: 5}", ["owl_lmbda"]),
    ("WandaPruningModifier: {sparsity: [0.5, 0.6], ignore: [lm_head]}",
     ["lists 2 numbers", "match 22"]),
    ("WandaPruningModifier: {sparsity: 0.5, targets: ['re:nothing']}", ["re:nothing"]),
    ("WandaPruningModifier: {sparsity: 0.5, block_size: 64}", ["block_size"]),
    ("MagnitudePruningModifier: {init_sparsity: 0.1, targets: [Linear]}", ["final_sparsity: missing"]),
    ("MagnitudePruningModifier: {init_sparsity: 0.1, final_sparsity: 0.5, apply_globally: true}",
     ["apply_globally"]),
    ("WandaPruningModifier: {sparsity: 0.5, mask_structure: '2:4'}\n    SparseGPTModifier: {sparsity: 0.5}",
     ["SparseGPTModifier", "model.layers.0.self_attn.q_proj", "WandaPruningModifier",
      "preserve_sparsity_mask"]),
    ("SparseGPTModifier: {sparsity: 0.5, ignore: ['re:.*nothing']}", ["re:.*nothing", "match no module"]),
    ("GPTQModifier: {scheme: W4A16, ignore: [lm_head]}\n    SparseGPTModifier: {sparsity: 0.5}",
     ["SparseGPTModifier", "GPTQModifier", "last"]),
])
def test_wrong_recipes_are_refused(fields, words, model, text, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"a_stage:\n  a_modifiers:\n    {fields}\n")
    run = llmc("compress", "--model", model, "--recipe", recipe, "--dataset", text, "--output",
               tmp_path / "out")
    assert run.code == 2, (run.code, run.err)
    for word in words:
        assert word in run.err, run.err
    assert not (tmp_path / "out").exists()


def test_preserved_mask_beyond_the_target_is_refused(outputs, text, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("a_stage:\n  a_modifiers:\n    SparseGPTModifier: {sparsity: 0.3, "
                      "preserve_sparsity_mask: true, ignore: [lm_head]}\n")
    words = ["compress", "--model", outputs("magnitude"), "--recipe", recipe, "--dataset", text,
             "--num-calibration-samples", 20, "--max-seq-length", 64, "--output", tmp_path / "out"]
    run = llmc(*words)
    assert run.code == 2, run.err
    assert "preserve_sparsity_mask" in run.err and "layers.0" in run.err


def text_of(paths):
    return [p for path in paths for p in path.read_text().split("\n\n") if len(p) > 100]


@pytest.mark.parametrize("name", ["sparsegpt_50", "sparsegpt_24", "wanda_24"])
def test_gives_the_real_librarys_masks_and_weights(name, tmp_path):
    """The trained example, the same token rows, one rank."""
    from datasets import Dataset
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trained = SOURCE / "examples/tiny-llama"
    tokenizer = AutoTokenizer.from_pretrained(trained)
    rows = [tokenizer(p)["input_ids"][:128] for p in text_of(sorted(SOURCE.glob("*.md")))][:24]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))
    recipe = recipe_file(tmp_path / "recipe", name)
    theirs_recipe = tmp_path / "theirs.yaml"  # There, ignoring "lm_head" by name has no effect.
    theirs_recipe.write_text(recipe.read_text().replace("[lm_head]", "['re:.*lm_head']"))
    masks = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows]
    # Like for like: llmc below multiplies in float32 too.
    dense = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32)
    oneshot(model=dense, tokenizer=tokenizer, dataset=Dataset.from_list(masks), recipe=str(theirs_recipe),
            num_calibration_samples=len(rows), max_seq_length=128, shuffle_calibration_samples=False,
            output_dir=str(tmp_path / "theirs"))
    run = llmc("compress", "--model", trained, "--recipe", recipe, "--dataset", data, "--no-shuffle",
               "--num-calibration-samples", len(rows), "--max-seq-length", 128, "--compute-dtype",
               "float32", "--output", tmp_path / "ours")
    assert run.code == 0, run.err
    ours, theirs = tensors_of(tmp_path / "ours"), tensors_of(tmp_path / "theirs")
    first = [n for n in ours if ".layers.0." in n and n.endswith("_proj.weight")]
    equal = sum(((ours[n] == 0) == (theirs[n] == 0)).sum().item() for n in first)
    assert equal / sum(ours[n].numel() for n in first) > 0.999
    # Theirs stay float32, ours are rounded to bfloat16.
    apart = sum((ours[n].float() - theirs[n].float()).abs().sum().item() for n in first)
    assert apart < 0.005 * sum(theirs[n].abs().sum().item() for n in first)


@pytest.mark.parametrize("name, layout", [
    ("sparsegpt_24", "sparse-24-bitmask"), ("sparsegpt_24+fp8", "sparse-24-bitmask"),
    ("magnitude", "sparse-bitmask")])
def test_packed_layouts_hold_the_same_weights(name, layout, outputs, model, text, tmp_path):
    words = words_of(name, model, text, tmp_path / "recipe")
    words += ["--sparse-format", layout, "--output", tmp_path / "out"]
    run = llmc(*words, "--ranks", 2)
    assert run.code == 0, run.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "recipe"]
    plain, packed = tensors_of(outputs(name)), tensors_of(tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())["quantization_config"]
    sparsity = config["sparsity_config"]
    assert sparsity["format"] == layout and sparsity["ignore"] == ["lm_head"]
    pruned = [n for n in plain if n.endswith("_proj.weight")]
    assert len(pruned) == 21 and not any(n in packed for n in pruned)
    for weight in pruned:
        dense = plain[weight]
        stem = weight.removesuffix("weight")
        assert packed[stem + "shape"].flatten().tolist() == list(dense.shape)
        bits = packed[stem + "bitmask"]
        kept = torch.stack([bits[:, c // 8] >> (c % 8) & 1 for c in range(dense.shape[1])], 1).bool()
        raw = dense.view(torch.uint8) if dense.dtype == torch.float8_e4m3fn else dense
        values = packed[stem + "compressed"]
        values = values.view(torch.uint8) if values.dtype == torch.float8_e4m3fn else values
        assert torch.equal(values.flatten(), raw[kept]), weight
        assert not raw[~kept].any(), weight
    for other in set(plain) - set(pruned):
        assert torch.equal(plain[other].float(), packed[other].float()), other
    # The readers of llmc: soundness, sizes, and the same figures as the plain output.
    verify = llmc("verify", tmp_path / "out", "--against", model)
    assert verify.code == 0, verify.out
    inspect = llmc("inspect", tmp_path / "out", "--json").json()
    assert inspect["num_parameters"] == llmc("inspect", outputs(name), "--json").json()["num_parameters"]
    figures = [llmc("eval", "--model", path, "--dataset", text, "--max-seq-length", 64, "--num-windows",
                    4, "--json").json()["perplexity"] for path in (outputs(name), tmp_path / "out")]
    assert figures[0] == figures[1]
    again = llmc(*words)
    assert again.code == 0 and "finished before" in again.err


def test_packed_layout_goes_on_after_a_kill(model, text, tmp_path):
    words = words_of("sparsegpt_24", model, text, tmp_path / "recipe")
    words += ["--sparse-format", "sparse-24-bitmask"]
    assert llmc(*words, "--output", tmp_path / "whole").code == 0
    for number, step in enumerate(["layer.write=kill@2", "commit.before_rename=kill@1",
                                   "commit.before_rename=kill@2"]):
        out = tmp_path / f"out{number}"
        assert llmc(*words, "--output", out, LLMC_FAILPOINTS=step).code != 0, step
        again = llmc(*words, "--output", out)
        assert again.code == 0, again.err
        assert digest(out) == digest(tmp_path / "whole")


def test_damaged_packed_layout_is_found(model, text, tmp_path):
    from safetensors.torch import save_file

    words = words_of("sparsegpt_24", model, text, tmp_path / "recipe")
    out = tmp_path / "out"
    assert llmc(*words, "--sparse-format", "sparse-24-bitmask", "--output", out).code == 0
    shard = sorted(out.glob("*.safetensors"))[0]
    tensors = load_file(shard)
    name = next(n for n in tensors if n.endswith("bitmask"))
    tensors[name][0, 0] ^= 1
    save_file(tensors, shard, metadata={"format": "pt"})
    verify = llmc("verify", out)
    assert verify.code == 1
    assert "two bits for every four columns" in verify.out + verify.err


@pytest.mark.parametrize("name, layout, words", [
    ("sparsegpt_24+gptq", "sparse-24-bitmask", ["pack-quantized", "whole codes"]),
    ("sparsegpt_50", "sparse-24-bitmask", ["50 %", "mask_structure 2:4"])])
def test_layouts_that_cannot_hold_the_mask_are_refused(name, layout, words, model, text, tmp_path):
    run = llmc(*words_of(name, model, text, tmp_path / "recipe"), "--sparse-format", layout,
               "--output", tmp_path / "out")
    assert run.code == 2, run.err
    for word in words:
        assert word in run.err, run.err


FORMAT = "sparse_format: sparse-24-bitmask"


@pytest.mark.parametrize("place", ["top", "modifier", "both"])
def test_sparse_format_of_the_recipe_does_what_the_flag_does(place, model, text, tmp_path):
    words = words_of("sparsegpt_24+fp8", model, text, tmp_path / "recipe")
    flag = llmc(*words, "--sparse-format", "sparse-24-bitmask", "--output", tmp_path / "flag")
    assert flag.code == 0, flag.err
    recipe = tmp_path / "recipe/sparsegpt_24+fp8.yaml"
    body = recipe.read_text()
    if place != "top":
        body = body.replace("mask_structure: '2:4'", "mask_structure: '2:4', " + FORMAT)
    if place != "modifier":
        body = FORMAT + "\n" + body
    recipe.write_text(body)
    run = llmc(*words, "--output", tmp_path / "field")
    assert run.code == 0, run.err
    assert digest(tmp_path / "field") == digest(tmp_path / "flag")
    # What is written is a recipe that means the same; the flag wins over it.
    words[words.index("--recipe") + 1] = tmp_path / "field/recipe.yaml"
    assert llmc(*words, "--output", tmp_path / "again").code == 0
    assert digest(tmp_path / "again") == digest(tmp_path / "flag")
    assert llmc(*words, "--sparse-format", "dense", "--output", tmp_path / "dense").code == 0
    config = json.loads((tmp_path / "dense/config.json").read_text())["quantization_config"]
    assert not config.get("sparsity_config")


@pytest.mark.parametrize("top, field, words", [
    ("sparse_format: sparse-24-bitmask", "sparse_format: dense",
     ["'dense' contradicts 'sparse-24-bitmask'", "recipe.yaml:1", "SparseGPTModifier.sparse_format"]),
    ("sparse_format: sparse-42", "block_size: 128", ["recipe.yaml:1", "'sparse-42'", "sparse-bitmask"]),
    ("sparse_format: sparse-24-bitmask", "ignore: [lm_head]",
     ["recipe.yaml:1: sparse_format", "q_proj", "pack-quantized"]),
])
def test_wrong_sparse_formats_are_refused(top, field, words, model, text, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    quantiser = ("QuantizationModifier: {targets: [Linear], ignore: [lm_head], scheme: W4A16}"
                 if "ignore" in field else "QuantizationModifier: {targets: [Linear], scheme: FP8_DYNAMIC}")
    recipe.write_text(f"{top}\na_stage:\n  a_modifiers:\n    SparseGPTModifier: {{sparsity: 0.5, "
                      f"mask_structure: '2:4', {field}}}\n    {quantiser}\n")
    run = llmc("compress", "--model", model, "--recipe", recipe, "--dataset", text, "--output",
               tmp_path / "out")
    assert run.code == 2, (run.code, run.err)
    for word in words:
        assert word in run.err, run.err
    assert not (tmp_path / "out").exists()
