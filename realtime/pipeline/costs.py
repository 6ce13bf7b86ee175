"""Costs of one stream on this machine, measured on a moment of a talking face, and the rates that it can keep."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from realtime.capture.media import MediaFile
from realtime.capture.samples import VideoFrame
from realtime.demo import CLIP
from realtime.perception.extractors import StreamExtractors
from realtime.perception.perception import Perception
from realtime.perception.rates import FULL, Rates, Wish
from realtime.recognition.attribution import Attribution
from realtime.recognition.engine import Engine

SHARE: Final = 0.85
"""Of the processor that a stream may ask for: what comes at once waits for one another, and long utterances cost more
than the short one that is measured."""
SLOWER: Final = (
    FULL,
    Rates(15.0, 0.1, 1.28),
    Rates(10.0, 0.1, 1.28),
    Rates(7.5, 0.1, 2.56),
    Rates(5.0, 0.2, 2.56),
)
"""Rates to choose from, in the order in which they are tried: words wait first, as they do where a run is late."""
WINDOWS: Final = 180.0
"""Windows a second that a core could estimate in the time that a stream asks for at full rates: 160 were measured."""
MEASURED_S: Final = 2.0
EVERY_S: Final = 0.4
"""Time between two looks, and between two estimates."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Processor time of one person who is seen and talks without pause, seconds.

    picture_s: of a look at a picture. window_s: of an estimate, with what is measured after it. hypothesis_s: of words
    recognised once. beside_s: of all else in a second: decoding, the voice.
    """

    picture_s: float
    window_s: float
    hypothesis_s: float
    beside_s: float

    def asked(self, rates: Rates) -> float:
        """Return the share of a core that a stream asks for at these rates."""
        often = self.picture_s * rates.pictures_hz + self.window_s / rates.hop_s + self.hypothesis_s / rates.words_s
        return often + self.beside_s


def rates_kept(costs: Costs, processors: float, wish: Wish) -> Rates:
    """Return the first of `SLOWER` that ask for no more than their share, or the last of all.

    processors: cores that the machine lends.
    """
    tried = [wish.of(rates) for rates in SLOWER]
    return next((rates for rates in tried if costs.asked(rates) <= SHARE * processors), tried[-1])


def surely_keeps(engine: Engine, processors: float) -> bool:
    """Return whether the machine is so fast that nothing has to be measured."""
    return engine.window_s() * WINDOWS <= SHARE * processors


def told(chosen: Rates, costs: Costs, processors: float, wish: Wish) -> str:
    """Say for people what was chosen, and why."""
    full = wish.of(FULL)

    def of(rates: Rates) -> str:
        pictures = f", {rates.pictures_hz:.3g} pictures" if costs.picture_s else ""
        words = f", words every {rates.words_s:.1f} s" if costs.hypothesis_s else ""
        return f"{1 / rates.hop_s:.3g} estimates{pictures} a second{words}"

    return (
        f"this machine keeps {of(chosen)}: {of(full)} would take {costs.asked(full):.2f} cores, "
        f"more than {SHARE:.0%} of the {processors:.2f} that it lends (--hop and --pictures set them)"
    )


def measured(extractors: StreamExtractors, engine: Engine, *, seen: bool = True, heard: bool = True) -> Costs:
    """Measure on extractors of their own kind, for a second or less. seen, heard: what there will be of a stream."""
    clock = _Clock()
    with Perception(extractors.another(), engine.device) as perception:
        attribution, due_s, look_s, begun_s = Attribution(), EVERY_S, 0.0, time.process_time()
        for sample in MediaFile(str(CLIP)).samples():
            if sample.captured_s > MEASURED_S:
                break
            if sample.captured_s >= due_s:
                due_s += EVERY_S
                with clock.measures(clock.windows_s):
                    cut = perception.perceive(sample.captured_s).cut
                    attribution.measure(engine, cut, engine.infer(cut))
            if isinstance(sample, VideoFrame):
                if seen and sample.captured_s >= look_s:
                    look_s += EVERY_S
                    with clock.measures(clock.pictures_s):
                        perception.see(sample)
            elif heard:
                perception.hear(sample)
                with clock.measures(clock.words_s):
                    perception.listen([sample])
        whole_s = time.process_time() - begun_s
    words_s = sum(clock.words_s)
    rest_s = whole_s - words_s - sum(clock.pictures_s) - sum(clock.windows_s)
    return Costs(
        picture_s=median(clock.pictures_s) if seen else 0.0,
        window_s=median(clock.windows_s),
        hypothesis_s=words_s / MEASURED_S * FULL.words_s,
        beside_s=rest_s / MEASURED_S,
    )


@dataclass(slots=True)
class _Clock:
    """Processor time of this process, by what it was for."""

    pictures_s: list[float] = field(default_factory=list)
    windows_s: list[float] = field(default_factory=list)
    words_s: list[float] = field(default_factory=list)

    @contextmanager
    def measures(self, what: list[float]) -> Iterator[None]:
        begun_s = time.process_time()
        yield
        what.append(time.process_time() - begun_s)
