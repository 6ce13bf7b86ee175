"""Fixtures for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference numbers, corpora and clips beside the repository; not part of it."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the folder 'shared' beside the repository ({SHARED})")
    return SHARED
