"""How fast llmc answers, and what a resumed run costs. Prints two tables.

Resumed at layer k, a run must bring the samples to layer k again: it may cost the
uninterrupted run's propagation of k layers, beside the layers that were missing."""
import json
import shutil
import statistics
import subprocess

import side_by_side as bench

NUM_STARTS = 30


def starts():
    model = bench.ROOT / "examples/tiny-llama"
    commands = {"llmc --help": [bench.BIN / "llmc", "--help"],
                "llmc plan": [bench.BIN / "llmc", "plan", "--model", model, "--recipe", "W4A16"]}
    print("| command | median | slowest of", NUM_STARTS, "|\n|---|---|---|")
    for name, command in commands.items():
        times = [bench.measure(command)[0] * 1000 for _ in range(NUM_STARTS)]
        print(f"| `{name}` | {statistics.median(times):.0f} ms | {max(times):.0f} ms |")


def layer_times(output):
    """Seconds of every layer, and of its Propagate alone, from the run's report."""
    steps = json.loads((output / "llmc_report/report.json").read_text())["steps"]
    whole, propagate = {}, {}
    for step, layer, begin, end in zip(steps["step"], steps["layer"], steps["begin_s"],
                                       steps["end_s"]):
        if layer >= 0:
            whole[layer] = whole.get(layer, 0) + end - begin
            if step == "Propagate":
                propagate[layer] = end - begin
    return whole, propagate


def resumes():
    model = bench.random_model()
    rows, _ = bench.text_rows(64, 512)
    recipe, output = bench.write_recipe("GPTQ W4A16"), bench.WORK / "resumed"
    command = [word for word in bench.llmc_command(model, recipe, rows, output, True)
               if word != "--fresh"]
    print("\n| resumed at layer | resumed run | layers that were missing | "
          "propagation, uninterrupted | cost | cost / propagation |\n|---|---|---|---|---|---|")
    for layer in (1, 2, 3):
        for leftover in bench.WORK.glob("resumed*"):
            shutil.rmtree(leftover)
        whole_run = bench.measure(command)[0]
        whole, propagate = layer_times(output)
        shutil.rmtree(output)
        killed = subprocess.run(list(map(str, command)), capture_output=True,
                                env={"LLMC_FAILPOINTS": f"layer.load=kill@{layer + 1}"})
        assert killed.returncode != 0
        resumed = bench.measure(command)[0]
        missing = whole_run - sum(whole[i] for i in range(layer))
        again = sum(propagate[i] for i in range(layer))
        print(f"| {layer} | {resumed:.1f} s | {missing:.1f} s | {again:.1f} s | "
              f"{resumed - missing:.1f} s | {(resumed - missing) / again:.2f}x |", flush=True)


if __name__ == "__main__":
    bench.WORK.mkdir(parents=True, exist_ok=True)
    starts()
    resumes()
