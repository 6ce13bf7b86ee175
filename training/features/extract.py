"""Features of labelled utterances, made once by the extractors that also run live, and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from dhmd.contract import ContractMismatch, FeatureSpec
from dhmd.modality import Modality
from dhmd.session import Session, schema
from training.data.items import Example, Utterance
from training.data.manifest import refuse
from training.data.media import Kind
from training.features.extractors import ENCODERS, LazyExtractors
from training.features.face_images import FaceImages
from training.features.pieces import Piece, Recipe, piece_of, recipe_of
from training.features.spread import make
from training.features.store import FeatureStore
from training.progress import bar

STORE: Final = "features.sqlite"
"""The file of the store in the folder of the cache."""


@dataclass(frozen=True, slots=True)
class Extraction:
    """Says how features are made. encoders, jobs, address: see `training.features.spread.make`.

    skip_bad: go on without utterances whose files turn out to be unreadable.
    """

    encoders: Path = ENCODERS
    jobs: int | None = None
    address: str | None = None
    skip_bad: bool = False


def extract(
    utterances: Sequence[Utterance], store: FeatureStore, extraction: Extraction
) -> tuple[list[Example], dict[Modality, FeatureSpec]]:
    """Every utterance with its rows, in order, and the specs of the extractors; only what the store lacks is extracted.

    Raises ContractMismatch for sessions recorded with other extractors; ManifestInvalid when files turn out to be
    unreadable, after everything else was extracted and kept.
    """
    specs = LazyExtractors(extraction.encoders).specs()
    pieces = _pieces(utterances, store, specs)
    faulty = _make((piece for own in pieces for piece in own.values()), store, extraction)
    return _examples(utterances, pieces, store, specs, faulty), specs


def kept(utterances: Sequence[Utterance], store: FeatureStore, encoders: Path) -> list[Example]:
    """Those whose rows are all in the store already; nothing is extracted. Raises ContractMismatch."""
    specs = LazyExtractors(encoders).specs()
    pieces = _pieces(utterances, store, specs)
    lacking = set(store.missing({piece.key for own in pieces for piece in own.values()}))
    return _examples(utterances, pieces, store, specs, lacking)


def _pieces(
    utterances: Sequence[Utterance], store: FeatureStore, specs: Mapping[Modality, FeatureSpec]
) -> list[dict[Modality, Piece]]:
    """What is to be made of each utterance. Raises ContractMismatch."""
    _check_sessions(utterances, specs)
    digest_of = _digests(utterances, store)
    pieces: list[dict[Modality, Piece]] = []
    for one in utterances:
        recipes = {m: recipe_of(one, m) for m in Modality}
        pieces.append({m: piece_of(one, r, digest_of, specs[m]) for m, r in recipes.items() if r is not None})
    return pieces


def _examples(
    utterances: Sequence[Utterance],
    pieces: Sequence[Mapping[Modality, Piece]],
    store: FeatureStore,
    specs: Mapping[Modality, FeatureSpec],
    lacking: AbstractSet[str],
) -> list[Example]:
    """The utterances with their rows, but for those of which a piece is lacking, by its key."""
    examples = []
    for one, own in zip(utterances, pieces, strict=True):
        if not any(piece.key in lacking for piece in own.values()):
            rows = {m: store.get(piece.key, specs[m].width) for m, piece in own.items()}
            examples.append(Example(one, {m: found for m, found in rows.items() if len(found)}))
    return examples


def face_images(utterances: Sequence[Utterance], store: FeatureStore, extraction: Extraction) -> FaceImages:
    """The crops of all stills with an emotion; only those that the store lacks are looked at."""
    digest_of = _digests(utterances, store)
    stills = [one for one in utterances if one.image is not None and one.emotion is not None]
    pieces = [piece_of(one, Recipe.SIGHT, digest_of) for one in stills]
    _make((piece for piece in pieces if store.seen(piece.sight_key) is None), store, extraction)
    seen = [(one, store.seen(piece.sight_key)) for one, piece in zip(stills, pieces, strict=True)]
    return FaceImages.of([(one, sight) for one, sight in seen if sight is not None and sight.crop is not None])


def _check_sessions(utterances: Sequence[Utterance], specs: Mapping[Modality, FeatureSpec]) -> None:
    """Raises ContractMismatch. Words are read again: whose text encoder was live does not matter."""
    lines = []
    for path in dict.fromkeys(one.session for one in utterances if one.session is not None):
        recorded = Session.open(path).features
        differing = {m: recorded[m].differences(specs[m], "session") for m in schema.FEATURES}
        if sides := "; ".join(f"{m}: {what}" for m, what in differing.items() if what):
            lines.append(
                f"{path}: recorded with other extractors than those at hand ({sides}); "
                "name the encoders of its checkpoint, or record it with this one"
            )
    if lines:
        raise ContractMismatch("\n".join(lines))


def _digests(utterances: Sequence[Utterance], store: FeatureStore) -> Callable[[Kind, Path], str]:
    """sha256 of the content of every file that they name."""
    named = [(kind, path) for one in utterances for kind in Kind if (path := getattr(one, kind)) is not None]
    found = store.files.look(named)
    return lambda kind, path: found[kind, path].digest


def _make(pieces: Iterable[Piece], store: FeatureStore, extraction: Extraction) -> set[str]:
    """Extract and keep what the store lacks. Returns the keys of the pieces that could not be made."""
    named = {piece.key: piece for piece in pieces}
    # In the order of their hashes: what a cut run leaves behind is a fair draw of every corpus. Only sessions are read
    # one by one.
    order = sorted(store.missing(named), key=lambda key: (str(named[key].utterance.session or ""), key))
    work = [named[key] for key in order]
    work = [replace(piece, seen=store.seen(piece.sight_key)) if piece.sight_key else piece for piece in work]
    faults: dict[str, str] = {}
    with bar("pieces", hidden=not work) as progress:
        task = progress.add_task("Features", total=len(work))
        for made in make(work, extraction.encoders, extraction.jobs, extraction.address):
            if made.fault is None:
                seen = {} if made.seen is None else {made.piece.sight_key: made.seen}
                store.put({} if made.rows is None else {made.piece.key: made.rows}, seen)
            else:
                faults[made.piece.key] = f"{made.piece.utterance.id}: {made.fault}"
            progress.advance(task)
    if not extraction.skip_bad:
        refuse(list(faults.values()), "repair these files, or leave them out with --skip-bad")
    return set(faults)
