"""Second moments of slots, step by step, against those of all draws at once."""

import numpy as np
import pytest
import torch

from smoothcert.engine.moments import LARGEST_DIMENSION, MomentTracker
from smoothcert.statistics import fix_ball

D, CHUNK, RNG = 6, 8, np.random.default_rng(5)


def unit(n, spread):
    u = np.eye(D)[0] + spread * RNG.standard_normal((n, D))
    return u / np.linalg.norm(u, axis=1, keepdims=True)


def test_steps_of_slots_add_up_to_the_moment_of_the_draws_in_the_ball():
    tracker = MomentTracker(3, D, torch.device("cpu"))
    counts = {0: (8, 8, 3), 2: (8, 5, 8)}
    for _ in range(2):  # the second pair of a slot begins anew
        pilots = {slot: unit(20, 0.1) for slot in counts}
        drawn = {slot: [] for slot in counts}
        for slot, pilot in pilots.items():
            tracker.start(slot, pilot)
        for step in range(3):
            # wider than the pilots, so that some draws leave the ball
            features = np.stack([unit(CHUNK, 0.4) for _ in counts])
            used = np.array([counts[slot][step] for slot in counts])
            tracker.update(list(counts), torch.from_numpy(features), used)
            for slot, each, n in zip(counts, features, used, strict=True):
                drawn[slot].append(each[:n])
        for slot, pilot in pilots.items():
            centre, squared = fix_ball(pilot)
            away = np.concatenate(drawn[slot]) - centre
            inside = (away**2).sum(axis=1) <= squared
            assert 0 < inside.sum() < len(away)
            exact = np.linalg.eigvalsh((away[inside].T @ away[inside]) / len(away))[-1]
            found = tracker.result(slot)
            assert found.inside.tolist() == inside.tolist() and found.squared_radius == squared
            assert exact <= found.eigenvalue <= exact * 1.01 + 1e-9


def test_a_draw_that_is_no_number_is_in_no_ball():
    tracker = MomentTracker(1, D, torch.device("cpu"))
    tracker.start(0, unit(20, 0.1))
    features = unit(CHUNK, 0.05)
    features[3] = np.nan
    tracker.update([0], torch.from_numpy(features)[None], np.array([CHUNK]))
    found = tracker.result(0)
    assert not found.inside[3] and found.inside.sum() >= CHUNK - 2 and np.isfinite(found.eigenvalue)


@pytest.mark.parametrize("dimension", [0, LARGEST_DIMENSION + 1])
def test_where_nothing_is_measured_nothing_is_held(dimension):
    tracker = MomentTracker(2, dimension, torch.device("cpu"))
    tracker.start(0, unit(4, 0.1))
    tracker.update([0], torch.from_numpy(unit(CHUNK, 0.1))[None], np.array([CHUNK]))
    assert not tracker.measures and tracker.result(0) is None
