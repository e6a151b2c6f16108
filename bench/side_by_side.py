"""llmc and llmcompressor on the same model, recipe and token rows, in fresh processes.

Writes the table of docs/benchmarks.md between its two markers. Ratios are taken
from runs that follow each other directly, because machines drift.
"""
import argparse
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys

from outlier_twin import make_twin

ROOT = pathlib.Path(__file__).resolve().parents[1]
BIN = ROOT / "build/release/bin"
WORK = ROOT / "build/bench"
PYTHON = ROOT / ".venv/bin/python"

RECIPES = {
    "RTN W8A8": ("QuantizationModifier", "W8A8", False),
    "RTN FP8_DYNAMIC": ("QuantizationModifier", "FP8_DYNAMIC", False),
    "GPTQ W4A16": ("GPTQModifier", "W4A16", True),
    "GPTQ W8A8": ("GPTQModifier", "W8A8", True),
}

# On the outlier twin (bench/outlier_twin.py). The last entry is what runs before.
SMOOTHING = {
    **{f"SmoothQuant {strength} + {method} W8A8":
       (modifier, "W8A8", True, f"SmoothQuantModifier: {{smoothing_strength: {strength}}}")
       for strength in (0.5, 0.8)
       for method, modifier in (("RTN", "QuantizationModifier"), ("GPTQ", "GPTQModifier"))},
    "AWQ + RTN W4A16": ("QuantizationModifier", "W4A16", True, "AWQModifier: {}"),
    "AWQ + RTN W4A16_ASYM": ("QuantizationModifier", "W4A16_ASYM", True, "AWQModifier: {}"),
}
# Without a scheme: pruned and left dense.
SPARSE_24 = "SparseGPTModifier: {sparsity: 0.5, mask_structure: '2:4', ignore: ['re:.*lm_head']}"
PRUNING = {
    "SparseGPT 50 %": ("", "", True, "SparseGPTModifier: {sparsity: 0.5, ignore: ['re:.*lm_head']}"),
    "SparseGPT 2:4": ("", "", True, SPARSE_24),
    "SparseGPT 2:4 + FP8_DYNAMIC": ("QuantizationModifier", "FP8_DYNAMIC", True, SPARSE_24),
    "Wanda 2:4": ("", "", True, SPARSE_24.replace("SparseGPTModifier", "WandaPruningModifier")),
}
PLAIN = list(RECIPES)
RECIPES.update(SMOOTHING | PRUNING)


# A process begins with the memory of the one that forked it, so a small one forks.
LAUNCHER = """
import os, subprocess, sys, time
log = open(sys.argv[1], "w")
start = time.monotonic()
process = subprocess.Popen(sys.argv[2:], stdout=log, stderr=log)
_, status, usage = os.wait4(process.pid, 0)
print(time.monotonic() - start, usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime, status)
"""


def measure(command, **extra):
    """Wall seconds, peak resident bytes and CPU seconds of a whole command with its children."""
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                       HF_HUB_OFFLINE="1", **{k: str(v) for k, v in extra.items()})
    log = WORK / "log.txt"
    run = subprocess.run([sys.executable, "-S", "-c", LAUNCHER, log, *map(str, command)],
                         capture_output=True, text=True, check=True, env=environment)
    seconds, peak, cpu, status = run.stdout.split()
    if status != "0":
        sys.exit(f"{' '.join(map(str, command))}: failed\n{log.read_text()[-3000:]}")
    return float(seconds), int(peak), float(cpu)


def write_recipe(name):
    modifier, scheme, _, *before = RECIPES[name]
    path = WORK / f"{name.replace(' ', '-')}.yaml"
    quantiser = (f"    {modifier}:\n      targets: [Linear]\n      ignore: [lm_head]\n"
                 f"      scheme: {scheme}\n") if modifier else ""
    path.write_text("quant_stage:\n  quant_modifiers:\n" + "".join(f"    {m}\n" for m in before) + quantiser)
    return path


def random_model():
    """The compute-bound model: hidden 1024, intermediate 2816, 4 layers."""
    path = WORK / "compute-bound"
    if path.exists():
        return path
    code = f"""
import torch, transformers
torch.manual_seed(0)
config = transformers.LlamaConfig(vocab_size=4096, hidden_size=1024, intermediate_size=2816,
    num_hidden_layers=4, num_attention_heads=16, num_key_value_heads=4, head_dim=64,
    max_position_embeddings=2048, bos_token_id=0, eos_token_id=1)
transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained({str(path)!r})
"""
    subprocess.run([PYTHON, "-c", code], check=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ROOT / "examples/tiny-llama" / name, path)
    return path


def text_rows(num_samples, length):
    """`num_samples` full rows of real text: this project's documentation and code."""
    files = sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md"))
    files += sorted((ROOT / "src").rglob("*.h")) + sorted((ROOT / "src").rglob("*.cc"))
    text = "\n".join(path.read_text() for path in files)
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(ROOT / "examples/tiny-llama/tokenizer.json")).encode(text).ids
    rows = [[0] + ids[i:i + length - 1] for i in range(0, len(ids) - length, length - 1)]
    path = WORK / f"rows-{num_samples}-{length}.jsonl"
    path.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows[:num_samples]))
    held = WORK / f"held-out-{length}.jsonl"
    held.write_text("".join(json.dumps({"input_ids": row}) + "\n"
                            for row in rows[num_samples:num_samples + 40]))
    return path, held


def written_rows(model, num_rows, length):
    """Held-out rows that `model` itself wrote. On other text the perplexities of equally
    good outputs of a small model differ by a percent, either way."""
    path = WORK / f"written-{num_rows}-{length}.jsonl"
    code = f"""
import json, torch, transformers
torch.manual_seed(5)
model = transformers.AutoModelForCausalLM.from_pretrained({str(model)!r}, dtype=torch.float32)
start = torch.full(({num_rows}, 1), model.config.bos_token_id or 0)
rows = model.generate(start, do_sample=True, top_k=0, max_length={length}, min_length={length},
                      pad_token_id=0).tolist()
with open({str(path)!r}, "w") as file:
    file.writelines(json.dumps({{"input_ids": row}}) + "\\n" for row in rows)
"""
    if not path.exists():
        subprocess.run([PYTHON, "-c", code], check=True, capture_output=True)
    return path


def output_error_ratio(model, rows, ours, theirs):
    """Sum over linears of tr(E H E^T), ours against theirs."""
    run = subprocess.run([PYTHON, ROOT / "bench/output_error.py", model, rows, ours, theirs],
                         check=True, capture_output=True, text=True)
    return f"{json.loads(run.stdout)['ratio']:.3f}"


def llmc_command(model, recipe, rows, output, calibrated, ranks=1):
    command = [BIN / "llmc", "compress", "--model", model, "--recipe", recipe, "--output", output,
               "--fresh", "--quiet", "--ranks", ranks]
    if calibrated:
        command += ["--dataset", rows, "--no-shuffle", "--max-seq-length", 512]
    return command


def perplexity(model, held):
    run = subprocess.run([BIN / "llmc", "eval", "--model", model, "--dataset", held, "--json",
                          "--max-seq-length", "512"], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)["perplexity"]


def gemm_rates():
    """GFLOP/s of one large product on all cores: the rate products are held against."""
    code = """
import json, time, torch
rates = {}
for name in ("float32", "bfloat16"):
    a = torch.randn(2048, 2048).to(getattr(torch, name)); b = a.clone(); a @ b
    best = 0
    for _ in range(6):
        start = time.perf_counter(); a @ b
        best = max(best, 2 * 2048 ** 3 / (time.perf_counter() - start) / 1e9)
    rates[name] = best
print(json.dumps(rates))
"""
    return json.loads(subprocess.run([PYTHON, "-c", code], capture_output=True, text=True,
                                     check=True).stdout)


def side_by_side(label, model, rows, held, names, repeats):
    lines = []
    for name in names:
        recipe, calibrated = write_recipe(name), RECIPES[name][2]
        ours, theirs = WORK / "ours", WORK / "theirs"
        best = None
        for _ in range(repeats):
            shutil.rmtree(ours, ignore_errors=True)
            shutil.rmtree(theirs, ignore_errors=True)
            mine = measure(llmc_command(model, recipe, rows, ours, calibrated))
            peer = measure([PYTHON, ROOT / "bench/peer_oneshot.py", model, recipe, theirs,
                            rows if calibrated else ""])
            pair = (peer[0] / mine[0], mine, peer)
            best = pair if best is None or abs(pair[1][0]) < abs(best[1][0]) else best
        ratio, mine, peer = best
        for directory in (ours, theirs):
            for file in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(model / file, directory)
        ppl = perplexity(ours, held), perplexity(theirs, held)
        # Smoothed weights have another basis: their errors cannot be compared so.
        error = output_error_ratio(model, rows, ours, theirs) if name.startswith("GPTQ") else ""
        lines.append(f"| {label} | {name} | {mine[0]:.1f} s | {peer[0]:.1f} s | {ratio:.1f}x | "
                     f"{mine[2]:.1f} s | {peer[2]:.1f} s | "
                     f"{mine[1] / 1e6:.0f} MB | {peer[1] / 1e6:.0f} MB | {peer[1] / mine[1]:.1f}x | "
                     f"{ppl[0]:.3f} | {ppl[1]:.3f} | {error} |")
        print(lines[-1], flush=True)
    return lines


def products(model, rows, rates, repeats):
    """Matrix products of one compute-bound GPTQ job and the time they need alone."""
    plan = subprocess.run([BIN / "llmc", "plan", "--model", model, "--recipe", WORK / "GPTQ-W4A16.yaml",
                           "--num-calibration-samples", "64", "--max-seq-length", "512", "--json"],
                          capture_output=True, text=True, check=True)
    flops = json.loads(plan.stdout)["matrix_product_flops"]
    seconds = min(measure(llmc_command(model, WORK / "GPTQ-W4A16.yaml", rows, WORK / "ours", True))[0]
                  for _ in range(repeats))
    return [f"| {name} | {rate:.0f} GFLOP/s | {flops / rate / 1e9:.1f} s | {seconds:.1f} s | "
            f"{seconds / (flops / rate / 1e9):.2f}x |" for name, rate in rates.items()]


def rank_scaling(model, rows, repeats):
    recipe = WORK / "GPTQ-W4A16.yaml"
    one = min(measure(llmc_command(model, recipe, rows, WORK / "ours", True), LLMC_THREADS=2)[0]
              for _ in range(repeats))
    two = min(measure(llmc_command(model, recipe, rows, WORK / "ours", True, ranks=2),
                      LLMC_THREADS=1)[0] for _ in range(repeats))
    return [f"| 1 rank of 2 threads | {one:.1f} s | |", f"| 2 ranks of 1 thread | {two:.1f} s | "
            f"{two / one:.2f}x |"]


def smoothing_cost(model, rows, repeats):
    """Wall seconds of W8A8 runs with SmoothQuant before them and without, in turns."""
    lines = ["| recipe | alone | after SmoothQuant | ratio |", "|---|---|---|---|"]
    for name in ("RTN W8A8", "GPTQ W8A8"):
        recipes = write_recipe(name), write_recipe(f"SmoothQuant 0.8 + {name}")
        times = [[], []]
        for _ in range(repeats):
            for recipe, taken in zip(recipes, times):
                # Rounding to nearest alone reads no data.
                calibrated = name != "RTN W8A8" or recipe is recipes[1]
                taken.append(measure(llmc_command(model, recipe, rows, WORK / "ours", calibrated))[0])
        alone, smoothed = map(min, times)
        lines.append(f"| {name} | {alone:.2f} s | {smoothed:.2f} s | {smoothed / alone:.2f}x |")
    return lines


def write_table(text):
    page = ROOT / "docs/benchmarks.md"
    before, _, rest = page.read_text().partition("<!-- begin -->")
    _, _, after = rest.partition("<!-- end -->")
    page.write_text(before + "<!-- begin -->\n" + text + "\n<!-- end -->" + after)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="the shipped model only")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=[], metavar="RECIPE",
                        help=f"print the rows of these alone: {', '.join(RECIPES)}")
    parser.add_argument("--model", choices=["shipped", "twin", "compute-bound"], default="shipped",
                        help="of --only")
    parser.add_argument("--rows", type=int, default=64, help="calibration rows of 512 tokens")
    parser.add_argument("--smoothing-cost", action="store_true",
                        help="print what SmoothQuant adds to the run that it precedes")
    arguments = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    rows, held = text_rows(arguments.rows, 512)
    shipped = ROOT / "examples/tiny-llama"
    table = ["| model | recipe | llmc | llmcompressor | faster | llmc CPU | its CPU | llmc peak | its peak | "
             "smaller | llmc perplexity | its perplexity | output error, of its |",
             "|---|---|---|---|---|---|---|---|---|---|---|---|---|"]
    written = written_rows(shipped, 48, 512)
    if arguments.smoothing_cost:
        print("\n".join(smoothing_cost(make_twin(shipped, WORK / "twin"), rows, arguments.repeats)))
        return
    if arguments.only:
        print("\n".join(table))
        model = {"shipped": lambda: shipped, "twin": lambda: make_twin(shipped, WORK / "twin"),
                 "compute-bound": random_model}[arguments.model]()
        side_by_side(arguments.model, model, rows, held if arguments.model == "compute-bound"
                     else written, arguments.only, arguments.repeats)
        return
    table += side_by_side("shipped", shipped, rows, written, [*PLAIN, *PRUNING], arguments.repeats)
    twin = make_twin(shipped, WORK / "twin")
    table += side_by_side("outlier twin", twin, rows, written,
                          ["RTN W8A8", "GPTQ W8A8", *SMOOTHING], arguments.repeats)
    if not arguments.quick:
        bound = random_model()
        table += side_by_side("compute-bound", bound, rows, held,
                              ["GPTQ W4A16", "GPTQ W8A8", *list(PRUNING)[:2]], arguments.repeats)
        rates = gemm_rates()
        table += ["", "Compute-bound GPTQ W4A16 against its matrix products alone, at the rate of one "
                  "2048 x 2048 product on all cores in the same run:", "",
                  "| type | rate | products alone | llmc | ratio |", "|---|---|---|---|---|"]
        table += products(bound, rows, rates, arguments.repeats)
        table += ["", "| compute-bound GPTQ W4A16 | wall time | ratio |", "|---|---|---|"]
        table += rank_scaling(bound, rows, arguments.repeats)
    write_table("\n".join(table))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
