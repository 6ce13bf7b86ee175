"""Commands of `dhmd-train`, their flags and what their help says."""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from dhmd.command_line import Commands, Parser
from dhmd.modality import Modality
from dhmd.untrusted import Untrusted, quoted, read_yaml_text, whole
from training.cli import commands as does
from training.cli.commands import CORPORA, DATA, PAIRS

DESCRIPTION: Final = """\
Train and measure the recogniser. Data enters by manifests: CSV or Parquet tables of labelled utterances, one a row:

  id,split,emotion,sentiment,text,audio,image,video,start,end,group,words
  1,train,happy,,,,,clips/1.mp4,,,anna,

Every column but id may be left out; an empty cell means absent; paths are relative to the table.

Your own clips, beginning from the checkpoint that ships:

  dhmd-train extract my.csv                                    features of every row, once
  dhmd-train fit configs/finetune.yaml --manifest my.csv       ends with a checkpoint in runs/finetune
  dhmd-train evaluate --checkpoint runs/finetune/checkpoint --manifest my.csv

What base knows of other people is rehearsed meanwhile, and half of its weights stay (see `rehearsal:` in that file).

The same works with a session recorded by `dhmd-live run --record talk.mcap` in place of my.csv. Its labels are in
talk.csv (start, end, emotion, sentiment; seconds of the session), or were given live with the keys m and 1 to 7.

From the public corpora:

  dhmd-train prepare all --corpora DIR                         manifests of the corpora in data/
  dhmd-train encoder vision --out encoders                     what the extractors learn; also audio and text
  dhmd-train extract data/*.csv --encoders encoders            features of every clip, sentence and image, once
  dhmd-train fit configs/base.yaml --encoders encoders         the recogniser; ends with a checkpoint and its model card
  dhmd-train evaluate                                          its numbers on the test splits
  dhmd-train plot --checkpoint runs/base/checkpoint            its figures: graphs, dictionaries, confusion, learning

Then: dhmd-live run --checkpoint runs/base/checkpoint
Or, for use without this package and torch: dhmd-train export --checkpoint runs/base/checkpoint --out deploy

On published feature files of CMU-MOSI, CMU-MOSEI, CH-SIMS, UR-FUNNY and MUStARD, ending with a table:

  dhmd-train fit configs/mosi.yaml --features aligned_50.pkl --seeds 1111,1112,1113
  dhmd-train plot --checkpoint runs/mosi/1111                  also evaluate, export; compare and table for several runs

On one person's face and voice, and whether one method is better than another:

  dhmd-train prepare ravdess-pairs --corpora DIR
  dhmd-train fit configs/ravdess-pairs.yaml --features data/ravdess-pairs.npz --run runs/dhmd/1
  dhmd-train compare runs/dhmd runs/other

With several processes, each with a GPU or a part of the CPU (to the same curve but for what dropout drops):

  torchrun --nproc-per-node 2 -m -- training fit configs/base.yaml
"""
COMPARE: Final = """\
Tell the difference of two methods on the same utterances, and how sure it is.

Each run keeps what it says of each utterance in predictions.csv. A and B may be several runs each, such as seeds or
folds; a measure is their mean. For emotions it is accuracy, unweighted recall and NLL, for sentiment MAE, Acc2 and
Corr; of NLL and MAE less is better.

The interval is that of the paired bootstrap, in which both sides meet the same utterances drawn anew: over clips, which
tells of other clips of the same people, and over speakers with all of their clips, which tells of other people. Use the
latter for a claim about people. p is two-sided. The runs are not drawn anew: with few seeds, look at their spread, too.
"""
TABLE: Final = """\
Put methods in one table: of each run on the test split the field's measures, their mean over the runs of a method and
their standard deviation. Below it stand the differences from the first method, with p of the paired bootstrap over
clips and over speakers, as `compare` tells them.
"""
EXPORT: Final = """\
Write a checkpoint as a folder. ONNX: the network, those of the extractors, labels, temperatures, the card, licences,
and example.py, which goes from a face, sound and words to what is published, with numpy and onnxruntime. .pt2: a
checkpoint with the network as torch.export has it, which `dhmd-live run` takes. Of a run on features: its network.
"""
EXAMPLES: Final = {
    name: f"examples:\n{lines}"
    for name, lines in {
        "prepare": """\
  dhmd-train prepare all --corpora DIR                         manifests of all corpora whose archives are in DIR
  dhmd-train prepare ravdess meld --corpora DIR --out data     some of them
""",
        "encoder": """\
  dhmd-train encoder vision --out encoders                     of the public corpora in data/
  dhmd-train encoder audio --out encoders --manifest my.csv    of your own sound
""",
        "extract": """\
  dhmd-train extract my.csv                                    features of every row
  dhmd-train extract talk.mcap --labels talk.csv               of a recorded session
  dhmd-train extract data/*.csv --encoders encoders --jobs 8   of the corpora, with extractors of your own
""",
        "compose": """\
  dhmd-train compose                                           of the public corpora in data/
  dhmd-train compose --manifest a.csv b.csv c.csv --out mine.npz
""",
        "fit": """\
  dhmd-train fit configs/finetune.yaml --manifest my.csv       from the checkpoint that ships
  dhmd-train fit configs/base.yaml --encoders encoders         from the corpora
  dhmd-train fit configs/base.yaml --resume                    go on after an interruption
  dhmd-train fit configs/mosi.yaml --features aligned_50.pkl --seeds 1111,1112,1113 --set losses.ort=0
""",
        "evaluate": """\
  dhmd-train evaluate                                          base, on the test splits of all corpora in data/
  dhmd-train evaluate --checkpoint runs/finetune/checkpoint --manifest my.csv --split all
""",
        "plot": """\
  dhmd-train plot --checkpoint runs/base/checkpoint --out figures
  dhmd-train plot --checkpoint runs/finetune --manifest my.csv --split all
""",
        "product": """\
  dhmd-train product runs/face/1 runs/voice/1 --run runs/product/1
""",
        "compare": """\
  dhmd-train compare runs/dhmd runs/product                    all runs below each folder
  dhmd-train compare 'runs/dhmd-[12]' runs/other/1             some of them
  dhmd-train compare runs/dhmd runs/product --split validation
""",
        "table": """\
  dhmd-train table runs/mosi runs/concatenation --format markdown
  dhmd-train table DHMD=runs/mosi 'no dictionary=runs/plain' --format latex
""",
        "export": """\
  dhmd-train export --out deploy                               the checkpoint that ships, for programs without torch
  dhmd-train export --checkpoint runs/mine --format pt2 --out mine
  dhmd-live run --checkpoint mine/network.pt2                  and run what was exported
""",
        "bench": """\
  dhmd-train bench                                             with CMU-MOSI's constants
  dhmd-train bench --config configs/mosi.yaml --threads 8
""",
    }.items()
}
"""By command."""


def parser() -> Parser:
    top = Parser(prog="dhmd-train", description=DESCRIPTION)
    top.add_argument("--version", action="version", version=f"dhmd-train {version('dhmd')}")
    commands: Commands = top.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")

    prepare = commands.add_parser(
        "prepare", help="unpack public corpora and write their manifests", epilog=EXAMPLES["prepare"]
    )
    prepare.add_argument(
        "corpus",
        nargs="+",
        choices=(*CORPORA, PAIRS, "all"),
        help=f"{', '.join(CORPORA)}, or all of these; or {PAIRS}, a file of features",
    )
    prepare.add_argument(
        "--corpora", metavar="DIR", type=Path, required=True, help="folder with the archives of the corpora"
    )
    prepare.add_argument(
        "--out", metavar="DIR", type=Path, default=DATA, help="folder for files and manifests (default: %(default)s)"
    )
    prepare.set_defaults(run=does.prepare)

    encoder = commands.add_parser(
        "encoder", help="train what the extractor of one modality learns", epilog=EXAMPLES["encoder"]
    )
    encoder.add_argument("modality", choices=[str(m) for m in Modality], help="which one")
    encoder.add_argument(
        "--out", metavar="DIR", type=Path, required=True, help="folder for MODALITY.safetensors and its report"
    )
    _add_manifests(encoder, "manifests with labelled images, sound or text, instead of the public corpora")
    _add_work(encoder)
    encoder.add_argument(
        "--languages",
        metavar="text.safetensors",
        type=Path,
        help="of text: one that reads many languages, taught by the English one with this adapter",
    )
    encoder.add_argument("--epochs", metavar="N", type=int, help="passes over the data")
    encoder.add_argument("--seed", metavar="N", type=int, help="seed of the initial weights and of the order")
    encoder.set_defaults(run=does.encoder)

    extract = commands.add_parser(
        "extract",
        help="make the features for training, once; resumes after an interruption",
        epilog=EXAMPLES["extract"],
    )
    extract.add_argument(
        "manifest", nargs="+", help="CSV, Parquet or a session (.mcap); NAME alone is NAME.csv in --data"
    )
    _add_data(extract)
    _add_labels(extract)
    _add_encoders(extract)
    _add_work(extract)
    extract.set_defaults(run=does.extract)

    compose = commands.add_parser(
        "compose",
        help="compose windows of strangers once, as a file of features to compare methods on",
        description="Compose windows of the words, the face and the voice of strangers who show the same emotion, and "
        "write them as one file of features, which `fit configs/composed.yaml --features FILE` reads.",
        epilog=EXAMPLES["compose"],
    )
    compose.add_argument(
        "--out",
        metavar="FILE.npz",
        type=Path,
        default=DATA / "composed.npz",
        help="file to write (default: %(default)s)",
    )
    compose.add_argument(
        "--windows", metavar="N", type=int, default=3000, help="windows to learn from (default: %(default)s)"
    )
    compose.add_argument(
        "--seed", metavar="N", type=int, default=1, help="seed of who is paired with whom (default: %(default)s)"
    )
    _add_manifests(compose, "manifests, instead of the public corpora")
    _add_encoders(compose)
    _add_work(compose)
    compose.set_defaults(run=does.compose)

    fit = commands.add_parser(
        "fit", help="train the recogniser, calibrate and measure it, write a checkpoint", epilog=EXAMPLES["fit"]
    )
    fit.add_argument("config", type=Path, help="YAML, such as configs/base.yaml")
    _add_manifests(fit, "manifests or sessions, instead of those of the configuration")
    _add_labels(fit)
    _add_encoders(fit)
    _add_work(fit)
    fit.add_argument(
        "--features", metavar="FILE", type=Path, help="feature file, for a configuration that asks for one"
    )
    fit.add_argument("--run", metavar="DIR", type=Path, dest="folder", help="folder of the run (default: runs/NAME)")
    fit.add_argument("--epochs", metavar="N", type=int, help="passes over the data, in place of the configuration's")
    fit.add_argument(
        "--seeds", metavar="N,N", type=_seeds, help="one run a seed, each in a folder of its own, and a table of all"
    )
    fit.add_argument(
        "--set",
        metavar="KEY=VALUE",
        type=_change,
        action="append",
        dest="changes",
        help="a value in place of the configuration's, such as network.d=30 or losses.ort=0; as often as it takes",
    )
    fit.add_argument("--resume", action="store_true", help="resume an interrupted run, to the same result")
    fit.set_defaults(run=does.fit)

    _add_measures(commands)
    return top


def _add_measures(commands: Commands) -> None:
    """The commands for what has been trained."""
    evaluate = commands.add_parser("evaluate", help="measure a checkpoint on test splits", epilog=EXAMPLES["evaluate"])
    _add_checkpoint(evaluate)
    evaluate.add_argument("--out", type=Path, metavar="FILE", help="also write the numbers to this file, as JSON")
    _add_manifests(evaluate, "what to measure on (default: all prepared corpora, and windows composed of them)")
    _add_split(evaluate)
    _add_labels(evaluate)
    _add_work(evaluate)
    _add_features(evaluate)
    evaluate.set_defaults(run=does.evaluate)

    plot = commands.add_parser(
        "plot", help="draw the figures of a checkpoint on the test splits, as PNG and SVG", epilog=EXAMPLES["plot"]
    )
    _add_checkpoint(plot)
    plot.add_argument(
        "--run", metavar="DIR", type=Path, dest="folder", help="its run, for the curves (default: the folder around it)"
    )
    plot.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("figures"), help="folder of the figures (default: %(default)s)"
    )
    _add_manifests(plot, "what to draw (default: all prepared corpora, and windows composed of them)")
    _add_split(plot)
    _add_labels(plot)
    _add_work(plot)
    _add_features(plot)
    plot.set_defaults(run=does.plot)

    _add_comparisons(commands)
    _add_table(commands)

    export = commands.add_parser(
        "export",
        help="write a folder that runs without this package: networks, labels, card, an example",
        description=EXPORT,
        epilog=EXAMPLES["export"],
    )
    _add_checkpoint(export)
    export.add_argument(
        "--format", choices=("onnx", "pt2"), default="onnx", dest="kind", help="of the network (default: %(default)s)"
    )
    export.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder to write, new or empty")
    export.set_defaults(run=does.export)

    bench = commands.add_parser(
        "bench", help="time a training step with the paper's constants on this machine", epilog=EXAMPLES["bench"]
    )
    bench.add_argument(
        "--config", metavar="FILE", type=Path, help="YAML of a run on sequences (default: CMU-MOSI's constants)"
    )
    bench.add_argument("--threads", metavar="N", type=int, default=2, help="threads of torch (default: %(default)s)")
    bench.add_argument("--steps", metavar="N", type=int, default=20, help="steps to time (default: %(default)s)")
    bench.set_defaults(run=does.bench)


def _add_comparisons(commands: Commands) -> None:
    """The commands for what runs said of each utterance."""
    product = commands.add_parser(
        "product",
        help="multiply what runs of one modality each say",
        description="Multiply the probabilities of runs that saw one modality each, calibrate the product on\n"
        "validation, and write predictions.csv and results.json as a run does: the fusion that any other has to beat.",
        epilog=EXAMPLES["product"],
    )
    product.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs on the same data, one a modality")
    product.add_argument("--run", metavar="DIR", type=Path, dest="folder", required=True, help="folder to write to")
    product.set_defaults(run=does.product)

    compare = commands.add_parser(
        "compare",
        help="tell whether one method is better than another",
        description=COMPARE,
        epilog=EXAMPLES["compare"],
    )
    where = "folder of a run, or of several; a predictions.csv; or a glob in quotes"
    compare.add_argument("a", metavar="A", help=where)
    compare.add_argument("b", metavar="B", help="the same, to compare with")
    compare.add_argument(
        "--split", choices=("validation", "test"), default="test", help="which utterances (default: %(default)s)"
    )
    compare.add_argument(
        "--draws", metavar="N", type=int, default=10_000, help="draws of the bootstrap (default: %(default)s)"
    )
    compare.set_defaults(run=does.compare)


def _add_table(commands: Commands) -> None:
    table = commands.add_parser(
        "table",
        help="put several methods in one table, each with its mean and spread over seeds",
        description=TABLE,
        epilog=EXAMPLES["table"],
    )
    table.add_argument("methods", nargs="+", metavar="METHOD", help="as of compare; NAME=METHOD gives it a name")
    table.add_argument(
        "--format", choices=("text", "markdown", "latex"), default="text", help="of the table (default: %(default)s)"
    )
    table.set_defaults(run=does.table)


def _add_checkpoint(command: Parser) -> None:
    command.add_argument(
        "--checkpoint",
        metavar="base|DIR",
        default="base",
        help="folder of a checkpoint or of a run, or a name that ships (default: %(default)s)",
    )


def _add_features(command: Parser) -> None:
    command.add_argument(
        "--features", metavar="FILE", type=Path, help="file of features of such a run (default: the one it was made of)"
    )


def _add_encoders(command: Parser) -> None:
    command.add_argument(
        "--encoders", metavar="DIR", type=Path, help="folder of the extractors' learned parts (default: base's)"
    )


def _add_data(command: Parser) -> None:
    command.add_argument(
        "--data", metavar="DIR", type=Path, default=DATA, help="folder of the manifests (default: %(default)s)"
    )


def _add_manifests(command: Parser, what: str) -> None:
    command.add_argument("--manifest", nargs="+", metavar="M", help=f"{what}; a path, or NAME for NAME.csv in --data")
    _add_data(command)


def _add_split(command: Parser) -> None:
    command.add_argument(
        "--split",
        choices=("train", "validation", "test", "all"),
        default="test",
        help="which rows of a manifest that has splits (default: %(default)s)",
    )


def _add_labels(command: Parser) -> None:
    command.add_argument(
        "--labels",
        metavar="FILE",
        type=Path,
        help="table with the session's labels (default: NAME.csv beside NAME.mcap, or its marks)",
    )


def _add_work(command: Parser) -> None:
    command.add_argument(
        "--cache", metavar="DIR", type=Path, default=Path("cache"), help="folder of features (default: %(default)s)"
    )
    command.add_argument("--jobs", metavar="N", type=int, help="processes that make features (default: one a core)")
    command.add_argument(
        "--address", metavar="URL", help="Ray cluster that makes features, such as auto (default: this machine)"
    )
    command.add_argument("--skip-bad", action="store_true", help="leave out faulty rows, and count them")


def _seeds(text: str) -> list[int]:
    """Raises ArgumentTypeError."""
    try:
        return [whole(part.strip(), 0, 2**31 - 1) for part in text.split(",")]
    except Untrusted as error:
        raise argparse.ArgumentTypeError(f"{error}; give seeds as in 1111,1112,1113") from None


def _change(text: str) -> tuple[str, Any]:
    """Read KEY=VALUE, the value as YAML has it. Raises ArgumentTypeError."""
    import yaml

    key, equals, value = text.partition("=")
    try:
        read = read_yaml_text(value)
    except (ValueError, yaml.YAMLError):
        key = ""
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{quoted(text)} is not KEY=VALUE, as in optimisation.epochs=5")
    return key.strip(), read
