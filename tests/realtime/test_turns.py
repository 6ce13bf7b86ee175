"""Turns: no more at once than there is room for, the urgent first, the others in the order in which they came."""

from __future__ import annotations

import threading
import time

import pytest

from realtime.turns import Turns, Urgency, cores


def test_no_more_compute_at_once_than_there_is_room_for() -> None:
    turns, at_once, most = Turns(2), 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal at_once, most
        for _ in range(20):
            with turns.turn(Urgency.REST):
                with lock:
                    at_once += 1
                    most = max(most, at_once)
                time.sleep(0.001)
                with lock:
                    at_once -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2
    with turns.turn(Urgency.REST), turns.turn(Urgency.REST):
        pass  # all of the room is there again


def test_the_urgent_go_first_and_the_others_in_order() -> None:
    turns, order = Turns(1), list[str]()

    def work(name: str, urgency: Urgency) -> None:
        with turns.turn(urgency):
            order.append(name)

    with turns.turn(Urgency.REST):
        threads = []
        for name, urgency in (("face", Urgency.REST), ("words", Urgency.REST), ("voice", Urgency.SOUND)):
            threads.append(threading.Thread(target=work, args=(name, urgency)))
            threads[-1].start()
            while len(turns._waiting) < len(threads):
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == ["voice", "face", "words"]


def test_a_turn_is_given_back_when_what_was_computed_fails() -> None:
    turns = Turns(1)
    for _ in range(2):
        with pytest.raises(ValueError, match="face"), turns.turn(Urgency.REST):
            raise ValueError("no face")


def test_there_is_a_core() -> None:
    assert cores() >= 1
