"""How the tests share two processes (`make test`): one runs what starts Ray, one after the other; the other runs the
rest meanwhile, file by file."""

from typing import Any

import pytest

STARTS_RAY = ("tests/integration/cluster/", "tests/integration/s3/", "tests/integration/test_attack_ray.py")
STARTS_RAY += ("tests/integration/test_certify_ray.py",)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class RayTogether(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "ray" if nodeid.startswith(STARTS_RAY) else nodeid.partition("::")[0]

    return RayTogether(config, log)
