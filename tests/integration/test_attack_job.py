"""Attack jobs from job file to audit, on the bundled encoder and a handful of digits."""

import contextlib
import io
import json
import shutil
import signal
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from smoothcert.audit.audit import audit_run
from smoothcert.certificates import angular_bound
from smoothcert.cli.running import run_job
from smoothcert.datasets import DIGIT_NAMES, load_digits_pairs
from smoothcert.encoders import Encoder, load_encoder
from smoothcert.errors import JobError
from smoothcert.job import EncoderSection, parse_job
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor
from smoothcert.sql import Query
from smoothcert.store import RunDirectory
from smoothcert.store.units import task_of

PAIRS = 5
BROKEN = 3
"""Position of the pair whose image is no image."""

PGD = {
    "attack": "pgd",
    "norm": "l2",
    "budgets": [0.0625, 0.5],
    "objective": "divergence",
    "threshold": 0.9,
    "steps": 4,
    "eot_draws": 8,
    "evaluate_draws": 64,
    "settings": {"early_stop": False},
    "keep": 2,
    "seed": 5,
}
SIGNS = {
    "attack": "pgd",
    "norm": "linf",
    "budget": 0.1,
    "objective": "classification",
    "steps": 3,
    "subjects": "bare",
}


def png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.set_num_threads(1)
    return load_encoder(EncoderSection(model="bundled:digits-clip", device="cpu"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    digits = load_digits_pairs("test")[:PAIRS]
    images = [png(image) for image, _, _ in digits]
    images[BROKEN] = b"no image"
    table = pa.table(
        {
            "image": images,
            "caption": [caption for _, caption, _ in digits],
            "label": [label for _, _, label in digits],
        }
    )
    path = tmp_path_factory.mktemp("data") / "digits.parquet"
    pq.write_table(table, path)
    return path


def make_driver(
    data: Path, encoder: Encoder, runs: Path, attacks: list[dict[str, Any]], *overrides: str
) -> Driver:
    job = {
        "name": "attacked",
        "data": {"format": "parquet", "uri": str(data)},
        "encoder": {"model": "bundled:digits-clip", "device": "cpu", "threads": 1},
        "certify": {"sigma": 0.25, "pilot_draws": 15, "max_draws": 150, "radii": [0.0625, 0.125]},
        "zero_shot": {"labels": list(DIGIT_NAMES), "prompts": ["a photo of the digit {label}"]},
        "attacks": attacks,
        "executor": {"pairs_per_unit": 2},
        "output": {"runs": str(runs), "run": "r", "quarantine_budget": 1.0},
        "tracking": {"enabled": False},
    }
    return Driver(parse_job(json.dumps(job), overrides), encoder)


@pytest.fixture
def driver(data: Path, tmp_path: Path, encoder: Encoder) -> Callable[..., Driver]:
    def make(attacks: list[dict[str, Any]], *overrides: str, base: Encoder | None = None) -> Driver:
        return make_driver(data, base or encoder, tmp_path / "runs", attacks, *overrides)

    return make


@pytest.fixture(scope="module")
def attacked(
    data: Path, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunDirectory, str]:
    """A job with three attacks, run to its end; and what was said."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    attacks = [PGD, SIGNS, PGD | {"steps": 2, "seed": 6}]
    made = make_driver(data, encoder, tmp_path_factory.mktemp("attacked"), attacks)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            assert run_job(made) == 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return made.run, said.getvalue()


def quiet() -> Monitor:
    return Monitor(on_result=lambda result: None)


def attack(driver: Driver) -> RunDirectory:
    """Certify and attack to the end."""
    driver.work("certification", quiet())
    report = driver.work("attacks", quiet())
    assert (report.missing, report.failed) == (0, {})
    return driver.run


def attack_units(run: RunDirectory) -> list[str]:
    """Units of attacks that are committed, those of retries included."""
    return sorted(unit for unit in run.commits.unit_ids() if task_of(unit))


def rows(run: RunDirectory, sql: str) -> list[dict[str, Any]]:
    with Query([run]) as query:
        return list(query.sql(sql).to_pylist())


def test_a_job_ends_with_every_outcome_once_and_nothing_to_object(attacked: tuple[RunDirectory, str]) -> None:
    run, said = attacked
    found = rows(run, "SELECT * FROM attacks")
    assert len(found) == PAIRS * (2 * 2 + 1 + 2 * 2)
    assert len({(r["pair_id"], r["attack_id"], r["subject"], r["budget"]) for r in found}) == len(found)
    bad = [r for r in found if r["status"] == "quarantined"]
    assert {(r["pair_id"], r["error_class"]) for r in bad} == {(f"digits.parquet#{BROKEN}", "DecodeError")}
    for row in found:
        if row["status"] == "quarantined":
            continue
        size = row["perturbation_l2" if row["norm"] == "l2" else "perturbation_linf"]
        assert 0 < size <= row["budget"]
        assert row["seed"] in ((5, 6) if row["norm"] == "l2" else (0,))
        if row["norm"] == "linf" or row["subject"] == "bare":
            assert row["certified_cosine"] is None and row["violation"] is None
        elif row["budget"] == 0.0625:
            assert row["violation"] is False and row["certified_cosine"] > 0
            assert row["certified_to_smoothed"] < row["cosine_to_smoothed_ucb"]
    # certification counts as if there were no attacks
    (state,) = rows(run, "SELECT finished, committed_pairs, committed_units, units FROM runs")
    assert state == {"finished": True, "committed_pairs": PAIRS, "committed_units": 3, "units": 3}
    assert len(rows(run, "SELECT * FROM units")) == 3
    assert json.loads(run.read_document("audit.json") or b"")["sound"] is True
    assert "no findings" in said


def test_certified_cosines_are_those_of_the_certificates(attacked: tuple[RunDirectory, str]) -> None:
    run, _ = attacked
    joined = rows(
        run,
        "SELECT a.certified_to_smoothed AS stored, c.angular[1] AS grid, c.smooth_norm_lcb AS norm, budget "
        "FROM attacks a JOIN certificates c USING (run_id, pair_id) WHERE subject = 'smoothed' AND a.status = 'ok'",
    )
    assert len(joined) == 2 * 2 * (PAIRS - 1)
    for row in joined:
        if row["budget"] == 0.0625:
            assert row["stored"] == pytest.approx(row["grid"], rel=1e-12)
        else:
            expected = float(angular_bound(row["norm"], row["budget"], 0.25))
            # one number against a batch of them: other kernels, thousands of roundings of float64 at most
            assert row["stored"] == (None if np.isnan(expected) else pytest.approx(expected, rel=1e-12))


def test_views_count_over_all_pairs_asked_for(attacked: tuple[RunDirectory, str]) -> None:
    run, _ = attacked
    success = rows(
        run, "SELECT * FROM attack_success WHERE norm = 'l2' AND subject = 'bare' AND budget = 0.5"
    )
    assert [row["attack"] for row in success] == ["pgd", "pgd", "worst case"]
    assert {(row["pairs"], row["quarantined"]) for row in success} == {(PAIRS, 1)}
    by_pair = rows(
        run,
        "SELECT pair_id, bool_or(success) AS won FROM attacks WHERE norm = 'l2' AND subject = 'bare' AND budget = 0.5 "
        "GROUP BY pair_id",
    )
    worst = success[-1]
    assert worst["wrong_after"] == sum(bool(row["won"]) for row in by_pair)
    assert (
        worst["wrong_under_attack_low"]
        <= worst["wrong_under_attack"]
        <= worst["wrong_under_attack_high"]
        <= 1
    )
    gap = rows(run, "SELECT * FROM robustness_gap WHERE radius = 0.0625")
    assert [(row["reference"], row["pairs"]) for row in gap] == [
        ("clean", PAIRS - 1),
        ("smoothed", PAIRS - 1),
    ]
    assert all(
        row["certified_cosine"] < row["attacked_cosine_of_certified"] <= row["clean_cosine"] for row in gap
    )
    pairs = rows(run, "SELECT pair_id, objective, subject, norm, budget FROM worst_pairs")
    assert len(pairs) == (PAIRS - 1) * 5 == len({tuple(row.values()) for row in pairs})


def test_what_was_wrong_before_is_no_success_of_the_attack(
    driver: Callable[..., Driver], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two of four labels are not the digit that is shown; the budget is too small to turn anything."""
    table = pq.read_table(data)
    shown = table["label"].to_pylist()
    labels = [shown[(i + 1) % PAIRS] if i in (0, 1) else label for i, label in enumerate(shown)]
    assert labels[0] != shown[0] and labels[1] != shown[1]
    pq.write_table(table.set_column(2, "label", pa.array(labels)), tmp_path / "mixed.parquet")
    harmless = SIGNS | {
        "budget": 1e-6,
        "subjects": ["bare", "smoothed"],
        "eot_draws": 8,
        "evaluate_draws": 64,
    }
    made = driver([harmless], f"data.uri={tmp_path / 'mixed.parquet'}")
    assert run_job(made) == 0
    clean = rows(
        made.run, "SELECT subject, count_if(clean_label = label) AS n FROM attacks GROUP BY 1 ORDER BY 1"
    )
    found = rows(made.run, "SELECT * FROM attack_success WHERE attack = 'worst case' ORDER BY subject")
    assert [row["right_before"] for row in found] == [row["n"] for row in clean] == [2, 2]
    for row in found:
        assert (row["turned"], row["success_among_right"], row["wrong_after"]) == (0, 0.0, 2)
        assert row["robust_accuracy"] == row["clean_accuracy"] == 2 / PAIRS
    said = " ".join(capsys.readouterr().out.split())
    # clean and robust accuracy, success, wrong
    assert said.count("40.0%") == 3 * len(found) and said.count(" 0.0% ") == len(found)
    assert "wrong counts pairs that were wrong before too" in said


def test_the_strongest_examples_are_stored_without_loss(
    attacked: tuple[RunDirectory, str], encoder: Encoder
) -> None:
    run, _ = attacked
    section = run.info.job.attacks[0]
    folder = f"examples/pgd-{section.attack_id}/bare-0.5"
    index = json.loads(run.read_document(f"{folder}/index.json") or b"")
    wanted = rows(
        run,
        "SELECT pair_id, margin, perturbation_l2 FROM attacks WHERE subject = 'bare' AND budget = 0.5 "
        "AND seed = 5 AND status = 'ok' ORDER BY margin, pair_id LIMIT 2",
    )
    assert [entry["pair_id"] for entry in index] == [row["pair_id"] for row in wanted]
    names = {"index.json"}
    for entry, row in zip(index, wanted, strict=True):
        arrays = np.load(BytesIO(run.storage.read(f"{folder}/{entry['arrays']}")))
        clean, attacked = arrays["clean"], arrays["attacked"]
        assert clean.dtype == np.uint8 and attacked.dtype == np.float32
        delta = attacked.astype(np.float64) - (clean.astype(np.float32) / np.float32(255)).astype(np.float64)
        assert np.linalg.norm(delta) == pytest.approx(row["perturbation_l2"], rel=1e-9)
        features = encoder.encode_images(torch.from_numpy(np.stack([clean / np.float32(255), attacked])))
        assert float(features[0] @ features[1]) - 0.9 == pytest.approx(row["margin"], abs=1e-4)
        picture = Image.open(BytesIO(run.storage.read(f"{folder}/{entry['thumbnail']}")))
        assert picture.width == 3 * picture.height
        names |= {entry["arrays"], entry["thumbnail"]}
    assert set(run.storage.names(folder)) == names


def test_a_stopped_job_resumes_and_gives_the_same_rows(
    driver: Callable[..., Driver], attacked: tuple[RunDirectory, str]
) -> None:
    def numbers(run: RunDirectory) -> list[dict[str, Any]]:
        return rows(
            run,
            "SELECT pair_id, subject, budget, status, margin, cosine_to_clean_ucb, perturbation_l2, queries, success "
            "FROM attacks WHERE seed = 5 ORDER BY ALL",
        )

    whole = numbers(attacked[0])
    made = driver([PGD], "executor.units_in_flight=1")
    made.work("certification", quiet())
    stop = threading.Event()
    first = made.work("attacks", Monitor(on_result=lambda result: stop.set(), stop=stop))
    assert first.stopped and 0 < first.missing < first.pairs == PAIRS and 0 < first.units_missing < 3
    (shown,) = rows(made.run, "SELECT count(DISTINCT pair_id) AS pairs FROM attacks")
    assert (first.resumed, first.done) == (0, shown["pairs"])
    again = driver([PGD]).work("attacks", quiet())
    assert (again.resumed, again.pairs, again.missing) == (PAIRS - first.missing, PAIRS, 0)
    # float32 sums in another batch may round differently: the noise is the same
    resumed = numbers(made.run)
    assert len(resumed) == len(whole)
    for left, right in zip(resumed, whole, strict=True):
        assert {k: v for k, v in left.items() if not isinstance(v, float)} == {
            k: v for k, v in right.items() if not isinstance(v, float)
        }
        for name in ("margin", "perturbation_l2"):
            if left[name] is not None:
                assert left[name] == pytest.approx(right[name], abs=1e-4)


def test_another_attack_joins_the_run_and_only_it_is_run(driver: Callable[..., Driver]) -> None:
    attack(driver([SIGNS]))
    report = driver([SIGNS, SIGNS | {"budget": 0.05}]).work("attacks", quiet())
    assert (report.pairs, report.resumed, report.missing) == (2 * PAIRS, PAIRS, 0)
    assert len(attack_units(driver([SIGNS]).run)) == 2 * 3
    run = driver([SIGNS]).run
    assert len(rows(run, "SELECT DISTINCT attack_id FROM attacks")) == 2
    assert audit_run(run).sound


def test_the_reference_says_what_an_attack_leaves(driver: Callable[..., Driver]) -> None:
    """The angular certificate is about the smoothed feature, the class certificate about the predicted class."""
    own = PGD | {"reference": "smoothed", "subjects": "smoothed", "budgets": 0.5, "evaluate_draws": 400}
    away = own | {"objective": "classification", "reference": "predicted"}
    del away["threshold"]
    run = attack(driver([own, away], "data.columns.label=null"))
    found = rows(run, "SELECT * FROM attacks WHERE status = 'ok'")
    assert {(r["objective"], r["reference"]) for r in found} == {
        ("divergence", "smoothed"),
        ("classification", "predicted"),
    }
    assert len(found) == 2 * (PAIRS - 1)
    for row in found:
        if row["objective"] == "divergence":
            # the reference is a mean of 400 draws: its direction is off by about the spread over sqrt(400)
            assert row["margin"] + 0.9 == pytest.approx(row["cosine_to_smoothed"], abs=0.02)
            assert abs(row["margin"] + 0.9 - row["cosine_to_clean"]) > 1e-4
        else:
            assert row["label"] is None
            assert row["success"] == (row["attacked_label"] != row["clean_label"])
    assert audit_run(run).sound


def test_an_unsound_certificate_is_caught_in_a_real_run(
    attacked: tuple[RunDirectory, str], tmp_path: Path
) -> None:
    shutil.copytree(attacked[0].url, tmp_path / "copy")
    run = RunDirectory.open(str(tmp_path / "copy"))
    (file, *_) = run.commits.load().files("certificates")
    path = Path(run.url) / file
    table = pq.read_table(path)
    angular = [
        [None if v is None else v + 0.05 for v in row] if row else row for row in table["angular"].to_pylist()
    ]
    place = table.schema.get_field_index("angular")
    pq.write_table(
        table.set_column(place, table.schema.field(place), pa.array(angular, table.schema.field(place).type)),
        path,
    )
    result = audit_run(run)
    assert not result.sound
    (finding, *_) = (f for f in result.findings if f.rule == "rounded-up")
    touched = {row for row, bound in zip(table["pair_id"].to_pylist(), angular, strict=True) if bound}
    assert {pair for pair, _ in finding.listed} == touched


def test_a_pair_that_owns_the_pool_is_quarantined_and_no_other(
    driver: Callable[..., Driver], tmp_path: Path
) -> None:
    digits = load_digits_pairs("test")[:3]
    images, texts = [png(image) for image, _, _ in digits], ["a one", "a two", "a digit"]

    def job(captions: list[list[str]], name: str) -> Driver:
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"image": images, "caption": captions}), path)
        displaced = SIGNS | {"objective": "retrieval"}
        retrieval = ("retrieval.candidates=3", "retrieval.k=2")
        return driver([displaced], f"data.uri={path}", "data.columns.label=null", *retrieval)

    made = job([texts[:2], texts[:1], texts[2:]], "mixed")
    run = attack(made)
    found = rows(run, "SELECT pair_id, status, error_class, error_message FROM attacks ORDER BY pair_id")
    assert [row["status"] for row in found] == ["quarantined", "ok", "ok"]
    assert found[0]["error_class"] == "CaptionError"
    for said in ("all but 1 captions of the pool", "k=2", "raise retrieval.candidates or lower retrieval.k"):
        assert said in found[0]["error_message"]
    with pytest.raises(JobError, match="remedy: raise retrieval.candidates"):
        job([texts, texts, texts], "all").check()
