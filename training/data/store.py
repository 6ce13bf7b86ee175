"""Extracted features on disk, found by what they were extracted from and by which extractor."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from dhmd.contract import FeatureSpec, Rows


def feature_key(digest: str, spec: FeatureSpec) -> str:
    """Name of the rows that the extractor of `spec` makes of the content with that digest."""
    described = spec.to_dict()
    # These say where rows stand in a window, not what they hold.
    for name in ("steps", "window_s", "absent_after_s"):
        del described[name]
    return hashlib.sha256(f"{digest} {json.dumps(described, sort_keys=True)}".encode()).hexdigest()


class FeatureStore:
    """One SQLite file of rows, values in half precision. What was committed survives a cut."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path, timeout=60)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("CREATE TABLE IF NOT EXISTS rows (key TEXT PRIMARY KEY, times BLOB, vectors BLOB)")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.commit()
        self._database.close()

    def put(self, key: str, rows: Rows) -> None:
        """Written at once. Raises ValueError for rows that are not finite."""
        self.put_all([(key, rows)])

    def put_all(self, named: Iterable[tuple[str, Rows]]) -> None:
        """All or, when cut, none."""
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", (_row(*one) for one in named))

    def get_all(self, keys: Sequence[str], width: int) -> list[Rows]:
        """Rows (N, width) for each key; KeyError where there are none."""
        return [self._get(key, width) for key in keys]

    def _get(self, key: str, width: int) -> Rows:
        found = self._database.execute("SELECT times, vectors FROM rows WHERE key = ?", (key,)).fetchone()
        if found is None:
            raise KeyError(key)
        vectors = np.frombuffer(found[1], np.float16).reshape(-1, width)
        return Rows(np.frombuffer(found[0], np.float64), vectors.astype(np.float32))

    def missing(self, keys: Iterable[str]) -> set[str]:
        """Those of `keys` that are not here."""
        wanted = set(keys)
        return wanted - {key for (key,) in self._database.execute("SELECT key FROM rows")}


def _row(key: str, rows: Rows) -> tuple[str, bytes, bytes]:
    vectors = rows.values.astype(np.float16)
    if not np.isfinite(vectors).all():
        raise ValueError("features are not finite, or too large for half precision")
    return key, rows.times_s.astype(np.float64).tobytes(), vectors.tobytes()
