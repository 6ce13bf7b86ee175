from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from dhmd.machine import cores, processors

ALL = float(cores())


@pytest.mark.parametrize(
    ("membership", "files", "lent"),
    [
        ("0::/", {"cpu.max": "35000 100000"}, 0.35),
        ("0::/", {"cpu.max": "max 100000"}, ALL),
        ("0::/system.slice/dhmd.service", {"system.slice/dhmd.service/cpu.max": "20000 100000"}, 0.2),
        ("0::/pod/one", {"pod/cpu.max": "60000 100000", "pod/one/cpu.max": "max 100000"}, 0.6),
        ("0::/../elsewhere", {"cpu.max": "50000 100000"}, 0.5),
        (
            "4:memory:/a\n1:cpu,cpuacct:/a",
            {"cpu/a/cpu.cfs_quota_us": "70000", "cpu/a/cpu.cfs_period_us": "100000"},
            0.7,
        ),
        ("1:cpu:/docker/a", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, ALL),
        ("1:cpu:/docker/a", {"cpu/cpu.cfs_quota_us": "10000", "cpu/cpu.cfs_period_us": "20000"}, 0.5),
        ("0::/", {"cpu.max": "1000000 1000"}, ALL),
        ("0::/", {"cpu.max": "nonsense"}, ALL),
        ("", {}, ALL),
    ],
    ids=[
        "a container",
        "without a limit",
        "a service of systemd",
        "its parent's",
        "a path from outside",
        "the first version",
        "the first version, without a limit",
        "the first version, in a container",
        "more than there is",
        "not understood",
        "no groups",
    ],
)
def test_a_quota_of_a_control_group_counts(
    membership: str, files: Mapping[str, str], lent: float, tmp_path: Path
) -> None:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(membership)
    for name, text in files.items():
        file = tmp_path / "sys" / "fs" / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    assert processors(tmp_path) == pytest.approx(lent)


def test_where_the_system_does_not_tell_all_cores_count(tmp_path: Path) -> None:
    assert processors(tmp_path) == ALL
