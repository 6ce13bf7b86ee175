"""Composed windows: fixed by the seed, of one label, with every subset of modalities, placed as live places rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dhmd.checkpoint import subset_name
from dhmd.contract import FeatureSpec, Rows
from dhmd.labels import CIRCUMPLEX, EMOTIONS
from dhmd.modality import Modality
from training.data.compose import (
    SENTIMENT_OF_VALENCE,
    SUBSETS,
    Composer,
    Composition,
    Pool,
    Sample,
    collate,
    statistics,
)
from training.data.items import Example, Split, Utterance
from training.data.placement import arrived, whole

Make = Callable[..., Composer]


@pytest.fixture
def composer(made: list[Example], specs: dict[Modality, FeatureSpec]) -> Make:
    def make(seed: int = 1, split: Split = Split.TRAIN, composition: Composition | None = None) -> Composer:
        examples = [example for example in made if example.utterance.split is split]
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
    by_id = {example.utterance.id: example.utterance for example in made}
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


def test_strangers_unlike_each_other_have_no_label(composer: Make, made: list[Example]) -> None:
    by_id = {example.utterance.id: example.utterance for example in made}
    drawn = composer(composition=Composition(unlike_share=0.5, sentiment_share=0.0))
    samples = [sample for i in range(400) if len((sample := drawn.sample(0, i)).items) > 1]
    unlike = [len({by_id[name].emotion for name in sample.items.values()}) > 1 for sample in samples]
    assert [sample.emotion < 0 for sample in samples] == unlike
    assert [bool(np.isnan(sample.sentiment)) for sample in samples] == unlike
    # Of those that are drawn apart some happen to agree.
    assert 0.35 < np.mean(unlike) < 0.5


def test_every_subset_appears_in_its_share(composer: Make) -> None:
    drawn = composer(composition=Composition(sentiment_share=0.0))
    found = Counter(subset_name(drawn.sample(0, i).items) for i in range(2000))
    shares = Composition().subsets
    assert set(found) == {subset_name(subset) for subset in SUBSETS}
    for name, share in shares.items():
        assert found[name] / 2000 == pytest.approx(share, abs=0.04)


def test_balance_draws_all_classes_equally_often(composer: Make) -> None:
    evenly = dict.fromkeys(Modality, 1.0)
    balanced = composer(composition=Composition(balance=1.0, balance_alone=evenly, sentiment_share=0.0))
    natural = composer(composition=Composition(balance=0.0, balance_alone={}, sentiment_share=0.0))
    even = Counter(balanced.sample(0, i).emotion for i in range(1400))
    assert min(even.values()) > 0.7 * 200
    natural = Counter(natural.sample(0, i).emotion for i in range(1400))
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
    values, mask = face.window(*whole(still, face, still=True))
    assert mask.all()
    assert (values == still.values[0]).all()
    spoken = clip(specs, Modality.AUDIO, 20, 0.2)
    values, mask = voice.window(*whole(spoken, voice, still=False))
    assert mask.sum() == 20
    assert mask[-20:].all()
    slow = clip(specs, Modality.TEXT, 20, 0.7)  # 14 s of words
    values, mask = words.window(*whole(slow, words, still=False))
    assert mask[-20:].all()
    assert np.array_equal(values[-20:], slow.values)


@pytest.mark.parametrize(
    ("modality", "still"),
    [(Modality.TEXT, False), (Modality.VISION, True), (Modality.VISION, False), (Modality.AUDIO, False)],
)
def test_live_placement_varies_and_never_leaves_the_window_empty(
    modality: Modality, still: bool, specs: dict[Modality, FeatureSpec]
) -> None:
    spec = specs[modality]
    rows = clip(specs, modality, 4, 0.0) if still else clip(specs, modality, 40, 0.25)
    scale = np.ones(spec.width, np.float32)
    masks = []
    for i in range(60):
        placed, end_s = arrived(rows, spec, scale, np.random.default_rng(i), still=still)
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
        placed, end_s = arrived(rows, spec, np.ones(spec.width, np.float32), np.random.default_rng(i), still=False)
        assert spec.window(placed, end_s)[1].any()


def test_statistics_are_those_of_the_rows_and_tame_features_that_stand_still(
    made: list[Example], specs: dict[Modality, FeatureSpec]
) -> None:
    examples = [example for example in made if Modality.AUDIO in example.rows]
    rows = np.concatenate([example.rows[Modality.AUDIO].values for example in examples])
    mean, deviation = statistics(examples, {Modality.AUDIO: specs[Modality.AUDIO]})[Modality.AUDIO]
    np.testing.assert_allclose(mean, rows.mean(0), atol=1e-5)
    np.testing.assert_allclose(deviation, rows.std(0), rtol=1e-4)
    still = [Example(e.utterance, {m: without_first(rows) for m, rows in e.rows.items()}) for e in examples]
    _, deviation = statistics(still, {Modality.AUDIO: specs[Modality.AUDIO]})[Modality.AUDIO]
    assert deviation[0] == pytest.approx(0.05 * np.median(still_std(still)), rel=1e-3)


def without_first(rows: Rows) -> Rows:
    return Rows(rows.times_s, rows.values * (np.arange(rows.values.shape[1]) > 0))


def still_std(examples: list[Example]) -> np.ndarray:
    return np.concatenate([example.rows[Modality.AUDIO].values for example in examples]).std(0)


def test_collate_keeps_order_and_labels(composer: Make, specs: dict[Modality, FeatureSpec]) -> None:
    drawn = composer()
    samples = [drawn.sample(0, i) for i in range(6)]
    batch = collate(samples)
    assert batch.labels.values["emotion"].tolist() == [sample.emotion for sample in samples]
    for m in Modality:
        assert batch.inputs[m].shape == (6, specs[m].steps, specs[m].width)
        np.testing.assert_array_equal(batch.masks[m].numpy(), np.stack([sample.masks[m] for sample in samples]))


def native(specs: dict[Modality, FeatureSpec], emotion: str, name: str, **times: float) -> Example:
    """An utterance whose rows carry their own time in their first feature. times: start of each modality."""
    rows = {}
    for m in Modality:
        if m in times:
            count = 12 if m is Modality.TEXT else 60
            at = times[m] + np.arange(1, count + 1) * (0.3 if m is Modality.TEXT else 0.1)
            values = np.zeros((count, specs[m].width), np.float32)
            values[:, 0] = at
            rows[m] = Rows(at, values)
    return Example(Utterance(name, "film", Split.TRAIN, name, emotion, 1.0, video=Path("made.mp4")), rows)


def still_scale(specs: dict[Modality, FeatureSpec]) -> dict[Modality, np.ndarray]:
    return {m: np.zeros(spec.width, np.float32) for m, spec in specs.items()}


def test_a_native_window_shows_the_same_moment_of_every_modality(specs: dict[Modality, FeatureSpec]) -> None:
    film = native(specs, "happy", "film/1", text=1.0, audio=0.0, vision=0.0)
    drawn = Composer([film], specs, still_scale(specs), Composition(native_share=1.0), 1)
    newest: set[float] = set()
    subsets = Counter()
    for i in range(200):
        sample = drawn.sample(0, i)
        assert set(sample.items.values()) == {"film/1"}
        assert (sample.sentiment, sample.sentiment_weight) == (1.0, 1.0)
        subsets[subset_name(sample.items)] += 1
        if Modality.AUDIO not in sample.items or Modality.VISION not in sample.items:
            continue
        heard = sample.values[Modality.AUDIO][sample.masks[Modality.AUDIO], 0].max()
        seen = sample.values[Modality.VISION][sample.masks[Modality.VISION]]
        assert len(seen) == 0 or np.abs(seen[:, 0]).max() <= 1.0  # blendshapes stay in their range
        if Modality.TEXT in sample.items and sample.masks[Modality.TEXT].any():
            read = sample.values[Modality.TEXT][sample.masks[Modality.TEXT], 0].max()
            assert read <= heard + 1.0
        newest.add(round(float(heard), 1))
    assert len(newest) > 20
    assert set(subsets) == {subset_name(subset) for subset in SUBSETS}


def test_recorded_native_windows_end_where_most_modalities_are(specs: dict[Modality, FeatureSpec]) -> None:
    """The voice falls silent at 6 s, the face goes on until 9 s: the window ends before the voice counts as absent."""
    film = native(specs, "happy", "film/1", audio=0.0, vision=3.0)
    drawn = Composer([film], specs, still_scale(specs), Composition(), 1)
    sample = drawn.alone(film)
    assert sample.masks[Modality.AUDIO].any()
    end_s = sample.values[Modality.VISION][sample.masks[Modality.VISION], 0].max()
    assert 6.0 < end_s <= 6.9 + 1e-6
    assert not drawn.alone(film, [Modality.VISION]).masks[Modality.AUDIO].any()


def test_films_also_lend_their_parts_to_strangers(specs: dict[Modality, FeatureSpec]) -> None:
    films = [native(specs, "sad", f"film/{i}", audio=0.0, vision=0.0) for i in range(4)]
    drawn = Composer(films, specs, still_scale(specs), Composition(native_share=0.0), 1)
    mixed = [sample for i in range(100) if len(set((sample := drawn.sample(0, i)).items.values())) > 1]
    assert mixed
    assert all(sample.sentiment_weight < 1.0 and sample.emotion == EMOTIONS.index("sad") for sample in mixed)


def test_a_face_and_a_voice_of_different_files_keep_their_own_clocks(
    specs: dict[Modality, FeatureSpec], made: list[Example]
) -> None:
    face = next(example for example in made if example.still)
    voice = native(specs, "happy", "x", audio=0.0)
    both = Utterance("row/1", "row", Split.TEST, "1", "happy", image=Path("a.png"), audio=Path("a.wav"))
    example = Example(both, {**face.rows, **voice.rows})
    sample = Composer([example], specs, still_scale(specs), Composition(), 1).alone(example)
    assert sample.masks[Modality.VISION].all()
    assert sample.masks[Modality.AUDIO].any()


def test_only_what_there_is_is_drawn(specs: dict[Modality, FeatureSpec], made: list[Example]) -> None:
    faces = [e for e in made if e.still and e.utterance.emotion in {"sad", "happy"}]
    drawn = Composer(faces, specs, still_scale(specs), Composition(), 1)
    assert {subset_name(drawn.sample(0, i).items) for i in range(20)} == {"vision"}
    assert not Composer([], specs, still_scale(specs), Composition(), 1)


def test_a_corpus_is_drawn_as_often_as_its_weight_says(composer: Make) -> None:
    without = composer(composition=Composition(corpora={"made-text": 0.0}, sentiment_share=0.0))
    assert not any(Modality.TEXT in without.sample(0, i).items for i in range(50))
    pool = Pool({"b": 3.0})
    for corpus in "ab":
        pool.add(2, Example(Utterance(f"{corpus}/1", corpus, Split.TRAIN, corpus, "sad"), {}))
    draw = np.random.default_rng(0)
    share = np.mean([pool.drawn(2, draw).utterance.corpus == "b" for _ in range(400)])
    assert share == pytest.approx(0.75, abs=0.07)
    assert (pool.weight(2), pool.weight(3)) == (4.0, 0.0)
