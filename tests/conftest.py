"""How the tests share two processes (`make test`): one has all tests on the shared Ray cluster, one after the other,
and the other those that start a Ray of their own; the rest goes file by file to whichever has time.
"""

from typing import Any

import pytest

OWN_RAY = (
    "tests/integration/cluster/test_driver.py",
    "tests/integration/cluster/test_stores.py",
    "tests/integration/s3/",
    "tests/integration/test_attack_ray.py",
    "tests/integration/test_certify_ray.py",
)
SHARED_RAY = ("tests/integration/cluster/",)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class ByRay(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith(OWN_RAY):
                return "own ray"
            return "shared ray" if nodeid.startswith(SHARED_RAY) else nodeid.partition("::")[0]

    return ByRay(config, log)
