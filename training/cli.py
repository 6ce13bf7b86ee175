"""`dhmd-train`: from corpora to a checkpoint that `dhmd-live` runs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dhmd.checkpoint import PRETRAINED, Checkpoint, load, write_atomically
from dhmd.errors import DHMDError
from dhmd.yaml_config import ConfigInvalid
from training.errors import CorpusMissing

if TYPE_CHECKING:
    from training.config import FitConfig, SequenceConfig
    from training.data.items import Example

DESCRIPTION: Final = """\
Train and measure the recogniser. The path from corpora to a checkpoint:

  dhmd-train expression --corpora DIR --out FILE   the network that reads the face crop
  dhmd-train extract --corpora DIR                 features of every clip, sentence and image, once
  dhmd-train fit configs/base.yaml --corpora DIR   the recogniser; ends with a checkpoint and its model card
  dhmd-train evaluate --corpora DIR                its numbers on the test splits
  dhmd-train plot --checkpoint runs/base/checkpoint
                                                   its figures: graphs, dictionaries, confusion, learning, reliability

Then: dhmd-live run --checkpoint runs/base/checkpoint
Or, for use without this package: dhmd-train export --checkpoint runs/base/checkpoint --format onnx --out base.onnx

On published feature files of CMU-MOSI, CMU-MOSEI and CH-SIMS, ending with a table:

  dhmd-train fit configs/mosi.yaml --features aligned_50.pkl

On many processes, each with a GPU or a part of the CPU, to the same curve:

  torchrun --nproc-per-node 2 -m -- training fit configs/base.yaml --corpora DIR
"""
EXPRESSION: Final = PRETRAINED / "base" / "expression.safetensors"


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser("dhmd-train", description=DESCRIPTION, formatter_class=argparse.RawTextHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    expression = commands.add_parser("expression", help="train the network of the face crop on FER2013 and CK+")
    from training import expression as network

    network.add_arguments(expression)
    expression.set_defaults(run=_expression)

    extract = commands.add_parser("extract", help="make the features that training reads, once; goes on when cut")
    _add_sources(extract)
    extract.set_defaults(run=_extract)

    fit = commands.add_parser("fit", help="train the recogniser, calibrate and measure it, write a checkpoint")
    fit.add_argument("config", type=Path, help="YAML, such as configs/base.yaml")
    _add_sources(fit)
    fit.add_argument("--features", type=Path, help="file of features, for a configuration that asks for one")
    fit.add_argument("--run", type=Path, dest="folder", help="folder of the run; runs/NAME unless given")
    fit.add_argument("--resume", action="store_true", help="go on with a run that was cut, to the same result")
    fit.set_defaults(run=_fit)

    evaluate = commands.add_parser("evaluate", help="measure a checkpoint on the fixed test splits")
    evaluate.add_argument("--checkpoint", default="base", help="folder, or the name of one that ships; %(default)s")
    evaluate.add_argument("--out", type=Path, help="write the numbers as JSON to this file too")
    evaluate.add_argument("--corpora", type=Path, default=Path("../shared/corpora"), help="folder of the corpora")
    evaluate.add_argument("--cache", type=Path, default=Path("cache"), help="where features lie; %(default)s")
    evaluate.set_defaults(run=_evaluate)

    plot = commands.add_parser("plot", help="draw the figures of a checkpoint on the test splits, as PNG and SVG")
    plot.add_argument("--checkpoint", default="base", help="folder, or the name of one that ships; %(default)s")
    plot.add_argument("--run", type=Path, dest="folder", help="its run, for the learning curves; the folder around it")
    plot.add_argument("--out", type=Path, default=Path("figures"), help="folder of the figures; %(default)s")
    plot.add_argument("--corpora", type=Path, default=Path("../shared/corpora"), help="folder of the corpora")
    plot.add_argument("--cache", type=Path, default=Path("cache"), help="where features lie; %(default)s")
    plot.set_defaults(run=_plot)

    export = commands.add_parser("export", help="write a checkpoint as one file, ONNX or torch.export's .pt2")
    export.add_argument("--checkpoint", default="base", help="folder, or the name of one that ships; %(default)s")
    export.add_argument("--format", required=True, choices=("onnx", "pt2"), dest="kind", help="kind of file")
    export.add_argument("--out", type=Path, required=True, help="the file")
    export.set_defaults(run=_export)
    return top


def _add_sources(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--corpora", type=Path, default=Path("../shared/corpora"), help="folder of the corpora; %(default)s"
    )
    command.add_argument("--cache", type=Path, default=Path("cache"), help="where features are kept; %(default)s")
    command.add_argument("--expression", type=Path, default=EXPRESSION, help="network of the face crop; that of `base`")


def _require(corpora: Path) -> None:
    if not corpora.is_dir():
        raise CorpusMissing(f"{corpora} is no folder: pass the folder of the corpora with --corpora")


def _expression(args: argparse.Namespace) -> None:
    from training import expression

    _require(args.corpora)
    expression.run(args)


def _extract(args: argparse.Namespace) -> None:
    from training.config import FACES
    from training.data.corpora import CORPORA
    from training.extract import gather

    _require(args.corpora)
    examples, _ = gather([*CORPORA, FACES], args.corpora, args.cache, args.expression)
    empty = sum(not len(example.rows) for example in examples)
    print(f"{len(examples)} items have their features in {args.cache}; nothing was perceived in {empty} of them")


def _fit(args: argparse.Namespace) -> None:
    from training.config import SequenceConfig, read_config

    config = read_config(args.config)
    folder = args.folder or Path("runs") / config.name
    if isinstance(config, SequenceConfig):
        _fit_sequences(config, folder, args)
    else:
        _fit_composed(config, folder, args)


def _fit_sequences(config: SequenceConfig, folder: Path, args: argparse.Namespace) -> None:
    from training.device import first
    from training.fit_sequences import RESULTS, described, fit_sequences, read_sequences
    from training.loop import check_run

    if not args.features:
        raise ConfigInvalid(f"{args.config} trains on a file of features: give it with --features FILE")
    data = read_sequences(config, args.features)
    check_run(folder, described(config, data), resume=args.resume)
    results = fit_sequences(config, data, folder)
    if first():
        print(json.dumps(results, indent=1))
        print(f"results: {folder / RESULTS}")


def _fit_composed(config: FitConfig, folder: Path, args: argparse.Namespace) -> None:
    from training.device import fabric, first
    from training.extract import gather
    from training.fit import Data, fit
    from training.loop import check_run

    if args.features:
        raise ConfigInvalid(f"{args.config} trains on corpora and reads no --features")
    _require(args.corpora)
    check_run(folder, config.model_dump(mode="json"), resume=args.resume)
    with fabric().rank_zero_first(local=True):  # it extracts, the others of the machine read
        data = Data.of(*gather(config.corpora, args.corpora, args.cache, args.expression))
    written = fit(config, data, folder, args.expression)
    if first():
        print((written / "README.md").read_text(encoding="utf-8"))
        print(f"checkpoint: {written}")


def _test_examples(checkpoint: Checkpoint, args: argparse.Namespace) -> list[Example]:
    """Of all test splits, with the features that the checkpoint eats."""
    from training.config import FACES
    from training.data.corpora import CORPORA
    from training.data.items import Split
    from training.extract import gather

    _require(args.corpora)
    examples, specs = gather([*CORPORA, FACES], args.corpora, args.cache, checkpoint.expression_path, Split.TEST)
    for modality, spec in checkpoint.features.items():
        spec.require(specs[modality])
    return examples


def _evaluate(args: argparse.Namespace) -> None:
    from training.evaluate import evaluate

    checkpoint = load(args.checkpoint)
    text = json.dumps(evaluate(checkpoint, _test_examples(checkpoint, args)), indent=1)
    print(text)
    if args.out:
        write_atomically(args.out, text + "\n")


def _plot(args: argparse.Namespace) -> None:
    from training.plots import plot, read_log, require_matplotlib

    require_matplotlib()
    checkpoint = load(args.checkpoint)
    around = checkpoint.folder.parent
    run = args.folder or (around if (around / "log.json").is_file() else None)
    log = None if run is None else read_log(run)
    for path in plot(checkpoint, _test_examples(checkpoint, args), log, args.out):
        print(path)
    if log is None:
        print("no learning curves: name the folder of the run with --run")


def _export(args: argparse.Namespace) -> None:
    from training.export import TOLERANCE, export

    distance = export(load(args.checkpoint), args.kind, args.out)
    print(f"{args.out}: at most {distance:.1g} off the model (allowed {TOLERANCE:g}) with every set of modalities")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    args = parser().parse_args(argv)
    try:
        args.run(args)
    except DHMDError as error:
        print(f"dhmd-train: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("dhmd-train: stopped; the same command (fit: with --resume) goes on from here", file=sys.stderr)
        return 130
    return 0
