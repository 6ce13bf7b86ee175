"""The folder that `dhmd-train export` writes.

ONNX: all that a program needs which has neither this package nor torch. `.pt2`: a checkpoint that runs live by the
program in it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import dhmd
from dhmd.assets.store import asset_named, fetch
from dhmd.checkpoint import CARD, CONFIG, CONTRACT, PROGRAM, VOUCHED_FOR, Checkpoint
from dhmd.features.landmarks import BLENDSHAPES, POSE
from dhmd.features.speech import SPEECH_ASSET, silero_path
from dhmd.features.text import DEFAULT_ENCODER
from training.export.network import Exported, ExportFailed, write_network
from training.export.perception import parts_of
from training.progress import followed

EXAMPLE: Final = "example.py"
PLAIN: Final = (
    "__init__.py",
    "contract.py",
    "errors.py",
    "features/__init__.py",
    "features/prosody.py",
    "features/timeline.py",
    "influence.py",
    "labels.py",
    "modality.py",
    "untrusted.py",
)
"""Files of `dhmd` that need numpy at most; the example uses them as they are."""
NOT_INSIDE: Final = {
    "face-landmarker": "finds the face and gives blendshapes and pose",
    SPEECH_ASSET: "hears the words",
}
"""Assets that a live run has, too, and which are no ONNX."""
NOTICE: Final = """\
What lies here, and under which licence

example.py, dhmd/                Apache-2.0, see LICENSE
network.onnx, face.onnx          learned for the checkpoint; README.md names the corpora and their conditions
voice.onnx                       lower layers of Whisper tiny.en, (c) 2022 OpenAI, MIT, adapted for the checkpoint
voice_activity.onnx              Silero VAD, (c) 2020-present Silero Team, MIT, unchanged
words.onnx                       all-MiniLM-L6-v2, sentence-transformers, Apache-2.0, adapted for the checkpoint
tokenizer.json                   of all-MiniLM-L6-v2, Apache-2.0, unchanged

The MIT licence of Whisper and Silero VAD:

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def export_checkpoint(checkpoint: Checkpoint, kind: str, out: Path) -> float:
    """Write the folder of a checkpoint in one of `FORMATS`. Returns the greatest distance of a number from what the
    networks say. Raises ExportFailed, LibraryMissing, AssetUnavailable; then nothing is written."""
    exported = Exported.of(checkpoint)
    with _new(out) as folder:
        if kind == "pt2":
            for file in (CARD, CONFIG, *VOUCHED_FOR):
                shutil.copyfile(checkpoint.folder / file, folder / file)
            return write_network(exported, kind, folder / PROGRAM)
        contract, parts = dict(exported.contract), parts_of(checkpoint)
        files = {"network.onnx": "windows and masks in the order of `inputs` -> the numbers that `columns` names"}
        files |= {part.file: f"{part.what}; {part.licence}" for part in parts}
        writing = [partial(write_network, exported, kind, folder / "network.onnx")]
        writing += [partial(part.write, folder) for part in parts]
        distances = [write() for write in followed(writing, "Networks", "networks")]
        files["voice_activity.onnx"] = "Silero VAD: whether somebody speaks, see example.py; MIT"
        shutil.copyfile(silero_path(), folder / "voice_activity.onnx")
        files["tokenizer.json"] = "of words.onnx; Apache-2.0"
        shutil.copyfile(fetch(DEFAULT_ENCODER) / "tokenizer.json", folder / "tokenizer.json")
        shutil.copyfile(checkpoint.folder / CARD, folder / CARD)
        shutil.copyfile(Path(__file__).parent / EXAMPLE, folder / EXAMPLE)
        for name in PLAIN:
            (folder / "dhmd" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(dhmd.__file__).parent / name, folder / "dhmd" / name)
        contract |= {"blendshapes": list(BLENDSHAPES), "pose": list(POSE), "not_inside": _not_inside()}
        _describe(folder, contract, files)
        (folder / "NOTICE").write_text(NOTICE, encoding="utf-8")
    return max(distances)


def export_run(exported: Exported, kind: str, out: Path) -> float:
    """Write the folder of a run on a file of features, whose extractors are others': its network and contract."""
    with _new(out) as folder:
        name = f"network.{kind}"
        distance = write_network(exported, kind, folder / name)
        _describe(folder, dict(exported.contract), {name: "sequences and masks, text, vision, audio -> what it says"})
    return distance


def _describe(folder: Path, contract: Mapping[str, Any], files: Mapping[str, str]) -> None:
    described = {
        name: {"what": what, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}
        for name, what in files.items()
    }
    (folder / CONTRACT).write_text(json.dumps({**contract, "files": described}, indent=1) + "\n", encoding="utf-8")
    (folder / "LICENSE").write_text(
        metadata.distribution("dhmd").read_text("licenses/LICENSE") or "Apache-2.0\n", encoding="utf-8"
    )


def _not_inside() -> dict[str, Any]:
    """Assets by name: what for, under which licence, and what their files must be."""
    return {
        name: {
            "what": what,
            "licence": asset_named(name).licence,
            "sha256": {file.name: file.sha256 for file in asset_named(name).files},
        }
        for name, what in NOT_INSIDE.items()
    }


@contextmanager
def _new(out: Path) -> Iterator[Path]:
    """A folder that takes this place once all is in it. Raises ExportFailed."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportFailed(f"{out} is there already: remove it, or name another folder with --out")
    if not out.parent.is_dir():
        raise ExportFailed(f"{out.parent} is not a folder: create it, or name another folder with --out")
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as scratch:
        folder = Path(scratch) / "export"
        folder.mkdir()
        yield folder
        if out.exists():
            out.rmdir()
        folder.rename(out)
