"""Metrics, logs and the page."""
import json
import re
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request

import pytest
from control_tower import (SOURCE, Pool, check_history, get, job_events, job_pb2, job_service_pb2,
                           spec, submit, wait_for_end, wait_until)
from prometheus_client.parser import text_string_to_metric_families


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def samples(coordinator):
    return {(s.name, tuple(sorted(s.labels.items()))): s.value
            for f in text_string_to_metric_families(coordinator.read("/metrics")) for s in f.samples}


@pytest.fixture
def ended(coordinator, stub, root):
    """A coordinator that has seen a job through, one wait and one cancellation."""
    job = submit(stub, spec(root, "out"), job_id="first")
    cancelled = submit(stub, spec(root, "other"), job_id="second")
    stub.CancelJob(job_service_pb2.CancelJobRequest(name=cancelled.name))
    with Pool(coordinator.address, root, "--once", ranks=2) as pool:
        wait_for_end(stub, job.name)
        pool.wait()
    return get(stub, job.name)


def test_metrics_pass_promtool_and_equal_the_jobs(coordinator, ended):
    page = coordinator.read("/metrics")
    if shutil.which("promtool"):
        check = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True,
                               text=True)
        assert check.returncode == 0, check.stdout + check.stderr
    found = samples(coordinator)
    value = lambda name, **labels: found[(name, tuple(sorted(labels.items())))]  # noqa: E731
    assert value("llmc_jobs", state="SUCCEEDED") == 1
    assert value("llmc_jobs", state="CANCELLED") == 1
    assert value("llmc_jobs_submitted_total", method="calibrated") == 2
    assert value("llmc_jobs_finished_total", method="calibrated", state="SUCCEEDED") == 1
    assert value("llmc_layers_completed_total") == ended.plan.num_layers
    linears = value("llmc_layer_relative_error_ratio_count")
    assert linears == ended.plan.num_quantized_modules
    assert value("llmc_layer_duration_seconds_count", phase="Solve") > 0
    assert value("grpc_server_handled_total", grpc_service="llmc.v1.JobService",
                 grpc_method="CreateJob", grpc_code="OK") == 2
    families = set(re.findall(r"^# TYPE (\S+)", page, re.M))
    assert {"llmc_build_info", "llmc_job_duration_seconds", "llmc_job_queue_wait_seconds",
            "llmc_queue_oldest_submit_timestamp_seconds", "llmc_job_requeues_total", "llmc_pools",
            "llmc_lease_renewals_total", "llmc_watch_streams", "llmc_store_size_bytes",
            "llmc_store_commit_duration_seconds", "grpc_server_handling_seconds",
            "process_resident_memory_bytes", "process_start_time_seconds"} <= families


@pytest.mark.skipif(not shutil.which("prometheus"), reason="no prometheus on this host")
def test_a_real_prometheus_scrapes_it(coordinator, root):
    port = free_port()
    (root / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: llmc\n  static_configs:\n"
        f"  - targets: ['127.0.0.1:{coordinator.http_port}']\n")
    server = subprocess.Popen(
        ["prometheus", f"--config.file={root}/prometheus.yml", f"--storage.tsdb.path={root}/tsdb",
         f"--web.listen-address=127.0.0.1:{port}"], stderr=subprocess.DEVNULL)

    def scraped():
        query = urllib.parse.quote('llmc_build_info{component="coordinator"}')
        try:
            with urllib.request.urlopen(
                    f"http://127.0.0.1:{port}/api/v1/query?query={query}", timeout=5) as answer:
                return json.load(answer)["data"]["result"]
        except OSError:
            return None

    try:
        assert wait_until(scraped, "prometheus has the metric")[0]["value"][1] == "1"
    finally:
        server.kill()
        server.wait()


def test_logs_are_json_with_the_job(coordinator, ended):
    lines = [json.loads(line) for line in coordinator.log.read_text().splitlines()]
    moves = [(line["from"], line["to"]) for line in lines if line.get("job") == "first"]
    assert moves[0] == ("UNSPECIFIED", "QUEUED") and moves[-1][1] == "SUCCEEDED"


def test_readiness_and_life(coordinator):
    assert coordinator.read("/healthz") == coordinator.read("/readyz") == "ok\n"


@pytest.fixture
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this host")
    with playwright.sync_playwright() as p:
        started = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


HOSTILE = "<img src=x onerror=alert(1)>\u202e'\""


def test_the_page_shows_queue_ranks_and_layers_live(coordinator, stub, root, browser):
    page = browser.new_context(viewport={"width": 1200, "height": 900}).new_page()
    errors, requests = [], []
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on("dialog", lambda d: (errors.append("dialog"), d.dismiss()))
    page.on("request", lambda r: requests.append(r.url))
    page.goto(coordinator.url("/"))
    page.get_by_text("No pool is attached.").wait_for()
    job = stub.CreateJob(job_service_pb2.CreateJobRequest(job_id="shown", job=job_pb2.Job(
        spec=spec(root, "out"), labels={"note": HOSTILE})))
    page.locator("#jobs tbody tr").wait_for()
    with Pool(coordinator.address, root, ranks=2, name="eight<b>",
              LLMC_FAILPOINTS="layer.load=sleep(700)"):
        page.locator("ul.layers li.now").first.wait_for(timeout=60000)
        assert page.locator("ul.ranks li").count() == 2
        assert page.get_by_role("region", name="Pool eight<b>").count() == 1
        page.locator(".state-SUCCEEDED").wait_for(timeout=60000)
    page.goto(coordinator.url("/jobs/shown"))
    for chart in ("#gantt", "#errors", "#memory", "#partition"):
        page.locator(chart).wait_for()
    assert page.locator("#gantt rect").count() > 10
    assert page.locator("#errors rect").count() == get(stub, job.name).plan.num_layers
    assert "SUCCEEDED" in page.locator("#log").inner_text()
    assert page.get_by_text(HOSTILE).count() == 1
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": 360, "height": 740})
        wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
        assert not wide, "no sideways scrolling at phone width"
    policy = urllib.request.urlopen(coordinator.url("/")).headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe-inline" not in policy
    unnamed = page.evaluate("[...document.querySelectorAll('svg,progress,pre')]"
                            ".filter(n => !n.getAttribute('aria-label')).length")
    assert unnamed == 0
    page.get_by_role("link", name="Report").click()
    page.wait_for_url("**/report")
    assert not errors, errors
    base = coordinator.url("")
    assert all(url.startswith(base) or url.startswith("data:") for url in requests), requests
    assert check_history(job_events(coordinator, job.name)) == "SUCCEEDED"
    assert SOURCE.exists()


def test_hostile_paths_are_not_found(coordinator):
    import urllib.error

    for path in ("/jobs/../../etc/passwd", "/api/jobs/%2e%2e", "/page.css/../x", "/jobs/A<b>"):
        with pytest.raises(urllib.error.HTTPError):
            coordinator.read(path)
