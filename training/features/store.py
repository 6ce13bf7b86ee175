"""Extracted features on disk, found by what they were extracted from and by which extractor."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Self

import numpy as np

from dhmd.contract import FeatureSpec, Rows
from training.data.files import Files
from training.features.face_images import SIDE, Sight

_TABLES: Final = (
    "rows (key TEXT PRIMARY KEY, times BLOB, vectors BLOB)",
    "seen (key TEXT PRIMARY KEY, found INTEGER, crop BLOB, measures BLOB)",
)


def feature_key(digest: str, spec: FeatureSpec) -> str:
    """Name of the rows that the extractor of `spec` makes of the content with that digest."""
    described = spec.to_dict()
    # These say where rows stand in a window, not what they hold.
    for name in ("steps", "window_s", "absent_after_s"):
        del described[name]
    return hashlib.sha256(f"{digest} {json.dumps(described, sort_keys=True)}".encode()).hexdigest()


class FeatureStore:
    """One SQLite file: rows, values in half precision; crops of faces in stills; which files were readable.

    What was committed survives a cut. One process writes; it may be read from several.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path, timeout=60)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")  # many small commits, without waiting for the disk
        for table in _TABLES:
            self._database.execute(f"CREATE TABLE IF NOT EXISTS {table}")
        self.files = Files(self._database)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Commit and close."""
        self._database.commit()
        self._database.close()

    def put(self, rows: Mapping[str, Rows], seen: Mapping[str, Sight] | None = None) -> None:
        """Rows and seen stills by key; all or, when cut, none. Raises ValueError for rows that are not finite."""
        with self._database:
            named = (_row(key, one) for key, one in rows.items())
            self._database.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", named)
            for key, one in (seen or {}).items():
                crop = None if one.crop is None else one.crop.tobytes()
                sight = key, int(one.found), crop, one.measures.astype(np.float32).tobytes()
                self._database.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?)", sight)

    def get(self, key: str, width: int) -> Rows:
        """Rows (N, width); KeyError where there are none."""
        found = self._database.execute("SELECT times, vectors FROM rows WHERE key = ?", (key,)).fetchone()
        if found is None:
            raise KeyError(key)
        vectors = np.frombuffer(found[1], np.float16).reshape(-1, width)
        return Rows(np.frombuffer(found[0], np.float64), vectors.astype(np.float32))

    def missing(self, keys: Iterable[str]) -> set[str]:
        """The ones of `keys` under which no rows are kept."""
        wanted = set(keys)
        return wanted - {key for (key,) in self._database.execute("SELECT key FROM rows")}

    def seen(self, key: str) -> Sight | None:
        """Returns what the landmarker saw in a still, if it was looked at."""
        found = self._database.execute("SELECT found, crop, measures FROM seen WHERE key = ?", (key,)).fetchone()
        if found is None:
            return None
        crop = None if found[1] is None else np.frombuffer(found[1], np.uint8).reshape(SIDE, SIDE)
        return Sight(crop, bool(found[0]), np.frombuffer(found[2], np.float32))


def _row(key: str, rows: Rows) -> tuple[str, bytes, bytes]:
    vectors = rows.values.astype(np.float16)
    if not np.isfinite(vectors).all():
        raise ValueError("features are not finite, or too large for half precision")
    return key, rows.times_s.astype(np.float64).tobytes(), vectors.tobytes()
