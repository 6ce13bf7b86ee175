"""A checkpoint: weights, what they eat, how sure they are, and a card for people.

A folder with `config.json` (network, features, calibration, sha256 of the weights), `model.safetensors` (weights and
normaliser statistics), one file a modality of what its extractor has learned (`text.safetensors`,
`vision.safetensors`, `audio.safetensors`) and `README.md` (model card). Never pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

from dhmd.contract import ENGLISH, FeatureSpec
from dhmd.errors import DHMDError
from dhmd.modality import Modality
from dhmd.model import DHMD, DHMDConfig, Head
from dhmd.untrusted import number, quoted, read_json_object, shown, texts

FORMAT = 1
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CARD = "README.md"
PROGRAM = "network.pt2"
"""The network as torch.export wrote it, in a checkpoint's folder that has it so, too."""
PROGRAM_SUFFIX = ".pt2"
CONTRACT = "dhmd.json"
"""Name of what an exported network says of itself: a file beside it, a key of ONNX's metadata, an extra of a `.pt2`."""
INNER = "checkpoint"
"""Folder of the checkpoint in that of the run that made it."""
PRETRAINED = Path(__file__).parent / "pretrained"


def encoder_path(folder: Path, modality: Modality) -> Path:
    """The file of what the extractor of a modality has learned, in a checkpoint's folder or one of encoders alone."""
    return folder / f"{modality}.safetensors"


VOUCHED_FOR = (WEIGHTS, *(encoder_path(Path(), m).name for m in Modality))
"""Files whose digests the configuration holds."""


class CheckpointInvalid(DHMDError):
    """A checkpoint is missing, incomplete, damaged, or of another format."""


def subset_name(present: Iterable[Modality]) -> str:
    """The name of a set of modalities, whatever its order: "text+vision"."""
    chosen = set(present)
    return "+".join(m for m in Modality if m in chosen)


def own_calibration(head: Head, subset: str) -> str:
    """The name under which a head of the checkpoint's own is calibrated for a set of modalities."""
    return f"{head.name}: {subset}"


@dataclass(frozen=True, slots=True)
class Calibration:
    """Measured on validation data for each subset of modalities, by `subset_name`; of other heads than emotion and
    sentiment by `own_calibration`.

    temperature: the emotion scores are divided by it before the softmax (Guo et al. 2017).
    sentiment_half_width: 80 % of the true sentiments lie within this distance of the estimate.
    """

    temperature: Mapping[str, float] = field(default_factory=dict)
    sentiment_half_width: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Calibration:
        """Read a calibration that others wrote. Raises ValueError, TypeError, KeyError or AttributeError."""
        return cls(
            {subset: number(value, 1e-3, 1e3) for subset, value in data["temperature"].items()},
            {subset: number(value, 0.0, 1e3) for subset, value in data["sentiment_half_width"].items()},
        )


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model ready to run, with its contract."""

    name: str
    digest: str
    """First 12 hex digits of the sha256 over configuration and weights."""
    folder: Path
    model: DHMD
    features: Mapping[Modality, FeatureSpec]
    calibration: Calibration
    training: Mapping[str, Any]
    program: Path | None = None
    """The file to run in place of the network's own code: its network as torch.export wrote it."""
    languages: tuple[str, ...] = (ENGLISH,)
    """Those in which its words were tested."""
    beside: Path | None = None
    """Folder of the checkpoint whose files it shares where it has none of its own."""

    def encoder(self, modality: Modality) -> Path:
        """The file of what the extractor of a modality has learned."""
        own = encoder_path(self.folder, modality)
        return own if self.beside is None or own.is_file() else encoder_path(self.beside, modality)


def locate(name_or_folder: str | Path) -> Path:
    """A folder that exists, alone or in that of its run, that of a `.pt2` in it, or the name of a checkpoint that ships
    with the package."""
    given = Path(name_or_folder)
    if given.suffix == PROGRAM_SUFFIX and given.is_file():
        given = given.parent
    for folder in (PRETRAINED / name_or_folder, given / INNER, given):
        if (folder / CONFIG).is_file():
            return folder
    names = ", ".join(shipped()) or "none"
    raise CheckpointInvalid(
        f"no checkpoint at {name_or_folder}: give a folder that holds {CONFIG}, or one that ships here ({names})"
    )


def shipped() -> dict[str, str]:
    """Name -> digest of each checkpoint that comes with the package."""
    configs = sorted(PRETRAINED.glob(f"*/{CONFIG}"))
    return {path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest()[:12] for path in configs}


def load(name_or_folder: str | Path) -> Checkpoint:
    """Load and verify. Raises CheckpointInvalid, naming the file and what is wrong with it."""
    folder = locate(name_or_folder)
    with _readable(folder / CONFIG):
        text = (folder / CONFIG).read_bytes()
        config = read_json_object(text)
        if "format" not in config and isinstance(config.get("features"), str):
            raise CheckpointInvalid(
                f"{folder} is a run on a file of features, which nothing makes live; `dhmd-train evaluate`, `plot`, "
                "`compare`, `table` and `export` read it"
            )
        if "format" not in config and "manifests" in config:
            raise CheckpointInvalid(
                f"{folder} is a run that is not finished, so without a checkpoint: go on with `dhmd-train fit`, the "
                "same manifests, and --resume"
            )
        if config["format"] != FORMAT:
            raise CheckpointInvalid(
                f"{folder / CONFIG}: format {quoted(config['format'])}, this version reads {FORMAT}; "
                "take a checkpoint of this version"
            )
        expected = {file: str(config["sha256"][file]) for file in VOUCHED_FOR}
        beside = PRETRAINED / config["beside"] if config.get("beside") in shipped() else None
    place = {file: folder / file if beside is None or (folder / file).is_file() else beside / file for file in expected}
    for file, digest in expected.items():
        if not place[file].is_file():
            raise CheckpointInvalid(f"{folder / file} is missing; fetch the checkpoint again")
        if (found := hashlib.sha256(place[file].read_bytes()).hexdigest()) != digest:
            hint = f"sha256 {found[:12]}..., expected {shown(digest[:12])}...; fetch it again"
            raise CheckpointInvalid(f"{place[file]} is damaged: {hint}")
    with _readable(folder / CONFIG):
        network = DHMDConfig.from_dict(config["model"])
        if 2 * network.least_weights > place[WEIGHTS].stat().st_size:
            # It would be made before they are read.
            raise CheckpointInvalid(f"{folder / WEIGHTS} does not fit {CONFIG}: it is too small; fetch both again")
        checkpoint = Checkpoint(
            name=texts({"name": config["name"]})["name"],
            digest=hashlib.sha256(text).hexdigest()[:12],
            folder=folder,
            model=DHMD(network),
            features={m: FeatureSpec.from_dict(config["features"][m]) for m in Modality},
            calibration=Calibration.from_dict(config["calibration"]),
            training=dict(config["training"]),
            program=Path(name_or_folder) if Path(name_or_folder).suffix == PROGRAM_SUFFIX else None,
            languages=tuple(texts({code: code for code in config.get("languages", (ENGLISH,))})),
            beside=beside,
        )
    try:
        checkpoint.model.load_state_dict(safetensors.torch.load_file(place[WEIGHTS]))
    except (RuntimeError, SafetensorError) as error:
        raise CheckpointInvalid(
            f"{folder / WEIGHTS} does not fit {CONFIG}: {str(error).splitlines()[0]}; fetch both again"
        ) from error
    checkpoint.model.eval()
    return checkpoint


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say of what is raised inside, for people, that the configuration is damaged."""
    try:
        yield
    except KeyError as error:
        raise CheckpointInvalid(f"{path} is incomplete: {quoted(error.args[0])} is missing; fetch it again") from error
    except (TypeError, ValueError, AttributeError, OSError) as error:
        raise CheckpointInvalid(f"{path} is damaged: {shown(str(error))}; fetch it again") from error


def save(
    folder: Path,
    *,
    name: str,
    model: DHMD,
    features: Mapping[Modality, FeatureSpec],
    calibration: Calibration,
    training: Mapping[str, Any],
    card: str,
) -> None:
    """Write a checkpoint; the encoders' files must lie in the folder. The configuration is written last, so a folder
    that was cut while being written does not load as if it were whole."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    write_atomically(folder / WEIGHTS, safetensors.torch.save(state))
    config = {
        "format": FORMAT,
        "name": name,
        "model": model.config.to_dict(),
        "features": {m: spec.to_dict() for m, spec in features.items()},
        "calibration": asdict(calibration),
        "training": dict(training),
        "sha256": {file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in VOUCHED_FOR},
    }
    write_atomically(folder / CARD, card)
    write_atomically(folder / CONFIG, json.dumps(config, indent=1) + "\n")


def save_beside(folder: Path, shared: str, text: FeatureSpec, languages: Sequence[str]) -> None:
    """Make `folder`, which holds a text.safetensors of its own, a checkpoint that is otherwise the one that ships as
    `shared`: it reads words of `languages`, by an encoder whose rows mean the same."""
    config = read_json_object(PRETRAINED / shared / CONFIG)
    own = encoder_path(folder, Modality.TEXT)
    config["name"] = folder.name
    config["beside"] = shared
    config["languages"] = list(languages)
    config["features"][Modality.TEXT] = text.to_dict()
    config["sha256"][own.name] = hashlib.sha256(own.read_bytes()).hexdigest()
    write_atomically(
        folder / CARD,
        f"# {folder.name}: {shared}, with words in other languages\n\n"
        f"All of it is `{shared}`, whose card says how it was trained, how good it is and what it is not for; its "
        "weights are read from there.\nIts own is `text.safetensors`, a map of the vectors of "
        f"{', '.join(name for name in text.weights if name != own.name)} onto those that `{shared}` reads, and "
        f"`text.json` says how\nit was learned. Words are read in the languages in which that was tested: "
        f"{', '.join(languages)}. See docs/languages.md for the measures.\n",
    )
    write_atomically(folder / CONFIG, json.dumps(config, indent=1) + "\n")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file in one step: readers see the old content or the new, never a part, and so does the disk after a
    power cut. Raises OSError, with the old file as it was and nothing left beside it."""
    data = content.encode() if isinstance(content, str) else content
    scratch: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            scratch = Path(file.name)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.chmod(0o644)
        scratch.replace(path)
    except BaseException:
        if scratch is not None:
            scratch.unlink(missing_ok=True)
        raise
    if sys.platform != "win32":  # which opens no folders
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
