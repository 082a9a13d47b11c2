"""Study files: every combination a job of its own; what is wrong is said before anything starts, in words that help."""

from collections.abc import Callable
from pathlib import Path

import pytest

from smoothcert.errors import JobError
from smoothcert.job import load_job, load_study, study_json_schema
from smoothcert.job.naming import defence_name, run_title

JOB = """
name: pairs
data: {format: parquet, uri: pairs.parquet}
encoder: {model: "bundled:digits-clip"}
certify: {sigma: 0.25, max_draws: 100}
zero_shot: {labels: [cat, dog]}
attacks: [{attack: pgd, norm: l2, budgets: [0.5, 1.0]}]
"""
Writer = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    (tmp_path / "parts.py").write_text("def blur(encoder): ...\n")

    def make(more: str) -> Path:
        path = tmp_path / "study.yaml"
        path.write_text(JOB + more)
        return path

    return make


def test_variants_and_grid_are_combined_in_the_order_of_the_file(write: Writer, tmp_path: Path) -> None:
    study = load_study(
        write(
            """
study:
  variants:
    smoothing:
    blurred: {encoder.purifier: "parts:blur"}
  grid:
    certify.sigma: [0.25, 0.5]
    certify.max_draws: [50, 100]
  baseline: blurred
"""
        ),
        ["certify.alpha=0.01"],
    )
    assert [each.label for each in study.combinations] == [
        f"{name}, sigma {sigma}, max_draws {draws}"
        for name in ("smoothing", "blurred")
        for sigma in ("0.25", "0.5")
        for draws in (50, 100)
    ]
    assert study.name == "pairs" and study.tune is None
    assert study.baseline == "blurred, sigma 0.25, max_draws 50"
    jobs = [each.job for each in study.combinations]
    assert [(job.certify.sigma, job.certify.max_draws) for job in jobs[:4]] == [
        *((0.25, 50), (0.25, 100)),
        *((0.5, 50), (0.5, 100)),
    ]
    assert {job.certify.alpha for job in jobs} == {0.01}, "--set is for all of them"
    assert jobs[0].encoder.purifier is None
    assert jobs[4].encoder.purifier == f"{tmp_path}/parts.py:blur", "paths lead from the file"
    assert jobs[0].certify.radii != jobs[2].certify.radii, "defaults follow what varies"


def test_any_field_can_vary_targets_and_entries_of_lists_too(write: Writer) -> None:
    study = load_study(
        write(
            """
study:
  grid:
    certify.targets:
      - [{certificate: class, radius: 0.25}]
      - []
    encoder.model: ["bundled:digits-clip", openai/clip-vit-base-patch32]
  variants:
    few: {attacks.0.budgets: [1.0, 2.0], certify.pilot_draws: 8}
"""
        )
    )
    first, last = study.combinations[0], study.combinations[-1]
    assert first.label == "few, targets number 1, model digits-clip" and len(study.combinations) == 4
    assert last.job.attacks[0].budgets == (1.0, 2.0) and last.job.certify.targets == ()
    assert last.job.encoder.model == "openai/clip-vit-base-patch32"


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("study: {}", "varies nothing"),
        ("study:", "varies nothing"),
        ("study: {grid: {certify.sigma: []}}", "certify.sigma: [] is empty"),
        ("study: {grid: {certify.sigma: [0.5, 0.5]}}", "0.5 is listed twice"),
        ("study: {grid: {certify.sigma: 0.5}}", "grid.certify.sigma=0.5: Input should be a valid list"),
        ("study: {variants: {a: {}, b: {certify.sigma: 1}, b: {certify.sigma: 2}}}", "'b' stands twice"),
        ("study: {grid: {certify.sigm: [0.5]}}", "unknown key (did you mean 'sigma'?)"),
        ("study: {grid: {certfy.sigma: [0.5]}}", "not a field of a job (did you mean 'certify'?)"),
        ("study: {grid: {certify.sigma: [0.5, -1]}}", "with sigma -1"),
        ("study: {grids: {}}", "unknown key (did you mean 'grid'?)"),
        ("study: {grid: {output.runs: [a, b]}}", "changes no result"),
        ("study: {variants: {a: {}, b: {}}}", "'a' and 'b' are the same job"),
        ("study: {variants: {a: {}, b: {certify.max_draws: 100}}}", "'a' and 'b' are the same job"),
        ("study: {variants: {a: {}, b: {attacks: []}}}", "differ in attacks, defences or answers alone"),
        ("study: {variants: {a/b: {}}}", "not a valid variant name"),
        ("study: {variants: {a: {certify.sigma: 1}}, grid: {certify.sigma: [0.5]}}", "which the grid varies"),
        ("study: {variants: {a: {}}, baseline: b}", "study.baseline='b' is not one of its runs"),
        ("study: {grid: {certify.sigma.x: [1]}}", "'sigma' is not a section"),
        ("study: {grid: {attacks.3.steps: [1]}}", "not in a list of 1"),
        ("study: {variants: {a: {}}}\noutput: {run: mine}", "output.run='mine' names one directory"),
        ("study: {variants: {a: {}}}\ntune: {}", "tune',"),
        ("study: {variants: {a: {}}}\ntune: {goal: {certificate: class, radius: 1}, pairs: 8}", "first=16"),
        ("", "no section 'study'"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(write: Writer, section: str, said: str) -> None:
    with pytest.raises(JobError) as caught:
        load_study(write(section))
    assert said in str(caught.value), str(caught.value)
    assert caught.value.remedy


def test_a_study_is_no_job(write: Writer) -> None:
    with pytest.raises(JobError, match="several runs") as caught:
        load_job(write("study: {grid: {certify.sigma: [0.25, 0.5]}}"))
    assert "smoothcert study" in caught.value.remedy


def test_what_only_the_grid_says_may_be_missing_in_the_job(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "name: a\ndata: {format: parquet, uri: p}\nencoder: {model: 'bundled:digits-clip'}\n"
        "study: {grid: {certify.sigma: [0.25, 0.5]}}\n"
    )
    assert [each.job.certify.sigma for each in load_study(path).combinations] == [0.25, 0.5]
    schema = study_json_schema()
    assert schema["required"] == ["name", "study"]
    assert {"study", "tune", "certify"} <= set(schema["properties"])


def test_runs_are_named_by_their_defence_and_what_varies(write: Writer, tmp_path: Path) -> None:
    (tmp_path / "psm.safetensors").touch()
    study = load_study(
        write(
            'study: {variants: {a: {}, b: {encoder.purifier: "parts:blur", encoder.mapper: psm.safetensors}}}'
        )
    )
    plain, defended = (each.job for each in study.combinations)
    assert defence_name(plain.encoder) == "no defence"
    assert defence_name(defended.encoder) == "purifier blur + mapper psm"
    both = defended.encoder.model_copy(
        update={"purifier": "bundled:digits-psm", "mapper": "bundled:digits-psm"}
    )
    assert defence_name(both) == "digits-psm"
    assert run_title(plain) == "no defence, sigma 0.25, 100 draws, digits-clip"


TRAINED = """
name: psm
data: {format: parquet, uri: pairs.parquet}
encoder: {model: "bundled:digits-clip"}
certify: {sigma: 0.25}
train: {method: fare, out: made/fare}
"""


def test_what_a_training_writes_may_be_named_before_it_is_there(
    write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.yaml").write_text(TRAINED)
    study = load_study(
        write(
            """
study:
  train:
    - {job: train.yaml}
    - {job: train.yaml, settings: {train.method: psm, train.out: made/psm, encoder.model: made/fare/model}}
  variants:
    tuned: {encoder.model: made/fare/model, encoder.purifier: made/psm}
"""
        )
    )
    first, second = study.trainings
    assert first.train is not None and first.train.method == "fare"
    assert second.encoder.model == study.combinations[0].job.encoder.model == f"{tmp_path}/made/fare/model"
    assert study.combinations[0].job.encoder.purifier == f"{tmp_path}/made/psm"


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("[{job: gone.yaml}]", "study.train.0: cannot read the job file '.*gone.yaml'"),
        ("[{job: train.yaml, settings: {train.methud: psm}}]", "study.train.0(.|\n)*did you mean 'method'"),
        ("[{job: train.yaml, settings: {train: null}}]", "has no section 'train'"),
        ("[{job: train.yaml}, {job: train.yaml}]", "study.train.1: train.out='made/fare' is that of"),
        (
            "[{job: train.yaml, settings: {encoder.model: made/fare/model}}]",
            r"encoder.model='made/fare/model' does not exist",
        ),
        ("[{jop: train.yaml}]", "did you mean 'job'"),
    ],
)
def test_trainings_that_cannot_be_done_are_known_at_once(
    write: Writer, tmp_path: Path, steps: str, said: str
) -> None:
    (tmp_path / "train.yaml").write_text(TRAINED)
    with pytest.raises(JobError, match=said):
        load_study(write(f"\nstudy:\n  train: {steps}\n  variants: {{smoothing: }}\n"))
