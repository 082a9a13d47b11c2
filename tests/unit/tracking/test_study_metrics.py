"""Metrics of a study: MLflow takes their names, and the runs' own names can be read back from them."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from smoothcert.tracking.study_metrics import LONGEST, metric_of, spell

PIECES = ["+", "-", "_", " ", ", ", "plus", "dash", "underscore", "word", "a", "7", "."]
LABELS = st.lists(st.sampled_from(PIECES), max_size=9).map(lambda pieces: "x" + "".join(pieces))


def read_back(spelt: str) -> str:
    """The name of a run, from left to right, by the rules that docs/studies.md tells."""
    signs = {"_plus_": "+", "_dash_": "-", "_underscore_": "_", "_word_plus_": "plus", " - ": ", "}
    read, rest = "", spelt
    while rest:
        sign = next((each for each in signs if rest.startswith(each)), "")
        alone = re.match(r"plus(?= |$)", rest) and (not read or spelt[: -len(rest)].endswith(" "))
        taken = sign or ("plus" if alone else rest[0])
        read += signs[sign] if sign else "+" if alone else taken
        rest = rest[len(taken) :]
    return read


@given(LABELS, st.sampled_from(["", "bare", "my-psm"]))
@example("FS + PSM", "")
@example("a+_plus_+plus", "bare")
@example("x -, - -- plus, + , +", "")
def test_the_name_of_a_run_can_be_read_back(label: str, subject: str) -> None:
    metric = metric_of("attack success l2 1.2 (feature < 0.5 a/b)", label, subject)
    assert re.fullmatch(r"[/\w.\- ]{1,250}", metric), "MLflow's own rule where colons are none"
    figure, slash, run = metric.partition("/")
    assert figure == "attack success l2 1.2 feature below 0.5 a b" and slash
    spelt, _, whose = run.partition(" -- ")
    assert read_back(spelt) == label and whose == subject


def test_names_are_spelt_as_people_read_them() -> None:
    assert spell("FS + PSM") == "FS plus PSM" and spell("a+b") == "a_plus_b"
    assert spell("sigma 0.25, max_draws 300") == "sigma 0.25 - max_draws 300"
    assert metric_of("target angular >= 0.8 r 0.25", "PSM", "bare") == (
        "target angular at least 0.8 r 0.25/PSM -- bare"
    )
    long = [metric_of("f" * 300, "x" * 300 + end) for end in "ab"]
    assert long[0] != long[1] and max(map(len, long)) <= LONGEST
