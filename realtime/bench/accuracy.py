"""`dhmd-live accuracy`: how steady the label is on clips of talkers, and how much of it stays when they are changed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import dhmd
import realtime
from dhmd.assets.store import cache_folder
from dhmd.checkpoint import load
from dhmd.untrusted import read_json_object
from realtime import event_loop
from realtime.bench.readings import Kept, Reading, changes_a_minute, kept, shares
from realtime.bench.variants import VARIANTS, Variant
from realtime.capture.media import MediaFile
from realtime.clock import MediaClock
from realtime.demo import CLIP
from realtime.errors import SettingsInvalid
from realtime.messages.estimate import Dropped
from realtime.perception.extractors import StreamExtractors
from realtime.perception.perception import Perception
from realtime.pipeline.offline import run_offline
from realtime.pipeline.pipeline import Emission, Pipeline
from realtime.recognition.engine import Engine
from realtime.recognition.steadiness import MARGIN
from realtime.session.files import whole_file

HOP_S: Final = 0.1
SUFFIXES: Final = frozenset({".mp4", ".mpg", ".mov", ".mkv", ".avi", ".webm"})
NEUTRAL, ACTED, DEMO = "grid", "mead", "demo"
"""Kinds of clips, by the beginning of their names: neutral talkers of GRID, acted ones of MEAD, and the demo's own."""
KINDS: Final = {NEUTRAL: "neutral talkers (GRID)", ACTED: "acted emotions (MEAD)", DEMO: "the demo clip"}
BEGIN: Final = "<!-- measured by dhmd-live accuracy -->"
END: Final = "<!-- end of what was measured -->"


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip to be read. digest: of its content."""

    path: Path
    kind: str
    digest: str

    @property
    def name(self) -> str:
        return self.path.name


def clips_in(folder: Path) -> list[Clip]:
    """Return the clips of known kinds in a folder, and the demo's own behind them."""
    paths = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES) if folder.is_dir() else []
    found = [(path, kind) for kind in (NEUTRAL, ACTED) for path in paths if path.name.startswith(f"{kind}_")]
    return [
        Clip(path, kind, hashlib.sha256(path.read_bytes()).hexdigest())
        for path, kind in (*found, *([(CLIP, DEMO)] if found else []))
    ]


def accuracy(folder: Path, checkpoint: str, into: Path | None, console: Console) -> int:
    """Read all clips as they are and changed, print the tables, and write them into a page. Returns the exit status.

    into: a Markdown file, whose part between BEGIN and END is replaced. Raises DHMDLiveError.
    """
    clips = clips_in(folder)
    if not clips:
        console.print(f"skipped: no clips named grid_... or mead_... in {folder}", markup=False, soft_wrap=True)
        return 0
    page = None if into is None else _divided(into)
    begun_s = time.monotonic()
    name, digest, readings = _read_all(clips, checkpoint, console)
    lines = report(clips, readings)
    took = f"measured with `{name}` ({digest}) in {(time.monotonic() - begun_s) / 60:.0f} minutes"
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    console.print(took, markup=False, highlight=False)
    if into is not None and page is not None:
        before, after = page
        with whole_file(into) as file:
            told = f"With the checkpoint `{name}` ({digest}):"
            file.write("\n".join([before + BEGIN, "", told, "", *lines, "", END + after]).encode())
        console.print(f"written into {into}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _divided(page: Path) -> tuple[str, str]:
    """Return what stands before and after the measured part of a page. Raises SettingsInvalid."""
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsInvalid(f"--into {page}: cannot be read ({error.strerror}); name a Markdown file") from None
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SettingsInvalid(f"--into {page}: lacks the lines {BEGIN} and {END}, between which it writes; add them")
    return before, after


AS_IT_IS: Final = "as it is"
Readings = Mapping[tuple[str, str], Reading]
"""By name of the clip and of the variant, or AS_IT_IS."""


def report(clips: Sequence[Clip], readings: Readings) -> list[str]:
    """Return the tables, in Markdown."""
    return [*_steadiness(clips, readings), "", *_acted(clips, readings), "", *_robustness(clips, readings)]


def _steadiness(clips: Sequence[Clip], readings: Readings) -> Iterator[str]:
    published = f"published, margin {MARGIN:g}"
    yield f"| clips | neutral | changes a minute | neutral, {published} | changes a minute, {published} |"
    yield "| --- | --- | --- | --- | --- |"
    for kind, told in KINDS.items():
        of_kind = [readings[clip.name, AS_IT_IS] for clip in clips if clip.kind == kind]
        if of_kind:
            cells = [
                cell
                for margin in (0.0, MARGIN)
                for cell in (
                    f"{shares(of_kind, margin).get('neutral', 0.0):.0%}",
                    f"{changes_a_minute(of_kind, margin):.0f}",
                )
            ]
            yield f"| {told}, {len(of_kind)} | {' | '.join(cells)} |"


def _acted(clips: Sequence[Clip], readings: Readings) -> Iterator[str]:
    yield "| clip | published in so many ticks |"
    yield "| --- | --- |"
    for clip in clips:
        if clip.kind == ACTED:
            found = shares([readings[clip.name, AS_IT_IS]], MARGIN)
            told = ", ".join(f"{label} {share:.0%}" for label, share in found.items() if share >= 0.005)
            yield f"| `{clip.name}` | {told or 'nobody seen or heard'} |"


def _robustness(clips: Sequence[Clip], readings: Readings) -> Iterator[str]:
    kinds = [kind for kind in KINDS if any(clip.kind == kind for clip in clips)]
    yield f"| label kept, published | {' | '.join(KINDS[kind] for kind in kinds)} | all | all, likeliest |"
    yield "| --- |" + " --- |" * (len(kinds) + 2)
    for variant in VARIANTS:

        def share(margin: float, *wanted: str, variant: Variant = variant) -> str:
            together = sum(
                (
                    kept(readings[clip.name, AS_IT_IS], readings[clip.name, variant.name], variant.tempo, margin)
                    for clip in clips
                    if clip.kind in wanted
                ),
                Kept(),
            )
            return f"{together.share:.0%}"

        cells = [*(share(MARGIN, kind) for kind in kinds), share(MARGIN, *kinds), share(0.0, *kinds)]
        yield f"| {variant.name} | {' | '.join(cells)} |"


def _read_all(clips: Sequence[Clip], checkpoint: str, console: Console) -> tuple[str, str, Readings]:
    """Return the model's name and digest, and the readings; those of an earlier, interrupted call are kept."""
    model = load(checkpoint)
    kept_in = cache_folder() / "accuracy" / f"{model.digest}-{_code()}"
    kept_in.mkdir(parents=True, exist_ok=True)
    readings: dict[tuple[str, str], Reading] = {}
    pending: list[tuple[Clip, Variant | None, Path]] = []
    for clip in clips:
        for variant in (None, *VARIANTS):
            made = hashlib.sha256(f"{clip.digest} {variant}".encode()).hexdigest()[:16]
            path = kept_in / f"{clip.name}-{made}.json"
            if path.is_file():
                readings[clip.name, _name(variant)] = _kept(path)
            else:
                pending.append((clip, variant, path))
    if not pending:
        return model.name, model.digest, readings
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    told = f"{len(clips)} clips, each as it is and in {len(VARIANTS)} variants"
    console.print(
        f"{told}; {len(pending)} still to be read, about four seconds of a processor each",
        highlight=False,
        soft_wrap=True,
    )
    torch.set_num_threads(1)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        read = _reader(StreamExtractors.load(model), Engine(model, torch.device("cpu")), stack)
        progress = stack.enter_context(Progress(*columns, console=console, disable=not console.is_terminal))
        bar = progress.add_task("clips", total=len(pending))
        for number, (clip, variant, path) in enumerate(pending, 1):
            media = clip.path
            if variant is not None:
                media = scratch / "changed.mkv"
                variant.make(clip.path, media)
            reading = read(media)
            readings[clip.name, _name(variant)] = reading
            with whole_file(path) as file:
                file.write(
                    json.dumps({"hop_s": reading.hop_s, "end_s": reading.end_s, "emotions": reading.emotions}).encode()
                )
            progress.update(bar, advance=1, description=clip.name)
            if not console.is_terminal and number % 10 == 0:
                console.print(f"{number} of {len(pending)}", highlight=False)
    return model.name, model.digest, readings


def _name(variant: Variant | None) -> str:
    return AS_IT_IS if variant is None else variant.name


def _reader(extractors: StreamExtractors, engine: Engine, stack: ExitStack) -> Callable[[Path], Reading]:
    """Return what reads a media file, as `dhmd-live run --pace max` does."""
    stack.enter_context(extractors.face)

    def read(media: Path) -> Reading:
        end_s: list[float] = []
        emotions: list[tuple[float, ...] | None] = []

        class Sink:
            def on_estimate(self, emission: Emission) -> None:
                end_s.append(emission.perceived.cut.end_s)
                emotions.append(None if emission.inference is None else emission.inference.emotions)

        clock = MediaClock()
        with Perception(extractors.another(), engine.device) as perception:
            pipeline = Pipeline(perception, engine, clock, "accuracy", _nothing_dropped, timed=False)
            pipeline.outputs.add(Sink())
            event_loop.run(
                run_offline(
                    pipeline,
                    MediaFile(media).samples(),
                    clock,
                    hop_s=HOP_S,
                    duration_s=None,
                    stop=asyncio.Event(),
                    delivered=_at_once,
                )
            )
        return Reading(HOP_S, end_s, emotions)

    return read


def _nothing_dropped() -> Dropped:
    return Dropped(video=0, audio=0)


async def _at_once() -> None:
    """Wait for nothing."""


def _kept(path: Path) -> Reading:
    told = read_json_object(path, largest=2**26)
    emotions = [None if one is None else tuple(one) for one in told["emotions"]]
    return Reading(told["hop_s"], told["end_s"], emotions)


def _code() -> str:
    """Return a digest of the programs, so that readings of other ones are not taken for those of these."""
    digest = hashlib.sha256()
    for package in (dhmd, realtime):
        root = Path(next(iter(package.__path__)))
        for path in sorted(root.rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
