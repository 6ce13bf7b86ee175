"""Measure the tables of docs/languages.md: what is heard and read in several languages.

.venv/bin/python docs/languages_tables.py [--cache DIR] [--corpora ../shared/corpora] [--into docs/languages.md]

Sentences are those of docs/examples/sentences.json, spoken by espeak-ng, ten of a language one after the other as one
stream; with the folder of the corpora also clips of people. What was heard is kept in the cache: a cut run goes on.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import subprocess
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from dhmd.assets.store import cache_folder
from dhmd.checkpoint import Checkpoint, load
from dhmd.contract import Rows, Word
from dhmd.features.speech import SpeechModel
from dhmd.features.text import TextExtractor, encoder_of
from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from realtime.capture.samples import SAMPLE_RATE_HZ, AudioBlock
from realtime.perception.transcript import StreamingTranscript
from realtime.perception.window import SlidingWindow
from realtime.recognition.engine import Engine

HERE: Final = Path(__file__).parent
SENTENCES: Final = json.loads((HERE / "examples" / "sentences.json").read_text(encoding="utf-8"))
VOICES: Final = {"en": "en-us", "fr": "fr-fr", "pt": "pt-br"}
NAMES: Final = {
    "en": "English", "de": "German", "es": "Spanish", "fr": "French",
    "it": "Italian", "pt": "Portuguese", "nl": "Dutch", "pl": "Polish",
}  # fmt: skip
PEOPLE: Final = {
    "ravdess_speech": "English, RAVDESS",
    "emodb": "German, EMO-DB",
    "emovo": "Italian, EMOVO",
    "urdu": "Urdu, talk shows",
    "ased": "Amharic, ASED",
}
MODELS: Final = ("tiny.en", "base")
CLIPS: Final = 10
"""Clips of a corpus."""
Sound = NDArray[np.float32]
MELD: Final = {"joy": "happy", "sadness": "sad", "anger": "angry"}


def decoded(file: Any) -> Sound:
    """(N,) 16 kHz mono."""
    import av

    resampler = av.AudioResampler("fltp", "mono", SAMPLE_RATE_HZ)
    with av.open(file) as container:
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in [*frames, *resampler.resample(None)]])


def streams(corpora: Path | None) -> Iterator[tuple[str, list[tuple[str, Sound]]]]:
    """Name of a stream, and its clips with the names of each."""
    with tempfile.TemporaryDirectory() as scratch:
        for language, sentences in SENTENCES.items():
            clips = []
            for i, (text, _) in enumerate(sentences):
                path = Path(scratch) / f"{language}_{i}.wav"
                voice = VOICES.get(language, language)
                subprocess.run(["espeak-ng", "-v", voice, "-s", "150", "-w", path, text], check=True)
                clips.append((path.name, decoded(str(path))))
            yield f"espeak-{language}", clips
    if corpora is None:
        return
    for corpus in PEOPLE:
        with zipfile.ZipFile(corpora / f"{corpus}_16k.zip") as packed:
            names = sorted(name for name in packed.namelist() if name.endswith((".flac", ".wav")))
            chosen = names[:: len(names) // CLIPS][:CLIPS]
            yield corpus, [(name, decoded(io.BytesIO(packed.read(name)))) for name in chosen]


def hear(model: str, corpora: Path | None, kept: Path) -> list[dict[str, Any]]:
    """One line a clip: k stream, f clip, words, n of them, missed, lang; then one of the stream: cpu and sec."""
    lines = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    done = {line["k"] for line in lines if "cpu" in line}
    lines = [line for line in lines if line["k"] in done]
    speech = None
    for name, clips in streams(corpora):
        if name in done:
            continue
        speech = speech or SpeechModel(model)
        transcript, at_s, begun_s = StreamingTranscript(speech), 0.0, time.process_time()
        for clip, spoken in clips:
            sound = np.concatenate([spoken, np.zeros(SAMPLE_RATE_HZ, np.float32)])
            words: list[Word] = []
            language, missed = None, False
            for begin in range(0, len(sound), 1600):
                transcript.push(AudioBlock(sound[begin : begin + 1600], at_s + begin / SAMPLE_RATE_HZ, 0.0))
                while (update := transcript.step()) is not None:
                    words += update.final
                    language = update.language and update.language.code
                    missed = missed or (update.missed_s is not None and update.missed_s > at_s)
            at_s += len(sound) / SAMPLE_RATE_HZ
            said = " ".join(word.text for word in words)
            lines.append({"k": name, "f": clip, "words": said, "n": len(words), "missed": missed, "lang": [language]})
        lines.append({"k": name, "cpu": time.process_time() - begun_s, "sec": at_s})
        kept.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return lines


def plain(text: str) -> list[str]:
    return re.sub(r"[^\w\s]", " ", text.lower()).split()


def errors(wanted: Sequence[str], found: Sequence[str]) -> int:
    """Words that are wrong, missing or too many."""
    row = np.arange(len(found) + 1)
    for i, word in enumerate(wanted, 1):
        above, row = row, np.empty_like(row)
        row[0] = i
        for j, other in enumerate(found, 1):
            row[j] = min(above[j - 1] + (word != other), above[j] + 1, row[j - 1] + 1)
    return int(row[-1])


class Reader:
    """What a checkpoint makes of words alone."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        spec = checkpoint.features[Modality.TEXT]
        self._features = checkpoint.features
        self._text = TextExtractor(encoder_of(spec), checkpoint.encoder(Modality.TEXT))
        self._engine = Engine(checkpoint, torch.device("cpu"))

    def read(self, text: str) -> tuple[str, float]:
        """Emotion and sentiment of words that are spoken in the last seconds of a window."""
        said = text.split()
        step_s = min(0.3, 4.6 / len(said))
        ends_s = 4.98 - step_s * np.arange(len(said))[::-1]
        rows: Rows = self._text.extract([Word(w, e - step_s, e) for w, e in zip(said, ends_s.tolist(), strict=True)])
        window = SlidingWindow(self._features, torch.device("cpu"))
        window.replace(Modality.TEXT, rows.halved())
        inference = self._engine.infer(window.cut(5.0))
        if inference is None:
            raise ValueError(f"no words in {text!r}")
        return EMOTIONS[int(np.argmax(inference.emotions))], inference.sentiment.value


def read(name: str, corpora: Path | None) -> dict[str, Any]:
    """Signs that are right by language, and where the corpora are, what of MELD and MOSI."""
    reader = Reader(load(name))
    found: dict[str, Any] = {
        language: sum((reader.read(text)[1] > 0) == (sign > 0) for text, sign in sentences)
        for language, sentences in SENTENCES.items()
    }
    if corpora is not None:
        with (corpora / "text" / "meld_test_public.csv").open(encoding="utf-8") as file:
            lines = [(row["Utterance"], MELD.get(row["Emotion"], row["Emotion"])) for row in csv.DictReader(file)]
        said = np.array([reader.read(text)[0] for text, _ in lines])
        true = np.array([emotion for _, emotion in lines])
        found["meld"] = 100 * sum(_f1(true == one, said == one) * np.mean(true == one) for one in EMOTIONS)
        words = map(json.loads, (corpora / "mosi" / "mosi_words.jsonl").read_text().splitlines())
        rated = [(one["transcript"].lower(), one["label"]) for one in words if one["split"] == "test" and one["label"]]
        found["mosi"] = 100 * np.mean([(reader.read(text)[1] > 0) == (label > 0) for text, label in rated])
    return found


def _f1(true: NDArray[np.bool_], said: NDArray[np.bool_]) -> float:
    return float(2 * (true & said).sum() / max(1, true.sum() + said.sum()))


def tables(heard: Mapping[str, list[dict[str, Any]]], signs: Mapping[str, Mapping[str, Any]]) -> str:
    """The page's part that is measured."""
    part = table(
        ("", "words wrong, `base`", "found, `base`", "words wrong, `tiny.en`", "made English", "not understood"),
        (row for code in SENTENCES if (row := listened(f"espeak-{code}", f"{NAMES[code]}, espeak-ng", code, heard))),
        (row for name, title in PEOPLE.items() if (row := listened(name, title, "", heard))),
    )
    columns = (*SENTENCES, "meld", "mosi")
    part += ["", *table(
        ("", *NAMES.values(), "MELD, weighted F1", "MOSI, sign"),
        ([f"`{name}`", *(_number(found.get(one)) for one in columns)] for name, found in signs.items()),
    )]  # fmt: skip
    costs = (_cost(model, lines) for model, lines in heard.items())
    part += ["", *table(("recognised with", "English", "German"), costs)]
    return "\n".join(part)


def listened(stream: str, title: str, code: str, heard: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """A row of the table of what was heard; empty where it was not measured. code: of the sentences that were said."""
    english, base = ([one for one in heard[model] if one["k"] == stream and "f" in one] for model in MODELS)
    if not english:
        return []
    said = plain(" ".join(text for text, _ in SENTENCES.get(code, ())))
    languages = Counter((one["lang"] or ["-"])[0] for one in base).most_common(3)
    is_english = "English" in title
    return [
        title,
        _wrong(said, base),
        ", ".join(f"{one} {count}" for one, count in languages),
        _wrong(said, english) if is_english else "",
        "" if is_english else f"{sum(one['n'] > 0 for one in english)} of {len(english)}",
        f"{sum(one['missed'] for one in english)} of {len(english)}",
    ]


def table(head: Sequence[str], *rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown."""
    lines = [head, ["---"] * len(head), *(row for part in rows for row in part)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _wrong(said: Sequence[str], lines: Sequence[dict[str, Any]]) -> str:
    found = plain(" ".join(one["words"] for one in lines))
    return f"{100 * errors(said, found) / len(said):.0f} %" if said and lines else ""


def _number(value: float | None) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.1f}"


def _cost(model: str, lines: Sequence[dict[str, Any]]) -> list[str]:
    spent = {one["k"]: one for one in lines if "cpu" in one}
    both = (spent.get(f"espeak-{code}") for code in ("en", "de"))
    return [f"`{model}`", *("" if one is None else f"{100 * one['cpu'] / one['sec']:.0f} %" for one in both)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=cache_folder() / "languages", help="folder of what was heard")
    parser.add_argument("--corpora", type=Path, help="folder of clips of people, and of MELD and MOSI")
    parser.add_argument("--into", type=Path, help="page whose tables are replaced")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.cache.mkdir(parents=True, exist_ok=True)
    heard = {model: hear(model, options.corpora, options.cache / f"heard-{model}.jsonl") for model in MODELS}
    written = tables(heard, {name: read(name, options.corpora) for name in ("base", "multilingual")})
    if options.into is None:
        print(written)
    else:
        before, rest = options.into.read_text(encoding="utf-8").split("<!-- measured -->\n")
        after = rest.partition("<!-- until here -->")[2]
        options.into.write_text(f"{before}<!-- measured -->\n{written}\n<!-- until here -->{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
