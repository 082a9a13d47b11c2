"""The trend page of a monitor: its numbers are those of the nights, and Chromium draws them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import beta

from smoothcert.monitor.history import Night, Trend, Watched, make_trend
from smoothcert.monitor.page import make_trend_page

from .browser import Browser, find_browser
from .test_report import column, figure, read_data

WATCHED = Watched(
    "runs/r", "imagenet-s0.25-7335ed99", "angular>=0.8@0.25", True, (830, 1000), 0.02, 0.01, 100, 7
)
URL = "runs/<script>window.hacked = 1</script>.monitor"


def trend(*lost: int, watched: Watched = WATCHED) -> Trend:
    nights = [
        Night(f"2026-11-{number:02d}", f"run-{number}", "u", "e" * 64, "d" * 64, 100, 84 - each, 83, 1, each)
        for number, each in enumerate(lost, start=1)
    ]
    if not watched.paired:
        nights = [
            dataclasses.replace(each, reference_certified=None, gained=None, lost=None) for each in nights
        ]
    return make_trend(watched, nights)


def told(found: Trend) -> dict[str, Any]:
    return read_data(make_trend_page(found, URL))


def test_numbers_are_those_of_the_nights() -> None:
    found = trend(2, 0, 3)
    data = told(found)
    shares = figure(data, "trend-share")
    assert column(shares, "share") == [0.82, 0.84, 0.81, 0.83, 0.83, 0.83]
    low, high = beta.ppf(0.025, 82, 19), beta.ppf(0.975, 83, 18)  # Clopper and Pearson, by scipy
    assert (column(shares, "share_low")[0], column(shares, "share_high")[0]) == pytest.approx((low, high))
    evidence = figure(data, "trend-evidence")
    assert column(evidence, "evidence")[:3] == pytest.approx([math.exp(each) for each in found.evidence])
    assert column(evidence, "evidence")[3:] == pytest.approx([100.0] * 3)
    assert column(figure(data, "trend-changes"), "pairs") == [2, 0, 3, 1, 1, 1]
    assert column(figure(data, "trend-nights"), "night") == ["2026-11-03", "2026-11-02", "2026-11-01"]
    first, last = data["runs"][0]["sentences"]
    assert first.startswith("No alarm in 3 nights:") and "at most 0.01" in first
    assert "2026-11-03, for 81.0% of 100 pairs the feature keeps a cosine of at least 0.8" in last
    assert "83.0% of the same pairs" in last
    assert data["ask"][1].endswith("--history --csv nights.csv") and "'" in data["ask"][1]


def test_an_alarm_is_said_first_and_stands() -> None:
    found = trend(2, 40, 40, 0)
    assert found.alarm is not None and found.alarm < 3, "and the last night is a quiet one"
    data = told(found)
    first = data["runs"][0]["sentences"][0]
    assert first.startswith(f"Alarm since night {found.nights[found.alarm].night}:")
    alarms = column(figure(data, "trend-nights"), "alarm")
    assert alarms == [position >= found.alarm for position in (3, 2, 1, 0)]


def test_other_pairs_have_no_changes_and_half_of_alpha() -> None:
    data = told(trend(2, 3, watched=dataclasses.replace(WATCHED, paired=False)))
    assert [each["key"] for each in data["figures"]] == ["trend-share", "trend-evidence", "trend-nights"]
    assert column(figure(data, "trend-evidence"), "evidence")[2:] == pytest.approx([200.0] * 2)
    assert "of the reference's 1,000 pairs it held for 83.0%" in data["runs"][0]["sentences"][1]


def test_nothing_yet_and_a_claim_without_words() -> None:
    assert told(trend())["runs"][0]["sentences"] == ["No night is done yet."]
    odd = told(trend(1, watched=dataclasses.replace(WATCHED, claim="of_old>=0.5@0.1")))
    assert "it holds that of_old>=0.5@0.1" in odd["runs"][0]["sentences"][1]


@pytest.mark.skipif(find_browser() is None, reason="no Chromium on the path: apt-get install -y chromium")
def test_it_is_drawn_without_an_error(tmp_path: Path) -> None:
    file = tmp_path / "trend.html"
    file.write_text(make_trend_page(trend(2, 1, 30, 35, 3), URL), encoding="utf-8")
    with Browser(tmp_path / "profile", width=420) as tab:
        tab.open(file)
        assert tab.problems == [] and tab.requests == [file.as_uri()]
        assert tab.run("window.hacked") is None
        drawn = "[...document.querySelectorAll('.plot')].filter(p => p.querySelector('.trace path')).length"
        assert tab.run(drawn) == tab.run("document.querySelectorAll('.plot').length") == 3
        assert tab.run("document.querySelector('.lead strong').textContent").startswith("Alarm since night")
        ticks = tab.run(
            "[...document.querySelector('.plot').querySelectorAll('.xtick')].map(t => t.textContent)"
        )
        assert "2026-11-01" in ticks, "names, not moments"
        assert tab.run("document.documentElement.scrollWidth <= innerWidth")
        file.write_text(make_trend_page(trend(0, 0), URL), encoding="utf-8")
        tab.open(file)
        dashes = "[...document.querySelector('.plot').querySelectorAll('.js-line')].map(p => p.style.strokeDasharray)"
        nights, reference = [each for each in tab.run(dashes) if each is not None][-2:]
        assert not nights and reference == "6px, 10px", "both are seen where they are equal"
        counts = tab.run(
            "[...document.querySelectorAll('.plot')[2].querySelectorAll('.ytick text')].map(t => t.textContent)"
        )
        assert counts == ["0", "1"], "pairs are whole"
