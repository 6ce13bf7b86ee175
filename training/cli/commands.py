"""What the commands of `dhmd-train` do. Libraries are loaded where they are used, as help should not wait for them."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dhmd.checkpoint import Checkpoint, load, write_atomically
from dhmd.modality import Modality
from dhmd.yaml_config import ConfigInvalid

if TYPE_CHECKING:
    from dhmd.model import Head
    from training.config import FitConfig, SequenceConfig
    from training.data.items import Example
    from training.inputs import Work
    from training.learning.fit_sequences import SequenceRun

FIXED: Final = (
    "the words are the features of the file, whose encoder does not learn; with --set text=finetune it does, as the "
    "paper's: 110 million weights more, for a GPU"
)
DATA: Final = Path("data")
CORPORA: Final = (
    "ravdess",
    "emodb",
    "emovo",
    "urdu",
    "ased",
    "meld",
    "goemotions",
    "mosi",
    "fer2013",
    "ferplus",
    "ck48",
)
"""What `prepare` knows; named here as help should not wait for the importers."""
BASE: Final = tuple(name for name in CORPORA if name not in {"mosi", "fer2013"})
"""Those labelled with emotions that the default checkpoint learns from."""
PAIRS: Final = "ravdess-pairs"
"""What `prepare` makes a file of features of, in place of a manifest."""


def prepare(args: argparse.Namespace) -> None:
    from training.data.corpora import prepare

    asked = dict.fromkeys(args.corpus)
    names = CORPORA if "all" in asked else tuple(name for name in asked if name != PAIRS)
    for manifest in prepare(names, args.corpora, args.out):
        print(manifest)
    if PAIRS in asked:
        from training.features.ravdess_pairs import prepare_pairs

        print(prepare_pairs(args.corpora, args.out))


def _work(args: argparse.Namespace) -> Work:
    from training.inputs import Work

    return Work(args.data, args.cache, args.jobs, args.address, args.skip_bad)


def encoder(args: argparse.Namespace) -> None:
    import torch

    from training.encoders.train import MANIFESTS, train_encoder, train_map
    from training.inputs import Inputs

    modality = Modality(args.modality)
    if args.jobs:
        torch.set_num_threads(args.jobs)
    with Inputs.of(_work(args), args.manifest or MANIFESTS[modality]) as sources:
        if args.languages:
            path = train_map(sources, args.languages, args.out, args.epochs, args.seed)
        else:
            path = train_encoder(modality, sources, args.out, args.cache / "encoders", args.epochs, args.seed)
    print(f"{path}, report: {path.with_suffix('.json')}")


def extract(args: argparse.Namespace) -> None:
    from training.inputs import Inputs

    with Inputs.of(_work(args), args.manifest, args.labels, heads=None) as sources:
        examples, _ = sources.extract(args.encoders)
    empty = sum(not example.rows for example in examples)
    print(f"{len(examples)} utterances have their features in {args.cache}; nothing was perceived in {empty} of them")


def compose(args: argparse.Namespace) -> None:
    from training.data.composed import write_composed
    from training.inputs import Inputs

    with Inputs.of(_work(args), args.manifest or BASE) as sources:
        examples, specs = sources.extract(args.encoders)
    write_composed(examples, specs, max(args.windows, 1), args.seed, args.out)
    print(args.out)


def fit(args: argparse.Namespace) -> None:
    from training.config import SequenceConfig, read_config
    from training.evaluation.predictions import PREDICTIONS, read_said
    from training.evaluation.table import summary
    from training.learning.device import first

    changes = dict(args.changes or ()) | ({"optimisation.epochs": args.epochs} if args.epochs is not None else {})
    config = read_config(args.config, changes)
    folder = args.folder or Path("runs") / config.name
    seeds = {folder / str(seed): seed for seed in args.seeds or ()} or {folder: config.seed}
    if isinstance(config, SequenceConfig):
        if not args.features:
            raise ConfigInvalid(f"{args.config} trains on a file of features: give it with --features FILE")
        runs = {run: config.model_copy(update={"seed": seed}) for run, seed in seeds.items()}
        _fit_sequences(runs, args.features, resume=args.resume)
    else:
        config = _with_manifests(config, args)
        many = {run: config.model_copy(update={"seed": seed}) for run, seed in seeds.items()}
        _fit_utterances(many, _work(args), args.encoders, args.labels, resume=args.resume)
    if args.seeds and first():
        for name in sorted({file.name for run in seeds for file in run.glob(f"{Path(PREDICTIONS).stem}*.csv")}):
            said = [read_said(run / name) for run in seeds]
            method = config.name if name == PREDICTIONS else f"{config.name}: {said[0].head}"
            print(summary([(method, said)], "text", getattr(config, "limit", 3)))


def _with_manifests(config: FitConfig, args: argparse.Namespace) -> FitConfig:
    """The configuration with the manifests that are asked for. Raises ConfigInvalid for what does not go together."""
    if args.features:
        raise ConfigInvalid(f"{args.config} trains on manifests and reads no --features")
    if not (args.manifest or config.manifests):
        raise ConfigInvalid(f"{args.config} names no manifests: give some with --manifest")
    if config.start and args.encoders:
        raise ConfigInvalid(f"{args.config} begins from {config.start} and its encoders; leave --encoders out")
    return config.model_copy(update={"manifests": args.manifest}) if args.manifest else config


def _fit_sequences(runs: Mapping[Path, SequenceConfig], features: Path, *, resume: bool) -> None:
    """Fit each run, which differ by their seeds."""
    from training.learning.device import first
    from training.learning.fit_sequences import fit_sequences, read_sequences
    from training.learning.loop import described, open_runs
    from training.learning.run_files import RESULTS

    config = next(iter(runs.values()))
    data = read_sequences(config, features)
    open_runs({run: described(one, data.sha256) for run, one in runs.items()}, resume=resume)
    if first():
        for note in data.notes:
            print(note, file=sys.stderr)
        if config.features == "published" and config.text == "fixed":
            print(FIXED, file=sys.stderr)
    for run, one in runs.items():
        results = fit_sequences(one, data, run, features)
        if results is not None:
            print(_readable({key: results[key] for key in ("best_epoch", "validation", "test")}))
            print(f"results: {run / RESULTS}")


def _fit_utterances(
    runs: Mapping[Path, FitConfig], work: Work, encoders: Path | None, labels: Path | None, *, resume: bool
) -> None:
    """Fit each run, which differ by their seeds."""
    from training.features.extractors import ENCODERS
    from training.inputs import Inputs
    from training.learning.device import fabric, first
    from training.learning.fit import FitData, fit
    from training.learning.folds import cross_validated, worthwhile
    from training.learning.loop import described, open_runs

    config = next(iter(runs.values()))
    start = load(config.start) if config.start else None
    encoders = start.folder if start else encoders or ENCODERS
    # The first process of a machine looks and extracts, the others read what it made.
    with fabric().rank_zero_first(local=True):
        sources = Inputs.of(work, config.manifests, labels, config.own or (() if start is None else own_of(start)))
    with sources:
        open_runs({run: described(one, sources.sha256) for run, one in runs.items()}, resume=resume)
        if first():
            for doubt in sources.doubts():
                print(doubt, file=sys.stderr)
        with fabric().rank_zero_first(local=True):
            examples, specs = sources.extract(encoders)
    known = [] if start is None else _known(start, work, sources.sha256)
    for run, one in runs.items():
        folds = None
        if worthwhile(one, examples):
            folds = cross_validated(one, examples, specs, sources.sha256, run, encoders)
        begun = load(config.start) if config.start else None  # anew, as a training changes it
        written = fit(one, FitData.of(examples, specs, sources.sha256, known), run, encoders, begun, folds)
        if first():
            print((written / "README.md").read_text(encoding="utf-8"))
            print(f"checkpoint: {written}")


def _known(start: Checkpoint, work: Work, learned_from: Collection[str]) -> list[Example]:
    """Utterances of the test splits of prepared corpora by which to tell what a checkpoint forgets: those whose
    features are at hand."""
    from training.data.items import Split
    from training.inputs import Inputs

    names = [name for name in CORPORA if name not in learned_from and (work.data / f"{name}.csv").is_file()]
    if not names:
        return []
    with Inputs.of(work, names) as sources:
        return sources.only(Split.TEST).kept(start)


def own_of(checkpoint: Checkpoint) -> tuple[Head, ...]:
    """The heads of its own."""
    from dhmd.model import own_heads

    return own_heads(checkpoint.model.config.heads)


def test_examples(checkpoint: Checkpoint, work: Work) -> list[Example]:
    """Examples of the test splits of all prepared corpora, with the features that the checkpoint eats."""
    from training.data.items import Split
    from training.errors import TooLittleData
    from training.inputs import Inputs

    names = [name for name in CORPORA if (work.data / f"{name}.csv").is_file()]
    if not names:
        raise TooLittleData(f"no corpus is in {work.data}: `dhmd-train prepare all`, or name a manifest or --data")
    with Inputs.of(work, names) as sources:
        return sources.only(Split.TEST).examples(checkpoint)


def evaluate(args: argparse.Namespace) -> None:
    from training.evaluation.evaluate import by_corpus, evaluate
    from training.evaluation.predict import FEW
    from training.learning.fit_sequences import SequenceRun

    if (run := SequenceRun.read(Path(args.checkpoint))) is not None:
        _evaluate_run(args, run)
        return
    if args.features:
        raise _reads_manifests(args.checkpoint)
    checkpoint = load(args.checkpoint)
    if args.manifest:
        measured = by_corpus(checkpoint, _named_examples(checkpoint, args))
        for name, one in measured.items():
            if one["n"] < FEW:
                print(f"{name}: measures of {one['n']} utterances are nearly chance", file=sys.stderr)
        result = measured if len(measured) != 1 else next(iter(measured.values()))
    else:
        result = evaluate(checkpoint, test_examples(checkpoint, _work(args)))
    _tell(result, args.out)


def _named_examples(checkpoint: Checkpoint, args: argparse.Namespace) -> list[Example]:
    """Those of the manifests that are named, of the split that is asked for."""
    from training.data.items import Split
    from training.inputs import Inputs

    with Inputs.of(_work(args), args.manifest, args.labels, own_of(checkpoint)) as sources:
        split = None if args.split == "all" else Split(args.split)
        return sources.only(split, whole_without=True).examples(checkpoint)


def _readable(result: Mapping[str, Any]) -> str:
    """JSON for people: a row of numbers in a line."""
    text = json.dumps(result, indent=1)
    return re.sub(r"\[[^][{}\"]+\]", lambda row: f"[{', '.join(row[0].strip('[]').replace(',', ' ').split())}]", text)


def _tell(result: dict[str, Any], out: Path | None) -> None:
    text = _readable(result)
    print(text)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, text + "\n")


def _reads_features(where: str) -> ConfigInvalid:
    return ConfigInvalid(f"{where} reads a file of features and no manifest; give it with --features FILE")


def _reads_manifests(where: str) -> ConfigInvalid:
    return ConfigInvalid(f"{where} is no run on a file of features; leave --features out")


def _evaluate_run(args: argparse.Namespace, run: SequenceRun) -> None:
    from training.data.items import Split
    from training.evaluation.predictions import measures

    if args.manifest:
        raise _reads_features(args.checkpoint)
    data = run.data(args.features)
    splits = list(Split) if args.split == "all" else [Split(args.split)]
    _tell({split.value: measures(run.said(data, split), run.config.limit) for split in splits}, args.out)


def plot(args: argparse.Namespace) -> None:
    from training.data.items import Split
    from training.evaluation.plots import plot, plot_sequences, read_log, require_matplotlib
    from training.learning.fit_sequences import SequenceRun

    require_matplotlib()
    if (run := SequenceRun.read(Path(args.checkpoint))) is not None:
        if args.manifest:
            raise _reads_features(args.checkpoint)
        data = run.data(args.features)
        said = run.said(data, Split.TEST)
        for path in plot_sequences(run.model, data.splits[Split.TEST], said, read_log(run.folder), args.out):
            print(path)
        return
    if args.features:
        raise _reads_manifests(args.checkpoint)
    checkpoint = load(args.checkpoint)
    around = checkpoint.folder.parent
    folder = args.folder or (around if (around / "log.json").is_file() else None)
    log = None if folder is None else read_log(folder)
    examples = _named_examples(checkpoint, args) if args.manifest else test_examples(checkpoint, _work(args))
    for path in plot(checkpoint, examples, log, args.out):
        print(path)
    if not checkpoint.model.config.dictionary:
        print("no activations: the network of this checkpoint has no dictionaries")
    if log is None:
        print("no learning curves: name the folder of the run with --run")


def product(args: argparse.Namespace) -> None:
    from training.data.items import Split
    from training.errors import PredictionsInvalid
    from training.evaluation.compare import find_runs
    from training.evaluation.predictions import PREDICTIONS, measures
    from training.evaluation.product import product
    from training.learning.run_files import RESULTS, keep

    found = [find_runs(where) for where in args.runs]
    for where, one in zip(args.runs, found, strict=True):
        if len(one) > 1:
            raise PredictionsInvalid(f"{where} holds {len(one)} runs; name one of them")
    said = product([run for (run,) in found])
    results = {split.value: measures(said.of(split)) for split in (Split.VALIDATION, Split.TEST)}
    args.folder.mkdir(parents=True, exist_ok=True)
    keep(args.folder / PREDICTIONS, said.text())
    keep(args.folder / RESULTS, json.dumps({"runs": args.runs} | results, indent=1) + "\n")
    print(f"results: {args.folder / RESULTS}")


def compare(args: argparse.Namespace) -> None:
    from training.data.items import Split
    from training.evaluation.compare import compare, find_runs

    print(compare(find_runs(args.a), find_runs(args.b), Split(args.split), max(args.draws, 100)))


def table(args: argparse.Namespace) -> None:
    from training.evaluation.compare import find_runs
    from training.evaluation.table import limit_of, summary

    methods = []
    for method in args.methods:
        name, named, where = method.partition("=")
        where = where if named else method
        methods.append((name if named else Path(where).name, find_runs(where)))
    print(summary(methods, args.format, limit_of(Path(where))))


def export(args: argparse.Namespace) -> None:
    from dhmd.model import DHMD
    from training.export.folder import export_checkpoint, export_run
    from training.export.network import TOLERANCE, Exported
    from training.language import EndToEnd
    from training.learning.fit_sequences import SequenceRun

    run = SequenceRun.read(Path(args.checkpoint))
    if run is None:
        distance = export_checkpoint(load(args.checkpoint), args.kind, args.out)
    elif isinstance(run.model, EndToEnd):
        raise ConfigInvalid(f"{args.checkpoint} has a language encoder of its own, which is not exported")
    elif isinstance(run.model, DHMD):
        distance = export_run(Exported(run.model, run.steps, run.contract()), args.kind, args.out)
    else:
        raise ConfigInvalid(
            f"{args.checkpoint} is of a {run.config.model} network; those of `model: dhmd` are exported"
        )
    print(f"{args.out}: at most {distance:.1g} off the model (allowed {TOLERANCE:g}) with every set of modalities")


def bench(args: argparse.Namespace) -> None:
    from training.bench import PAPER, time_step
    from training.config import SequenceConfig, read_config

    config = read_config(args.config) if args.config else PAPER
    if not isinstance(config, SequenceConfig):
        raise ConfigInvalid(f"{args.config} is of a run on windows; give one of a run on sequences")
    print(time_step(config, threads=args.threads, steps=max(args.steps, 2)))
