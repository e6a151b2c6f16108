import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "service"))
from conftest_service import coordinator, reference, root, stub  # noqa: E402,F401


def pytest_addoption(parser):
    parser.addoption("--all-cases", action="store_true",
                     help="every case of the table; else one of each kind")


def pytest_configure(config):
    config.addinivalue_line("markers", "row(number, ...): rows of docs/faults.md it covers")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--all-cases"):
        return
    first_of_kind = {}
    for item in items:
        first_of_kind.setdefault((item.path, item.originalname), item)
    items[:] = first_of_kind.values()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """What the processes of a failed case said is part of its report."""
    report = (yield).get_result()
    if not report.failed or "root" not in getattr(item, "funcargs", {}):
        return
    for log in sorted(pathlib.Path(item.funcargs["root"]).glob("*.log")):
        report.sections.append((log.name, log.read_text(errors="replace")[-4000:]))
