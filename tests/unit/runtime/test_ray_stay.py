"""How long a process stays in a cluster: what stands for it here only notes when it is joined and left."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import pytest

from smoothcert.errors import ExecutorError
from smoothcert.runtime.ray_stay import STAY, Stay

Use = Callable[..., AbstractContextManager[None]]


def noted(stay: Stay) -> tuple[Use, list[str]]:
    """What a phase calls, and what became of the cluster."""
    said: list[str] = []

    def join(address: str | None) -> bool:
        if said and said[-1].startswith("joined"):
            return False
        said.append(f"joined {address}")
        return True

    return lambda address=None: stay.used(address, lambda: join(address), lambda: said.append("left")), said


def test_a_phase_alone_leaves_it() -> None:
    use, said = noted(Stay())
    for _ in range(2):
        with use():
            assert said[-1] == "joined None"
    assert said == ["joined None", "left"] * 2


def test_phases_that_are_put_together_join_once() -> None:
    stay = Stay()
    use, said = noted(stay)
    with stay.kept():
        for _ in range(2):
            with stay.kept(), use():
                pass
        with use(), use():
            pass
        assert said == ["joined None"]
    assert said == ["joined None", "left"]


def test_who_is_in_a_cluster_already_stays() -> None:
    stay, left = Stay(), []
    with stay.kept():
        for error in (None, ExecutorError("made by a test")):
            try:
                with stay.used(None, lambda: False, lambda: left.append(1)):
                    if error is not None:
                        raise error
            except ExecutorError:
                pass
    assert left == []


def test_a_cluster_that_cannot_be_joined_is_not_left() -> None:
    stay, left = Stay(), []

    def join() -> bool:
        raise ExecutorError("made by a test")

    with stay.kept(), pytest.raises(ExecutorError), stay.used(None, join, lambda: left.append(1)):
        raise AssertionError("nobody is in it")
    use, said = noted(stay)
    with use():
        pass
    assert left == [] and said == ["joined None", "left"]


@pytest.mark.parametrize("error", [ExecutorError("made by a test"), SystemExit(130), KeyboardInterrupt()])
def test_after_an_error_the_next_one_starts_anew(error: BaseException) -> None:
    stay = Stay()
    use, said = noted(stay)
    with stay.kept():
        with pytest.raises(type(error)), use():
            raise error
        assert said == ["joined None", "left"]
        with use():
            pass
        assert said[2:] == ["joined None"]
    assert said[2:] == ["joined None", "left"]


def test_an_error_of_one_does_not_take_it_from_others() -> None:
    stay = Stay()
    use, said = noted(stay)

    def fail() -> None:
        with pytest.raises(ExecutorError), use():
            raise ExecutorError("made by a test")

    with use():
        other = threading.Thread(target=fail)
        other.start()
        other.join()
        assert said == ["joined None"]
    assert said == ["joined None", "left"]


def test_another_cluster_is_another_one() -> None:
    stay = Stay()
    use, said = noted(stay)
    with stay.kept():
        for address in ("a:1", "a:1", "b:1", None):
            with use(address):
                pass
        with use("a:1"), use("b:1"):
            pass  # as ever, what is joined is used by all in this process
    assert said == ["joined a:1", "left", "joined b:1", "left", "joined None", "left", "joined a:1", "left"]


@pytest.mark.parametrize("end", [None, SystemExit(130), ExecutorError("made by a test")])
def test_a_command_leaves_at_its_end(
    end: BaseException | None, monkeypatch: pytest.MonkeyPatch, smoothcert: Any
) -> None:
    from smoothcert.cli import main

    use, said = noted(STAY)

    def app() -> None:
        for _ in range(2):
            with use():
                pass
        said.append("after its phases")
        if end is not None:
            raise end

    monkeypatch.setattr(main, "app", app)
    code = smoothcert("certify").code
    assert code == (0 if end is None else getattr(end, "exit_code", getattr(end, "code", 0)))
    assert said == ["joined None", "after its phases", "left"]


def test_a_run_in_a_notebook_leaves_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from smoothcert.api import runs

    use, said = noted(STAY)

    class Driver:
        """Two phases, the second of which is not done."""

        phases = (SimpleNamespace(name="certification"), SimpleNamespace(name="attacks"))

        def __init__(self, *given: object) -> None:
            pass

        def check(self) -> None:
            pass

        def work(self, name: str, monitor: object) -> SimpleNamespace:
            with use():
                return SimpleNamespace(missing=int(name == "attacks"), failed={})

    monkeypatch.setattr("smoothcert.runtime.driver.Driver", Driver)
    with pytest.raises(ExecutorError, match="attacks have no row"):
        runs.run(SimpleNamespace())  # type: ignore[arg-type]
    assert said == ["joined None", "left"]
