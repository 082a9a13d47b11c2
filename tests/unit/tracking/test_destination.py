from pathlib import Path

import pytest

from smoothcert.errors import TrackingError
from smoothcert.job import TrackingSection
from smoothcert.tracking.destination import destination

NAMED = TrackingSection(uri="http://me:hunter2@job.example:5000/base/")
DEFAULT = TrackingSection()


@pytest.fixture(autouse=True)
def _no_server_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_a_local_run_has_its_store_beside_it(tmp_path: Path) -> None:
    found = destination(str(tmp_path / "runs" / "a"), DEFAULT)
    assert found.uri == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert found.artifacts == f"file://{tmp_path}/runs/mlflow-artifacts"
    assert found.database == tmp_path / "runs/mlflow.db"
    assert found.how_to_look("1", "r") == (
        f"mlflow ui --backend-store-uri {found.uri}, then open "
        "http://127.0.0.1:5000/#/experiments/1/runs/r?workflowType=machine_learning"
    )
    assert found.page("1", "r") == found.uri
    assert not (tmp_path / "runs").exists(), "nothing is made by asking"


def test_relative_and_file_urls_are_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = destination(str(tmp_path / "runs/a"), DEFAULT)
    assert destination("runs/a", DEFAULT) == wanted
    assert destination(f"file://{tmp_path}/runs/a/", DEFAULT) == wanted


def test_the_job_comes_before_the_environment_before_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://env.example")
    assert destination(str(tmp_path / "a"), NAMED).uri == NAMED.uri
    assert destination(str(tmp_path / "a"), DEFAULT).uri == "http://env.example"
    assert destination(str(tmp_path / "a"), DEFAULT).artifacts is None, "a server knows where artifacts go"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert destination(str(tmp_path / "a"), DEFAULT).uri.startswith("sqlite:///")


def test_addresses_are_shown_without_credentials() -> None:
    found = destination("memory://runs/a", NAMED)
    assert found.uri == NAMED.uri
    assert found.page("7", "abc") == (
        "http://job.example:5000/base/#/experiments/7/runs/abc?workflowType=machine_learning"
    )
    assert "hunter2" not in found.shown + found.how_to_look("7", "abc")


def test_a_remote_run_needs_a_server() -> None:
    with pytest.raises(TrackingError, match="memory://runs/a") as caught:
        destination("memory://runs/a", DEFAULT)
    for way_out in ("tracking.uri", "MLFLOW_TRACKING_URI", "tracking.enabled"):
        assert way_out in caught.value.remedy
