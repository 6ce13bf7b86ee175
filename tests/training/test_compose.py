"""Composed windows: fixed by the seed, of one label, with every subset of modalities, placed as live places rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from dhmd.checkpoint import subset_name
from dhmd.contract import FeatureSpec, Rows
from dhmd.labels import CIRCUMPLEX, EMOTIONS
from dhmd.modality import Modality
from training.data.compose import SENTIMENT_OF_VALENCE, SUBSETS, Composer, Composition, Sample, collate, statistics
from training.data.items import Example, Split
from training.data.placement import arrived, whole

Make = Callable[..., Composer]


@pytest.fixture
def composer(made: list[Example], specs: dict[Modality, FeatureSpec]) -> Make:
    def make(seed: int = 1, split: Split = Split.TRAIN, composition: Composition | None = None) -> Composer:
        examples = [example for example in made if example.item.split is split]
        scale = {m: np.ones(spec.width, np.float32) for m, spec in specs.items()}
        return Composer(examples, specs, scale, composition or Composition(), seed)

    return make


def same(a: Sample, b: Sample) -> bool:
    return dict(a.items) == dict(b.items) and all(
        np.array_equal(a.values[m], b.values[m]) and np.array_equal(a.masks[m], b.masks[m]) for m in Modality
    )


def test_a_sample_is_a_function_of_seed_epoch_and_index(composer: Make) -> None:
    one, other = composer(), composer()
    for epoch, index in ((0, 5), (3, 0), (0, 0)):
        assert same(one.sample(epoch, index), other.sample(epoch, index))
    assert not same(one.sample(0, 1), one.sample(1, 1))
    assert not all(same(one.sample(0, i), composer(seed=2).sample(0, i)) for i in range(5))


def test_partners_share_the_label_and_the_split(composer: Make, made: list[Example]) -> None:
    by_id = {example.item.id: example.item for example in made}
    drawn = composer(split=Split.VALIDATION)
    samples = [drawn.sample(0, i) for i in range(200)] + drawn.fixed(frozenset(Modality), 3)
    for sample in samples:
        items = [by_id[name] for name in sample.items.values()]
        assert {item.split for item in items} == {Split.VALIDATION}
        if sample.emotion >= 0:
            assert {item.emotion for item in items} == {EMOTIONS[sample.emotion]}
            assert sample.sentiment == SENTIMENT_OF_VALENCE * CIRCUMPLEX[EMOTIONS[sample.emotion]][0]
            assert sample.sentiment_weight == Composition().valence_weight
        else:
            assert sample.sentiment == items[0].sentiment
            assert sample.sentiment_weight == 1.0
        assert {m for m in Modality if sample.masks[m].any()} == set(sample.items)


def test_every_subset_appears_in_its_share(composer: Make) -> None:
    drawn = composer(composition=Composition(sentiment_share=0.0))
    found = Counter(subset_name(drawn.sample(0, i).items) for i in range(2000))
    shares = Composition().subsets
    assert set(found) == {subset_name(subset) for subset in SUBSETS}
    for name, share in shares.items():
        assert found[name] / 2000 == pytest.approx(share, abs=0.04)


def test_balance_draws_all_classes_equally_often(composer: Make) -> None:
    even = Counter(
        composer(composition=Composition(balance=1.0, sentiment_share=0.0)).sample(0, i).emotion for i in range(1400)
    )
    assert min(even.values()) > 0.7 * 200
    natural = Counter(
        composer(composition=Composition(balance=0.0, sentiment_share=0.0)).sample(0, i).emotion for i in range(1400)
    )
    assert natural[EMOTIONS.index("neutral")] > 2 * natural[EMOTIONS.index("disgust")]


def test_measuring_windows_hold_as_many_of_every_class(composer: Make) -> None:
    samples = composer(split=Split.TEST).fixed(frozenset({Modality.TEXT, Modality.AUDIO}), 4)
    assert Counter(sample.emotion for sample in samples) == dict.fromkeys(range(len(EMOTIONS)), 4)


def clip(specs: dict[Modality, FeatureSpec], modality: Modality, count: int, spacing_s: float) -> Rows:
    width = specs[modality].width
    values = np.random.default_rng(0).standard_normal((count, width)).astype(np.float32)
    return Rows((np.arange(count) + 1) * spacing_s, values)


def test_recorded_placement_shows_all_that_fits(specs: dict[Modality, FeatureSpec]) -> None:
    face, voice, words = (specs[m] for m in (Modality.VISION, Modality.AUDIO, Modality.TEXT))
    still = clip(specs, Modality.VISION, 4, 0.0)
    values, mask = face.window(*whole(still, face))
    assert mask.all()
    assert (values == still.values[0]).all()
    spoken = clip(specs, Modality.AUDIO, 20, 0.2)
    values, mask = voice.window(*whole(spoken, voice))
    assert mask.sum() == 20
    assert mask[-20:].all()
    slow = clip(specs, Modality.TEXT, 20, 0.7)  # 14 s of words
    values, mask = words.window(*whole(slow, words))
    assert mask[-20:].all()
    assert np.array_equal(values[-20:], slow.values)


@pytest.mark.parametrize("modality", list(Modality))
def test_live_placement_varies_and_never_leaves_the_window_empty(
    modality: Modality, specs: dict[Modality, FeatureSpec]
) -> None:
    spec = specs[modality]
    rows = clip(specs, modality, 4, 0.0) if modality is Modality.VISION else clip(specs, modality, 40, 0.25)
    scale = np.ones(spec.width, np.float32)
    masks = []
    for i in range(60):
        placed, end_s = arrived(rows, spec, scale, np.random.default_rng(i))
        values, mask = spec.window(placed, end_s)
        assert mask.any()
        assert np.isfinite(values).all()
        masks.append(int(mask.sum()))
    assert len(set(masks)) > 5
    assert min(masks) < 0.5 * max(masks)


def test_a_long_pause_does_not_empty_the_window(specs: dict[Modality, FeatureSpec]) -> None:
    spec = specs[Modality.TEXT]
    times = np.array([0.3, 0.6, 30.0])
    rows = Rows(times, np.ones((3, spec.width), np.float32))
    for i in range(100):
        placed, end_s = arrived(rows, spec, np.ones(spec.width, np.float32), np.random.default_rng(i))
        assert spec.window(placed, end_s)[1].any()


def test_statistics_are_those_of_the_rows_and_tame_features_that_stand_still(
    made: list[Example], specs: dict[Modality, FeatureSpec]
) -> None:
    examples = [example for example in made if example.item.modality is Modality.AUDIO]
    rows = np.concatenate([example.rows.values for example in examples])
    mean, deviation = statistics(examples, {Modality.AUDIO: specs[Modality.AUDIO]})[Modality.AUDIO]
    np.testing.assert_allclose(mean, rows.mean(0), atol=1e-5)
    np.testing.assert_allclose(deviation, rows.std(0), rtol=1e-4)
    still = [
        Example(e.item, Rows(e.rows.times_s, e.rows.values * (np.arange(e.rows.values.shape[1]) > 0))) for e in examples
    ]
    _, deviation = statistics(still, {Modality.AUDIO: specs[Modality.AUDIO]})[Modality.AUDIO]
    assert deviation[0] == pytest.approx(0.05 * np.median(still_std(still)), rel=1e-3)


def still_std(examples: list[Example]) -> np.ndarray:
    return np.concatenate([example.rows.values for example in examples]).std(0)


def test_collate_keeps_order_and_labels(composer: Make, specs: dict[Modality, FeatureSpec]) -> None:
    drawn = composer()
    samples = [drawn.sample(0, i) for i in range(6)]
    batch = collate(samples)
    assert batch.labels.values["emotion"].tolist() == [sample.emotion for sample in samples]
    for m in Modality:
        assert batch.inputs[m].shape == (6, specs[m].steps, specs[m].width)
        np.testing.assert_array_equal(batch.masks[m].numpy(), np.stack([sample.masks[m] for sample in samples]))
