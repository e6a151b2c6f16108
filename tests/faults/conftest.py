import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "service"))
from conftest_service import coordinator, reference, root, stub  # noqa: E402,F401
