"""Metrics, logs and the page."""
import json
import re
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request

import pytest
from control_tower import (MODEL, SOURCE, Pool, check_history, get, job_events, job_pb2, job_service_pb2,
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
    assert value("llmc_jobs", state="SUCCEEDED", method="calibrated") == 1
    assert value("llmc_jobs", state="CANCELLED", method="calibrated") == 1
    assert value("llmc_jobs_submitted_total", method="calibrated") == 2
    assert value("llmc_jobs_finished_total", method="calibrated", state="SUCCEEDED") == 1
    assert value("llmc_layers_completed_total", method="calibrated") == ended.plan.num_layers
    linears = value("llmc_layer_relative_error_ratio_count", method="GPTQ")
    assert linears == ended.plan.num_quantized_modules
    for phase in ("Load", "Capture", "Reduce", "Solve", "Propagate", "Write"):
        # Two ranks, every layer; nothing comes after the last one.
        layers = ended.plan.num_layers - (phase == "Propagate")
        assert value("llmc_layer_duration_seconds_count", method="calibrated", phase=phase) >= \
            2 * layers, phase
    assert value("llmc_numeric_anomalies_total", kind="fallback") == 0
    assert value("grpc_server_handled_total", grpc_service="llmc.v1.JobService",
                 grpc_method="CreateJob", grpc_code="OK") == 2
    families = set(re.findall(r"^# TYPE (\S+)", page, re.M))
    assert {"llmc_build_info", "llmc_job_duration_seconds", "llmc_job_queue_wait_seconds",
            "llmc_queue_oldest_submit_timestamp_seconds", "llmc_job_requeues_total", "llmc_pools",
            "llmc_lease_renewals_total", "llmc_watch_streams", "llmc_store_size_bytes",
            "llmc_store_commit_duration_seconds", "grpc_server_handling_seconds",
            "process_resident_memory_bytes", "process_start_time_seconds",
            "process_cpu_seconds_total", "process_open_fds", "llmc_state_volume_bytes",
            "llmc_store_failing", "llmc_auth_failures_total"} <= families


def test_ranks_report_what_they_read_wrote_computed_and_waited_for(coordinator, stub, root):
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, ranks=2, name="twins"):
        wait_for_end(stub, job.name)
        ranks = [{"pool": "twins", "rank": str(r)} for r in range(2)]

        def total(name, **more):
            found = samples(coordinator)
            return sum(found.get((name, tuple(sorted({**r, **more}.items()))), 0) for r in ranks)

        # The last counters come with the next sign of life of each rank.
        layer_bytes = sum(p.stat().st_size for p in (root / "out").glob("*.safetensors")) // 2
        wait_until(lambda: total("llmc_output_written_bytes_total") > layer_bytes,
                   "what was written is counted")
        tokens = json.loads(stub.GetReport(job_service_pb2.GetReportRequest(
            name=job.name)).report_json)["calibration"]["num_tokens"]
        wait_until(lambda: total("llmc_calibration_tokens_total") >= tokens * job.plan.num_layers,
                   "every token is counted once a layer")
        assert total("llmc_model_read_bytes_total") > layer_bytes
        for op in ("reduce", "broadcast", "gather", "barrier"):
            assert total("llmc_collective_seconds_total", op=op) > 0, op
        assert total("llmc_collective_bytes_total", op="reduce") > 0
        assert total("llmc_rank_wait_seconds_total") == pytest.approx(sum(
            total("llmc_collective_seconds_total", op=op)
            for op in ("reduce", "broadcast", "gather", "barrier")), rel=.5)
        assert total("llmc_host_memory_bytes", kind="limit") > \
            total("llmc_host_memory_bytes", kind="used") > 0
        assert total("llmc_rank_cpu_seconds_total") > 0
        assert ("llmc_pools", (("state", "connected"),)) in samples(coordinator)
    wait_until(lambda: not any("twins" in str(key) for key in samples(coordinator)),
               "series of a pool go with it")


RULES = SOURCE / "deploy/prometheus"


def test_alerts_fire_when_they_shall():
    import yaml

    rules = subprocess.run(["promtool", "check", "rules", "--lint=all", "--lint-fatal",
                            str(RULES / "llmc-alerts.yml")], capture_output=True, text=True)
    assert rules.returncode == 0, rules.stdout + rules.stderr
    fired = subprocess.run(["promtool", "test", "rules", str(RULES / "llmc-alerts-test.yml")],
                           capture_output=True, text=True)
    assert fired.returncode == 0, fired.stdout + fired.stderr
    alerts = {r["alert"] for g in yaml.safe_load((RULES / "llmc-alerts.yml").read_text())["groups"]
              for r in g["rules"]}
    tested = {case["alertname"]
              for test in yaml.safe_load((RULES / "llmc-alerts-test.yml").read_text())["tests"]
              for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert alerts == tested, "every alert has a case in which it fires"
    documented = (SOURCE / "docs/operations.md").read_text()
    assert all(alert in documented for alert in alerts)


def test_alerts_name_metrics_that_exist(coordinator, stub, root):
    job = submit(stub, spec(root, "out"))
    with Pool(coordinator.address, root, LLMC_FAILPOINTS="layer.load=sleep(60000)"):
        wait_until(lambda: get(stub, job.name).progress.num_layers, "the job has begun")
        page = coordinator.read("/metrics")
    exported = set(re.findall(r"^([a-z_]+)[ {]", page, re.M))
    used = set(re.findall(r"\bllmc_[a-z_]+", (RULES / "llmc-alerts.yml").read_text()))
    # Only a coordinator with TLS has it; test_security reads it there.
    used.discard("llmc_tls_certificate_expiry_timestamp_seconds")
    assert used and used <= exported, used - exported


@pytest.mark.skipif(not shutil.which("prometheus"), reason="no prometheus on this host")
def test_a_real_prometheus_scrapes_it(coordinator, root):
    port = free_port()
    (root / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: llmc\n  static_configs:\n"
        f"  - targets: ['127.0.0.1:{coordinator.http_port}']\n"
        f"rule_files: ['{SOURCE}/deploy/prometheus/llmc-alerts.yml']\n")
    server = subprocess.Popen(
        ["prometheus", f"--config.file={root}/prometheus.yml", f"--storage.tsdb.path={root}/tsdb",
         f"--web.listen-address=127.0.0.1:{port}"], stderr=subprocess.DEVNULL)

    def ask(path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}",
                                        timeout=5) as answer:
                return json.load(answer)["data"]
        except OSError:
            return None

    def value_of(query):
        found = ask("query?query=" + urllib.parse.quote(query))
        return found and found["result"] and float(found["result"][0]["value"][1])

    try:
        assert wait_until(lambda: value_of('llmc_build_info{component="coordinator"}'),
                          "prometheus has the metric") == 1
        assert value_of("up") == 1
        stub = coordinator.stub()
        for i in range(3):
            submit(stub, spec(root, f"out{i}"))
        wait_until(lambda: value_of('sum(llmc_jobs{state="QUEUED"})') == 3, "it sees the queue")

        def rules():
            groups = (ask("rules") or {"groups": []})["groups"]
            found = [r for g in groups for r in g["rules"]]
            return found if found and all(r["health"] == "ok" for r in found) else None

        assert len(wait_until(rules, "every rule was evaluated")) >= 14
    finally:
        server.kill()
        server.wait()


def test_logs_are_json_with_the_job(coordinator, ended):
    lines = [json.loads(line) for line in coordinator.log.read_text().splitlines()]
    moves = [(line["from"], line["to"]) for line in lines
             if line.get("job") == "first" and "from" in line]
    assert moves[0] == ("UNSPECIFIED", "QUEUED") and moves[-1][1] == "SUCCEEDED"


def test_every_rank_logs_its_steps_as_json(ended, root):
    lines = []
    for line in (root / "pool-pool.log").read_text().splitlines():
        if line.startswith("{"):
            lines.append(json.loads(line))
    steps = [(e["rank"], e["step"], e["layer"]) for e in lines if e["message"] == "step done"]
    assert {rank for rank, _, _ in steps} == {0, 1}
    for layer in range(ended.plan.num_layers):
        assert {(r, s, layer) for r in (0, 1) for s in ("Capture", "Solve", "Write")} <= set(steps)
    assert all(e["job"] == "first" and float(e["time"]) > 0 for e in lines if "step" in e)


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


@pytest.fixture
def page(browser, coordinator):
    """A tab that notes errors and every request; nothing may come from elsewhere."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    tab = context.new_page()
    errors, requests = [], []
    tab.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    tab.on("pageerror", lambda e: errors.append(str(e)))
    tab.on("dialog", lambda d: (errors.append("dialog"), d.dismiss()))
    tab.on("request", lambda r: requests.append(r.url))
    base = coordinator.url("")
    context.route(lambda url: not url.startswith((base, "data:")), lambda route: route.abort())
    yield tab
    assert not errors, errors
    assert all(url.startswith((base, "data:")) for url in requests), requests
    context.close()


def check_accessible(page):
    """Graphics and bars have names, every link has text, headings begin with one h1."""
    assert page.evaluate("[...document.querySelectorAll('[role=img],progress,pre,section')]"
                         ".filter(n => !n.getAttribute('aria-label')).length") == 0
    assert page.evaluate("[...document.querySelectorAll('a')]"
                         ".filter(n => !n.textContent.trim()).length") == 0
    assert page.evaluate("document.querySelectorAll('h1').length") == 1
    # Text that is dim must still be read: WCAG asks for 4.5 to 1.
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("""() => {
          const light = c => { const v = c.match(/[\\d.]+/g).slice(0, 3).map(x => x / 255)
            .map(x => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4);
            return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
          const back = light(getComputedStyle(document.body).backgroundColor);
          return [...document.querySelectorAll('.dim,th,.state,a')].every(n => {
            const fore = light(getComputedStyle(n).color);
            return (Math.max(fore, back) + .05) / (Math.min(fore, back) + .05) >= 4.5;
          });
        }"""), scheme


def check_phone_width(page):
    page.set_viewport_size({"width": 360, "height": 740})
    page.wait_for_function("document.documentElement.scrollWidth <= innerWidth")
    page.set_viewport_size({"width": 1200, "height": 900})


def test_the_page_of_an_empty_queue_says_how_to_begin(coordinator, page):
    page.goto(coordinator.url("/"))
    page.get_by_text("No pool is attached.").wait_for()
    page.get_by_text("No job yet.").wait_for()
    assert page.locator("#counts li").count() == 6
    check_accessible(page)
    check_phone_width(page)


def test_the_page_shows_queue_ranks_and_layers_live(coordinator, stub, root, page):
    page.goto(coordinator.url("/"))
    page.get_by_text("No job yet.").wait_for()
    stub.CreateJob(job_service_pb2.CreateJobRequest(job_id="shown", job=job_pb2.Job(
        spec=spec(root, "out"))))
    page.get_by_text("waits for a pool; none is attached").wait_for()
    with Pool(coordinator.address, root, ranks=2, name="eight<b>",
              LLMC_FAILPOINTS="layer.load=sleep(700)"):
        page.locator("ul.layers li.now").first.wait_for(timeout=60000)
        assert page.locator("ul.ranks li").count() == 2
        assert page.get_by_role("region", name="Pool eight<b>").count() == 1
        check_accessible(page)
        check_phone_width(page)
        page.locator(".state-SUCCEEDED").wait_for(timeout=60000)
    page.get_by_text("No pool is attached.").wait_for(timeout=60000)


def test_the_page_of_a_job_shows_what_every_rank_did(coordinator, stub, root, page):
    shutil.copytree(MODEL, root / "<img src=x onerror=alert(1)>")
    job = stub.CreateJob(job_service_pb2.CreateJobRequest(job_id="shown", job=job_pb2.Job(
        spec=spec(root, "out", model=str(root / "<img src=x onerror=alert(1)>")),
        labels={"note": HOSTILE, HOSTILE[:20]: "x"})))
    page.goto(coordinator.url("/jobs/shown"))
    page.get_by_text("a pool; none is attached").wait_for()
    with Pool(coordinator.address, root, ranks=2):
        wait_for_end(stub, job.name)
        # Live: the page that was open follows to the end.
        page.locator("h2 .state-SUCCEEDED").wait_for()
        page.get_by_role("link", name="Report").wait_for()
    plan = get(stub, job.name).plan
    assert page.locator("#errors rect").count() == plan.num_layers
    spans = page.locator("#gantt rect").count()
    assert spans >= 2 * 6 * plan.num_layers
    assert page.locator("#memory polyline").count() == 2
    assert page.locator("#partition tbody tr").count() == 2
    assert "SUCCEEDED" in page.locator("#history").inner_text()
    log = page.locator("#log").inner_text()
    assert "rank 1  Solve of layer 0" in log
    assert page.get_by_text(HOSTILE).count() == 1
    check_accessible(page)
    check_phone_width(page)
    # Whoever comes late sees the same.
    page.reload()
    page.locator("#gantt").wait_for()
    assert page.locator("#gantt rect").count() == spans
    assert page.locator("#log").inner_text() == log
    page.get_by_role("link", name="Report").click()
    page.wait_for_url("**/report")
    assert check_history(job_events(coordinator, job.name)) == "SUCCEEDED"


def test_the_page_of_a_failed_job_says_why(coordinator, stub, root, page):
    job = submit(stub, spec(root, "out"), job_id="bad")
    (root / "text.jsonl").write_text('{"<b>": 1}\n')
    with Pool(coordinator.address, root):
        wait_for_end(stub, job.name)
    page.goto(coordinator.url("/jobs/bad"))
    note = page.locator(".note")
    note.wait_for()
    assert get(stub, job.name).error.message in note.inner_text()
    page.goto(coordinator.url("/"))
    page.locator("td .why").wait_for()
    assert page.locator("#counts").inner_text().split()[8:10] == ["1", "failed"]
    check_accessible(page)


def test_the_page_of_no_job_says_so(browser, coordinator):
    tab = browser.new_page()
    tab.goto(coordinator.url("/jobs/none"))
    tab.get_by_text("no such job").wait_for()
    tab.close()


def test_the_pages_policy_allows_nothing_from_elsewhere(coordinator):
    for path in ("/", "/jobs/x", "/api/state", "/metrics"):
        headers = urllib.request.urlopen(coordinator.url(path)).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe-inline" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_hostile_paths_are_not_found(coordinator):
    import urllib.error

    for path in ("/jobs/../../etc/passwd", "/api/jobs/%2e%2e", "/page.css/../x", "/jobs/A<b>",
                 "/api/jobs/x?after=-1", "/api/jobs/x?after=x"):
        with pytest.raises(urllib.error.HTTPError):
            coordinator.read(path)
