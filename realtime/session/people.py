"""Who was in view and who spoke, moment by moment, of a session in which several people were followed."""

from __future__ import annotations

from collections import deque
from typing import Any

from dhmd.features.tracks import HANDOVER_S
from dhmd.session import Session, schema
from realtime.perception.people import PeopleInView, PersonInView, turn_at
from realtime.perception.speaking import Turn


class RecordedPeople:
    """Takes Face and Turns messages as they were recorded, and gives who was in view at a moment."""

    TOPICS = frozenset({schema.FACE, schema.TURNS})

    def __init__(self, session: Session) -> None:
        self._several = session.settings.get("people", 1) != 1
        self._waiting: deque[tuple[float, Any]] = deque()
        self._here: dict[int, tuple[PersonInView, float]] = {}
        """With when each was seen last."""
        self._turns: tuple[Turn, ...] = ()

    def take(self, at_s: float, message: Any) -> None:
        """Take in a message. at_s: when its picture was captured, or when it was told."""
        self._waiting.append((at_s, message))

    def at(self, end_s: float) -> PeopleInView | None:
        """Return who was in view at a moment, later than that before; None where one person was followed."""
        while self._waiting and self._waiting[0][0] <= end_s:
            at_s, message = self._waiting.popleft()
            if isinstance(message, schema.Turns):
                self._turns = _turns_of(message)
                continue
            for one in message.people:
                if len(one.box) == 4:
                    since_s = self._here[one.person][0].since_s if one.person in self._here else at_s
                    box = (one.box[0], one.box[1], one.box[2], one.box[3])
                    self._here[one.person] = PersonInView(one.person, since_s, box), at_s
        self._here = {p: (one, seen_s) for p, (one, seen_s) in self._here.items() if end_s - seen_s < HANDOVER_S}
        if not self._several:
            return None
        return PeopleInView(end_s, tuple(one for one, _ in self._here.values()), turn_at(self._turns, end_s))


def overlaps_in(session: Session) -> list[tuple[float, float]]:
    """Return when several spoke at once, in seconds of the recording, as it was known in the end."""
    turns: list[Turn] = []
    for record in session.records([schema.TURNS]):
        told = _turns_of(record.message)
        if told:  # later messages know better of all that they tell
            turns = [turn for turn in turns if turn.end_s <= told[0].start_s] + list(told)
    return [(turn.start_s - session.start_s, turn.end_s - session.start_s) for turn in turns if turn.overlapped]


def _turns_of(message: Any) -> tuple[Turn, ...]:
    return tuple(
        Turn(one.start_s, one.end_s, one.person if one.HasField("person") else None, one.overlapped)
        for one in message.turns
    )
