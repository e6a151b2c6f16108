import shutil
import subprocess

import pytest
from control_tower import BIN, Coordinator, MODEL, digest, environment, write_text


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """The bytes of the small job, made without any service."""
    root = tmp_path_factory.mktemp("reference")
    write_text(root / "text.jsonl")
    subprocess.run([str(BIN / "llmc-worker"), "compress", "--model", str(MODEL), "--recipe",
                    "W4A16", "--dataset", str(root / "text.jsonl"), "--output", str(root / "out"),
                    "--num-calibration-samples", "32", "--max-seq-length", "64", "--quiet"],
                   check=True, env=environment(), capture_output=True)
    return digest(root / "out")


@pytest.fixture
def root(tmp_path):
    write_text(tmp_path / "text.jsonl")
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def coordinator(root):
    """One with short terms, so that losses are found soon."""
    with Coordinator(root, "--lease-ttl-ms", 8000, "--heartbeat-interval-ms", 500,
                     "--rank-silence-ms", 5000, "--backoff-ms", 200) as started:
        yield started


@pytest.fixture
def stub(coordinator):
    return coordinator.stub()
