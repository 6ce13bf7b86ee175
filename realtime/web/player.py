"""Player of recorded sessions: one list, one position in one of them, which all who look share."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from dhmd.labels import EMOTIONS
from dhmd.session import Session, SessionInvalid
from realtime.messages.estimate import ModelName
from realtime.perception.perception import Perceived
from realtime.perception.window import WindowCut
from realtime.pipeline.pipeline import Emission
from realtime.recognition.steadied import Steadied
from realtime.recognition.steadiness import Steadiness
from realtime.session.messages import attention_of, estimate_again, inference_of, top_of, window_of
from realtime.session.timeline import Timeline
from realtime.web.feed import Feed
from realtime.web.pages import message
from realtime.web.protocol import Play
from realtime.web.replayed import Scene, scenes

MOST_SPANS: Final = 600
"""Of the course of a session; more moments than that are put together."""
GAP_S: Final = 1.0
"""Longer without an estimate: nobody knows what was between."""
BEHIND_S: Final = 0.5
"""From here on a position that the machine cannot follow waits for it."""


class Transport:
    """Position in a recording, seconds, that moves on while it plays. Lives in the event loop."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.on = False
        self.speed = 1.0
        self.loop = False
        self.jumps = 0
        """Counts the times that the position was set elsewhere."""
        self._now = now
        self._since = (0.0, 0.0)
        """A moment of the clock, and the position then."""
        self._changed = asyncio.Event()

    @property
    def position_s(self) -> float:
        then_s, position_s = self._since
        return position_s + (self._now() - then_s) * self.speed * self.on

    def steer(self, *, on: bool | None = None, speed: float | None = None) -> None:
        """Play or pause, slower or faster, from where it stands."""
        self._since = (self._now(), self.position_s)
        self.on = self.on if on is None else on
        self.speed = self.speed if speed is None else speed
        self._changed.set()

    def jump(self, position_s: float) -> None:
        self._since = (self._now(), position_s)
        self.jumps += 1
        self._changed.set()

    async def reach(self, t_s: float) -> bool:
        """Wait until the position has come to `t_s`; False where it was set elsewhere meanwhile."""
        jumps = self.jumps
        while self.jumps == jumps:
            left_s = (t_s - self.position_s) / self.speed
            if self.on and left_s <= 0:
                if left_s * self.speed < -BEHIND_S:
                    self._since = (self._now(), t_s)
                return True
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left_s if self.on else None)
        return False


@dataclass(frozen=True, slots=True)
class Listed:
    """An entry of the list. session: None where the file cannot be played, for the reason `problem`."""

    name: str
    session: Session | None
    length_s: float | None = None
    problem: str = ""

    @classmethod
    def of(cls, path: Path) -> Listed:
        try:
            session = Session.open(path)
        except SessionInvalid as error:
            return cls(path.stem, None, problem=str(error).removeprefix(f"{path}: "))
        end_s = session.stated_end_s()
        return cls(path.stem, session, None if end_s is None else end_s - session.start_s)


class Player:
    """Plays to a feed, for as long as somebody looks at it. Lives in the event loop.

    steadiness: instead of what was published; None for that.
    """

    def __init__(self, listed: Sequence[Listed], feed: Feed, steadiness: Steadiness | None = None) -> None:
        self._listed = list(listed)
        self._feed = feed
        self._steadiness = steadiness
        self._transport = Transport()
        self._chosen = next((i for i, one in enumerate(listed) if one.session is not None), 0)
        self._opened: int | None = None
        self._described: str | None = None
        self._watching = 0
        self._looked_at = asyncio.Event()
        self._wanted = True
        """Whether to play when somebody looks."""
        self._shown_s = self._last_s = 0.0
        """Position of what was shown last, and of the last that there is."""
        self._at_end = False

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Somebody looks for as long as the context lasts."""
        self._watching += 1
        self._looked_at.set()
        if self._watching == 1 or not self._wanted:
            self._transport.jump(self._shown_s)  # who comes sees what is shown now, though it stands still
        self._steer()
        try:
            yield
        finally:
            self._watching -= 1
            self._steer()

    def described(self) -> list[str]:
        """Return what a page is told when it comes."""
        described = [self._list(), self._playing()]
        return described if self._described is None else [*described, self._described]

    def on_asked(self, asked: Play) -> None:
        """Do what a page asks for."""
        transport = self._transport
        place_s = None if asked.at is None else min(asked.at, self._last_s)
        if asked.session is not None and asked.session < len(self._listed) and self._listed[asked.session].session:
            self._chosen, self._wanted, place_s = asked.session, True, 0.0
        if asked.on is not None:
            self._wanted = asked.on
        if asked.on and self._at_end and place_s is None:
            place_s = 0.0
        if asked.loop is not None:
            transport.loop = asked.loop
        transport.steer(speed=asked.speed)
        self._steer()
        if place_s is not None:
            transport.jump(place_s)

    async def run(self) -> None:
        """Play until cancelled. Raises SessionInvalid for a session of which nothing can be played, if it is the only
        one."""
        await self._looked_at.wait()
        while True:
            if self._opened != self._chosen:
                await self._open()
            await self._play()

    async def _open(self) -> None:
        """Read what there is to know of the chosen session."""
        chosen, session = self._chosen, self._listed[self._chosen].session
        if session is None:
            raise SessionInvalid(f"{self._listed[chosen].name}: {self._listed[chosen].problem}")
        try:
            timeline = await asyncio.to_thread(Timeline.read, session)
        except SessionInvalid as error:
            self._listed[chosen] = Listed(session.path.stem, None, problem=str(error).removeprefix(f"{session.path}: "))
            others = [i for i, one in enumerate(self._listed) if one.session is not None]
            if not others:
                raise
            self._chosen = others[0]
        else:
            self._opened, self._feed.stream = chosen, session.path.stem
            self._last_s = float(timeline.t_s[-1])
            self._described = message("session", _course(timeline))
            self._feed.tell(self._described)
        self._feed.tell(self._list())

    async def _play(self) -> None:
        """Play the session that is open from the position on, until that is set elsewhere."""
        transport, session = self._transport, self._session
        jumps, steadied = transport.jumps, Steadied(self._steadiness) if self._steadiness else None
        self._at_end = False
        self._feed.begin_again()
        played, shown = scenes(session, session.start_s + transport.position_s), 0
        while (scene := await asyncio.to_thread(next, played, None)) is not None:
            # The first is seen before anything moves.
            at_s = scene.estimate.end_s - session.start_s
            if transport.jumps != jumps or (shown and not await transport.reach(at_s)):
                return
            self._show(scene, steadied)
            self._shown_s = at_s
            shown += 1
        if transport.loop and shown:
            transport.jump(0.0)
        else:
            self._wanted, self._at_end = False, True
            self._steer()
            await transport.reach(float("inf"))

    @property
    def _session(self) -> Session:
        session = self._listed[self._chosen].session if self._opened == self._chosen else None
        if session is None:
            raise RuntimeError("a session is opened before it is played")
        return session

    def _show(self, scene: Scene, steadied: Steadied | None) -> None:
        one, session = scene.estimate, self._session
        for tell in scene.told:
            tell(self._feed)
        inference, top = inference_of(one), top_of(one, session)
        if steadied is not None:
            inference, top = steadied.of(inference, one.end_s)
        window = window_of(one)
        model = ModelName(name=session.metadata["model"], checkpoint=session.metadata["checkpoint"])
        estimate = estimate_again(one, window, inference, top, session, session.stream, model)
        cut = WindowCut(
            window.start_s, window.end_s, {}, {}, window.newest_s, window.present, attention=attention_of(one)
        )
        self._feed.on_estimate(Emission(estimate, Perceived(cut, one.faces, ()), inference, None, timed=False))

    def _steer(self) -> None:
        """Play if that is wanted and somebody looks."""
        transport = self._transport
        transport.steer(on=self._wanted and self._watching > 0)
        self._feed.tell(self._playing())

    def _playing(self) -> str:
        return message("playing", {"on": self._wanted, "speed": self._transport.speed, "loop": self._transport.loop})

    def _list(self) -> str:
        sessions = [
            {
                "name": one.name,
                "started": one.session.started_unix if one.session else 0.0,
                "length": one.length_s,
                "problem": one.problem,
            }
            for one in self._listed
        ]
        return message("sessions", {"sessions": sessions, "chosen": self._chosen})


def _course(timeline: Timeline) -> dict[str, Any]:
    """Return the fields of the message `session`: what it is called, and its course in at most MOST_SPANS spans."""
    session, length_s = timeline.session, max(timeline.length_s, timeline.session.hop_s)
    step_s = max(session.hop_s, length_s / MOST_SPANS)
    groups: dict[int, list[int]] = {}
    for i, top in enumerate(timeline.top):
        if top is not None:
            groups.setdefault(int(timeline.t_s[i] / step_s), []).append(i)
    spans = []
    for members in groups.values():
        [(top, _)] = Counter(timeline.top[i] for i in members).most_common(1)
        share = float(np.mean(timeline.emotions[members, EMOTIONS.index(top or "")]))
        start_s, last_s = float(timeline.t_s[members[0]]), float(timeline.t_s[members[-1]])
        after_s = float(timeline.t_s[members[-1] + 1]) if members[-1] + 1 < len(timeline) else last_s
        end_s = after_s if after_s - last_s <= GAP_S else last_s
        spans.append([round(start_s, 3), round(end_s, 3), top, round(share, 3)])
    return {
        "name": session.path.stem,
        "started": session.started_unix,
        "origin": session.start_s,
        "length": round(length_s, 3),
        "spans": spans,
        "marks": [[round(one.start_s, 3), round(one.end_s, 3), one.text] for one in timeline.marks],
    }
