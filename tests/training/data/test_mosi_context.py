"""CMU-MOSI in context: who is in which split, what stands at each step, and what a wrong file is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dhmd.modality import Modality
from training.cli import main
from training.data.items import Split
from training.data.mosi_context import STEPS, read_mosi_context
from training.data.sequences import Sequences
from training.errors import FeaturesInvalid

KEYS = {Modality.TEXT: "text", Modality.VISION: "video", Modality.AUDIO: "audio"}


@pytest.fixture(scope="module")
def real(shared: Path) -> Sequences:
    return read_mosi_context(shared / "corpora/mosi/mosi_utterances.npz")


@pytest.fixture(scope="module")
def arrays(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "corpora/mosi/mosi_utterances.npz") as file:
        return {key: file[key] for key in file}


def made(videos: int = 16, utterances: int = 3, seed: int = 0) -> dict[str, Any]:
    """Three of four videos are for training; the utterances stand in no order; features lean with the label."""
    draw = np.random.default_rng(seed)
    ids = np.array([f"v_{v}_{u}" for v in range(videos) for u in range(1, utterances + 1)])
    bc_split = np.array(["test" if v % 4 == 0 else "train" for v in range(videos) for _ in range(utterances)])
    shuffled = draw.permutation(len(ids))
    label = draw.uniform(-3, 3, len(ids)).astype(np.float32)
    rows = {
        key: (label[:, None] * draw.standard_normal(w) + draw.standard_normal((len(ids), w))).astype(np.float32)
        for key, w in (("text", 6), ("video", 5), ("audio", 4))
    }
    return {"id": ids[shuffled], "bc_split": bc_split[shuffled], "label": label, **rows}


def written(folder: Path, arrays: dict[str, Any]) -> Path:
    path = folder / "utterances.npz"
    np.savez(path, **arrays)
    return path


def test_sizes_are_those_of_the_protocol(real: Sequences) -> None:
    assert {split: len(part) for split, part in real.splits.items()} == {
        Split.TRAIN: 1221,
        Split.VALIDATION: 226,
        Split.TEST: 752,
    }
    assert real.widths == {Modality.TEXT: 100, Modality.VISION: 100, Modality.AUDIO: 73}


def test_no_video_is_in_two_splits_and_every_utterance_is_in_one(
    real: Sequences, arrays: dict[str, np.ndarray]
) -> None:
    videos = [{one.rpartition("_")[0] for one in part.ids} for part in real.splits.values()]
    assert [len(own) for own in videos] == [52, 10, 31]
    assert len(set.union(*videos)) == 93
    ids = [one for part in real.splits.values() for one in part.ids]
    assert sorted(ids) == sorted(arrays["id"].tolist())
    test = dict(zip(arrays["id"].tolist(), arrays["bc_split"].tolist(), strict=True))
    assert all(test[one] == "test" for one in real.splits[Split.TEST].ids)


def test_steps_are_the_utterances_before_it_standardised_on_training(
    real: Sequences, arrays: dict[str, np.ndarray]
) -> None:
    at = {one: i for i, one in enumerate(arrays["id"].tolist())}
    training = [at[one] for one in real.splits[Split.TRAIN].ids]
    for part in real.splits.values():
        for i in range(0, len(part), 37):
            video, _, number = part.ids[i].rpartition("_")
            before = [f"{video}_{n}" for n in range(1, int(number) + 1) if f"{video}_{n}" in at][-STEPS:]
            assert part.label[i] == arrays["label"][at[part.ids[i]]]
            for m, key in KEYS.items():
                mask = part.masks[m][i]
                assert mask.tolist() == [False] * (STEPS - len(before)) + [True] * len(before)
                assert not part.inputs[m][i][~mask].any()
                mean = arrays[key][training].mean(axis=0, dtype=np.float64)
                deviation = arrays[key][training].std(axis=0, dtype=np.float64)
                varies = deviation > 0
                wanted = (arrays[key][[at[one] for one in before]] - mean)[:, varies] / deviation[varies]
                found = part.inputs[m][i][mask]
                np.testing.assert_allclose(found[:, varies], wanted.clip(-5, 5), atol=1e-4)
                assert not found[:, ~varies].any()


def test_order_is_by_number_and_context_ends_at_the_utterance(tmp_path: Path) -> None:
    arrays = made(videos=20, utterances=12)  # 10 comes after 9, not after 1
    whole = read_mosi_context(written(tmp_path, arrays)).splits[Split.TEST]
    ends = {one: whole.inputs[Modality.TEXT][i, -1] for i, one in enumerate(whole.ids)}
    i = whole.ids.index("v_0_11")
    wanted = [ends[f"v_0_{n}"] for n in range(1, 12)]
    np.testing.assert_array_equal(whole.inputs[Modality.TEXT][i, -11:], wanted)
    assert whole.masks[Modality.TEXT][i].sum() == 11


def test_a_planted_signal_is_learned(tmp_path: Path) -> None:
    import json

    import yaml

    configs = Path(__file__).resolve().parents[3] / "configs"
    config = yaml.safe_load((configs / "mosi-context.yaml").read_text())
    config["network"] |= {"d": 8, "attention_heads": 2, "layers": 1, "atoms": 8, "text_dropout": 0, "output_dropout": 0}
    config["optimisation"] |= {"accumulation": 1, "learning_rate": 5e-3, "epochs": 4}
    path, run = tmp_path / "x.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(config))
    file = written(tmp_path, made(videos=60, utterances=4))
    assert main(["fit", str(path), "--features", str(file), "--run", str(run)]) == 0
    test = json.loads((run / "results.json").read_text())["test"]
    assert test["corr"] > 0.6
    assert test["acc2_non0"] > 0.7


def without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda arrays: arrays.pop(key)


def put(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda arrays: arrays.__setitem__(key, value(arrays[key]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without("audio"), "audio: expected an array, found nothing"),
        (put("label", lambda y: y[:5]), "label: expected numbers (48), found float32 (5,)"),
        (put("text", lambda x: x[:, 0]), "text: expected numbers (48, width), found float32 (48,)"),
        (
            put("video", lambda x: x * [np.nan, 1, 1, 1, 1]),
            "video: expected finite numbers, found NaN or infinity in v_",
        ),
        (
            put("bc_split", lambda s: np.full_like(s, "test")),
            "bc_split: expected more than 10 videos in train, found 0",
        ),
        (put("id", lambda ids: np.char.add(ids, "x")), "id: expected VIDEO_NUMBER, found 'v_"),
    ],
)
def test_what_is_wrong_is_named(change: Callable[[dict[str, Any]], Any], told: str, tmp_path: Path) -> None:
    arrays = made()
    change(arrays)
    path = written(tmp_path, arrays)
    with pytest.raises(FeaturesInvalid) as raised:
        read_mosi_context(path)
    assert str(raised.value).startswith(f"{path}: {told}")
    assert "\n" not in str(raised.value)


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with pytest.raises(FeaturesInvalid, match="cannot be read"):
        read_mosi_context(path)
    for content in (b"", b"no archive", b"PK\x03\x04 cut"):
        path.write_bytes(content)
        with pytest.raises(FeaturesInvalid, match=r"expected an \.npz of plain arrays"):
            read_mosi_context(path)
    np.savez(path, **(made() | {"id": np.array(["a_1", 2], object)}))
    with pytest.raises(FeaturesInvalid, match=r"expected an \.npz of plain arrays"):
        read_mosi_context(path)
