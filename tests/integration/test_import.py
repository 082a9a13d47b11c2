"""`smoothcert import`: logs made here in each published format become runs that hold no more than the logs do."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import beta, norm
from typer.testing import CliRunner

from smoothcert.audit.audit import RunAudit, audit_runs
from smoothcert.cli.main import app
from smoothcert.errors import JobError
from smoothcert.report.curves import curve_questions
from smoothcert.report.headline import headlines
from smoothcert.report.pairs import shown_pairs
from smoothcert.sql import open_query
from smoothcert.store import RunDirectory
from smoothcert.summary.comparison import compare_runs
from smoothcert.summary.summary import Share, summarise
from smoothcert.work.published.importing import Stated, import_log
from smoothcert.work.published.logs import TRUE_CLASS, read_log
from smoothcert.work.published.reach import find_reach
from smoothcert.work.published.rounding import Printing

SIGMA, DRAWS, ALPHA, IMAGES = 0.5, 10_000, 0.001, 60
HEAD = "idx\tlabel\tpredict\tradius\tcorrect\ttime"


def outcomes(seed: int = 1) -> list[tuple[int, int, int, float]]:
    """(idx, label, predict, radius) as Cohen's algorithm gives them: exact binomial bounds, abstaining below 1/2."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(IMAGES):
        votes = DRAWS if number % 10 == 0 else int(rng.integers(2_000, DRAWS))
        share = beta.ppf(ALPHA, votes, DRAWS - votes + 1)
        radius = SIGMA * norm.ppf(share) if share > 0.5 else 0.0
        predict = int(rng.integers(0, 3)) if radius else -1
        found.append((20 * number, int(rng.integers(0, 3)), predict, float(radius)))
    return found


def log_text(rows: list[tuple[int, int, int, float]], time: Any = lambda i: f"0:00:{i % 60:02d}.5") -> str:
    lines = [
        f"{idx}\t{label}\t{predict}\t{radius:.3}\t{int(label == predict)}\t{time(i)}"
        for i, (idx, label, predict, radius) in enumerate(rows)
    ]
    return "\n".join([HEAD, *lines]) + "\n"


def imported(path: Path, runs: Path, **stated: Any) -> Any:
    log = read_log(str(path))
    assert log is not None
    return import_log(log, Stated(**stated), str(runs), "0.2.0+test")


def audited(url: str) -> RunAudit:
    (found,) = audit_runs([url])
    return found


def rows_of(url: str) -> dict[int, dict[str, Any]]:
    with open_query([url]) as query:
        found = query.sql("SELECT * FROM certificates").to_pylist()
    return {int(row["pair_id"].rpartition("#")[2]): row for row in found}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "sigma_0.50" / "cohen.tsv"
    path.parent.mkdir()
    path.write_text(log_text(outcomes()))
    return path


def test_every_image_is_there_and_no_radius_is_above_the_true_one(log: Path, tmp_path: Path) -> None:
    made = imported(log, tmp_path / "runs")
    assert (made.sigma, made.draws, made.alpha, made.pairs) == (SIGMA, DRAWS, ALPHA, IMAGES), (
        "sigma from the path"
    )
    assert made.reach is not None and (DRAWS, ALPHA) in made.reach.fits
    rows, lost = rows_of(made.url), 0.0
    assert rows.keys() == {idx for idx, *_ in outcomes()}
    for idx, label, predict, radius in outcomes():
        row = rows[idx]
        assert (row["label"], row["vote_label"]) == (str(label), None if predict < 0 else str(predict))
        if predict < 0:
            assert (row["vote_radius"], row["vote_share_lcb"]) == (None, None)
            continue
        assert row["vote_radius"] is None or row["vote_radius"] < radius, (
            "a certificate that the log did not give"
        )
        assert row["vote_share_lcb"] is None or row["vote_share_lcb"] < norm.cdf(radius / SIGMA)
        if row["vote_share"] is not None:
            votes = round(row["vote_share"] * DRAWS)
            assert beta.ppf(ALPHA, votes, DRAWS - votes + 1) >= row["vote_share_lcb"] * (1 - 1e-9)
            assert beta.ppf(ALPHA, votes - 1, DRAWS - votes + 2) < row["vote_share_lcb"]
        lost = max(lost, radius - (row["vote_radius"] or 0.0))
    assert 0 < lost <= 0.0101, "three digits: at most 0.01 is given away above 1"
    printed = [float(f"{radius:.3}") for _, _, predict, radius in outcomes() if predict >= 0]
    truth = [radius for _, _, predict, radius in outcomes() if predict >= 0]
    assert any(p > t for p, t in zip(printed, truth, strict=True)), "else taking what is printed would do"
    assert imported(log, tmp_path / "runs", sigma=1.0, draws=DRAWS, alpha=ALPHA).sigma == 1.0, (
        "a path may be wrong"
    )
    again = imported(log, tmp_path / "runs")
    assert again.url == made.url and len(rows_of(again.url)) == IMAGES, "twice changes nothing"


def test_summary_sql_and_compare_read_it(log: Path, tmp_path: Path) -> None:
    other = log.with_name("salman.tsv")
    other.write_text(
        log_text([(i, label, label, 0.9 * radius) for i, label, _, radius in outcomes() if radius])
    )
    first, second = (
        imported(path, tmp_path / "runs", data="cifar10", draws=DRAWS, alpha=ALPHA) for path in (log, other)
    )
    summary = summarise(first.url)
    assert summary.finished and summary.ok == IMAGES
    with open_query([first.url]) as query:
        table = query.sql(
            "SELECT avg(coalesce(vote_label = label AND vote_radius >= 0.25, false)::INT) AS right, count(*) AS n "
            "FROM certificates"
        ).to_pylist()
    expected = np.mean([label == predict and radius > 0.2505 for _, label, predict, radius in outcomes()])
    assert table[0]["n"] == IMAGES and abs((table[0]["right"] or 0.0) - expected) < 1.5 / IMAGES
    found = compare_runs(RunDirectory.open(first.url), RunDirectory.open(second.url))
    assert found.both == sum(1 for *_, radius in outcomes() if radius)
    assert any(each.figure.startswith("certified_share vote@") for each in found.figures)
    assert isinstance(summary.quarantined, Share)


def test_a_report_says_nothing_of_what_a_log_does_not_tell(log: Path, tmp_path: Path) -> None:
    """Nothing is known of cosines and of the mean: "for 0% of the pairs" would be a statement about the classifier."""
    run = RunDirectory.open(imported(log, tmp_path / "runs").url)
    assert Path(run.url).name.startswith("sigma_0.50-cohen.tsv-published-log-s0.5-"), "the file's name once"
    with open_query([run.url]) as query:
        (told,) = headlines(query, run.info)
        assert "for the vote over noisy copies" in told.sentence
        asked = [each.ask(query) for each in curve_questions([run.info])]
    (accuracy,) = [each for each in asked if each is not None and each.key == "certified-accuracy"]
    curves = {row[accuracy.columns.index("curve")] for row in accuracy.rows}
    assert curves == {"vote (Cohen et al.) (T9)"}
    with open_query([run.url]) as query:
        pairs, _, missing = shown_pairs(query, run, 5)
        radii = [
            row["r"]
            for row in query.sql("SELECT coalesce(vote_radius, -1) AS r FROM certificates").to_pylist()
        ]
    assert missing == [] and {pair["command"] for pair in pairs} == {None}, "it cannot be made again"
    shown = [-1.0 if pair["vote_radius"] is None else pair["vote_radius"] for pair in pairs]
    assert shown == [*sorted(radii)[:5], *sorted(radii)[:-6:-1]]


def test_samplings_of_dsrs(tmp_path: Path) -> None:
    path = tmp_path / "gaussian-None-0.5-50000-0.0005.txt"
    path.write_text(
        "\nx disttype gaussian\nx k None\nx std 0.5\nx N 50000\nx alpha 0.0005\n\n"
        "o 0 0.8049041946398782 0.8171109213954812\no 10 0.47 0.49\no 20 0.9998341327646891 1\n"
    )
    made = imported(path, tmp_path / "runs")
    assert (made.sigma, made.draws, made.alpha) == (0.5, 50_000, 0.0005)
    rows = rows_of(made.url)
    assert rows[0]["vote_radius"] == pytest.approx(0.5 * norm.ppf(0.8049041946398782), abs=1e-9)
    assert rows[0]["vote_radius"] <= 0.5 * norm.ppf(0.8049041946398782)
    assert rows[20]["vote_share_lcb"] <= 0.9998341327646891
    assert (rows[10]["vote_label"], rows[10]["vote_radius"]) == (None, None)
    assert {row["label"] for row in rows.values()} == {TRUE_CLASS}
    with pytest.raises(JobError, match="says sigma=0.5, --sigma says 0.25"):
        imported(path, tmp_path / "runs", sigma=0.25)
    path.write_text(
        path.read_text()
        .replace("x k None", "x k 380")
        .replace("disttype gaussian", "disttype general-gaussian")
    )
    with pytest.raises(JobError, match="noise 'general-gaussian' with k=380"):
        read_log(str(path))


def test_a_radius_that_no_such_draws_give_is_refused(log: Path, tmp_path: Path) -> None:
    rows = outcomes()
    log.write_text(log_text([*rows, (9999, 1, 1, 12.0 * SIGMA)]))
    with pytest.raises(JobError, match=r"(?s)does not say how many draws.*no usual pair gives.*--draws"):
        imported(log, tmp_path / "runs")
    with pytest.raises(
        JobError, match=r"(?s)radius of at least .* sigma, which 100,000 draws.*not certificates"
    ):
        imported(log, tmp_path / "runs", draws=100_000, alpha=0.001)
    assert not (tmp_path / "runs").exists()


def test_the_reach_is_that_of_unanimous_draws() -> None:
    for draws, alpha in ((10_000, 0.001), (100_000, 0.001), (1_000, 0.01)):
        exact = float(norm.ppf(alpha ** (1.0 / draws)))
        found = find_reach(exact - 0.002, exact + 0.002)
        assert (draws, alpha) in found.fits and found.allows(draws, alpha)
        assert not found.allows(draws // 10, alpha)
        assert find_reach(exact, exact).rate == pytest.approx(math.log(1 / alpha) / draws, rel=1e-6)


@pytest.mark.parametrize(
    "text", ["0.123", "0.0123", "0.00123", "1.23", "12.3", "0.5", "1.5", "1.2e-05", "0.0", "0.999", "0.1"]
)
def test_what_rounds_to_a_printed_number_is_between_its_ends(text: str) -> None:
    """Whether it was printed to three digits or to the decimals of the longest; by trying numbers around it."""
    printing = Printing.of(["0.123", text])
    low, high = printing.between(text)
    value = float(text)
    for number in np.linspace(value - 0.02, value + 0.02, 40_001):
        if (
            f"{number:.3}" == f"{value:.3}"
            or f"{number:.{printing.decimals}f}" == f"{value:.{printing.decimals}f}"
        ):
            assert low <= number <= high


def test_odd_logs(log: Path, tmp_path: Path) -> None:
    rows = outcomes()
    text = log_text(rows, time=lambda i: f"{i}.25" if i % 2 else f"1 day, {i % 24}:00:01")
    log.write_text("loading weights\n" + text + "done in 3 s\n" + f"{5000}\t1\t1\t0.1")  # cut by a kill
    found = read_log(str(log))
    assert found is not None and len(found.pairs) == IMAGES
    assert [line for _, line in found.left_out] == ["loading weights", "done in 3 s", "5000\t1\t1\t0.1"]
    assert found.pairs[1].seconds == 1.25 and found.pairs[2].seconds == 86400 + 2 * 3600 + 1
    log.write_text(log_text([(i, label, 1 if radius else -1, radius) for i, label, _, radius in rows]))
    constant = read_log(str(log))
    assert constant is not None and constant.constant and not found.constant
    log.write_text(log_text([rows[0], rows[0]]))
    with pytest.raises(JobError, match="an idx twice"):
        read_log(str(log))
    log.write_text(log_text(rows).replace("\t1\t0:00", "\t0\t0:00"))
    with pytest.raises(JobError, match="correct=0, but label"):
        read_log(str(log))
    (tmp_path / "stdout.txt").write_text("epoch 1\nepoch 2\n")
    assert read_log(str(tmp_path / "stdout.txt")) is None


def test_the_command(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stdout.txt").write_text("epoch 1\n")
    nameless = tmp_path / "log.tsv"
    nameless.write_text(log_text(outcomes(2)))
    done = CliRunner().invoke(app, ["import", str(log), "stdout.txt"])
    assert done.exit_code == 0, done.output
    assert "60 images of" in done.output and "N=10,000 alpha=0.001" in done.output
    assert "stdout.txt: no line of it is a certification" in done.output
    refused = CliRunner().invoke(app, ["import", str(nameless)])
    assert isinstance(refused.exception, JobError) and "--sigma" in str(refused.exception)
    assert CliRunner().invoke(app, ["import", str(nameless), "--sigma", "0.5"]).exit_code == 0
    nothing = CliRunner().invoke(app, ["import", "stdout.txt"])
    assert isinstance(nothing.exception, JobError)
    again = CliRunner().invoke(app, ["import", str(log), "none.tsv", "stdout.txt"])
    assert isinstance(again.exception, JobError) and "1 of 3 logs were refused" in str(again.exception)
    assert "none.tsv" in again.output and "60 images of" in again.output, "one bad log keeps no other out"


def rewrite(url: str, change: Any) -> None:
    """Change the rows of an imported run by hand, as an author of false certificates would."""
    (part,) = Path(url).glob("certificates/**/*.parquet")
    rows = pq.read_table(part)
    pq.write_table(pa.Table.from_pylist([change(row) for row in rows.to_pylist()], rows.schema), part)


def test_the_audit_knows_what_logs_cannot_tell(log: Path, tmp_path: Path) -> None:
    found = audited(imported(log, tmp_path / "runs").url)
    assert found.sound, found.lines()
    (note,) = found.notes
    assert "N=10,000 alpha=0.001 gives it; the run says N=10,000 alpha=0.001" in note


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"vote_radius": 6.0, "vote_share": 1.0, "vote_share_lcb": float(norm.cdf(12.0))}, "beyond-draws"),
        ({"vote_radius": 1.5}, "rounded-up"),
        ({"vote_radius": -0.1}, "impossible-value"),
        ({"smooth_norm_lcb": 0.9, "smooth_norm": 0.9}, "published-claims"),
        ({"noise": "philox", "device": "cuda"}, "impossible-value"),
    ],
)
def test_the_audit_finds_false_rows_of_logs(
    log: Path, tmp_path: Path, changes: dict[str, Any], rule: str
) -> None:
    """A radius of 12 sigma, one that does not follow, one below 0, a claim on the mean; rows of our own have pilots."""
    url = imported(log, tmp_path / "runs").url
    rewrite(url, lambda row: {**row, **(changes if row["pair_id"].endswith("#20") else {})})
    found = audited(url)
    assert rule in {each.rule for each in found.findings}
    assert {pair for each in found.findings for pair, _ in each.listed} == {"published#20"}


def test_the_audit_notes_a_constant_classifier(log: Path, tmp_path: Path) -> None:
    log.write_text(log_text([(i, label, 1 if radius else -1, radius) for i, label, _, radius in outcomes()]))
    assert "classifier is constant" in audited(imported(log, tmp_path / "runs").url).notes[-1]


@pytest.mark.parametrize(
    ("path", "sigma"),
    [
        ("resnet110/noise_0.25/test/sigma_0.50/log.tsv", 0.5),
        ("resnet50/noise_0.00/test/sigma_1.00/log.tsv", 1.0),
        ("noise-1/log.tsv", 1.0),
        ("std0.12.tsv", 0.12),
        ("sigma_025/log.tsv", None),
        ("sigma_12/log.tsv", None),
        ("eps_255/multinoise/2-multitrain/log.tsv", None),
        ("sigma_0.00/log.tsv", None),
    ],
)
def test_sigma_that_only_a_path_names(tmp_path: Path, path: str, sigma: float | None) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(log_text(outcomes()))
    log = read_log(str(file))
    assert log is not None and log.sigma_of_path == sigma


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"idx\tlabel\tpredict\tradius\tcorrect\ttime\n",
        b"\x89PNG\r\n\x1a\n\x00\xff\xfe",
        b"0\t1\t1\tnan\t1\t0:00:01\n",
        b"0\t1\t1\t0.5\t1\tnan\n",
        b"0 1 1 0.5 1 2.0\n",
    ],
    ids=["empty", "head alone", "no text", "no radius", "no time", "blanks"],
)
def test_files_without_a_result(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert read_log(str(tmp_path / "file")) is None


def test_ends_of_lines_and_marks_of_other_systems(log: Path) -> None:
    plain = read_log(str(log))
    log.write_bytes(b"\xef\xbb\xbf" + log.read_bytes().replace(b"\n", b"\r\n"))
    other = read_log(str(log))
    assert plain is not None and other is not None
    assert other.pairs == plain.pairs and not other.left_out
