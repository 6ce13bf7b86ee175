"""What the feed hands to a page beside the estimates: the dictionary's activations, now and then."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from dhmd.labels import EMOTIONS
from dhmd.modality import EDGES, Modality
from realtime.messages.estimate import Dropped, EmotionName, Extra, ModelName
from realtime.perception.attention import Attention
from realtime.perception.perception import Perceived
from realtime.perception.window import WindowCut
from realtime.pipeline.pipeline import Emission
from realtime.recognition.build import build_estimate
from realtime.recognition.engine import Activations, Inference, Sentiment, Share
from realtime.web.feed import Feed
from realtime.web.pages import Page

pytestmark = pytest.mark.anyio

ATOMS = 512
PRESENT = frozenset({Modality.VISION, Modality.TEXT})


@pytest.fixture
def feed() -> Feed:
    return Feed("hall")


@pytest.fixture
async def page(feed: Feed) -> AsyncIterator[Page]:
    page = Page()
    with feed.page(page):
        yield page


def sparse(seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    chance = np.random.default_rng(seed)
    activation = np.where(chance.random(ATOMS) < 0.03, chance.random(ATOMS) ** 3, 0).astype(np.float32)
    return np.asarray(activation / activation.sum(), np.float32)


ACTIVATIONS = Activations(
    {m: sparse(i) for i, m in enumerate(PRESENT)}, {m: sparse(9 + i) for i, m in enumerate(PRESENT)}
)


def emission(
    end_s: float,
    activations: Activations | None = ACTIVATIONS,
    *,
    present: frozenset[Modality] = PRESENT,
    late: frozenset[Modality] = frozenset(),
    attention: Attention | None = None,
    transcript: str = "",
    says: Mapping[Modality, str] | None = None,
    top: EmotionName = "neutral",
    extra: Mapping[str, Extra] | None = None,
) -> Emission:
    """says: the emotion that a modality is sure of, alone."""
    shares = {
        m: Share(tuple(0.9 if one == name else 0.1 / 6 for one in EMOTIONS), 0.2) for m, name in (says or {}).items()
    }
    nothing = {m: torch.zeros(1, 1, 1) for m in Modality}
    cut = WindowCut(
        end_s - 5.0,
        end_s,
        nothing,
        nothing,
        dict.fromkeys(Modality),
        present,
        attention=attention or Attention({}, late),
    )
    inference = Inference(
        sentiment=Sentiment(0.0, -1.0, 1.0),
        emotions=(1 / len(EMOTIONS),) * len(EMOTIONS),
        modality_sentiment=dict.fromkeys(present, 0.0),
        homo_edges=(0.0,) * len(EDGES),
        hetero_edges=(0.0,) * len(EDGES),
        weights=dict.fromkeys(present, 0.5),
        inference_ms=1.0,
        activations=activations,
        shares=shares,
        extra=extra or {},
    )
    said = inference if present else None
    estimate = build_estimate(
        cut, said, top if present else None,
        stream="hall", seq=0, epoch_unix=0.0, faces=0, transcript=transcript, capture_to_estimate_ms=None,
        timed=False, dropped=Dropped(video=0, audio=0), model=ModelName(name="m", checkpoint="0" * 12),
    )  # fmt: skip
    return Emission(estimate, Perceived(cut, 0, ()), said, None, timed=False)


def taken(page: Page) -> list[dict[str, Any]]:
    messages = [json.loads(text) for text in page.messages]
    page.messages.clear()
    return messages


async def test_activations_follow_their_estimate_and_decode_to_what_they_were(feed: Feed, page: Page) -> None:
    taken(page)
    feed.on_estimate(emission(12.3))
    estimate, activations = taken(page)
    assert (estimate["type"], activations["type"]) == ("estimate", "activations")
    assert estimate["end"] == activations["end"] == 12.3
    for space, expected in (("homo", ACTIVATIONS.homo), ("hetero", ACTIVATIONS.hetero)):
        assert activations[space].keys() == PRESENT
        for m, encoded in activations[space].items():
            shades = np.frombuffer(base64.b64decode(encoded), np.uint8)
            assert shades.shape == (ATOMS,)
            np.testing.assert_allclose(shades / 255, np.sqrt(expected[m]), atol=0.5 / 255 + 1e-6)


async def test_one_atom_alone_is_all_the_scale(feed: Feed, page: Page) -> None:
    one = np.array([1 + 1e-6, 0, 1e-6], np.float32)
    taken(page)
    feed.on_estimate(emission(1.0, Activations({Modality.TEXT: one}, {Modality.TEXT: one})))
    assert base64.b64decode(taken(page)[1]["homo"]["text"]) == b"\xff\x00\x00"


async def test_activations_come_five_times_a_second_at_most(feed: Feed, page: Page) -> None:
    """Ticks of a clock are a little early or late."""
    taken(page)
    sent = []
    for tick in range(1, 31):
        feed.on_estimate(emission(tick / 10 + (0.004 if tick % 2 else -0.004)))
        sent += [message["type"] for message in taken(page)]
    assert sent.count("estimate") == 30
    assert sent.count("activations") == 15


async def test_without_activations_none_are_told(feed: Feed, page: Page) -> None:
    taken(page)
    feed.on_estimate(emission(1.0, None))
    feed.on_estimate(emission(2.0, present=frozenset()))
    assert [message["type"] for message in taken(page)] == ["estimate", "estimate"]
    unseen = emission(3.0)
    Feed("empty").on_estimate(unseen)
    assert "payload" not in vars(unseen)  # nothing is made where nobody looks
