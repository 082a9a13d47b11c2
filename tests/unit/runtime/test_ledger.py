"""The ledger: whatever happens to workers, every pair is closed exactly once and only the guilty are convicted."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcert.datasets import UnitSpec
from smoothcert.errors import ExecutorError
from smoothcert.runtime.ledger import Conviction, Ledger, Loss, Split


def unit(start: int, stop: int, name: str = "u") -> UnitSpec:
    return UnitSpec(f"{name}{start}-{stop}", "data", start, stop)


def units(*sizes: int) -> list[UnitSpec]:
    edges = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    return [unit(a, b) for a, b in zip(edges, edges[1:], strict=False)]


class Cluster:
    """Workers that take what the ledger gives, and a record of what happened to every pair."""

    def __init__(self, ledger: Ledger, workers: int = 3, capacity: int = 2) -> None:
        self.ledger, self.capacity, self.now = ledger, capacity, 0.0
        self.held: dict[str, dict[str, UnitSpec]] = {f"w{i}": {} for i in range(workers)}
        self.born = workers
        self.closed: Counter[int] = Counter()
        self.convicted: set[int] = set()
        self.given_up: set[int] = set()
        self.lone_losses: Counter[tuple[int, int]] = Counter()

    def feed(self) -> None:
        for worker, held in self.held.items():
            while (task := self.ledger.next_for(worker, self.capacity, self.now)) is not None:
                assert task.unit.unit_id not in held, "a worker was given a unit that it has"
                assert not (task.alone and held), "a suspect was put beside something else"
                held[task.unit.unit_id] = task.unit
                assert len(held) <= self.capacity

    def even_out(self, closed_by_another: bool) -> None:
        for split in self.ledger.even_out(len(self.held)):
            positions = [p for part in split.parts for p in range(part.start, part.stop)]
            assert positions == list(range(split.unit.start, split.unit.stop)) and len(split.parts) > 1
            if closed_by_another:
                self.ledger.withdraw(split.parts)
                self.close(split.unit)

    def complete(self, worker: str, unit_id: str) -> None:
        self.now += 1
        done = self.held[worker].pop(unit_id)
        if self.ledger.deliver(worker, unit_id, self.now):
            self.close(done)

    def err(self, worker: str, unit_id: str) -> None:
        self.now += 1
        failed = self.held[worker].pop(unit_id)
        if not self.ledger.fail(worker, unit_id, RuntimeError("of its own")):
            self.close(failed)
            self.given_up.update(range(failed.start, failed.stop))

    def lose(self, worker: str, loss: Loss) -> None:
        self.now += 1
        held = self.held.pop(worker)
        if len(held) == 1 and loss is not Loss.PREEMPTED:
            only = next(iter(held.values()))
            self.lone_losses[only.start, only.stop] += 1
        for verdict in self.ledger.lose(worker, loss):
            if isinstance(verdict, Conviction):
                assert len(verdict.unit) == 1 and verdict.loss is loss
                self.convicted.add(verdict.unit.start)
                self.close(verdict.unit)
            else:
                assert isinstance(verdict, Split) and len(verdict.parts) > 1
                positions = [p for part in verdict.parts for p in range(part.start, part.stop)]
                assert positions == list(range(verdict.unit.start, verdict.unit.stop))
        self.held[f"w{self.born}"] = {}
        self.born += 1

    def close(self, done: UnitSpec) -> None:
        self.closed.update(range(done.start, done.stop))

    def work(self) -> list[tuple[str, str]]:
        return [(worker, unit_id) for worker, held in self.held.items() for unit_id in held]

    def drain(self, poison: frozenset[int] = frozenset(), loss: Loss = Loss.DIED, limit: int = 2000) -> None:
        """From now on only poison pairs cause trouble."""
        for _ in range(limit):
            self.feed()
            work = self.work()
            if not work:
                break
            worker, unit_id = work[0]
            touched = self.held[worker][unit_id]
            if poison & set(range(touched.start, touched.stop)):
                self.lose(worker, loss)
            else:
                self.complete(worker, unit_id)
        assert self.ledger.finished() and not self.work(), "the ledger does not come to an end"


# --- single stories -----------------------------------------------------------------------------------------


def test_units_are_given_once_in_order_up_to_the_capacity():
    ledger = Ledger(units(1, 1, 1, 1, 1))
    first = [ledger.next_for("a", 2, 0.0), ledger.next_for("a", 2, 0.0), ledger.next_for("a", 2, 0.0)]
    assert [task and task.unit.start for task in first] == [0, 1, None]
    assert ledger.next_for("b", 2, 0.0).unit.start == 2
    assert ledger.running == 3 and not ledger.finished()


def test_units_are_taken_from_their_source_only_as_they_are_needed():
    taken = []

    def many():
        for i in range(10**9):
            taken.append(i)
            yield unit(i, i + 1)

    ledger = Ledger(many())
    for _ in range(5):
        ledger.next_for("a", 100, 0.0)
    assert len(taken) <= 7


def test_an_empty_run_is_finished():
    ledger = Ledger([])
    assert ledger.finished() and ledger.next_for("a", 2, 0.0) is None


@pytest.mark.parametrize("loss", [Loss.DIED, Loss.HUNG])
@pytest.mark.parametrize("budget", [1, 2, 3])
@pytest.mark.parametrize(
    "poison", [frozenset({0}), frozenset({57}), frozenset({3, 4, 99}), frozenset(range(100))]
)
def test_exactly_the_poison_pairs_are_convicted(poison, budget, loss):
    cluster = Cluster(Ledger(units(40, 1, 39, 20), poison_budget=budget))
    cluster.drain(poison, loss)
    assert cluster.convicted == poison
    assert cluster.closed == Counter(range(100))
    if len(poison) < 4:
        # cutting by 8: a guilty pair of 40 is found within a few splits, not one worker a pair
        assert cluster.ledger.losses <= len(poison) * (2 * budget + 2 * 3 + 2) + 4


def test_neighbours_of_a_poison_pair_become_suspects_and_are_cleared():
    ledger = Ledger(units(1, 1, 1), poison_budget=2)
    assert [ledger.next_for("a", 2, 0.0).unit.start for _ in range(2)] == [0, 1]
    assert ledger.lose("a", Loss.DIED) == []
    suspect = ledger.next_for("b", 2, 0.0)
    assert suspect.alone and suspect.unit.start == 0
    assert ledger.next_for("b", 2, 0.0) is None, "a suspect runs with nothing beside it"
    assert ledger.deliver("b", suspect.unit.unit_id, 1.0)
    assert ledger.next_for("b", 2, 0.0).unit.start == 1


def test_suspects_wait_for_an_empty_worker():
    ledger = Ledger(units(1, 1, 1, 1))
    ledger.next_for("busy", 2, 0.0)
    for _ in range(2):
        ledger.next_for("dies", 2, 0.0)
    ledger.lose("dies", Loss.DIED)
    assert ledger.next_for("busy", 2, 0.0) is None, "a busy worker runs empty before it takes a suspect"
    assert ledger.next_for("fresh", 2, 0.0).alone


def test_a_unit_beside_a_copy_is_not_blamed_for_the_workers_end():
    """The dead worker held two units; that one of them also runs elsewhere does not make the other one guilty."""
    ledger = Ledger(units(*[1] * 7), poison_budget=1)
    for i in range(5):
        task = ledger.next_for("quick", 1, float(i))
        ledger.deliver("quick", task.unit.unit_id, i + 0.1)
    slow, other = ledger.next_for("slow", 1, 5.0), ledger.next_for("errs", 1, 49.9)
    assert ledger.next_for("dies", 2, 50.0).unit == slow.unit
    ledger.fail("errs", other.unit.unit_id, RuntimeError())
    assert ledger.next_for("dies", 2, 50.0).unit == other.unit
    assert ledger.lose("dies", Loss.DIED) == []
    again = ledger.next_for("fresh", 2, 51.0)
    assert again.unit == other.unit and again.alone and again.losses == 0


def test_preemption_blames_nobody_and_has_its_own_budget():
    ledger = Ledger(units(1, 1), poison_budget=1, preemption_budget=3)
    for i in range(3):
        ledger.next_for(f"w{i}", 1, 0.0)
        assert ledger.lose(f"w{i}", Loss.PREEMPTED) == []
    ledger.next_for("w3", 1, 0.0)
    with pytest.raises(ExecutorError, match=r"preemption_budget=3") as caught:
        ledger.lose("w3", Loss.PREEMPTED)
    assert "resume" in caught.value.remedy
    assert ledger.preemptions == ledger.losses == 4


def test_a_suspect_stays_a_suspect_through_preemption_and_errors():
    """Its record counts only while it is alone, so it must be alone the next time too."""
    ledger = Ledger(units(1, 1, 1, 1), poison_budget=2)
    ledger.next_for("a", 1, 0.0)
    ledger.lose("a", Loss.DIED)
    assert ledger.next_for("b", 2, 0.0).losses == 1
    ledger.lose("b", Loss.PREEMPTED)
    task = ledger.next_for("c", 2, 0.0)
    assert task.alone and task.losses == 1
    assert ledger.fail("c", task.unit.unit_id, RuntimeError())
    again = ledger.next_for("d", 2, 0.0)
    assert again.alone and again.errors == 1 and ledger.next_for("d", 2, 0.0) is None
    verdicts = ledger.lose("d", Loss.DIED)
    assert verdicts == [Conviction(again.unit, Loss.DIED)]


def test_errors_of_a_unit_are_retried_and_then_given_up_with_the_last_reason():
    ledger = Ledger(units(1), error_budget=3)
    for i in range(3):
        task = ledger.next_for("a", 1, 0.0)
        kept = ledger.fail("a", task.unit.unit_id, RuntimeError(f"attempt {i}"))
        assert kept == (i < 2)
    assert ledger.finished() and str(ledger.failed[task.unit.unit_id]) == "attempt 2"
    assert ledger.next_for("a", 1, 0.0) is None


def test_stragglers_get_one_copy_and_the_first_to_deliver_counts():
    ledger = Ledger(units(*[1] * 7))
    for i in range(5):
        task = ledger.next_for("quick", 1, 10.0 * i)
        ledger.deliver("quick", task.unit.unit_id, 10.0 * i + 10)
    slow = ledger.next_for("slow", 1, 50.0)
    slower = ledger.next_for("slower", 1, 49.0)
    assert ledger.next_for("idle", 1, 60.0) is None, "nobody is slow yet"
    copy = ledger.next_for("idle", 1, 71.0)
    assert copy.unit == slower.unit, "the one that began first"
    assert ledger.next_for("idle 2", 1, 71.0).unit == slow.unit
    assert ledger.next_for("idle 3", 1, 99.0) is None, "one copy is enough"
    assert ledger.deliver("idle", copy.unit.unit_id, 80.0)
    assert not ledger.deliver("slower", copy.unit.unit_id, 81.0)
    assert not ledger.finished()
    assert ledger.lose("idle 2", Loss.DIED) == [], "the unit still runs where it ran first"
    assert ledger.deliver("slow", slow.unit.unit_id, 90.0)
    assert ledger.finished()


def test_no_copies_before_the_usual_time_is_known():
    ledger = Ledger(units(1, 1))
    task = ledger.next_for("a", 1, 0.0)
    ledger.deliver("a", task.unit.unit_id, 1.0)
    ledger.next_for("a", 1, 1.0)
    assert ledger.next_for("b", 1, 1e9) is None


def test_a_delivery_of_an_unknown_unit_counts_once():
    """A worker declared lost may have committed before it died; its unit ran again elsewhere."""
    ledger = Ledger(units(1))
    task = ledger.next_for("a", 1, 0.0)
    ledger.lose("a", Loss.HUNG)
    assert ledger.deliver("a", task.unit.unit_id, 1.0)
    second = ledger.next_for("b", 1, 1.0)
    assert second is None or not ledger.deliver("b", second.unit.unit_id, 2.0)


# --- the tail -----------------------------------------------------------------------------------------------


def time_to_the_end(ledger: Ledger, costs: list[float], *, workers: int, even_out: bool) -> float:
    """A run of workers that do their units one after the other; a pair costs its seconds, 100 draws each."""
    now = 0.0
    held: dict[str, list[tuple[UnitSpec, float]]] = {f"w{i}": [] for i in range(workers)}
    free_at = dict.fromkeys(held, 0.0)
    done: Counter[int] = Counter()
    while not ledger.finished():
        for split in ledger.even_out(workers) if even_out else ():
            assert [p for part in split.parts for p in range(part.start, part.stop)] == list(
                range(split.unit.start, split.unit.stop)
            )
        for load in range(2):
            for worker, queue in held.items():
                if len(queue) <= load and (task := ledger.next_for(worker, 2, now)) is not None:
                    free_at[worker] = max(free_at[worker], now) + sum(costs[task.unit.start : task.unit.stop])
                    queue.append((task.unit, free_at[worker]))
        worker = min((w for w, queue in held.items() if queue), key=lambda w: held[w][0][1])
        finished, now = held[worker].pop(0)
        draws = int(100 * sum(costs[finished.start : finished.stop]))
        if ledger.deliver(worker, finished.unit_id, now, draws):
            done.update(range(finished.start, finished.stop))
    assert done == Counter(range(len(costs)))
    return now


def test_the_tail_keeps_all_workers_busy():
    """Forty units on eight workers; pairs take from 50 to 400 draws, those of one unit alike."""
    planned, evened = [], []
    for seed in range(6):
        random = Random(seed)
        costs = [cost for _ in range(40) for cost in [random.choice([0.5, 1.0, 2.0, 4.0])] * 200]
        ideal = sum(costs) / 8
        as_planned = Ledger(units(*[200] * 40))
        planned.append(time_to_the_end(as_planned, costs, workers=8, even_out=False) / ideal)
        ledger = Ledger(units(*[200] * 40), draws_per_pair=1000)
        evened.append(time_to_the_end(ledger, costs, workers=8, even_out=True) / ideal)
    # of the workers' time about a fifth is idle as planned, and less than a tenth when the rest is shared out
    assert sum(planned) / 6 > 1.2 > 1.1 > sum(evened) / 6, (planned, evened)


def test_units_are_cut_only_where_that_is_worth_it():
    ledger = Ledger(units(*[100] * 40), draws_per_pair=100)
    for i in range(33):
        assert ledger.even_out(4) == [], "twelve and more wait, or none of them holds two shares"
        ledger.deliver("a", ledger.next_for("a", 1, 0.0).unit.unit_id, float(i), draws=100 * 100)
    # seven units of 10,000 draws for four workers, three shares each: a share is 59 pairs
    assert ledger.even_out(4) == []
    for i in range(2):
        ledger.deliver("a", ledger.next_for("a", 1, 0.0).unit.unit_id, 40.0 + i, draws=100 * 100)
    # five units: a share is 42 pairs, but 50 are the least that is worth a unit
    cut = ledger.even_out(4)
    assert [len(part) for split in cut for part in split.parts] == [50] * 10
    assert ledger.even_out(4) == []
    assert Ledger(units(1000)).even_out(4) == [], "nothing is known of what pairs cost"


def test_parts_of_a_unit_that_another_driver_closed_are_not_run():
    ledger = Ledger(units(100, 1), draws_per_pair=1000)
    [split] = ledger.even_out(2)
    ledger.withdraw(split.parts)
    assert ledger.next_for("a", 2, 0.0).unit.start == 100
    assert ledger.next_for("a", 2, 0.0) is None


def test_a_unit_beyond_its_deadline_gets_a_copy_though_others_wait():
    ledger = Ledger(units(*[1] * 9), lease_s=30.0)
    stuck = ledger.next_for("stuck", 1, 0.0)
    for i in range(5):
        ledger.deliver("a", ledger.next_for("a", 1, i).unit.unit_id, i + 1.0)
    assert ledger.next_for("a", 1, 29.0).unit.start == 6, "ten times the usual time, but less than the lease"
    copy = ledger.next_for("b", 2, 31.0)
    assert copy.unit == stuck.unit
    assert ledger.next_for("b", 2, 31.0).unit.start == 7, "one copy is enough"


# --- random stories -----------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(
    st.randoms(use_true_random=False),
    st.lists(st.integers(1, 30), min_size=1, max_size=12),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 120),
)
def test_every_pair_is_closed_exactly_once(random: Random, sizes, workers, capacity, poison_budget, events):
    ledger = Ledger(units(*sizes), poison_budget=poison_budget, error_budget=2, draws_per_pair=1000)
    cluster = Cluster(ledger, workers, capacity)
    for _ in range(events):
        if random.random() < 0.2:
            cluster.even_out(closed_by_another=random.random() < 0.2)
        if random.random() < 0.8:
            cluster.feed()
        work = cluster.work()
        if not work:
            continue
        worker, unit_id = random.choice(work)
        cluster.now += random.choice([0, 0, 1, 30])
        match random.choice(["complete", "complete", "err", *(loss.value for loss in Loss)]):
            case "complete":
                cluster.complete(worker, unit_id)
            case "err":
                cluster.err(worker, unit_id)
            case loss:
                cluster.lose(worker, Loss(loss))
    cluster.drain()
    assert cluster.closed == Counter(range(sum(sizes)))
    assert not cluster.given_up & cluster.convicted
    assert len(cluster.given_up) >= len(ledger.failed)
    # a pair is convicted on workers that held it and nothing else
    for pair in cluster.convicted:
        assert cluster.lone_losses[pair, pair + 1] >= poison_budget
