"""Train a network on utterances with features of all modalities, as the field's papers do, and measure it.

The features of the words are taken as they are in the file, or, with `text: finetune`, made by a language encoder that
learns along. No live
extractor makes these features, so the result is a table and the weights, not a checkpoint for live use.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from dhmd.checkpoint import INNER
from dhmd.modality import Modality
from dhmd.model import DHMD
from dhmd.untrusted import number, read_json_object, shown, whole
from training.config import SequenceConfig
from training.data.compose import mean_and_deviation
from training.data.composed import read_composed
from training.data.items import Split
from training.data.mosi_context import read_mosi_context
from training.data.pairs import read_pairs
from training.data.published import VIDEO_END, read_published
from training.data.sequences import Sequences, ShuffledBatches, Utterances
from training.errors import FeaturesInvalid, RunDamaged
from training.evaluation.predict import BATCH, predict_head, softmax, temperature_of
from training.evaluation.predictions import PREDICTIONS, Said, joined, measures
from training.language import FOLDER, TOKENS, EndToEnd, pretrained, untrained
from training.learning.device import first
from training.learning.loop import described, open_run, train
from training.learning.results import run_record
from training.learning.run_files import CONFIG, RESULTS, keep, read_best, restoring
from training.rivals import RIVALS, Learnable


def read_sequences(config: SequenceConfig, path: Path) -> Sequences:
    """Read a file of features, with those modalities that are to be shown. Raises FeaturesInvalid, PickleRefused."""
    if config.features == "mosi-context":
        data = read_mosi_context(path)
    elif config.features == "pairs":
        data = read_pairs(path, config.fold, config.baseline)
    elif config.features == "composed":
        data = read_composed(path)
    else:
        data = read_published(path, config.head, tokens=config.text == "finetune")
    return replace(data, splits={split: _showing(part, config.modalities) for split, part in data.splits.items()})


def _showing(utterances: Utterances, modalities: list[Modality]) -> Utterances:
    masks = {m: mask if m in modalities else np.zeros_like(mask) for m, mask in utterances.masks.items()}
    return replace(utterances, masks=masks)


def network(config: SequenceConfig, widths: Mapping[Modality, int], kept: Path | None = None) -> Learnable:
    """A network by chance, for features of these widths. kept: a run whose language encoder it has, in place of the
    pretrained one."""
    if config.text == "finetune":
        encoder = pretrained(config.encoder) if kept is None else untrained(kept / FOLDER)
        wide = {**widths, Modality.TEXT: int(encoder.config.hidden_size)}
        return EndToEnd(config.network.dhmd(wide, (config.head,)), encoder)
    constants = config.network.dhmd(widths, (config.head,))
    return DHMD(constants) if config.model == "dhmd" else RIVALS[config.model](constants)


def fit_sequences(
    config: SequenceConfig, data: Sequences, run: Path, file: Path | None = None
) -> dict[str, Any] | None:
    """Train, choose the epoch by validation, measure it on test: for sentiment the epoch with the least mean absolute
    error, for classes that under whose probabilities, after calibration, the labels are likeliest.

    run: a folder that `open_runs` agreed to; what a cut run left there is gone on with. The weights lie there in
    best.safetensors, the curves in log.json, what is said of each utterance of validation and test in predictions.csv,
    and what is returned in results.json. Of several processes the first alone measures and writes; the others return
    None. file: where the data came from, for what is done with the run later.
    """
    open_run(run, described(config, data.sha256))
    torch.manual_seed(config.seed)
    training, validation = data.splits[Split.TRAIN], data.splits[Split.VALIDATION]
    model = network(config, data.widths)
    if isinstance(model, EndToEnd):
        _check_tokens(data, model.vocabulary)
        if first():
            model.language_encoder.config.save_pretrained(run / FOLDER)
    if not data.standardised:
        for m in config.modalities:
            if m is Modality.TEXT and isinstance(model, EndToEnd):
                continue
            mean, deviation = mean_and_deviation(training.inputs[m][training.masks[m]])
            model.normaliser[m].load_state_dict({"mean": torch.from_numpy(mean), "std": torch.from_numpy(deviation)})

    def validate(model: Learnable) -> tuple[float, dict[str, float]]:
        said = say(config, model, validation, Split.VALIDATION, _temperature(model, validation))
        measured = {name: value for name, value in measures(said, config.limit).items() if name != "confusion"}
        return -measured["nll" if said.classes else "mae"], measured

    plan = config.optimisation
    source = ShuffledBatches(training, plan.batch, config.seed)
    trained = train(model, source, validate, plan, config.losses, config.seed, run)
    if not first():
        return None
    temperature = _temperature(model, validation)
    read = {
        "file": None if file is None else str(file.resolve()),
        "sha256": data.sha256,
        "utterances": {split: len(part) for split, part in data.splits.items()},
        "widths": data.widths,
        "steps": {m: x.shape[1] for m, x in training.inputs.items()},
    }
    said = {
        split: say(config, model, data.splits[split], split, temperature) for split in (Split.VALIDATION, Split.TEST)
    }
    results = (
        run_record(config, read, trained)
        | {"temperature": temperature}
        | {split.value: measures(one, config.limit) for split, one in said.items()}
    )
    keep(run / PREDICTIONS, joined(list(said.values())).text())
    keep(run / RESULTS, json.dumps(results, indent=1) + "\n")
    return results


@dataclass(frozen=True, slots=True)
class SequenceRun:
    """A finished run on a file of features. steps: of its sequences. file: where it was read; it may be gone."""

    folder: Path
    config: SequenceConfig
    model: Learnable
    temperature: float
    steps: Mapping[Modality, int]
    file: Path | None

    @classmethod
    def read(cls, folder: Path) -> SequenceRun | None:
        """The run in that folder, in evaluation mode; None where there is another kind, or none. Raises RunDamaged,
        for a folder of several runs, too."""
        runs = sorted(folder.glob(f"*/{CONFIG}"))
        if runs and not any((one / CONFIG).exists() for one in (folder, folder / INNER)):
            raise RunDamaged(f"{folder} holds several runs: name one of them, such as {runs[0].parent}")
        try:
            told = read_json_object(folder / CONFIG)
        except (OSError, ValueError):
            return None
        if not isinstance(told.get("features"), str):  # of a checkpoint it holds the specs
            return None
        told.pop("data_sha256", None)
        if not (folder / RESULTS).is_file():
            raise RunDamaged(f"{folder} is not finished: go on with `dhmd-train fit`, the same files, and --resume")
        try:
            config = SequenceConfig.model_validate(told)
            results = read_json_object(folder / RESULTS)
            data = results["data"]
            widths = {m: whole(data["widths"][m], 1, 2**16) for m in Modality}
            steps = {m: whole(data["steps"][m], 1, 2**16) for m in Modality}
            temperature = number(results["temperature"], 1e-3, 1e3)
        except (KeyError, TypeError, ValueError, ValidationError) as error:
            problem = shown(str(error).splitlines()[0])
            raise RunDamaged(f"{folder} is of another version, or damaged ({problem}); train it again") from None
        model = network(config, widths, folder)
        with restoring(folder / RESULTS):
            model.load_state_dict(read_best(folder))
        file = Path(data["file"]) if data.get("file") else None
        return cls(folder, config, model.eval(), temperature, steps, file)

    def data(self, file: Path | None = None) -> Sequences:
        """Its file of features, or another. Raises FeaturesInvalid, PickleRefused, RunDamaged."""
        path = file or self.file
        if path is None or not path.is_file():
            raise RunDamaged(f"{path or self.folder}: the features are not there; name the file with --features FILE")
        data = read_sequences(self.config, path)
        wanted = {m: self.model.config.modalities[m].width for m in Modality}
        if isinstance(self.model, EndToEnd):
            wanted[Modality.TEXT] = TOKENS
            _check_tokens(data, self.model.vocabulary)
        if data.widths != wanted:
            have, reads = (", ".join(f"{m} {wide}" for m, wide in widths.items()) for widths in (data.widths, wanted))
            raise FeaturesInvalid(
                f"{path}: numbers in a step: {have}, and {self.folder} reads {reads}; give its own file"
            )
        return data

    def said(self, data: Sequences, split: Split) -> Said:
        """What it says of each utterance of a split."""
        return say(self.config, self.model, data.splits[split], split, self.temperature)

    def contract(self) -> dict[str, Any]:
        """All that one needs to use its network elsewhere, as JSON."""
        head = self.config.head
        return {
            "run": self.config.name,
            "head": asdict(head),
            "steps": dict(self.steps),
            "widths": {m: self.model.config.modalities[m].width for m in Modality},
            "temperature": self.temperature,
        }


def _check_tokens(data: Sequences, vocabulary: int) -> None:
    """Raise FeaturesInvalid for token ids that the encoder has not."""
    for split, part in data.splits.items():
        ids = part.inputs[Modality.TEXT][..., 0]
        if ids.min() < 0 or ids.max() >= vocabulary:
            raise FeaturesInvalid(
                f"text_bert of {split}: token ids up to {ids.max():.0f}, and the encoder knows {vocabulary}: it is of "
                "another tokenizer; name its own with --set encoder=FOLDER"
            )


def _temperature(model: Learnable, validation: Utterances) -> float:
    if validation.head.kind != "classification":
        return 1.0
    return temperature_of(*predict_head(model, validation.in_order(BATCH), validation.head))


def say(config: SequenceConfig, model: Learnable, utterances: Utterances, split: Split, temperature: float) -> Said:
    """What the model says of the utterances, under that temperature."""
    count, head = len(utterances), utterances.head
    said, _ = predict_head(model, utterances.in_order(BATCH), head)
    return Said(
        ids=utterances.ids,
        corpus=(config.name,) * count,
        speakers=utterances.speakers or tuple(map(_video, utterances.ids)),
        splits=(split,) * count,
        label=utterances.label,
        said=softmax(said / temperature) if head.classes else said,
        head=head.name,
        classes=head.classes,
    )


def _video(utterance: str) -> str:
    """The video in the name of an utterance, VIDEO_NUMBER or as the field's files have it VIDEO$_$NUMBER."""
    return utterance.rpartition(VIDEO_END if VIDEO_END in utterance else "_")[0] or utterance
