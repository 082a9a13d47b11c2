"""Several members share each batch: gradients, losses, scores and ends are those of one process alone.

The members are threads here; tests/integration/cluster/test_training.py has processes on Ray.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from smoothcert.errors import JobError, StoreError
from smoothcert.job import Job
from smoothcert.training import loop
from smoothcert.training.batches import training_batch, validation_batch
from smoothcert.training.team import PeerFailedError, ProcessTeam, share_of
from smoothcert.training.train import Trained, Training
from smoothcert.training.watching import Silent

MakeJob = Callable[..., Job]
SIZE, BATCH = 2, 7
"""Shares differ in size."""


@dataclass
class Table:
    """Where members lay what they want added."""

    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(SIZE, timeout=60))
    laid: list[Any] = field(default_factory=lambda: [None] * SIZE)


class ThreadTeam(ProcessTeam):
    """Members that are threads of one process."""

    def __init__(self, rank: int, table: Table) -> None:
        self.size, self.rank, self._table = SIZE, rank, table

    def _exchange(self, value: Any) -> list[Any]:
        self._table.laid[self.rank] = value
        self._table.barrier.wait()
        found = list(self._table.laid)
        self._table.barrier.wait()
        return found

    def sum(self, own: torch.Tensor) -> torch.Tensor:
        return torch.stack(self._exchange(own.detach().clone())).sum(dim=0)

    def agree(self, value: bool) -> bool:
        return bool(self._exchange(value)[0])


def together(work: Callable[[int], Any]) -> list[Any]:
    """What ``work`` returns or raises for each rank, all at the same time."""
    found: list[Any] = [None] * SIZE

    def one(rank: int) -> None:
        try:
            torch.set_num_threads(1)
            found[rank] = work(rank)
        except Exception as exc:
            found[rank] = exc

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(SIZE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def members(job: Job) -> list[Training]:
    """Trainings of one team; made one after the other, since torch's own seed is this process's."""
    table = Table()
    first = Training(job, team=ThreadTeam(0, table))
    rest = (Training(job, corpus=first.corpus, team=ThreadTeam(rank, table)) for rank in range(1, SIZE))
    return [first, *rest]


def succeeded(found: list[Any]) -> list[Trained]:
    for each in found:
        if isinstance(each, BaseException):
            raise each
    return found


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8])
def test_shares_are_all_rows_in_order_and_even(count: int) -> None:
    slices = [share_of(ThreadTeam(rank, Table()), count) for rank in range(SIZE)]
    rows = [row for each in slices for row in range(count)[each]]
    assert rows == list(range(count))
    sizes = [each.stop - each.start for each in slices]
    assert max(sizes) - min(sizes) <= 1


def test_an_image_has_its_noise_whoever_holds_it(make_job: MakeJob) -> None:
    training = Training(make_job("purifier", augment=True, batch=BATCH))
    corpus, section = training.corpus, training.section
    for make in (
        lambda *team: training_batch(corpus.training, section, (0.1, 0.25), "s", 5, *team),
        lambda *team: validation_batch(corpus.held_out, slice(1, 8), (0.1, 0.25), "s", 0, *team),
    ):
        whole, parts = make(), [make(ThreadTeam(rank, Table())) for rank in range(SIZE)]
        for name in ("noise", "sigma", "classes"):
            assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts])), name
        torch.testing.assert_close(whole.images, torch.cat([part.images for part in parts]))
        assert {part.seed for part in parts} == {whole.seed}


STAGES = {
    "purifier": {"attacked": True},
    "mapper": {},
    "token-mapper": {},
    "noise": {},
    "fare": {},
    "tecoa": {},
}


@pytest.mark.parametrize("method", STAGES)
def test_gradients_add_up_to_that_of_the_whole_batch(make_job: MakeJob, method: str) -> None:
    """Float32 sums in another order: to 1e-4 of the gradient's length, losses to 1e-5.

    Weights are moved off their start, where a mapper is the identity and half its gradients are zero.
    """
    weights = {"moments": 1.0, "identity": 1.0}
    job = make_job(method, weights=weights, sigma=[0.1, 0.25], batch=BATCH, **STAGES[method])

    def gradient(training: Training, *team: ProcessTeam) -> tuple[dict[str, float], torch.Tensor]:
        stage = training.first
        batch = training_batch(training.corpus.training, training.section, (0.1, 0.25), "s", 1, *team)
        parameters = [p for p in stage.module.parameters() if p.requires_grad_(True).requires_grad]
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in parameters:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        parts = stage.losses(batch)
        found = torch.autograd.grad(torch.stack(list(parts.values())).sum(), parameters, allow_unused=True)
        flat = torch.cat([g.double().flatten() for g in found if g is not None])
        return {name: float(value.detach()) for name, value in parts.items()}, flat

    table = Table()
    training = Training(job)
    shared = [training, *(Training(job, corpus=training.corpus) for _ in range(1, SIZE))]
    start = {name: value.clone() for name, value in training.first.module.state_dict().items()}
    alone = gradient(training)
    training.first.module.load_state_dict(start)
    found = together(lambda rank: gradient(shared[rank], ThreadTeam(rank, table)))
    for each in found:
        assert not isinstance(each, BaseException), each
        assert each[0] == pytest.approx(alone[0], rel=1e-5, abs=1e-7)
    whole = torch.stack([each[1] for each in found]).sum(dim=0)
    assert float((whole - alone[1]).norm()) < 1e-4 * float(alone[1].norm())
    own = found[0][1]
    assert float((own - alone[1]).norm()) > 0.1 * float(alone[1].norm()), "a share alone would do"


def test_a_team_trains_what_one_process_trains(make_job: MakeJob, tmp_path: Path) -> None:
    """Scores to 1e-4, losses to 1e-5; every member ends with the same weights, and only the first writes."""
    settings = {"augment": True, "accumulate": 2, "batch": BATCH, "steps": 4}
    alone = Training(make_job(out=str(tmp_path / "alone"), **settings))
    heard_alone = Listener()
    wanted = alone.run(heard_alone)
    trainings = members(make_job(out=str(tmp_path / "team"), **settings))
    assert trainings[0].recipe == alone.recipe
    listeners = [Listener() for _ in range(SIZE)]
    found = succeeded(together(lambda rank: trainings[rank].run(listeners[rank])))
    for each in found:
        for sigma, pair in wanted.scores.items():
            for ours, theirs in zip(each.scores[sigma], pair, strict=True):
                assert ours.robustness_score == pytest.approx(theirs.robustness_score, abs=1e-4)
                assert ours.smooth_norm == pytest.approx(theirs.smooth_norm, abs=1e-4)
                assert ours.clean_cosine == pytest.approx(theirs.clean_cosine, abs=1e-4)
    assert listeners[0].held_out == pytest.approx(heard_alone.held_out, abs=1e-5)
    assert listeners[0].losses == pytest.approx(heard_alone.losses, abs=1e-5)
    states = [training.first.module.state_dict() for training in trainings]
    assert all(torch.equal(states[0][name], other[name]) for other in states[1:] for name in states[0])
    assert sorted(path.name for path in (tmp_path / "team").iterdir()) == sorted(
        path.name for path in (tmp_path / "alone").iterdir()
    )


class Listener(Silent):
    """Keeps losses, and may stop."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.losses: list[float] = []
        self.held_out: list[float] = []
        self._stop_after = stop_after

    @property
    def stopped(self) -> bool:  # type: ignore[override]
        return self._stop_after is not None and len(self.losses) >= self._stop_after

    def step(self, stage: str, step: int, losses: Any) -> None:
        self.losses.append(losses["loss"])

    def validated(self, stage: str, step: int, figures: Any) -> None:
        self.held_out.append(figures["held_out_loss"])


def test_all_stop_where_the_first_does_and_another_number_goes_on(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The team is stopped after step 3, one process finishes it; early stopping ends a team at one step."""
    job = make_job("purifier")
    trainings = members(job)
    found = succeeded(together(lambda rank: trainings[rank].run(Listener(3 if rank == 0 else 1))))
    assert [each.finished for each in found] == [False] * SIZE
    rest = Listener()
    assert Training(job).run(rest).finished and len(rest.losses) == 3

    monkeypatch.setattr(loop, "rate", lambda step, steps: 1.0 if step < 2 else 200.0)
    wild = members(make_job("purifier", out=str(tmp_path / "wild"), steps=40, patience=2, learning_rate=0.01))
    heard = [Listener() for _ in range(SIZE)]
    succeeded(together(lambda rank: wild[rank].run(heard[rank])))
    assert len({tuple(each.losses) for each in heard}) == 1
    best = heard[0].held_out.index(min(heard[0].held_out))
    assert len(heard[0].held_out) == best + 1 + 2 < 20


def test_a_full_disk_of_the_first_ends_all(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise StoreError("no space left")

    monkeypatch.setattr(loop, "save_checkpoint", full)
    trainings = members(make_job("purifier"))
    found = together(lambda rank: trainings[rank].run(Silent()))
    assert [type(each) for each in found] == [StoreError, PeerFailedError]


def test_more_workers_than_images_are_refused(make_job: MakeJob) -> None:
    with pytest.raises(ValidationError, match="workers=9 share each batch, and batch=8 has fewer images"):
        make_job(workers=9)
    with pytest.raises(JobError, match=r"train\.workers=64 share each batch, and there are \d\d images"):
        Training(make_job(workers=64, batch=64))
    assert Training(make_job(workers=2)).recipe == Training(make_job()).recipe
