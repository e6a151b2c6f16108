"""What a run leaves for people: the report, the JSON on stdout, the progress lines."""
import re
import shutil

from conftest import llmc


def test_report_opens_in_a_browser(gptq, text, tmp_path):
    from playwright.sync_api import sync_playwright

    run = llmc(*gptq, "--output", tmp_path / "out", "--eval-dataset", text)
    assert run.code == 0, run.err
    page_url = (tmp_path / "out/llmc_report/report.html").as_uri()
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_context(offline=True).new_page()
        errors, requests = [], []
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.on("request", lambda r: requests.append(r.url))
        page.goto(page_url)
        body = page.inner_text("body")
        assert page.locator("svg").count() >= 3
        browser.close()
    assert not errors and requests == [page_url]
    assert "model.layers.2.mlp.down_proj" in body and "GPTQ" in body
    assert "llmc-worker" in body or "llmc compress" in body


def test_json_is_one_object_and_progress_stays_on_stderr(gptq, tmp_path):
    run = llmc(*gptq, "--output", tmp_path / "out", "--json")
    report = run.json()
    assert report["verdict"] == "succeeded"
    assert {row["module"] for row in report["linears"]} >= {"model.layers.0.self_attn.q_proj"}
    assert all(row["output_error"] > 0 for row in report["linears"])
    assert "layer 2" in run.err


def test_errors_are_json_too(tmp_path):
    run = llmc("compress", "--model", "/nowhere", "--recipe", "W4A16", "--output", tmp_path / "o",
               "--json")
    assert run.code == 2
    assert run.json()["error"]["code"] == "NOT_FOUND"


def test_tokenize_rows_are_what_calibration_uses(gptq, model, text, tmp_path):
    rows = tmp_path / "rows.jsonl"
    run = llmc("tokenize", "--model", model, "--dataset", text, "--num-calibration-samples", 180,
               "--max-seq-length", 256, "--output", rows, "--json")
    assert run.code == 0, run.err
    assert llmc(*gptq, "--output", tmp_path / "a").code == 0
    again = ["compress", "--model", model, "--recipe", "W4A16", "--dataset", rows, "--no-shuffle",
             "--num-calibration-samples", 180, "--max-seq-length", 256]
    assert llmc(*again, "--output", tmp_path / "b").code == 0
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert a == b


def test_inspect_and_eval(gptq, model, text, tmp_path):
    assert llmc(*gptq, "--output", tmp_path / "out").code == 0
    assert "int4" in llmc("inspect", tmp_path / "out").out
    result = llmc("eval", "--model", tmp_path / "out", "--against", model, "--dataset", text,
                  "--max-seq-length", 128, "--num-windows", 8, "--json").json()
    assert result["num_windows"] == 8 and result["kl_mean"] > 0
    two = llmc("eval", "--model", tmp_path / "out", "--against", model, "--dataset", text,
               "--max-seq-length", 128, "--num-windows", 8, "--json", "--ranks", 2).json()
    assert two["perplexity"] == result["perplexity"]


def test_a_resumed_run_says_what_it_kept(gptq, tmp_path):
    out = tmp_path / "out"
    assert llmc(*gptq, "--output", out, LLMC_FAILPOINTS="layer.load=kill@3").code != 0
    report = llmc(*gptq, "--output", out, "--json").json()
    (earlier,) = report["resumed_from"]
    assert earlier["layers_done"] == 2
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", earlier["when"])
    assert earlier["when"] <= report["started_at"]
