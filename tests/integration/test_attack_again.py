"""Attacks that met a fault are quarantined, and made again on request or after a retry."""

import runpy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from smoothcert.audit.audit import audit_run
from smoothcert.cli import exit_codes
from smoothcert.cli.attack import choose_again
from smoothcert.cli.retry import retry
from smoothcert.cli.running import run_job
from smoothcert.encoders import KnownEncoder
from smoothcert.errors import QueryError, RunDirectoryError
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor
from smoothcert.runtime.retry import choose, retry_units
from smoothcert.store import ATTACKS, CERTIFICATES

_JOB = runpy.run_path(str(Path(__file__).with_name("test_attack_job.py")))
PAIRS, PGD, quiet, png, rows, attack_units = (
    _JOB[name] for name in ("PAIRS", "PGD", "quiet", "png", "rows", "attack_units")
)
encoder, data, driver = (_JOB[name] for name in ("encoder", "data", "driver"))  # fixtures


def attack_again(driver: Driver, where: str) -> int:
    """What ``smoothcert attack JOB --retry SQL`` does; its exit code."""
    return run_job(driver, choose_again(driver, where))


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
    assert run.commits.unit_ids() == known
    assert "attacking 0 quarantined pairs again" in capsys.readouterr().err
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
