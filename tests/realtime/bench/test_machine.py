"""The bench says what it ran on."""

from __future__ import annotations

from pathlib import Path

from realtime.bench.bench import machine


def test_instruction_sets_are_named_once(tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel name\t: A B\nflags\t\t: fpu avx2 avx512f avx512_vnni avx_vnni\n")
    assert machine(told).startswith("A B with AVX2/AVX-512/VNNI, ")


def test_a_system_that_tells_nothing(tmp_path: Path) -> None:
    assert " with " not in machine(tmp_path / "absent")
