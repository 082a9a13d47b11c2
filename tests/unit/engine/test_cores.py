"""Pieces of work beside each other on a CPU."""

from __future__ import annotations

import threading

import pytest
import torch

from smoothcert.engine.cores import Crew


def test_as_many_pieces_go_on_at_once_as_there_are_cores_up_to_four() -> None:
    for cores, size, each in ((2, 2, 1), (9, 4, 2)):
        torch.set_num_threads(cores)
        crew, meeting = Crew(), threading.Barrier(size)

        def meet(piece: int, meeting: threading.Barrier = meeting) -> tuple[int, int]:
            meeting.wait(60)  # breaks unless `size` pieces are here together
            return piece, torch.get_num_threads()

        assert crew.size == size
        assert crew.work(meet, range(3 * size)) == [(piece, each) for piece in range(3 * size)]
        assert torch.get_num_threads() == cores
        crew.close()


def test_one_core_or_one_piece_needs_no_thread() -> None:
    crew = Crew()
    torch.set_num_threads(1)
    names = crew.work(lambda _: threading.current_thread().name, range(5))
    torch.set_num_threads(2)
    names += crew.work(lambda _: threading.current_thread().name, [0])
    assert set(names) == {threading.current_thread().name}
    assert crew.work(str, []) == []
    crew.close()


def test_an_error_is_raised_when_nothing_is_at_work_and_nothing_else_begins() -> None:
    torch.set_num_threads(2)
    crew, failed, ended = Crew(), threading.Event(), []

    def do(piece: int) -> None:
        if piece == 0:
            failed.set()
            raise ValueError("the first")
        failed.wait(60)
        ended.append(piece)

    with pytest.raises(ValueError, match="the first"):
        crew.work(do, range(100))
    seen = list(ended)
    assert crew.work(str, [1, 2]) == ["1", "2"] and ended == seen
    crew.close()
