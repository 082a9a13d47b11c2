"""The fence around MLflow leaves the process as it found it. Without MLflow's stores: those are integration."""

import logging
import os
import subprocess
import sys
import warnings

import pytest

from smoothcert.tracking.quiet import quiet_mlflow

NAMES = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_DISABLE_TELEMETRY")


def test_variables_are_set_inside_and_gone_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    with quiet_mlflow():
        assert all(os.environ[name] for name in NAMES)
        with quiet_mlflow():
            pass
        assert all(os.environ[name] for name in NAMES), "an inner fence does not open the outer one"
    assert dict(os.environ) == before


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
    with quiet_mlflow():
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "5"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "5"


def test_loggers_and_warnings_are_restored_also_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_mlflow():
        pass  # MLflow's loggers are configured from here on
    logger = logging.getLogger("mlflow")
    level, filters = logger.level, list(warnings.filters)
    with pytest.raises(RuntimeError), quiet_mlflow():
        logging.getLogger("mlflow.store.db.utils").error("chatter")
        logging.getLogger("alembic.runtime.migration").warning("chatter")
        warnings.warn("chatter", DeprecationWarning, stacklevel=1)
        raise RuntimeError
    assert logger.level == level and list(warnings.filters) == filters
    assert "chatter" not in "".join(capfd.readouterr())


def test_importing_the_room_does_not_import_mlflow() -> None:
    code = "import sys, smoothcert.tracking; print(sorted({'mlflow', 'torch', 'ray'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
