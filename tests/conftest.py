"""How the tests share two processes (`make test`): one runs what starts Ray, servers and drivers, one after the other;
the other runs the rest meanwhile."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "integration" in item.path.parts:
            item.add_marker(pytest.mark.xdist_group("integration"))
