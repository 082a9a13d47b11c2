"""Attack jobs from job file to audit, on the bundled encoder and a handful of digits."""

import json
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
from smoothcert.cli import exit_codes
from smoothcert.cli.attack import attack as attack_command
from smoothcert.cli.attack import choose_again
from smoothcert.cli.retry import retry
from smoothcert.cli.running import run_job
from smoothcert.datasets import DIGIT_NAMES, load_digits_pairs
from smoothcert.encoders import Encoder, KnownEncoder, load_encoder
from smoothcert.errors import EncoderError, JobError, QueryError, RunDirectoryError
from smoothcert.job import EncoderSection, parse_job
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor
from smoothcert.runtime.retry import choose, retry_units
from smoothcert.sql import Query
from smoothcert.store import ATTACKS, CERTIFICATES, RunDirectory
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


@pytest.fixture
def driver(data: Path, tmp_path: Path, encoder: Encoder) -> Callable[..., Driver]:
    def make(attacks: list[dict[str, Any]], *overrides: str, base: Encoder | None = None) -> Driver:
        job = {
            "name": "attacked",
            "data": {"format": "parquet", "uri": str(data)},
            "encoder": {"model": "bundled:digits-clip", "device": "cpu", "threads": 1},
            "certify": {"sigma": 0.25, "pilot_draws": 15, "max_draws": 150, "radii": [0.0625, 0.125]},
            "zero_shot": {"labels": list(DIGIT_NAMES), "prompts": ["a photo of the digit {label}"]},
            "attacks": attacks,
            "executor": {"pairs_per_unit": 2},
            "output": {"runs": str(tmp_path / "runs"), "run": "r", "quarantine_budget": 1.0},
            "tracking": {"enabled": False},
        }
        return Driver(parse_job(json.dumps(job), overrides), base or encoder)

    return make


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


def attack_again(driver: Driver, where: str) -> int:
    """What ``smoothcert attack JOB --retry SQL`` does; its exit code."""
    return run_job(driver, choose_again(driver, where))


def rows(run: RunDirectory, sql: str) -> list[dict[str, Any]]:
    with Query([run]) as query:
        return list(query.sql(sql).to_pylist())


def test_a_job_ends_with_every_outcome_once_and_nothing_to_object(
    driver: Callable[..., Driver], capsys: pytest.CaptureFixture[str]
) -> None:
    made = driver([PGD, SIGNS])
    assert run_job(made) == 0
    run = made.run
    found = rows(run, "SELECT * FROM attacks")
    assert len(found) == PAIRS * (2 * 2 + 1)
    assert len({(r["pair_id"], r["attack_id"], r["subject"], r["budget"]) for r in found}) == len(found)
    bad = [r for r in found if r["status"] == "quarantined"]
    assert {(r["pair_id"], r["error_class"]) for r in bad} == {(f"digits.parquet#{BROKEN}", "DecodeError")}
    for row in found:
        if row["status"] == "quarantined":
            continue
        size = row["perturbation_l2" if row["norm"] == "l2" else "perturbation_linf"]
        assert 0 < size <= row["budget"]
        assert row["seed"] == (5 if row["attack"] == "pgd" and row["norm"] == "l2" else 0)
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
    assert "no findings" in capsys.readouterr().out


def test_certified_cosines_are_those_of_the_certificates(driver: Callable[..., Driver]) -> None:
    run = attack(driver([PGD]))
    joined = rows(
        run,
        "SELECT a.certified_to_smoothed AS stored, c.angular[1] AS grid, c.smooth_norm_lcb AS norm, budget "
        "FROM attacks a JOIN certificates c USING (run_id, pair_id) WHERE subject = 'smoothed' AND a.status = 'ok'",
    )
    assert len(joined) == 2 * (PAIRS - 1)
    for row in joined:
        if row["budget"] == 0.0625:
            assert row["stored"] == pytest.approx(row["grid"], rel=1e-12)
        else:
            expected = float(angular_bound(row["norm"], row["budget"], 0.25))
            # one number against a batch of them: other kernels, thousands of roundings of float64 at most
            assert row["stored"] == (None if np.isnan(expected) else pytest.approx(expected, rel=1e-12))


def test_views_count_over_all_pairs_asked_for(driver: Callable[..., Driver]) -> None:
    run = attack(driver([PGD, SIGNS, PGD | {"steps": 2, "seed": 6}]))
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
    assert success[-1]["successes"] == sum(bool(row["won"]) for row in by_pair)
    assert success[-1]["rate_low"] <= success[-1]["success_rate"] <= success[-1]["rate_high"] <= 1
    gap = rows(run, "SELECT * FROM robustness_gap WHERE radius = 0.0625")
    assert [(row["reference"], row["pairs"]) for row in gap] == [
        ("clean", PAIRS - 1),
        ("smoothed", PAIRS - 1),
    ]
    assert all(
        row["certified_cosine"] < row["attacked_cosine_of_certified"] <= row["clean_cosine"] for row in gap
    )
    worst = rows(run, "SELECT pair_id, objective, subject, norm, budget FROM worst_pairs")
    assert len(worst) == (PAIRS - 1) * 5 == len({tuple(row.values()) for row in worst})


def test_the_strongest_examples_are_stored_without_loss(
    driver: Callable[..., Driver], encoder: Encoder
) -> None:
    run = attack(driver([PGD]))
    (section,) = run.info.job.attacks
    folder = f"examples/pgd-{section.attack_id}/bare-0.5"
    index = json.loads(run.read_document(f"{folder}/index.json") or b"")
    wanted = rows(
        run,
        "SELECT pair_id, margin, perturbation_l2 FROM attacks WHERE subject = 'bare' AND budget = 0.5 "
        "AND status = 'ok' ORDER BY margin, pair_id LIMIT 2",
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


def test_a_stopped_job_resumes_and_gives_the_same_rows(driver: Callable[..., Driver], tmp_path: Path) -> None:
    def numbers(run: RunDirectory) -> list[dict[str, Any]]:
        return rows(
            run,
            "SELECT pair_id, subject, budget, status, margin, cosine_to_clean_ucb, perturbation_l2, queries, success "
            "FROM attacks ORDER BY ALL",
        )

    whole = numbers(attack(driver([PGD], f"output.runs={tmp_path / 'whole'}")))
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


def test_an_unsound_certificate_is_caught_in_a_real_run(driver: Callable[..., Driver]) -> None:
    run = attack(driver([PGD]))
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


class Faulty(KnownEncoder):
    """Gives NaN for bright images under noise as long as a file is there; without noise all is well."""

    flag = Path()

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        features = super()._image_features(pixels)
        if self.flag.exists():
            flat = pixels.flatten(1)
            features[(flat.mean(1) > 0.85) & (flat.std(1) > 0.15)] = torch.nan
        return features


class Hiccup(Faulty):
    """Breaks on the first bright image that it sees while the file is there, and never again."""

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        features = KnownEncoder._image_features(self, pixels)
        bright = (pixels.flatten(1).mean(1) > 0.85).nonzero()[:, 0]
        if self.flag.exists() and len(bright):
            self.flag.unlink()
            features[bright[0]] = torch.nan
        return features


BRIGHT = (1, 4)
"""Positions of the bright images, in two units."""
NAN = "error_class = 'NonFiniteError'"


@pytest.fixture
def faulty(driver: Callable[..., Driver], tmp_path: Path) -> Callable[..., Driver]:
    """Jobs on grey images, two of them bright, with an encoder that is at fault while ``<tmp_path>/flag`` exists."""
    levels = [250 if number in BRIGHT else 60 + 10 * number for number in range(PAIRS)]
    images = [png(Image.new("RGB", (8, 8), (level, level, level))) for level in levels]
    pq.write_table(
        pa.table({"image": images, "caption": [f"grey {n}" for n in range(PAIRS)]}), tmp_path / "grey.parquet"
    )

    def make(attacks: list[dict[str, Any]], *overrides: str, kind: type[Faulty] = Faulty) -> Driver:
        base = kind.rotating(0.8, input_size=(8, 8))
        base.flag = tmp_path / "flag"
        return driver(
            attacks,
            f"data.uri={tmp_path / 'grey.parquet'}",
            "data.columns.label=null",
            "executor.units_in_flight=1",
            *overrides,
            base=base,
        )

    return make


def test_a_pair_whose_reference_is_no_number_is_quarantined(
    faulty: Callable[..., Driver], tmp_path: Path
) -> None:
    """Searching and judging see nothing of it: a wrong reference would make a wrong number."""
    made = faulty([PGD | {"reference": "smoothed", "subjects": "smoothed", "budgets": 0.5}], kind=Hiccup)
    made.work("certification", quiet())
    (tmp_path / "flag").touch()
    assert made.work("attacks", quiet()).missing == 0
    assert not (tmp_path / "flag").exists()
    (bad,) = rows(made.run, "SELECT * FROM attacks WHERE status = 'quarantined'")
    assert (bad["pair_id"], bad["error_class"]) == (f"grey.parquet#{BRIGHT[0]}", "NonFiniteError")
    assert "clean image under noise" in bad["error_message"]
    assert [finding.rule for finding in audit_run(made.run).findings] == ["not-a-number"]


def test_quarantined_attacks_are_made_again_on_request(
    faulty: Callable[..., Driver], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = PGD | {"steps": 2, "seed": 6}
    made = faulty([PGD, other])
    made.work("certification", quiet())
    (tmp_path / "flag").touch()
    assert made.work("attacks", quiet()).missing == 0
    run = made.run

    def state() -> dict[str, set[tuple[str, str, str | None]]]:
        """What each pair shows of the attack that is retried; every outcome once."""
        found = rows(run, "SELECT * FROM attacks")
        names = {(row["pair_id"], row["attack_id"], row["subject"], row["budget"]) for row in found}
        assert len(names) == len(found) == PAIRS * 2 * 2 * 2
        shown: dict[str, set[tuple[str, str, str | None]]] = {}
        for row in found:
            if row["seed"] == PGD["seed"]:
                entry = (row["unit_id"], row["subject"], row["error_class"])
                shown.setdefault(row["pair_id"], set()).add(entry)
        return shown

    bright = {f"grey.parquet#{number}" for number in BRIGHT}
    first = state()
    for pair, shown in first.items():
        wrong = {(subject, error) for _, subject, error in shown if error}
        assert wrong == ({("smoothed", "NonFiniteError")} if pair in bright else set())

    # certification has nothing to retry, and says what would help
    retry(run.url, NAN)
    said = capsys.readouterr().err
    assert "0 quarantined pairs to run again" in said and "4 pairs were quarantined while" in said
    with pytest.raises(QueryError, match="smoothcert attack JOB --retry"):
        retry(run.url, "subject = 'smoothed'")
    with pytest.raises(QueryError, match="no_such_column"):
        retry(run.url, "no_such_column = 1")

    # the fault is still there: the rows of the retry take the place of the first, wholly
    only = [PGD]
    assert choose(run, ATTACKS, "true) OR (true", option="--retry") == choose(
        run, ATTACKS, "true", option="--retry"
    ), "none but quarantined rows"
    chosen = choose(run, ATTACKS, f"{NAN} AND seed = {PGD['seed']}", option="--retry")
    assert {pair for pairs in chosen.values() for pair in pairs} == bright and len(chosen) == 2
    report = faulty(only).work("attacks", quiet(), chosen)
    assert (report.missing, report.failed) == (0, {})
    second = state()
    for pair in bright:
        assert {unit for unit, _, _ in second[pair]}.isdisjoint({unit for unit, _, _ in first[pair]})
        assert {(subject, error) for _, subject, error in second[pair]} == {
            ("bare", None),
            ("smoothed", "NonFiniteError"),
        }

    # mended, but stopped half way: the same request goes on with the same units
    (tmp_path / "flag").unlink()
    again = faulty(only)
    chosen = choose(run, ATTACKS, f"{NAN} AND seed = {PGD['seed']}", option="--retry")
    units = {unit.unit_id for unit in retry_units(run, chosen, run.commits.load())}
    stop = threading.Event()
    halted = again.work("attacks", Monitor(on_result=lambda result: stop.set(), stop=stop), chosen)
    # each of the two units is one pair
    assert halted.stopped and (halted.missing, halted.units_missing, len(units)) == (1, 1, 2)
    capsys.readouterr()
    # the encoder still broke under the other attack
    assert attack_again(faulty(only), NAN) == exit_codes.NOT_SOUND
    said = capsys.readouterr().err
    assert "attacking 1 quarantined pairs again" in said and "2 more belong to attacks" in said
    third = state()
    for pair in bright:
        assert {error for _, _, error in third[pair]} == {None}
        assert {unit for unit, _, _ in third[pair]} <= units
    assert {pair: third[pair] for pair in third.keys() - bright} == {
        pair: first[pair] for pair in first.keys() - bright
    }
    known = run.commits.unit_ids()
    assert attack_again(faulty(only), NAN) == exit_codes.NOT_SOUND
    assert "attacking 0 quarantined pairs again" in capsys.readouterr().err
    assert run.commits.unit_ids() == known
    # with all attacks made again the audit has nothing to object, but says what was there before
    assert attack_again(faulty([PGD, other]), NAN) == 0
    assert "because the encoder gave NaN" in " ".join(audit_run(run).notes)
    assert len(rows(run, "SELECT * FROM replaced_attacks WHERE error_class = 'NonFiniteError'")) > 0


def test_a_retry_of_attacks_is_refused_before_any_work(faulty: Callable[..., Driver], tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError):
        attack_again(faulty([PGD]), NAN)
    assert not (tmp_path / "runs").exists()
    made = faulty([PGD])
    known = made.run.commits.unit_ids()
    for where, said in (
        (" ", "--retry is empty"),
        ("eror_class = 'NonFiniteError'", "did you mean 'error_class'"),
        ("true) -- all", "check the SQL"),
    ):
        with pytest.raises(QueryError) as caught:
            attack_again(made, where)
        assert said in str(caught.value)
    assert made.run.commits.unit_ids() == known


def test_what_was_attacked_before_its_certificate_is_attacked_again(
    faulty: Callable[..., Driver], tmp_path: Path
) -> None:
    made = faulty([PGD])
    (tmp_path / "flag").touch()
    made.work("certification", quiet())
    (tmp_path / "flag").unlink()
    assert made.work("attacks", quiet()).missing == 0
    run = made.run
    knowing = "SELECT count(*) AS n FROM attacks WHERE certified_to_smoothed IS NOT NULL AND budget = 0.0625"
    assert rows(run, knowing) == [{"n": PAIRS - len(BRIGHT)}]
    made.retry("certification", quiet(), choose(run, CERTIFICATES, NAN, option="--where"))
    report = faulty([PGD]).work("attacks", quiet())
    # the two bright pairs, in two units of retries
    assert (report.pairs, report.missing, report.pairs - report.resumed) == (PAIRS, 0, len(BRIGHT))
    assert len(attack_units(run)) == 3 + 2
    assert rows(run, knowing) == [{"n": PAIRS}]
    assert len(rows(run, "SELECT * FROM attacks")) == PAIRS * 2 * 2
    assert audit_run(run).sound
    again = faulty([PGD]).work("attacks", quiet())
    assert (again.resumed, again.draws, len(attack_units(run))) == (PAIRS, 0, 3 + 2)


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
