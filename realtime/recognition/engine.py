"""The engine: the model, resident on its device, turns a window into numbers."""

from __future__ import annotations

import math
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dhmd.checkpoint import CONTRACT, Checkpoint, CheckpointInvalid, own_calibration, subset_name
from dhmd.errors import DeviceUnavailable
from dhmd.labels import EMOTIONS
from dhmd.modality import EDGES, Modality
from dhmd.model import Head, columns, own_heads
from dhmd.prediction import Predictor
from dhmd.untrusted import read_json_object, shown
from realtime.messages.estimate import Extra, ExtraClasses, ExtraNumber
from realtime.perception.window import WindowCut

SENTIMENT_LIMIT = 3.0
EVERY: Final = frozenset(Modality)
MOST_AT_ONCE: Final = {"cpu": 32, "cuda": 1024}
"""Windows in a pass. On a CPU what lies between two products then stays in the cache."""
FEW: Final = 4
"""Whole windows that a CPU computes sooner one by one, traced, than together."""
Windows = tuple[Tensor, ...]
"""Inputs (B, steps, width), then masks (B, steps), each in modality order."""


def resolve_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one. Raises DeviceUnavailable."""
    has_gpu = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if has_gpu else "cpu")
    if name.split(":", maxsplit=1)[0] == "cuda":
        index = int(name.partition(":")[2] or 0)
        if not has_gpu or index >= torch.cuda.device_count():
            raise DeviceUnavailable(
                f"--device {name}: this machine shows torch {torch.cuda.device_count()} CUDA device(s); "
                "use --device auto or cpu, or install a CUDA build of torch and the driver"
            )
    return torch.device(name)


@dataclass(frozen=True, slots=True)
class Sentiment:
    """A sentiment in [-3, 3]; 80 % of true sentiments lay within [low, high] on validation data."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class Activations:
    """Strength with which each present modality uses each atom of a space's dictionary: (K,), sparse, sums to 1."""

    homo: Mapping[Modality, NDArray[np.float32]]
    hetero: Mapping[Modality, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Share:
    """Part of one modality in an estimate; None: not measured yet. See Attribution."""

    emotions: tuple[float, ...] | None
    """Probabilities that it gives alone, in the order of `EMOTIONS`."""
    influence: float | None
    """Total variation, in [0, 1], by which the estimate's emotions move when it is left out."""


@dataclass(frozen=True, slots=True)
class Inference:
    """One forward pass over a window in which at least one modality is present."""

    sentiment: Sentiment
    emotions: tuple[float, ...]
    """Probabilities in the order of `EMOTIONS`; they sum to 1."""
    modality_sentiment: Mapping[Modality, float]
    """Sentiment that each present modality shows alone, from its homogeneous head, in [-3, 3]."""
    homo_edges: tuple[float, ...]
    hetero_edges: tuple[float, ...]
    """Six weights each, in the order of `EDGES`."""
    weights: Mapping[Modality, float]
    """Share of what each modality teaches the others: its outgoing edges, mean of the two graphs; sums to 1."""
    inference_ms: float
    shares: Mapping[Modality, Share] = field(default_factory=dict, compare=False)
    """Of each present modality, where they are measured."""
    extra: Mapping[str, Extra] = field(default_factory=dict, compare=False)
    """What the heads of the checkpoint's own say, by their name."""
    activations: Activations | None = field(default=None, compare=False)
    """None unless the engine was asked for them, and its model has a dictionary."""


COVERED_TEMPERATURE: Final = 1.7
"""By this the emotions of a face alone are less sure while its mouth is covered: so they are calibrated then. Beside
voice or words they are so without."""


class Engine:
    """Runs one checkpoint on one device. `infer` belongs to one thread; `infer_many` may run in several at once.

    Single windows go through a predictor for all modalities, traced when the engine is made (0.15 s), on a GPU captured
    in a CUDA graph: the same numbers a quarter faster, and without holding the interpreter's lock against the other
    threads, which outweighs that it computes absent modalities, too. For many windows, a predictor is made for each set
    of modalities that comes.

    activations: give those of the dictionaries, too; the program of a `.pt2` has none.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device, *, activations: bool = False) -> None:
        self.checkpoint = checkpoint
        self.device = device
        self._activations = activations and checkpoint.model.atoms > 0 and checkpoint.program is None
        self._own = own_heads(checkpoint.model.config.heads)
        self._columns = len(columns(checkpoint.model.config.heads))
        self._program = program_of(checkpoint, device)
        self._predictors: dict[frozenset[Modality], nn.Module] = {}
        self._making = threading.Lock()
        specs = [checkpoint.features[m] for m in Modality]
        inputs = [torch.zeros(1, spec.steps, spec.width, device=device) for spec in specs]
        masks = [torch.ones(1, spec.steps, dtype=torch.bool, device=device) for spec in specs]
        make = captured if device.type == "cuda" else traced
        self._whole = make(self._made(EVERY, alone=True), (*inputs, *masks))
        self._rehearsal: Windows = (*inputs, *masks)

    @torch.inference_mode()
    def window_s(self) -> float:
        """Processor time of a window, measured now."""
        begun_s = time.thread_time()
        self._whole(*self._rehearsal)
        return time.thread_time() - begun_s

    @torch.inference_mode()
    def infer(self, cut: WindowCut) -> Inference | None:
        """None when no modality is present: nothing was perceived, so nothing is estimated."""
        if not cut.present:
            return None
        started = time.perf_counter()
        masks = (cut.masks[m] if m in cut.present else torch.zeros_like(cut.masks[m]) for m in Modality)
        row = self._whole(*(cut.inputs[m] for m in Modality), *masks)[0].numpy(force=True)
        return self._inference(cut, row, (time.perf_counter() - started) * 1000)

    @torch.inference_mode()
    def infer_many(self, cuts: Sequence[WindowCut]) -> list[Inference | None]:
        """Infer each as `infer` does, to rounding; those with the same modalities pass together where that saves time.

        cuts: on any device; they go to the engine's together.
        """
        alike: dict[frozenset[Modality], list[int]] = {}
        for place, cut in enumerate(cuts):
            alike.setdefault(cut.present, []).append(place)
        alike.pop(frozenset(), None)
        found: list[Inference | None] = [None for _ in cuts]
        most = MOST_AT_ONCE[self.device.type]
        for present, all_of_them in alike.items():
            if self.device.type == "cpu" and len(all_of_them) <= (FEW if present == EVERY else 1):
                for place in all_of_them:
                    found[place] = self.infer(cuts[place])
                continue
            for first in range(0, len(all_of_them), most):
                some = all_of_them[first : first + most]
                started = time.perf_counter()
                given = [cuts[place] for place in some]
                inputs = [torch.cat([cut.inputs[m] for cut in given]).to(self.device) for m in Modality]
                masks = [torch.cat([cut.masks[m] for cut in given]).to(self.device) for m in Modality]
                rows = self._predictor(present)(*inputs, *masks).numpy(force=True)
                each_ms = (time.perf_counter() - started) * 1000 / len(given)
                for place, row in zip(some, rows, strict=True):
                    found[place] = self._inference(cuts[place], row, each_ms)
        return found

    def _predictor(self, present: frozenset[Modality]) -> nn.Module:
        """The one for many windows in which these are present."""
        with self._making:
            if present not in self._predictors:
                self._predictors[present] = self._made(present)
            return self._predictors[present]

    def _made(self, present: frozenset[Modality], *, alone: bool = False) -> nn.Module:
        """alone: for one window at a time."""
        if self._program is not None:  # which is on its device, and refuses `eval`
            return Exported(self._program, present)
        steps = {m: spec.steps for m, spec in self.checkpoint.features.items()}
        predictor = Predictor(self.checkpoint.model, steps, present, alone=alone, activations=self._activations)
        return predictor.to(self.device).eval()

    def _inference(self, cut: WindowCut, row: NDArray[np.float32], inference_ms: float) -> Inference:
        """row: the columns of Readout."""
        numbers = iter(row[: self._columns].tolist())
        subset = subset_name(cut.present)
        value = _clip(next(numbers))
        scores = [next(numbers) for _ in EMOTIONS]
        alone = {m: _clip(next(numbers)) for m in Modality}
        homo, hetero = ([next(numbers) for _ in EDGES] for _ in range(2))
        extra = {head.name: self._extra(head, [next(numbers) for _ in range(head.size)], subset) for head in self._own}
        temperature = self.checkpoint.calibration.temperature.get(subset, 1.0)
        if cut.covered == cut.present:
            temperature *= COVERED_TEMPERATURE
        # Where nothing was measured, the interval is the whole scale.
        half_width = self.checkpoint.calibration.sentiment_half_width.get(subset, 2 * SENTIMENT_LIMIT)
        return Inference(
            sentiment=Sentiment(value, _clip(value - half_width), _clip(value + half_width)),
            emotions=_softmax(scores, temperature),
            modality_sentiment={m: alone[m] for m in Modality if m in cut.present},
            homo_edges=tuple(homo),
            hetero_edges=tuple(hetero),
            weights=_weights(cut.present, homo, hetero),
            inference_ms=inference_ms,
            extra=extra,
            activations=_activations(cut.present, row[self._columns :]) if self._activations else None,
        )

    def _extra(self, head: Head, said: list[float], subset: str) -> Extra:
        calibration, name = self.checkpoint.calibration, own_calibration(head, subset)
        if head.kind == "classification":
            shares = rounded_to_one(_softmax(said, calibration.temperature.get(name, 1.0)))
            probabilities = dict(zip(head.classes, shares, strict=True))
            return ExtraClasses(top=max(probabilities, key=lambda one: probabilities[one]), probabilities=probabilities)
        value, (lowest, highest) = head.on_scale(said[0]), head.scale
        half_width = calibration.sentiment_half_width.get(name, highest - lowest)
        return ExtraNumber(
            value=round(value, 4),
            low=round(max(value - half_width, lowest), 4),
            high=round(min(value + half_width, highest), 4),
            range=head.scale,
            unit=head.unit,
        )


class Exported(nn.Module):
    """The program of a `.pt2` for windows of which these modalities are read; the others count as absent."""

    def __init__(self, program: nn.Module, present: frozenset[Modality]) -> None:
        super().__init__()
        self.program = program
        self.present = [m in present for m in Modality]
        self.training = False

    def forward(self, *windows: Tensor) -> Tensor:
        inputs, masks = windows[: len(Modality)], windows[len(Modality) :]
        read_of = [mask if there else torch.zeros_like(mask) for mask, there in zip(masks, self.present, strict=True)]
        read: Tensor = self.program(*inputs, *read_of)
        return read


def program_of(checkpoint: Checkpoint, device: torch.device) -> nn.Module | None:
    """The program that a checkpoint is to run by, on a device; None where it is not to. Raises CheckpointInvalid."""
    if checkpoint.program is None:
        return None
    try:
        digest = _digest_of(checkpoint.program)
        if digest != checkpoint.digest:
            raise CheckpointInvalid(f"{checkpoint.program} was exported of another checkpoint; export it again")
        program = torch.export.load(str(checkpoint.program))
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        reason = shown(" ".join(str(error).split()))
        raise CheckpointInvalid(f"{checkpoint.program} is no exported program ({reason}); export it again") from error
    if device.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    module = cast("nn.Module", program.module())
    for part in module.modules():  # which refuses `eval`, though it was exported so
        part.training = False
    return module


def _digest_of(path: Path) -> str:
    """The digest of the checkpoint that a program was exported of, read without loading it.

    Raises ValueError where loading would run what a pickle says; BadZipFile, which torch tells in many lines.
    """
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(("weights_config.json", "constants_config.json")):
                entries = read_json_object(archive.read(name), largest=2**24)["config"].values()
                if any(entry.get("use_pickle") is not False for entry in entries):
                    raise ValueError("it holds pickled objects")
        (contract,) = (name for name in archive.namelist() if name.endswith(f"/extra/{CONTRACT}"))
        return str(read_json_object(archive.read(contract))["digest"])


def traced(predictor: nn.Module, windows: Windows) -> Callable[..., Tensor]:
    """The predictor for windows of this shape without its Python.

    Its weights become constants of a function. A module, frozen and then optimised in its first calls, is no faster,
    and takes two and a half times as long to make.
    """

    def predict(*windows: Tensor) -> Tensor:
        out: Tensor = predictor(*windows)
        return out

    with warnings.catch_warnings(), torch.no_grad():
        # torch recommends its compiler instead, which needs a C++ compiler on the user's machine.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        made: Any = torch.jit.trace(predict, windows, check_trace=False)  # type: ignore[no-untyped-call]
        # Sizes that are asked for again and again are half of the graph.
        for simplify in (torch._C._jit_pass_constant_propagation, torch._C._jit_pass_cse, torch._C._jit_pass_dce):  # noqa: SLF001
            simplify(made.graph)

    def run(*windows: Tensor) -> Tensor:
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            out: Tensor = made(*windows)
        return out

    run(*windows)  # the first call is slow
    return run


def captured(predictor: nn.Module, windows: Windows) -> Callable[..., Tensor]:
    """The predictor for windows of this shape as one CUDA graph. What it gives holds until the next call."""
    given = [window.clone() for window in windows]
    with torch.inference_mode():
        apart = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        apart.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(apart):
            for _ in range(3):
                predictor(*given)
        torch.cuda.current_stream().wait_stream(apart)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out: Tensor = predictor(*given)

    def replay(*windows: Tensor) -> Tensor:
        for mine, new in zip(given, windows, strict=True):
            mine.copy_(new, non_blocking=True)
        graph.replay()
        return out

    return replay


def _activations(present: frozenset[Modality], flat: NDArray[np.float32]) -> Activations:
    """flat: (2 * 3 * K,), by space, modality and atom."""
    homo, hetero = (
        {m: atoms for m, atoms in zip(Modality, space, strict=True) if m in present}
        for space in flat.reshape(2, len(Modality), -1)
    )
    return Activations(homo, hetero)


def rounded_to_one(probabilities: Sequence[float]) -> list[float]:
    """Four digits each, cut down, and what is missing given to the largest remainders: sum 1, order unchanged."""
    scaled = [p * 10_000 for p in probabilities]
    units = [int(s) for s in scaled]
    by_remainder = sorted(range(len(units)), key=lambda i: units[i] - scaled[i])
    for i in by_remainder[: 10_000 - sum(units)]:
        units[i] += 1
    return [count / 10_000 for count in units]


def _softmax(scores: list[float], temperature: float) -> tuple[float, ...]:
    top = max(scores)
    powers = [math.exp((score - top) / temperature) for score in scores]
    total = sum(powers)
    return tuple(power / total for power in powers)


def _clip(sentiment: float) -> float:
    return max(-SENTIMENT_LIMIT, min(SENTIMENT_LIMIT, sentiment))


def _weights(present: frozenset[Modality], homo: list[float], hetero: list[float]) -> dict[Modality, float]:
    if len(present) == 1:
        return dict.fromkeys(present, 1.0)
    weights = dict.fromkeys(present, 0.0)
    for edge, one, other in zip(EDGES, homo, hetero, strict=True):
        if edge.source in weights:
            weights[edge.source] += (one + other) / 2
    return weights
