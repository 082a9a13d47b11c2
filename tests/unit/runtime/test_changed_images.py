"""A run whose certified images were overwritten is refused by name; mended ones of quarantined pairs may be retried."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smoothcert.cli.main import app
from smoothcert.datasets import load_digits_pairs
from smoothcert.errors import RunDirectoryError
from smoothcert.store import RunDirectory

JOB = """
name: changed
data: {{format: manifest, uri: "{folder}/m.csv"}}
encoder: {{model: "bundled:digits-clip", threads: 1}}
certify: {{sigma: 0.25, max_draws: 20, radii: [0.1]}}
output: {{runs: "{folder}/runs", run: r, quarantine_budget: 1.0}}
tracking: {{enabled: false}}
"""


def call(*arguments: str) -> None:
    shown = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert shown.exit_code == 0, shown.output


def states(run: Path) -> list[str]:
    from smoothcert.sql import Query

    with Query([RunDirectory.open(run)]) as query:
        rows = query.sql("SELECT status FROM certificates ORDER BY pair_id")
    return [str(status) for status in rows["status"].to_pylist()]


@pytest.fixture
def good(tmp_path: Path) -> Callable[[int], bytes]:
    """Five digits, of which number 1 is broken, and their job; gives the whole image of each."""
    for number, (image, _, _) in zip(range(5), load_digits_pairs("test"), strict=False):
        image.save(tmp_path / f"{number}.png")
    kept = [(tmp_path / f"{number}.png").read_bytes() for number in range(5)]
    (tmp_path / "1.png").write_bytes(b"broken")
    (tmp_path / "m.csv").write_text("image,caption\n" + "".join(f"{i}.png,a digit\n" for i in range(5)))
    (tmp_path / "job.yaml").write_text(JOB.format(folder=tmp_path))
    return lambda number: kept[number]


def test_mended_images_are_refused_by_certify_and_retried(
    tmp_path: Path, good: Callable[[int], bytes]
) -> None:
    job, run = str(tmp_path / "job.yaml"), tmp_path / "runs/r"
    call("certify", job)
    call("certify", job)
    (tmp_path / "1.png").write_bytes(good(1))
    with pytest.raises(RunDirectoryError, match=r"the image 1\.png \(m\.csv#1\) was(.|\n)*smoothcert retry"):
        call("certify", job)
    call("retry", str(run), "--where", "true")
    call("certify", job)
    assert states(run) == ["ok"] * 5


def test_a_retry_does_not_swallow_a_change_of_a_certified_image(
    tmp_path: Path, good: Callable[[int], bytes]
) -> None:
    job, run = str(tmp_path / "job.yaml"), tmp_path / "runs/r"
    call("certify", job)
    before = states(run)
    (tmp_path / "1.png").write_bytes(good(1))
    (tmp_path / "3.png").write_bytes(good(4))
    for _ in range(2):  # what is refused once is not taken the second time
        with pytest.raises(RunDirectoryError, match=r"the image 3\.png \(m\.csv#3\) was changed since"):
            call("retry", str(run), "--where", "true")
    assert states(run) == before == ["ok", "quarantined", "ok", "ok", "ok"]
    (tmp_path / "3.png").write_bytes(
        good(3)
    )  # the same bytes, written later: nobody knows that they are the same
    with pytest.raises(RunDirectoryError, match=r"3\.png"):
        call("retry", str(run), "--where", "true")


def test_images_of_pairs_that_were_not_at_work_yet_may_change(
    tmp_path: Path, good: Callable[[int], bytes]
) -> None:
    job, run = str(tmp_path / "job.yaml"), tmp_path / "runs/r"
    call("certify", job)
    for unit in ("*-*.json",):
        last = sorted((run / "commits").glob(unit))[-1]
        last.unlink()  # as if the run had been stopped before its last unit
    (tmp_path / "4.png").write_bytes(good(2))
    call("certify", job)
    assert states(run) == ["ok", "quarantined", "ok", "ok", "ok"]
    (tmp_path / "4.png").write_bytes(good(4) + b" ")
    with pytest.raises(RunDirectoryError, match=r"the image 4\.png"):
        call("certify", job)


def test_a_lost_record_of_versions_is_an_error(tmp_path: Path, good: Callable[[int], bytes]) -> None:
    job = str(tmp_path / "job.yaml")
    call("certify", job)
    (tmp_path / "runs/r/plan/images.parquet").unlink()
    with pytest.raises(RunDirectoryError, match="nobody knows which images"):
        call("certify", job)
