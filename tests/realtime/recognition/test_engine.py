"""The engine says what the model says: same numbers, calibrated for what is present."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from dhmd.checkpoint import Calibration, Checkpoint, load
from dhmd.contract import Rows
from dhmd.errors import DeviceUnavailable
from dhmd.modality import EDGES, Modality
from dhmd.model import DHMD
from realtime.perception.window import SlidingWindow, WindowCut
from realtime.recognition.engine import FEW, Engine, Inference, resolve_device

CPU = torch.device("cpu")
SUBSETS = [frozenset(chosen) for n in (1, 2, 3) for chosen in combinations(Modality, n)]
every_subset = pytest.mark.parametrize("present", SUBSETS, ids=lambda present: "+".join(sorted(present)))


@pytest.fixture(scope="module")
def checkpoint(untrained_checkpoint: Path) -> Checkpoint:
    return load(untrained_checkpoint)


@pytest.fixture(scope="module")
def engine(checkpoint: Checkpoint) -> Engine:
    return Engine(checkpoint, CPU)


@pytest.fixture(scope="module")
def active(checkpoint: Checkpoint) -> Engine:
    return Engine(checkpoint, CPU, activations=True)


def perceived(checkpoint: Checkpoint, present: frozenset[Modality], seed: int = 7) -> WindowCut:
    """A window over 4 s in which these modalities were perceived."""
    chance = np.random.default_rng(seed)
    window = SlidingWindow(checkpoint.features, CPU)
    for m in sorted(present):
        spec = checkpoint.features[m]
        times_s = np.arange(1, 20) / 5
        window.append(m, Rows(times_s, chance.normal(size=(len(times_s), spec.width)).astype(np.float32)))
    return window.cut(4.0)


def infer(engine: Engine, cut: WindowCut) -> Inference:
    inference = engine.infer(cut)
    assert inference is not None
    return inference


def test_nothing_present_is_nothing_estimated(engine: Engine, checkpoint: Checkpoint) -> None:
    assert engine.infer(perceived(checkpoint, frozenset())) is None


@every_subset
def test_the_numbers_are_the_model_s(engine: Engine, checkpoint: Checkpoint, present: frozenset[Modality]) -> None:
    cut = perceived(checkpoint, present)
    assert cut.present == present
    bare = Engine(dataclasses.replace(checkpoint, calibration=Calibration()), CPU)
    inference = infer(bare, cut)
    with torch.inference_mode():
        out = checkpoint.model(cut.inputs, cut.masks)
    heads = checkpoint.model.split(out.output)
    assert inference.sentiment.value == pytest.approx(float(heads["sentiment"]), abs=1e-6)
    assert inference.emotions == pytest.approx(heads["emotion"][0].softmax(0).tolist(), abs=1e-6)
    assert sum(inference.emotions) == pytest.approx(1.0, abs=1e-9)
    assert inference.homo_edges == pytest.approx(out.homogeneous.edges[0].tolist(), abs=1e-6)
    assert inference.hetero_edges == pytest.approx(out.heterogeneous.edges[0].tolist(), abs=1e-6)
    assert set(inference.modality_sentiment) == present
    for m, said in inference.modality_sentiment.items():
        alone = float(checkpoint.model.split(out.homogeneous.logit[m])["sentiment"])
        assert said == pytest.approx(min(3.0, max(-3.0, alone)), abs=1e-6)


@every_subset
def test_of_a_window_a_part_is_read_as_if_the_rest_were_absent(
    engine: Engine, checkpoint: Checkpoint, present: frozenset[Modality]
) -> None:
    """Alone and among many, in whatever thread."""
    whole = perceived(checkpoint, frozenset(Modality))
    part = dataclasses.replace(whole, present=present)
    without = {m: mask & (m in present) for m, mask in whole.masks.items()}
    with torch.inference_mode():
        heads = checkpoint.model.split(checkpoint.model(whole.inputs, without).output)
    with ThreadPoolExecutor(1) as elsewhere:
        alone = elsewhere.submit(infer, engine, part).result()
    for found in (alone, *engine.infer_many([part] * (FEW + 1))):
        assert found is not None
        assert found.sentiment.value == pytest.approx(float(heads["sentiment"]), abs=1e-6)
        assert set(found.modality_sentiment) == present
    assert infer(engine, whole).sentiment.value != alone.sentiment.value or present == whole.present


@every_subset
def test_weights_are_shares_of_what_is_present(
    engine: Engine, checkpoint: Checkpoint, present: frozenset[Modality]
) -> None:
    inference = infer(engine, perceived(checkpoint, present))
    assert set(inference.weights) == present
    assert sum(inference.weights.values()) == pytest.approx(1.0, abs=1e-5)
    for edge, homo, hetero in zip(EDGES, inference.homo_edges, inference.hetero_edges, strict=True):
        # Who is absent neither teaches nor is taught.
        assert ((homo, hetero) == (0.0, 0.0)) == (not {edge.source, edge.target} <= present)
    if len(present) > 1:
        teaching = {
            m: sum(
                (homo + hetero) / 2
                for edge, homo, hetero in zip(EDGES, inference.homo_edges, inference.hetero_edges, strict=True)
                if edge.source is m
            )
            for m in present
        }
        assert inference.weights == pytest.approx(teaching)


def assert_activations_are_the_model_s(inference: Inference | None, cut: WindowCut, checkpoint: Checkpoint) -> None:
    assert inference is not None
    assert inference.activations is not None
    with torch.inference_mode():
        out = checkpoint.model(cut.inputs, cut.masks)
    found = inference.activations
    for said, space in ((found.homo, out.homogeneous), (found.hetero, out.heterogeneous)):
        assert set(said) == cut.present
        for m, atoms in said.items():
            assert atoms.dtype == np.float32
            assert atoms.shape == (checkpoint.model.atoms,)
            assert atoms.sum() == pytest.approx(1.0, abs=1e-5)
            np.testing.assert_allclose(atoms, space.match[m].activation[0].numpy(), atol=1e-6)


@every_subset
def test_activations_are_the_model_s(
    active: Engine, engine: Engine, checkpoint: Checkpoint, present: frozenset[Modality]
) -> None:
    """Of a full window, too: every step of it stands."""
    cut = perceived(checkpoint, present)
    full = dataclasses.replace(cut, masks={m: torch.full_like(mask, m in present) for m, mask in cut.masks.items()})
    for one in (cut, full):
        inference = infer(active, one)
        assert_activations_are_the_model_s(inference, one, checkpoint)
        assert dataclasses.replace(inference, inference_ms=0.0) == dataclasses.replace(
            infer(engine, one), inference_ms=0.0
        )


def test_activations_come_with_many_windows(active: Engine, checkpoint: Checkpoint) -> None:
    cuts = [perceived(checkpoint, present, seed) for seed, present in enumerate([frozenset(), *SUBSETS])]
    nothing, *inferences = active.infer_many(cuts)
    assert nothing is None
    for cut, inference in zip(cuts[1:], inferences, strict=True):
        assert_activations_are_the_model_s(inference, cut, checkpoint)


def test_a_few_whole_windows_are_computed_as_each_is_alone(engine: Engine, checkpoint: Checkpoint) -> None:
    """Traced, which takes less time than all of them together as they are."""
    cuts = [perceived(checkpoint, frozenset(Modality), seed) for seed in range(3)]
    for cut, inference in zip(cuts, engine.infer_many(cuts), strict=True):
        assert inference is not None
        assert dataclasses.replace(inference, inference_ms=0.0) == dataclasses.replace(
            infer(engine, cut), inference_ms=0.0
        )


def test_activations_come_only_where_asked_for_and_where_there_is_a_dictionary(
    engine: Engine, checkpoint: Checkpoint
) -> None:
    cut = perceived(checkpoint, frozenset(Modality))
    assert infer(engine, cut).activations is None
    (one,) = engine.infer_many([cut])
    assert one is not None
    assert one.activations is None
    bare = DHMD(dataclasses.replace(checkpoint.model.config, dictionary=False)).eval()
    without = Engine(dataclasses.replace(checkpoint, model=bare), CPU, activations=True)
    assert bare.atoms == 0
    assert infer(without, cut).activations is None


def test_each_subset_has_its_own_calibration(engine: Engine, checkpoint: Checkpoint) -> None:
    """The checkpoint of the fixture: temperature 2 and half-width 0.5 for vision alone, 1.0 for text with vision."""
    cut = perceived(checkpoint, frozenset({Modality.VISION}))
    vision = infer(engine, cut)
    with torch.inference_mode():
        scores = checkpoint.model.split(checkpoint.model(cut.inputs, cut.masks).output)["emotion"][0]
    assert vision.emotions == pytest.approx((scores / 2).softmax(0).tolist(), abs=1e-6)
    assert vision.sentiment.high - vision.sentiment.low == pytest.approx(1.0)
    both = infer(engine, perceived(checkpoint, frozenset({Modality.VISION, Modality.TEXT})))
    assert both.sentiment.high - both.sentiment.low == pytest.approx(2.0)
    # Where nothing was measured, nothing is claimed.
    audio = infer(engine, perceived(checkpoint, frozenset({Modality.AUDIO}))).sentiment
    assert (audio.low, audio.high) == (-3.0, 3.0)


def test_sentiment_stays_on_its_scale(checkpoint: Checkpoint) -> None:
    calibration = Calibration({}, {"vision": 2.9})
    sure = infer(
        Engine(dataclasses.replace(checkpoint, calibration=calibration), CPU),
        perceived(checkpoint, frozenset({Modality.VISION})),
    ).sentiment
    assert -3 <= sure.low <= sure.value <= sure.high <= 3


def test_auto_is_the_gpu_where_there_is_one() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:64"])
def test_a_gpu_that_is_not_there_is_refused_with_the_remedy(name: str) -> None:
    if torch.cuda.is_available() and name != "cuda:64":
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceUnavailable, match="--device auto or cpu") as refused:
        resolve_device(name)
    assert str(refused.value).startswith(f"--device {name}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_says_what_the_cpu_says(untrained_checkpoint: Path) -> None:
    present = frozenset(Modality)
    here = infer(Engine(load(untrained_checkpoint), CPU), perceived(load(untrained_checkpoint), present))
    cuda = Engine(load(untrained_checkpoint), torch.device("cuda"))
    cut = perceived(cuda.checkpoint, present)
    there = infer(
        cuda,
        dataclasses.replace(
            cut,
            inputs={m: values.cuda() for m, values in cut.inputs.items()},
            masks={m: mask.cuda() for m, mask in cut.masks.items()},
        ),
    )
    assert there.emotions == pytest.approx(here.emotions, abs=1e-4)
    assert there.sentiment.value == pytest.approx(here.sentiment.value, abs=1e-3)
