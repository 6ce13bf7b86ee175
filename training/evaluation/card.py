"""The model card: what a checkpoint was made of, what was measured, what it must not be used for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dhmd.checkpoint import Calibration
from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from training.config import FitConfig, Weights
from training.data.compose import SENTIMENT_OF_VALENCE, Composition
from training.data.items import Split
from training.evaluation.evaluate import PER_CLASS, SEED

SOURCES: Final[dict[str, tuple[str, str]]] = {
    "ravdess": (
        "RAVDESS speech (Livingstone & Russo 2018): test actors 17-20, validation 15-16; calm counts as neutral",
        "CC BY-NC-SA 4.0",
    ),
    "emodb": (
        "EMO-DB (Burkhardt et al. 2005), German: test speakers 13, 14, validation 12; boredom left out",
        "free for research",
    ),
    "emovo": ("EMOVO (Costantini et al. 2014), Italian: test speaker m2, validation f2", "for research, none named"),
    "urdu": (
        "URDU (Latif et al. 2018), talk shows, four emotions: test speakers SM24, SF6, SM4, validation SM3, SM6",
        "research use",
    ),
    "ased": (
        "ASED (Retta et al. 2023), Amharic, five emotions: test speakers s25 to s31, validation s20 to s24",
        "free for research",
    ),
    "fer2013": (
        "FER2013 (Goodfellow et al. 2013): test is half of the official one; the rest without its twins and non-faces",
        "research use",
    ),
    "ferplus": (
        (
            "FER+ (Barsoum et al. 2016), the images of FER2013 that more than half of ten taggers named one of the "
            "seven; to learn from, disgust by fewer, too"
        ),
        "votes: MIT; images: research use",
    ),
    "ck48": ("CK+ (Lucey et al. 2010), peak frames, 48 x 48: validation is a fifth of the subjects", "research use"),
    "meld": (
        "MELD (Poria et al. 2019), lines of dialogue, words only: test is half of the official one, by dialogue",
        "GPL-3.0",
    ),
    "goemotions": (
        "GoEmotions (Demszky et al. 2020), Ekman grouping: rows of one label, some of each class",
        "Apache-2.0",
    ),
    "mosi": ("CMU-MOSI (Zadeh et al. 2016), words only, official split", "research use"),
}
"""Manifest -> (what of the corpus is used, licence)."""

USE: Final = """\
## Use

For research, and for demonstrations with people who know of it and agree to it. The corpora are licensed for research,
some for non-commercial use only, and that holds for what was learned from them.

Not for decisions about people: hiring, schooling, credit, insurance, policing, health, or access to anything. In the
European Union, inferring the emotions of people at workplaces and in education is prohibited except for medical or
safety reasons (Regulation (EU) 2024/1689, Article 5(1)(f)); elsewhere people must be told that such a system is used
(Article 50(3)). An estimate says how a face, a voice and words look and sound to this model. It is not a measurement
of what a person feels.
"""

COMPOSED: Final = """\
- No corpus used here holds face, voice and words of the same moment with labels. Windows with more than one modality
  are composed of strangers who show the same emotion. Their errors are independent, those of one person are not, so
  results on composed windows are higher than what to expect live. The single modalities are the honest measure.
- Faces are still grey images of 48 x 48 pixels, held over the window with small variations. Voices are mostly actors,
  in two English sentences, in German, Italian and Amharic; those from talk shows are few and in Urdu. Words are from a
  television series, an internet forum and film reviews, most of them typed.
- Acted and posed expressions are stronger than everyday ones. Rare classes (disgust, fear) are the weakest.
- Sentiment is labelled in CMU-MOSI only, and there for words. With faces and voices alone it follows the valence of
  the emotion and means no more than that.
"""
"""Of the public corpora."""

OWN: Final = """\
- It was trained on utterances of its own beside or instead of the public corpora. It is no better than these are
  many, different and rightly labelled; with few of them the numbers above say little.
- What holds for the checkpoint that it began from holds for it, too.
"""

LIMITS: Final = """\
- Who the people in the data are is mostly not recorded. How well the model does by age, gender, skin colour or
  culture was not measured.
"""
DERIVED: Final = "- Valence and arousal of the estimate are derived from the emotions, not learned.\n"


@dataclass(frozen=True, slots=True)
class Retained:
    """What a fine-tuned checkpoint still knows. before, after: of the corpora of the one that it began from, by
    `by_corpus`; agreement: share of imagined windows in which it finds the same emotion likeliest."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    agreement: float


def model_card(
    config: FitConfig,
    counts: Mapping[str, Mapping[str, int]],
    log: Sequence[Mapping[str, Any]],
    measured: Mapping[str, Any],
    calibration: Calibration,
    before: Mapping[str, Any] | None = None,
    folds: Mapping[str, Any] | None = None,
    retained: Retained | None = None,
) -> str:
    """Markdown. counts: utterances by manifest and split; log: of the training; measured: by `evaluate`; before: the
    corpora by the checkpoint that the run began from; folds: of a cross-validation, where test utterances are few;
    retained: of a fine-tuning.
    """
    temperature, half_width = calibration.temperature, calibration.sentiment_half_width
    best = max(log, key=lambda entry: float(entry["score"]))
    composition, plan = config.composition, config.optimisation
    shares = ", ".join(f"{name} {share:g}" for name, share in composition.subsets.items())
    data = [[*SOURCES.get(name, (name, "-")), *(str(split[s]) for s in Split)] for name, split in counts.items()]
    calibrated = [
        [name, *(f"{of[name]:.2f}" if name in of else "-" for of in (temperature, half_width))]
        for name in dict.fromkeys([*temperature, *half_width])
    ]
    kept = (
        " Sets of modalities with too few validation utterances keep those of that checkpoint." if config.start else ""
    )
    begun = f" It began from the checkpoint `{config.start}`." if config.start else ""
    if (rehearsal := config.rehearsal).windows or rehearsal.kept:
        begun += (
            f" Beside each batch of {plan.batch}, {rehearsal.windows} imagined windows held it to what that checkpoint"
            f" says; {rehearsal.kept:.0%} of each weight is that checkpoint's."
        )
    measured_affect = [name for name in ("valence", "arousal") if name in config.heads and config.heads[name].range]
    learned = f"- Learned, not derived from the emotions: {', '.join(measured_affect)}.\n"
    known_limits = "".join(
        [COMPOSED if set(counts) <= set(SOURCES) else OWN, LIMITS, learned if measured_affect else DERIVED]
    )
    corpora = measured["corpora"]
    alone = _folded(folds) if folds else _single(corpora)
    compared, own = ("", "") if folds else (_before(before or {}, corpora), _own(config, corpora))
    if retained is not None:
        own += _retained(str(config.start), retained)
    return f"""\
# {config.name}: emotion and sentiment from face, voice and words

A DHMD network (Li et al., IEEE TPAMI 2026) over a sliding window of 5 seconds. It gives seven emotions
({", ".join(EMOTIONS)}) and a sentiment in [-3, 3],
from any of its three modalities that are present. The features it reads are declared in `config.json`;
`vision.safetensors`, `audio.safetensors` and
`text.safetensors` hold what their extractors have learned.{begun}

## Data

Utterances of each manifest, by split.

{_table(["manifest", "licence", *(str(split) for split in Split)], data)}

## Composition

A training window takes one utterance for each modality it holds, all of the same emotion and otherwise drawn at random;
where some utterances have several modalities, {composition.native_share:.0%} of the windows are of one of them alone.
Shares of the sets of modalities: {shares}.

{_unlike(composition)}Of the windows {composition.sentiment_share:.0%} are utterances that are labelled with a
sentiment and not with an emotion, if there are any. Where no sentiment is labelled, the valence of the class times
{SENTIMENT_OF_VALENCE:g} is a weak one, of weight {composition.valence_weight:g}. Utterances are cut as a live window
cuts them. The seed fixes the composition.

## Training

Seed {config.seed}; {len(log)} epochs of {plan.steps} steps with {plan.batch} windows. The weights are those of epoch
{best["epoch"]}, chosen on the validation splits (mean of the unweighted recalls of all sets of modalities and of the
correlation of sentiment: {best["score"]:.3f}); with next to no validation utterances, on those trained on as well. All
losses of the method, with its weights.{_beside(config.losses)}
One run, so no deviation over seeds is given. The test splits chose nothing.

## Measured on the test splits

Utterances in which nothing was perceived (no face found, no voice) are left out of the measures; coverage is the share
of the others. By chance the unweighted recall is 14.3 %.

{alone}

{compared}{own}{"" if folds else _composed_section(measured["composed"])}
Calibration, on the validation splits only. A window's true sentiment lies within the last column's distance of the
estimate in 80 % of the validation windows. It is measured where people labelled the sentiment; the valence of a class
is easier to hit, so sets of modalities without such labels have at least the same distance.{kept}

{_table(["modalities", "temperature", "distance"], calibrated)}

## Known limits

{known_limits}
{USE}"""


OF_HEAD: Final = ("accuracy", "unweighted recall", "mean absolute error", "correlation")


def _of_head(measured: Mapping[str, Any]) -> list[str]:
    """The cells under OF_HEAD, of classes or of a number."""
    if "mae" in measured:
        return ["-", "-", f"{measured['mae']:.3f}", f"{measured['corr']:.3f}"]
    return [_percent(measured["accuracy"]), _percent(measured["unweighted_recall"]), "-", "-"]


def _folded(folds: Mapping[str, Any]) -> str:
    """What a cross-validation gave, before and after."""
    rows = []
    for head, both in folds.items():
        for when, one in both.items():
            rows.append([head, when, str(one["n"]), *_of_head(one)])
    columns = ["head", "fine-tuning", "n", *OF_HEAD]
    return (
        "Fewer than 20 utterances are of the split test, so no accuracy of theirs is given. Instead all utterances\n"
        "were tested in turn, each by a network that had seen none of its group (5 folds):\n\n" + _table(columns, rows)
    )


def _before(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """How accurate the checkpoint was that it began from, on the same utterances."""
    rows = [
        [name, str(one["n"]), *(_percent(of["emotion"]["accuracy"]) for of in (one, after[name]))]
        for name, one in before.items()
        if "emotion" in one and "emotion" in after.get(name, {})
    ]
    if not rows:
        return ""
    return f"Accuracy before and after fine-tuning:\n\n{_table(['manifest', 'n', 'before', 'after'], rows)}\n\n"


def _retained(start: str, retained: Retained) -> str:
    """How well it still does what the checkpoint that it began from could do."""
    rows = [
        [name, str(was["n"]), *(_percent(of["emotion"][key]) for key in ("accuracy", "ece") for of in (was, now))]
        for (name, was), now in zip(retained.before.items(), retained.after.values(), strict=True)
        if "emotion" in was
    ]
    head = ["corpus", "n", "accuracy % before", "after", "ECE % before", "after"]
    measured = (
        f"On the test splits of the corpora that `{start}` was measured on:\n\n{_table(head, rows)}"
        if rows
        else f"The corpora of `{start}` are not prepared and extracted here, so it was not measured on them."
    )
    return (
        f"What it kept: in {_percent(retained.agreement)} % of imagined windows that it did not rehearse,\n"
        f"the likeliest emotion is that of `{start}`. {measured}\n\n"
    )


def _own(config: FitConfig, corpora: Mapping[str, Any]) -> str:
    """What the heads of its own gave; nothing without any."""
    if not config.heads:
        return ""
    kinds = {
        name: ", ".join(head.classes) if head.range is None else f"{head.range[0]:g} to {head.range[1]:g} {head.unit}"
        for name, head in config.heads.items()
    }
    rows = []
    for corpus, entry in corpora.items():
        for name, one in entry.get("heads", {}).items():
            rows.append([name, kinds.get(name, ""), corpus, str(one["n"]), *_of_head(one)])
    head = ["head", "of", "manifest", "n", *OF_HEAD]
    table = _table(head, rows) if rows else f"Of {', '.join(kinds)} no test utterance is labelled."
    return f"Heads of its own, published under `extra`:\n\n{table}\n\n"


def _single(corpora: Mapping[str, Any]) -> str:
    emotion = [
        [
            name,
            entry["modalities"],
            str(entry["n"]),
            _percent(entry["coverage"]),
            *(_percent(entry["emotion"][key]) for key in ("accuracy", "unweighted_recall", "weighted_f1", "ece")),
        ]
        for name, entry in corpora.items()
        if "emotion" in entry
    ]
    sentiment = [
        [
            name,
            entry["modalities"],
            str(entry["n"]),
            *(_percent(entry["sentiment"][key]) for key in ("acc2_non0", "f1_non0", "acc2_has0", "acc7")),
            *(f"{entry['sentiment'][key]:.3f}" for key in ("mae", "corr")),
            _percent(entry["sentiment"].get("within_half_width")),
        ]
        for name, entry in corpora.items()
        if "sentiment" in entry
    ]
    head = ["emotions", "modalities", "n", "coverage %", "accuracy %", "unweighted recall %", "weighted F1 %", "ECE %"]
    tables = [_table(head, emotion)] if emotion else []
    if sentiment:
        head = ["sentiment", "modalities", "n", "Acc2 non-0 %", "F1 non-0 %", "Acc2 has-0 %", "Acc7 %", "MAE", "Corr"]
        tables.append(_table([*head, "within interval %"], sentiment))
    if not tables and any(entry["n"] for entry in corpora.values()):
        return "No test utterance is labelled with an emotion or a sentiment."
    return "\n\n".join(tables) or "There were no test utterances."


def _unlike(composition: Composition) -> str:
    if not composition.unlike_share:
        return ""
    return f"""\
Of the windows composed of strangers {composition.unlike_share:.0%} show an emotion of its own in each modality. They
have no label, and teach what to say of contradictions: what the modalities say alone, weighed against each other.

"""


def _beside(weights: Weights) -> str:
    """Names what differs from the paper's losses."""
    more = ""
    if weights.product:
        softened = ", ".join(f"{m} {weights.temperature.get(m, 1.0):g}" for m in Modality)
        more += (
            f" Beside them the estimate is held, with weight\n{weights.product:g}, to the product of what its "
            f"modalities say alone (temperatures: {softened})."
        )
    if weights.regulariser != Weights().regulariser:
        more += f"\nThe regulariser of the graphs has the factor {weights.regulariser:g} instead of 10."
    return more


def _composed_section(composed: Mapping[str, Any]) -> str:
    if not composed["n"]:
        return "No windows were composed of them: that takes test utterances of all three modalities.\n"
    measured = [
        [
            f"{name} (all)" if name.count("+") == len(Modality) - 1 else name,
            *(_percent(entry[key]) for key in ("accuracy", "unweighted_recall", "weighted_f1", "ece")),
            *(_percent(composed["product"].get(name, {}).get(key)) for key in ("accuracy", "ece")),
        ]
        for name, entry in composed["by_modalities"].items()
    ]
    head = ["modalities shown", "accuracy %", "unweighted recall %", "weighted F1 %", "ECE %"]
    head += ["product: accuracy %", "product: ECE %"]
    return f"""\
Composed windows, {PER_CLASS} of each class, {composed["n"]} in all, drawn with seed {SEED}: the same
windows of three strangers each, shown in part and whole. The product is that of what the modalities say alone: a
fusion that learned nothing from seeing them together.

{_table(head, measured)}
"""


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
