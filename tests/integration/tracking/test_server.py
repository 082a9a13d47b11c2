"""Tracking to servers: a real one, a dead one, one that never answers."""

import socket
from pathlib import Path

import pytest

from smoothcert.errors import TrackingError
from smoothcert.job import TrackingSection
from smoothcert.tracking import track_run
from smoothcert.tracking.quiet import quiet_mlflow
from smoothcert.tracking.study import mark_study

from .conftest import RunMaker


def test_a_server_by_uri_and_by_environment(
    make_run: RunMaker,
    server: tuple[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    address, home = server
    url, summary, job = make_run()
    result = track_run(url, summary, job, TrackingSection(uri=address, experiment="team"))
    page = (
        f"{address}/#/experiments/{result.experiment_id}/runs/{result.run_id}?workflowType=machine_learning"
    )
    assert result.url == page and result.how_to_look == f"open {page}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    again = track_run(url, summary, job, TrackingSection(experiment="team"))
    assert again.run_id == result.run_id and not again.created
    with quiet_mlflow():
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=address)
        run = client.get_run(result.run_id)
        files = {file.path for file in client.list_artifacts(result.run_id)}
    assert run.data.metrics["certified_accuracy_by_distribution/r0.25"] == 1.0
    assert run.data.params["certify.sigma"] == "0.5"
    assert run.data.tags["mlflow.parentRunId"] == result.parent_run_id
    assert len(run.inputs.dataset_inputs) == 1
    assert files == {"job.yaml", "summary.json", "figures.csv", "curves.png"}
    assert list((home / "artifacts").rglob("summary.json")), "the server keeps them, not this process"
    assert not (Path(url).parent / "mlflow.db").exists()
    assert capfd.readouterr() == ("", "")


def test_no_credential_reaches_mlflow_or_a_message(
    make_run: RunMaker,
    server: tuple[str, Path],
    beside: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address, home = server
    for name in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_TOKEN", "HF_TOKEN", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "CANARY-environment")
    url, summary, job = make_run()
    assert "CANARY-userinfo" in str(job.data.uri) and "CANARY-query" in str(job.data.uri)
    with_login = address.replace("http://", "http://me:CANARY-login@")
    shown = [repr(track_run(url, summary, job, TrackingSection(uri=uri))) for uri in (with_login, None)]
    with pytest.raises(TrackingError) as caught:
        track_run(
            url, summary, job, TrackingSection(uri="http://me:CANARY-login@127.0.0.1:9/x?token=CANARY-token")
        )
    shown += [str(caught.value)]
    assert not any("CANARY" in text for text in shown)
    kept = [tmp_path / "runs/mlflow.db", *(tmp_path / "runs/mlflow-artifacts").rglob("*"), *home.rglob("*")]
    assert len([path for path in kept if path.is_file()]) >= 6
    leaks = [path for path in kept if path.is_file() and b"CANARY" in path.read_bytes()]
    assert leaks == []


@pytest.mark.timeout(100)  # MLflow's own defaults wait for minutes
def test_a_dead_server_is_known_at_once(make_run: RunMaker) -> None:
    url, summary, job = make_run()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(TrackingError, match="cannot be reached: Connection refused") as caught:
            track_run(url, summary, job, TrackingSection(uri=address))
        with pytest.raises(TrackingError, match="Connection refused") as of_study:
            section = TrackingSection(uri=address)
            mark_study(f"{url}.study", job.model_copy(update={"tracking": section}), "RUNNING")
    assert address in caught.value.message and "smoothcert track RUN" in caught.value.remedy
    assert "smoothcert study FILE" in of_study.value.remedy and "track" not in of_study.value.remedy


@pytest.mark.timeout(100)  # MLflow's own defaults wait for minutes
def test_a_server_that_never_answers_is_given_up(make_run: RunMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    url, summary, job = make_run()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(TrackingError, match="cannot be reached: no answer in time"):
            track_run(url, summary, job, TrackingSection(uri=address))


def test_a_server_that_is_no_mlflow_refuses(make_run: RunMaker, server: tuple[str, Path]) -> None:
    url, summary, job = make_run()
    with pytest.raises(TrackingError, match="refused"):
        track_run(url, summary, job, TrackingSection(uri=f"{server[0]}/no-such-place"))
