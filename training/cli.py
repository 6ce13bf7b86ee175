"""`dhmd-train`: from corpora to a checkpoint that `dhmd-live` runs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dhmd.checkpoint import PRETRAINED, load, write_atomically
from dhmd.errors import DHMDError
from training.errors import CorpusMissing

DESCRIPTION: Final = """\
Train and measure the recogniser. The path from corpora to a checkpoint:

  dhmd-train expression --corpora DIR --out FILE   the network that reads the face crop
  dhmd-train extract --corpora DIR                 features of every clip, sentence and image, once
  dhmd-train fit configs/base.yaml --corpora DIR   the recogniser; ends with a checkpoint and its model card
  dhmd-train evaluate --corpora DIR                its numbers on the test splits

Then: dhmd-live run --checkpoint runs/base/checkpoint
"""
EXPRESSION: Final = PRETRAINED / "base" / "expression.safetensors"


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser("dhmd-train", description=DESCRIPTION, formatter_class=argparse.RawTextHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    expression = commands.add_parser("expression", help="train the network of the face crop on FER2013 and CK+")
    from training import expression as network

    network.add_arguments(expression)
    expression.set_defaults(run=network.run)

    extract = commands.add_parser("extract", help="make the features that training reads, once; goes on when cut")
    _add_sources(extract)
    extract.set_defaults(run=_extract)

    fit = commands.add_parser("fit", help="train the recogniser, calibrate and measure it, write a checkpoint")
    fit.add_argument("config", type=Path, help="YAML, such as configs/base.yaml")
    _add_sources(fit)
    fit.add_argument("--run", type=Path, dest="folder", help="folder of the run; runs/NAME unless given")
    fit.add_argument("--resume", action="store_true", help="go on with a run that was cut, to the same result")
    fit.set_defaults(run=_fit)

    evaluate = commands.add_parser("evaluate", help="measure a checkpoint on the fixed test splits")
    evaluate.add_argument("--checkpoint", default="base", help="folder, or the name of one that ships; %(default)s")
    evaluate.add_argument("--out", type=Path, help="write the numbers as JSON to this file too")
    evaluate.add_argument("--corpora", type=Path, default=Path("../shared/corpora"), help="folder of the corpora")
    evaluate.add_argument("--cache", type=Path, default=Path("cache"), help="where features lie; %(default)s")
    evaluate.set_defaults(run=_evaluate)

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


def _extract(args: argparse.Namespace) -> None:
    from training.config import FACES
    from training.data.corpora import CORPORA
    from training.extract import gather

    examples, _ = gather([*CORPORA, FACES], args.corpora, args.cache, args.expression)
    empty = sum(not len(example.rows) for example in examples)
    print(f"{len(examples)} items have their features in {args.cache}; nothing was perceived in {empty} of them")


def _fit(args: argparse.Namespace) -> None:
    from training.config import read_config
    from training.extract import gather
    from training.fit import Data, check_run, fit

    config = read_config(args.config)
    folder = args.folder or Path("runs") / config.name
    check_run(folder, config, resume=args.resume)
    data = Data.of(*gather(config.corpora, args.corpora, args.cache, args.expression))
    written = fit(config, data, folder, args.expression)
    print((written / "README.md").read_text(encoding="utf-8"))
    print(f"checkpoint: {written}")


def _evaluate(args: argparse.Namespace) -> None:
    from training.config import FACES
    from training.data.corpora import CORPORA
    from training.data.items import Split
    from training.evaluate import evaluate
    from training.extract import gather

    checkpoint = load(args.checkpoint)
    examples, specs = gather([*CORPORA, FACES], args.corpora, args.cache, checkpoint.expression_path, Split.TEST)
    for modality, spec in checkpoint.features.items():
        spec.require(specs[modality])
    text = json.dumps(evaluate(checkpoint, examples), indent=1)
    print(text)
    if args.out:
        write_atomically(args.out, text + "\n")


def _export(args: argparse.Namespace) -> None:
    from training.export import TOLERANCE, export

    distance = export(load(args.checkpoint), args.kind, args.out)
    print(f"{args.out}: at most {distance:.1g} off the model (allowed {TOLERANCE:g}) with every set of modalities")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    args = parser().parse_args(argv)
    try:
        if "corpora" in args and not args.corpora.is_dir():
            raise CorpusMissing(f"{args.corpora} is no folder: pass the folder of the corpora with --corpora")
        args.run(args)
    except DHMDError as error:
        print(f"dhmd-train: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("dhmd-train: stopped; the same command (fit: with --resume) goes on from here", file=sys.stderr)
        return 130
    return 0
