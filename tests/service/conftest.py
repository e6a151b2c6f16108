from conftest_service import coordinator, reference, root, stub  # noqa: F401
