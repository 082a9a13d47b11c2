"""A look at a few pairs: which ones, with which noise, and what is made of how they went."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from smoothcert.catalogue.certificates import CATALOGUE, of_name
from smoothcert.datasets import open_source, write_synthetic
from smoothcert.encoders import KnownEncoder
from smoothcert.engine import DecodeAhead, Engine, Measurement, Texts
from smoothcert.job import Job, Target, parse_job
from smoothcert.work.certify import trial
from smoothcert.work.certify.trial import Trial, choose_pairs, rivals_of, try_targets

ENCODER = KnownEncoder.rotating(1.0, input_size=(8, 8))
FCSB = Target(certificate="fcsb", radius=0.1, cosine=0.7)
HARD = Target(certificate="fcsb", radius=0.25, cosine=0.9)
JOB = """
name: mini
data: {{format: parquet, uri: "{data}"}}
encoder: {{model: "bundled:digits-clip", slots: 4, chunk: 1, threads: 1}}
certify: {{sigma: 0.25, alpha: 0.01, pilot_draws: 7, max_draws: 150}}
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    where: Path = tmp_path_factory.mktemp("data")
    write_synthetic(str(where), "parquet", pairs=40, pairs_per_shard=20, size=8, seed=1)
    return parse_job(JOB.format(data=where))


def test_pairs_are_spread_over_the_data(job: Job) -> None:
    source = open_source(job.data)
    units = list(source.units(5))
    chosen = choose_pairs(source, units, 4)
    everyone = [pair.pair_id for unit in units for pair in source.read(unit)]
    positions = [everyone.index(pair.pair_id) for pair in chosen]
    assert len(set(positions)) == 4 and min(np.diff(positions)) >= 5
    assert [pair.pair_id for pair in choose_pairs(source, units, 4)] == [pair.pair_id for pair in chosen]
    assert len(choose_pairs(source, units, 25)) == 25 and len(choose_pairs(source, units, 100)) == 40


def test_a_trial_is_what_the_engine_does_with_another_seed(job: Job) -> None:
    torch.set_num_threads(1)
    source = open_source(job.data)
    pairs = choose_pairs(source, list(source.units(5)), 4)
    tried = try_targets(job, ENCODER, Texts(), pairs, (FCSB,))

    def by_the_engine(seed: int) -> list[int]:
        certify = job.certify.model_copy(update={"targets": (FCSB,), "seed": seed})
        engine = Engine(ENCODER, certify, Texts(), slots=2, chunk=1, threads=1)
        feed = DecodeAhead((("t", pair) for pair in pairs), ENCODER, max_pixels=10**6)
        found = {r.pair.pair_id: r.draws for r in engine.run(feed) if isinstance(r, Measurement)}
        feed.close()
        engine.close()
        return sorted(found.values())

    assert sorted(tried.draws.tolist()) == by_the_engine(job.certify.seed + (1 << 62))
    assert sorted(tried.draws.tolist()) != by_the_engine(job.certify.seed)
    assert tried.certified.all() and tried.decided.all()
    both = try_targets(job, ENCODER, Texts(), pairs, (FCSB, HARD))
    assert not both.certified.any() and (both.draws >= 1).all()


def test_figures_of_a_trial_by_hand() -> None:
    draws, decided = np.array([50, 100, 400, 100, 200]), np.array([True, True, False, True, True])
    made = Trial((FCSB,), draws, np.array([True, True, False, False, False]), decided)
    assert [made.decided_after(n) for n in (49, 50, 100, 399, 400)] == [0.0, 0.2, 0.6, 0.8, 0.8]
    assert made.draws_each == 850 / 2
    assert (made.enough(), made.enough(0.75), made.enough(0.25)) == (200, 100, 50)
    nothing = Trial((FCSB,), draws, np.zeros(5, dtype=bool), np.zeros(5, dtype=bool))
    assert nothing.draws_each == float("inf") and nothing.enough() == 0


def test_other_rules_for_the_same_statement_come_from_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [each.certificate for each in rivals_of(FCSB)]
    monkeypatch.setattr(trial, "CATALOGUE", (*CATALOGUE, replace(of_name("fcsb"), name="twice")))
    assert [each.certificate for each in rivals_of(FCSB)] == [*before, "twice"]
    assert all((each.radius, each.cosine) == (FCSB.radius, FCSB.cosine) for each in rivals_of(FCSB))
    assert not {"fcsb", "angular"} & set(before), "one is itself, the other about another cosine"
    assert "clean_percentile" in before, "the same cosine, by another rule"


@pytest.mark.parametrize("name", [each.name for each in CATALOGUE if each.target])
def test_a_rival_says_the_same(name: str) -> None:
    own = of_name(name)
    cosine = None if own.bound is None else 0.5
    for rival in rivals_of(Target(certificate=name, radius=0.1, cosine=cosine)):
        other = of_name(rival.certificate)
        same_section = other.quantity.section == own.quantity.section != ""
        assert other.quantity == own.quantity or same_section or other.quantity.of == own.quantity.of != ""
        Target.model_validate(rival.model_dump())
