"""A run whose image files were overwritten does not pass for complete; mended ones may be retried."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from smoothcert.cli.main import app
from smoothcert.datasets import load_digits_pairs
from smoothcert.errors import RunDirectoryError

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


def test_changed_images_are_refused_and_mended_ones_retried(tmp_path: Path) -> None:
    for number, (image, _, _) in zip(range(3), load_digits_pairs("test"), strict=False):
        image.save(tmp_path / f"{number}.png")
    good = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(b"broken")
    (tmp_path / "m.csv").write_text("image,caption\n" + "".join(f"{i}.png,a digit\n" for i in range(3)))
    (tmp_path / "job.yaml").write_text(JOB.format(folder=tmp_path))
    job, run = str(tmp_path / "job.yaml"), str(tmp_path / "runs/r")
    call("certify", job)
    call("certify", job)
    (tmp_path / "1.png").write_bytes(good)
    with pytest.raises(RunDirectoryError, match="were changed since(.|\n)*smoothcert retry"):
        call("certify", job)
    call("retry", run, "--where", "true")
    call("certify", job)
