"""Attack jobs that cannot be done fail before anything is made."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from smoothcert.cli.attack import attack as attack_command
from smoothcert.cli.running import run_job
from smoothcert.encoders import KnownEncoder
from smoothcert.errors import EncoderError, JobError
from smoothcert.runtime.driver import Driver

_JOB = runpy.run_path(str(Path(__file__).with_name("test_attack_job.py")))
PGD, SIGNS, quiet = (_JOB[name] for name in ("PGD", "SIGNS", "quiet"))
encoder, data, driver = (_JOB[name] for name in ("encoder", "data", "driver"))  # fixtures


class Gradless(KnownEncoder):
    """Like an exported model: numbers, but no gradients."""

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return super()._image_features(pixels.detach())


@pytest.mark.parametrize(
    ("attacks", "said"),
    [
        ([SIGNS | {"attack": "pdg"}], "did you mean 'pgd'"),
        ([SIGNS | {"objective": "clasification"}], "did you mean 'classification'"),
        ([SIGNS | {"subjects": ["smothed"]}], "did you mean 'smoothed'"),
        ([SIGNS | {"norm": "l3"}], "norm 'l3' is unknown"),
        ([SIGNS | {"budget": 0}], "budget=0"),
        ([SIGNS | {"budget": -1.0}], "budget=-1"),
        ([SIGNS | {"step": 3}], "did you mean 'steps'"),
        ([SIGNS | {"settings": {"random_strat": True}}], "did you mean 'random_start'"),
        ([SIGNS | {"settings": {"random_start": "no"}}], "settings.random_start='no' is not valid"),
        ([SIGNS | {"objective": "matching"}], "needs a target"),
        ([SIGNS | {"objective": "retrieval"}], "needs the section 'retrieval'"),
        ([SIGNS | {"attack": "cw"}], "does not work in norm 'linf'"),
        ([SIGNS | {"attack": "attackvlm"}], "matches a target"),
        ([SIGNS | {"objective": "matching", "target_image": "nowhere.png"}], "target_image='nowhere.png'"),
        ([SIGNS, SIGNS], "listed twice"),
    ],
)
def test_bad_jobs_fail_before_anything_is_made(
    driver: Callable[..., Driver], tmp_path: Path, attacks: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(JobError) as caught:
        run_job(driver(attacks))
    assert said in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_an_attack_job_without_attacks_is_refused_before_anything_is_made(
    driver: Callable[..., Driver], tmp_path: Path
) -> None:
    (tmp_path / "job.yaml").write_text(driver([]).job.to_yaml())
    with pytest.raises(JobError, match="no 'attacks' section"):
        attack_command(tmp_path / "job.yaml")
    with pytest.raises(JobError, match="no attacks"):
        driver([]).work("attacks", quiet())
    assert not (tmp_path / "runs").exists()


def test_a_source_without_labels_fails_before_anything_is_made(
    driver: Callable[..., Driver], tmp_path: Path
) -> None:
    with pytest.raises(JobError, match="none of the first 5 pairs has what objective"):
        run_job(driver([SIGNS], "data.columns.label=null"))
    assert not (tmp_path / "runs").exists()


def test_an_encoder_without_gradients_fails_before_anything_is_made(
    driver: Callable[..., Driver], tmp_path: Path
) -> None:
    gradless = Gradless.rotating(input_size=(8, 8))
    with pytest.raises(EncoderError, match="gives no gradients"):
        run_job(driver([PGD], base=gradless))
    assert not (tmp_path / "runs").exists()
