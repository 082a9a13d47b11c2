"""Whatever a search puts through an encoder is counted while it goes on, and it ends when it is told to."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from smoothcert.attacks import BareSubject, FeatureMatching, SmoothedSubject, Subject, make_attack
from smoothcert.attacks.noise import NoiseKey
from smoothcert.encoders import KnownEncoder
from smoothcert.engine.cores import Crew
from smoothcert.errors import ExecutorError
from smoothcert.work.attack.metered import Meter, MeteredSubject

PAIRS = 6
CHUNK = 4
STEPS = 10


class Patchy(KnownEncoder):
    """Also shows each row of the image as a patch token, as ``foa`` needs them."""

    def _patch_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.transpose(1, 2).flatten(2) - 0.5


class Witness(Meter):
    """Remembers what it was told, and stops the work at a number of images."""

    def __init__(self, stop_at: float = float("inf")) -> None:
        super().__init__(torch.device("cpu"))
        self.told: list[int] = []
        self._stop_at = stop_at

    def count(self, images: int) -> None:
        super().count(images)
        self.told.append(images)
        if self.images >= self._stop_at:
            self.stop()


def search(name: str, meter: Meter, *, smoothed: bool = False, surrogates: int = 0) -> list[int]:
    """Search a few pairs without a look at the subject before the end; returns the queries of each pair."""
    torch.set_num_threads(1)
    encoder = Patchy.rotating(input_size=(4, 4))
    others = tuple(Patchy.rotating(rate, input_size=(4, 4)) for rate in (0.5, 2.0)[:surrogates])
    images = torch.rand(PAIRS, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 0.4 + 0.3
    targets = images.flip(3)
    goal = FeatureMatching(encoder.encode_images(targets), encoder.encode_images(images), targets)
    subject: Subject = BareSubject(encoder, chunk=CHUNK)
    if smoothed:
        subject = SmoothedSubject(encoder, 0.1, eot_draws=2, chunk=CHUNK)
    settings: dict[str, Any] = {"surrogates": others} if surrogates else {}
    attack = make_attack(name, steps=STEPS, check_every=STEPS, early_stop=False, **settings)
    names = [str(number) for number in range(PAIRS)]
    outcome = attack.run(MeteredSubject(subject, meter), goal, images, names, norm="linf", budget=0.1)
    return [record.queries for record in outcome.records]


@pytest.mark.parametrize("surrogates", [0, 2])
@pytest.mark.parametrize("smoothed", [False, True])
@pytest.mark.parametrize("name", ["m-attack", "foa"])
def test_gradients_beside_the_subject_are_counted(name: str, smoothed: bool, surrogates: int) -> None:
    meter = Witness()
    queries = search(name, meter, smoothed=smoothed, surrogates=surrogates)
    assert meter.images == sum(queries) >= PAIRS * STEPS * max(surrogates, 1)
    assert max(meter.told) <= CHUNK * max(surrogates, 1), "a worker is silent for more than a chunk"


@pytest.mark.parametrize("name", ["m-attack", "foa"])
def test_a_stop_ends_the_search_before_its_next_step(name: str) -> None:
    meter = Witness(stop_at=3 * PAIRS)
    with pytest.raises(ExecutorError, match="asked to stop"):
        search(name, meter)
    assert 3 * PAIRS <= meter.images < 3 * PAIRS + CHUNK


class Recorded(Patchy):
    """Notes which threads encode, and fails on images that are dark."""

    threads: set[str]
    largest = 0

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        self.threads.add(threading.current_thread().name)
        self.largest = max(self.largest, len(pixels))
        if float(pixels.detach().mean()) < 0.1:
            raise RuntimeError("too dark")
        return super()._image_features(pixels)


def asked(crew: Crew | None, images: torch.Tensor, meter: Meter) -> tuple[list[torch.Tensor], set[str]]:
    """Features, features again with gradients, and single draws of some images; and the threads that computed them."""
    encoder = Recorded.rotating(input_size=(4, 4))
    encoder.threads = set()
    subject = MeteredSubject(SmoothedSubject(encoder, 0.1, eot_draws=3, chunk=CHUNK), meter, crew)
    keys = [NoiseKey(0, str(number), "attack") for number in range(len(images))]
    weights = torch.arange(1.0, len(images) + 1)
    features = subject.features(images, keys)
    found = subject.gradient(images, lambda feature, rows: feature[:, 0] * weights[rows], keys)
    drawn = list(subject.draws_of_each(images, keys, 5))
    assert [len(each) for each in drawn] == [5] * len(images)
    return [features, *found, *drawn], encoder.threads


def test_groups_beside_each_other_give_what_they_give_one_after_the_other() -> None:
    images = torch.rand(PAIRS, 3, 4, 4, generator=torch.Generator().manual_seed(2)) * 0.4 + 0.3
    crew, alone, together = Crew(), Meter(torch.device("cpu")), Meter(torch.device("cpu"))
    torch.set_num_threads(2)
    expected, one = asked(None, images, alone)
    found, several = asked(crew, images, together)
    crew.close()
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    assert one == {"MainThread"} and several <= {"crew_0", "crew_1"}
    assert together.images == alone.images == (3 + 3 + 5) * PAIRS
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("chunk", "group"), [(12, 6), (24, 9), (6, 3), (2, 2)])
def test_groups_beside_each_other_hold_no_more_than_one_chunk(chunk: int, group: int) -> None:
    """But for a pair's draws, or a chunk of them, that each thread needs at least."""
    images = torch.full((PAIRS, 3, 4, 4), 0.5)
    keys = [NoiseKey(0, str(number), "attack") for number in range(PAIRS)]
    encoder = Recorded.rotating(input_size=(4, 4))
    encoder.threads = set()
    crew, meter = Crew(), Meter(torch.device("cpu"))
    torch.set_num_threads(2)
    subject = MeteredSubject(SmoothedSubject(encoder, 0.1, eot_draws=3, chunk=chunk), meter, crew)
    subject.gradient(images, lambda feature, rows: feature[:, 0], keys)
    crew.close()
    assert encoder.largest == group


def test_an_error_in_one_group_is_raised_when_none_is_at_work() -> None:
    images = torch.full((PAIRS, 3, 4, 4), 0.5)
    images[3] = 0.0
    crew, meter = Crew(), Meter(torch.device("cpu"))
    torch.set_num_threads(2)
    with pytest.raises(RuntimeError, match="too dark"):
        asked(crew, images, meter)
    counted = meter.images
    assert counted <= 3 * (PAIRS - 1)
    meter.stop()
    with pytest.raises(ExecutorError, match="asked to stop"):
        asked(crew, images[:3], meter)
    assert meter.images == counted
    crew.close()
