"""Inputs of a command: manifests by path or name, the store of features, how to make what it lacks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from dhmd.checkpoint import Checkpoint
from dhmd.contract import FeatureSpec
from dhmd.modality import Modality
from dhmd.model import Head
from training.data.items import Example, Split, Utterance, is_session
from training.data.manifest import Manifest, read_manifests
from training.errors import ManifestInvalid, TooLittleData
from training.features.extract import STORE, Extraction, extract, kept
from training.features.extractors import ENCODERS
from training.features.store import FeatureStore

FEW: Final = 50
"""Utterances below which a training is hardly one."""


@dataclass(frozen=True, slots=True)
class Work:
    """Says where manifests and features lie, and who makes those that are missing; see `Extraction`."""

    data: Path
    cache: Path
    jobs: int | None
    address: str | None
    skip_bad: bool


@dataclass(frozen=True, slots=True)
class Inputs:
    """Manifests that were found faultless. A context manager: it closes the store."""

    manifests: tuple[Manifest, ...]
    store: FeatureStore
    work: Work

    @classmethod
    def of(
        cls, work: Work, names: Sequence[str], labels: Path | None = None, heads: Sequence[Head] | None = ()
    ) -> Self:
        """Read the manifests: paths, or NAME for NAME.csv or NAME.parquet in the folder of the data.

        labels: of the one session among them. heads: see `read_manifests`. Raises ManifestInvalid with all
        that is wrong with any of them.
        """
        paths = [_located(name, work.data) for name in dict.fromkeys(names)]
        sessions = sum(map(is_session, paths))
        if labels is not None and sessions != 1:
            raise ManifestInvalid(
                f"--labels are those of one session, and {sessions or 'none'} are named; "
                "put the labels of each beside it, of talk.mcap as talk.csv"
            )
        store = FeatureStore(work.cache / STORE)
        manifests = read_manifests(paths, store.files, labels=labels, skip_bad=work.skip_bad, heads=heads)
        for manifest in manifests:
            for note in manifest.notes:
                print(note, file=sys.stderr)
            if manifest.bad:
                print(f"{manifest.path}: {manifest.bad} rows with faults are left out", file=sys.stderr)
        return cls(tuple(manifests), store, work)

    @property
    def utterances(self) -> list[Utterance]:
        return [one for manifest in self.manifests for one in manifest.utterances]

    @property
    def sha256(self) -> dict[str, str]:
        """Digest of each manifest, by its name."""
        return {manifest.name: manifest.sha256 for manifest in self.manifests}

    def doubts(self) -> list[str]:
        """What a training on these has to be warned of, one line each."""
        train = [one for one in self.utterances if one.split is Split.TRAIN]
        named = {one.emotion for one in train if one.emotion is not None}
        lines = []
        if len(train) < FEW:
            lines.append(f"only {len(train)} utterances to train on; a network needs hundreds to learn from")
        if len(named) == 1:
            lines.append(
                f"every emotion to train on is {named.pop()!r}: nothing to tell it from is learned; add others"
            )
        missing = [split.value for split in Split if not any(one.split is split for one in self.utterances)]
        if missing:
            lines.append(f"no utterance is in the split {' or '.join(missing)}: what is learned is not measured there")
        return lines

    def only(self, split: Split | None, *, whole_without: bool = False) -> Self:
        """Leaves only the utterances of that split (None: all).

        whole_without: take a manifest whole that does not tell splits. Raises TooLittleData where none is left.
        """
        manifests = []
        for manifest in self.manifests:
            everything = split is None or (whole_without and not manifest.has_splits)
            chosen = tuple(one for one in manifest.utterances if everything or one.split is split)
            if whole_without and not chosen:
                raise TooLittleData(f"{manifest.path}: no row is of the split {split}; give another with --split")
            manifests.append(replace(manifest, utterances=chosen))
        return replace(self, manifests=tuple(manifests))

    def extraction(self, encoders: Path = ENCODERS) -> Extraction:
        return Extraction(encoders, self.work.jobs, self.work.address, self.work.skip_bad)

    def extract(self, encoders: Path | None = None) -> tuple[list[Example], dict[Modality, FeatureSpec]]:
        """See `training.features.extract.extract`."""
        utterances = self.utterances
        examples, specs = extract(utterances, self.store, self.extraction(encoders or ENCODERS))
        if len(examples) < len(utterances):
            print(f"{len(utterances) - len(examples)} rows with truncated files are left out", file=sys.stderr)
        return examples, specs

    def examples(self, checkpoint: Checkpoint) -> list[Example]:
        """Examples with the features that a checkpoint eats. Raises ContractMismatch."""
        examples, specs = self.extract(checkpoint.folder)
        for modality, spec in checkpoint.features.items():
            spec.require(specs[modality])
        return examples

    def kept(self, checkpoint: Checkpoint) -> list[Example]:
        """Examples with the features that a checkpoint eats, of what was extracted before."""
        return kept(self.utterances, self.store, checkpoint.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()


def _located(name: str, data: Path) -> Path:
    candidates = [Path(name), data / f"{name}.csv", data / f"{name}.parquet"]
    for path in candidates:
        if path.is_file():
            return path
    if Path(name).suffix:
        raise ManifestInvalid(f"{name}: no such file; name a CSV or Parquet table of labelled utterances, or a session")
    raise ManifestInvalid(
        f"no manifest is called {name!r} in {data}: `dhmd-train prepare {name}` writes that of a public corpus; "
        "name the folder of the manifests with --data"
    )
