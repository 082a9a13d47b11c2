"""Decoding ahead of the engine."""

from __future__ import annotations

import threading

from smoothcert.encoders import KnownEncoder
from smoothcert.engine.decoding import DecodeAhead


def test_closing_wakes_a_consumer_that_waits() -> None:
    hold = threading.Event()

    def silent_source():
        hold.wait(30)
        yield from ()

    ahead = DecodeAhead(silent_source(), KnownEncoder.rotating(), max_pixels=10)
    taken = []
    consumer = threading.Thread(target=lambda: taken.append(ahead.take(block=True)))
    consumer.start()
    ahead.close()
    consumer.join(10)
    hold.set()
    assert not consumer.is_alive()
    assert taken == [None]
    assert ahead.exhausted
