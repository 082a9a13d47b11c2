"""The report of two small runs with hostile texts, opened in headless Chromium, and its numbers asked for again."""

from __future__ import annotations

import csv
import html
import html.parser
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from smoothcert.cli.keeping import pages
from smoothcert.cli.main import app
from smoothcert.cli.terminal import Terminal
from smoothcert.datasets import write_demo_data
from smoothcert.job import parse_job
from smoothcert.report import make_report
from smoothcert.report.page import embed
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor
from smoothcert.sql import Query
from smoothcert.store import RunDirectory

from .browser import Browser, find_browser

HOSTILE = (
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 2</script><img src=x onerror='window.hacked = 3'>",
    '=HYPERLINK("http://example.invalid")',
    "\u202eright to left \u2028 and \u2029 \U0001f600 \x1b[31mred\x1b[0m\nnew line",
    "x" * 20_000,
    "{{ 7 * 7 }} $x^2$ <b>bold</b> & -- <!-- comment",
)
JOB = """
name: digits
data: {format: parquet, uri: nowhere, keep: {"=source": text}}
encoder: {model: "bundled:digits-clip", slots: 8, chunk: 16, threads: 1}
certify: {sigma: 0.25, alpha: 0.1, pilot_draws: 16, max_draws: 64, radii: [0.0625, 0.125], cosines: [0.5, 0.8]}
zero_shot: {labels: [zero, one, two, three, four, five, six, seven, eight, nine]}
attacks: [{attack: pgd, norm: l2, budgets: 0.125, subjects: smoothed, steps: 2, restarts: 1, eot_draws: 2,
  evaluate_draws: 16, keep: 3}]
output: {quarantine_budget: 0.5}
tracking: {enabled: false}
"""
PAIRS = 20


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunDirectory]]:
    """Digits under two sigmas; captions and an own column are hostile, and one image is none."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    where = tmp_path_factory.mktemp("report")
    write_demo_data(where / "digits", "parquet")
    table = pq.read_table(min((where / "digits").glob("*.parquet"))).slice(0, PAIRS).to_pydict()
    table["caption"] = [*HOSTILE, *table["caption"][len(HOSTILE) :]]
    table["=source"] = ["<i>web</i>" if i % 2 else "+camera" for i in range(PAIRS)]
    images = table["image"]
    images[-1] = (
        {**images[-1], "bytes": b"<svg onload=alert(1)>"} if isinstance(images[-1], dict) else b"<svg>"
    )
    pq.write_table(pa.table(table), where / "pairs.parquet")
    found = []
    for sigma in (0.25, 0.5):
        driver = Driver(
            parse_job(
                JOB,
                [
                    f"data.uri={where / 'pairs.parquet'}",
                    f"output.runs={where / 'runs'}",
                    f"certify.sigma={sigma}",
                    *(["attacks=[]"] if sigma > 0.25 else []),
                ],
            )
        )
        driver.check()
        for phase in driver.phases:
            assert driver.work(phase.name, Monitor(lambda result: None)).missing == 0
        found.append(RunDirectory.open(driver.url))
    yield found
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def page(runs: list[RunDirectory], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the command writes it, of both runs."""
    file = tmp_path_factory.mktemp("page") / "report.html"
    done = CliRunner().invoke(app, ["report", *(run.url for run in runs), "-o", str(file)])
    assert done.exit_code == 0, done.output
    return file


@pytest.fixture(scope="module")
def data(page: Path) -> dict[str, Any]:
    return read_data(page.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tab(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if find_browser() is None:
        pytest.skip("no Chromium on the path: apt-get install -y chromium")
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        opened.open(page)
        yield opened


class Scripts(html.parser.HTMLParser):
    """Elements of a page as a parser of HTML sees them, with the text of its block of data."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.data = ""
        self._inside = False

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.append(tag)
        self._inside = ("id", "data") in attributes

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, text: str) -> None:
        if self._inside:
            self.data += text


def read_data(text: str) -> dict[str, Any]:
    parser = Scripts()
    parser.feed(text)
    assert parser.tags.count("script") == 3 and "img" not in parser.tags and "b" not in parser.tags
    return dict(json.loads(parser.data))


def figure(data: dict[str, Any], key: str) -> dict[str, Any]:
    (found,) = [each for each in data["figures"] if each["key"] == key]
    return dict(found)


def column(found: dict[str, Any], name: str) -> list[Any]:
    return [row[found["columns"].index(name)] for row in found["rows"]]


def rows_of(run: RunDirectory) -> list[dict[str, Any]]:
    return [
        row
        for file in Path(run.url, "certificates").glob("*.parquet")
        for row in pq.read_table(file).to_pylist()
    ]


def test_every_figure_is_what_its_sql_gives(data: dict[str, Any], runs: list[RunDirectory]) -> None:
    keys = {each["key"] for each in data["figures"]}
    assert keys >= {
        *("cosine-smoothed", "cosine-clean", "certified-share", "certified-accuracy", "attacks", "by-label"),
        *("by-column-=source", "draws", "quarantine", "progress", "workers", "difference-2"),
    }
    with Query(runs, many=True) as query:
        for each in data["figures"]:
            if each["source"].startswith("smoothcert compare"):
                continue
            table = query.sql(each["source"])
            assert table.column_names == each["columns"] and table.num_rows == len(each["rows"]), each["key"]


def test_shares_and_medians_are_those_of_the_part_files(
    data: dict[str, Any], runs: list[RunDirectory]
) -> None:
    shares, cosines = figure(data, "certified-share"), figure(data, "cosine-smoothed")
    for run in runs:
        rows = rows_of(run)
        assert len(rows) == PAIRS
        certified = [row["angular"] for row in rows if row["status"] == "ok"]
        for i, radius in enumerate((0.0625, 0.125)):
            for cosine in (0.5, 0.8):
                held = sum(each[i] is not None and each[i] >= cosine for each in certified)
                keys = zip(
                    *(
                        column(shares, name)
                        for name in ("run_id", "curve", "radius", "cosine", "certified", "pairs")
                    ),
                    strict=True,
                )
                assert (run.run_id, "angular (T3)", radius, cosine, held, PAIRS) in set(keys)
            at = [
                row
                for row in zip(
                    *(column(cosines, name) for name in ("run_id", "curve", "radius", "median")), strict=True
                )
                if row[:3] == (run.run_id, "angular (T3)", radius)
            ]
            values = [-1.0 if each[i] is None else each[i] for each in certified]
            lower_median = np.quantile(values, 0.5, method="inverted_cdf")
            ((*_, shown),) = at
            # rounded down to 0.001, never up
            assert (shown is None and lower_median == -1) or lower_median - 0.0011 < shown <= lower_median


def test_the_headline_counts_what_the_files_hold(data: dict[str, Any], runs: list[RunDirectory]) -> None:
    assert [told["name"] for told in data["runs"]] == ["sigma 0.25", "sigma 0.5"]
    for run, told in zip(runs, data["runs"], strict=True):
        sentence = told["sentences"][0]
        ok = [row["angular"] for row in rows_of(run) if row["status"] == "ok"]
        shares = {
            r: sum(each[i] is not None and each[i] >= 0.8 for each in ok)
            for i, r in enumerate((0.0625, 0.125))
        }
        radius = 0.125 if shares[0.125] >= PAIRS / 2 else 0.0625
        assert f"of {PAIRS} pairs" in sentence and f"at most {radius:g}" in sentence
        assert (
            f"{shares[radius] / PAIRS:.1%}" in sentence and f"these {shares[radius]} certificates" in sentence
        )


def test_a_quarantined_pair_is_shown_with_its_reason(data: dict[str, Any]) -> None:
    bad = [pair for pair in data["pairs"] if pair["shown"] == "quarantined"]
    assert [pair["error_class"] for pair in bad] == ["DecodeError"]
    assert column(figure(data, "quarantine"), "pairs") == [1, 1]


def test_pictures_come_from_the_source_and_from_kept_examples(data: dict[str, Any]) -> None:
    ok = [pair for pair in data["pairs"] if pair["status"] == "ok"]
    assert all(pair["pictures"].keys() == {"clean", "noisy"} for pair in ok)
    attacked = {pair["pair_id"] for pair in ok if pair["attacked"]}
    assert len(attacked) == 3 and all(pair["attacks"] for pair in ok)


def test_no_pair_is_shown_twice(data: dict[str, Any], runs: list[RunDirectory]) -> None:
    """Of the 19 pairs that can be encoded half are the least robust ones, and half the most."""
    shown = [pair["pair_id"] for pair in data["pairs"]]
    assert len(shown) == len(set(shown)) == PAIRS
    few = read_data(make_report(runs[:1], pairs=3))["pairs"]
    ordered = sorted(
        (row for row in rows_of(runs[0]) if row["status"] == "ok"),
        key=lambda row: (
            -1.0 if row["certified_radius"] is None else row["certified_radius"],
            -1.0 if row["vote_radius"] is None else row["vote_radius"],
            row["smooth_norm_lcb"],
        ),
    )
    ids = [row["pair_id"] for row in ordered]
    assert [pair["pair_id"] for pair in few] == [*ids[:3], *ids[::-1][:3], data["pairs"][-1]["pair_id"]]


def test_a_source_that_is_gone_is_said_so(runs: list[RunDirectory]) -> None:
    source = Path(runs[0].info.job.data.uris[0])
    moved = source.rename(source.with_suffix(".away"))
    try:
        told = read_data(make_report(runs[:1], pairs=2))
    finally:
        moved.rename(source)
    assert "no pictures" in told["missing"][0] and not told["pairs"][0]["pictures"]
    assert told["figures"]


def test_a_part_used_outside_its_range_is_said_on_the_page(runs: list[RunDirectory], tmp_path: Path) -> None:
    shutil.copytree(runs[1].url, tmp_path / "noted")
    noted = RunDirectory.open(str(tmp_path / "noted"))
    noted.note(["defence 'psm': its purifier was trained for sigma 0.25 and is used at 0.5"])
    page = make_report([noted], pairs=0)
    said = "Note: defence 'psm': its purifier was trained for sigma 0.25 and is used at 0.5."
    assert read_data(page)["runs"][0]["sentences"][-1] == said
    assert html.escape(said) in page.split("<noscript>")[1].split("</noscript>")[0]


def test_data_cannot_end_their_block() -> None:
    text = embed({"x": ["</script><!--", "a & b", "\u2028\u2029", "\ud800"]})
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text)["x"][:3] == ["</script><!--", "a & b", "\u2028\u2029"]


def test_the_page_works_in_a_browser(tab: Browser, data: dict[str, Any], page: Path) -> None:
    assert tab.problems == [] and tab.requests == [page.as_uri()], "an error, or a request"
    assert tab.run("window.hacked") is None
    assert tab.run("document.querySelectorAll('#main img[onerror], #main script, #main b').length") == 0
    charts = sum(1 for each in data["figures"] if each["chart"])
    assert tab.run("document.querySelectorAll('.plot').length") == charts
    # drawn: each has lines, points or bars
    drawn = "[...document.querySelectorAll('.plot')].filter(p => p.querySelector('.trace path')).length"
    assert tab.run(drawn) == charts
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")
    # the policy, as the browser keeps to it
    tried = "(() => { try { return eval('1') } catch (e) { return e.name } })()"
    done = tab.call("Runtime.evaluate", expression=tried, allowUnsafeEvalBlockedByCSP=False)
    assert done["result"]["value"] == "EvalError"


def test_hostile_captions_are_shown_as_text(tab: Browser) -> None:
    captions = tab.run("[...document.querySelectorAll('.caption')].map(p => p.textContent)")
    for text in (HOSTILE[0], HOSTILE[1], HOSTILE[3], HOSTILE[5]):
        assert text in captions
    assert any(each.endswith("… (20,000 characters)") for each in captions)
    assert tab.run("document.getElementById('title').textContent") == "digits"


def test_filter_and_sort(tab: Browser) -> None:
    def set_(field: str, value: str) -> None:
        tab.run(f"(() => {{ const f = document.getElementById({field!r}); f.value = {json.dumps(value)};"
                " f.dispatchEvent(new Event('input', {bubbles: true})); })()")  # fmt: skip

    count = "document.querySelectorAll('.pair').length"
    before = tab.run(count)
    set_("filter-text", "window.hacked = 2")
    assert 0 < tab.run(count) < before
    assert tab.run(
        "[...document.querySelectorAll('.caption')].every(p => p.textContent.includes('hacked = 2'))"
    )
    set_("filter-text", "")
    set_("filter-shown", "quarantined")
    assert tab.run(count) == 1
    set_("filter-shown", "most robust")
    set_("sort", "smooth_norm_lcb")
    norms = tab.run(
        "[...document.querySelectorAll('.numbers')].map(d => Number([...d.querySelectorAll('dt')]"
        ".find(t => t.textContent.startsWith('smoothed norm')).nextSibling.textContent))"
    )
    assert len(norms) > 5 and norms == sorted(norms)
    set_("filter-shown", "")
    set_("sort", "")
    assert tab.run(count) == before


def test_csv_has_numbers_as_they_are_and_no_formulas(tab: Browser, data: dict[str, Any]) -> None:
    text = tab.run(
        "toCsv(['=a', 'b'], [['=1+1', -2.5], ['-x', 1e-7], ['@y,\"z\"', null], ['\\tq', true], ['ok', 0]])"
    )
    assert list(csv.reader(io.StringIO(text))) == [
        ["'=a", "b"], ["'=1+1", "-2.5"], ["'-x", "1e-7"], ["'@y,\"z\"", ""], ["'\tq", "true"], ["ok", "0"],
    ]  # fmt: skip
    by_source = figure(data, "by-column-=source")
    assert sorted(column(by_source, "value")) == ["+camera", "<i>web</i>"]


def test_it_can_be_used_by_keyboard_alone(tab: Browser) -> None:
    tab.run("document.activeElement.blur()")
    reached = []
    for _ in range(20):
        tab.press("Tab")
        reached.append(
            tab.run(
                "document.activeElement.id || document.activeElement.className || document.activeElement.tagName"
            )
        )
    assert reached[0] == "skip" and "theme" in reached and "csv" in reached
    tab.run("document.getElementById('theme').focus()")
    before = tab.run("document.documentElement.dataset.theme")
    tab.press("Enter")
    assert tab.run("document.documentElement.dataset.theme") != before
    tab.press("Enter")


def test_it_prints_in_light_at_the_width_of_paper(tab: Browser) -> None:
    tab.run("setTheme('dark')")
    seen = tab.run(
        "(() => { dispatchEvent(new Event('beforeprint'));"
        " const at = [theme(), ...plots.map(p => p.place.querySelector('.main-svg').getAttribute('width'))];"
        " dispatchEvent(new Event('afterprint')); return at })()"
    )
    assert seen[0] == "light" and set(seen[1:]) == {"660"}
    assert tab.run("theme()") == "dark" and len(tab.call("Page.printToPDF")["data"]) > 10_000
    assert tab.problems == []
    tab.run("setTheme('light')")


CONTRAST = """
(() => {
  const probe = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (colour) => { probe.clearRect(0, 0, 1, 1); probe.fillStyle = colour; probe.fillRect(0, 0, 1, 1);
    return [...probe.getImageData(0, 0, 1, 1).data]; };
  const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => { const f = c.slice(0, 3).map(v => linear(v / 255));
    return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; };
  const ground = (e) => {
    for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; }
    return [255, 255, 255, 255]; };
  const low = [];
  for (const e of document.querySelectorAll("body *")) {
    if (e.closest("svg, script, noscript, details:not([open]) > :not(summary)") || !e.offsetParent) continue;
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push(e.tagName + "." + e.className + " " + ratio.toFixed(2));
  }
  return [...new Set(low)];
})()
"""
NAMELESS = """
[...document.querySelectorAll("button, select, input, a, img, [role], summary")].filter(e =>
  !(e.textContent.trim() || e.getAttribute("aria-label") || e.getAttribute("alt") || e.closest("label"))
).map(e => e.outerHTML.slice(0, 80))
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_have_contrast_and_controls_have_names(tab: Browser, theme: str) -> None:
    """WCAG 2: 4.5 to 1 for texts; every control, picture and region is named."""
    tab.run(f"setTheme({theme!r})")
    assert tab.run(CONTRAST) == []
    assert tab.run(NAMELESS) == []
    heads = tab.run("[...document.querySelectorAll('h1, h2, h3')].map(h => Number(h.tagName[1]))")
    assert heads[0] == 1 and all(b - a <= 1 for a, b in zip(heads, heads[1:], strict=False))


def test_a_page_that_fails_fails_no_run(runs: list[RunDirectory], capsys: pytest.CaptureFixture[str]) -> None:
    job = runs[0].info.job
    off = job.model_copy(update={"tracking": job.tracking.model_copy(update={"report": False})})
    assert pages(runs, off, Terminal()) == {}
    assert pages([runs[0], runs[0]], job, Terminal()) == {}  # one run twice
    assert "no report: QueryError" in capsys.readouterr().out


def test_an_output_that_cannot_be_written_is_said_with_its_remedy(runs: list[RunDirectory]) -> None:
    done = CliRunner().invoke(app, ["report", runs[0].url, "-o", "/nowhere/at/all.html"])
    assert done.exit_code == 1 and "--output /nowhere/at/all.html" in str(done.exception)
