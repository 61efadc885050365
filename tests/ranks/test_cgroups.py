"""What control groups of both versions leave to a process."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from trainer.ranks import cgroups, processes


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path / "cgroup")
    monkeypatch.setattr(cgroups, "MEMBERSHIP", tmp_path / "membership")
    return tmp_path / "cgroup"


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_no_groups_no_limits(mount: Path) -> None:
    assert cgroups.cpu_quota() is None
    assert cgroups.available_memory_bytes() > 0


def test_version_2_takes_the_tightest_of_the_groups_around(mount: Path) -> None:
    put(mount.parent / "membership", "0::/job/step\n")
    put(mount / "job/cpu.max", "150000 100000")
    put(mount / "job/step/cpu.max", "max 100000")
    put(mount / "job/memory.max", "1000000")
    put(mount / "job/memory.current", "900000")
    put(mount / "job/memory.stat", "anon 1\ninactive_file 200000\n")
    put(mount / "job/step/memory.max", "max")
    put(mount / "job/step/memory.current", "900000")
    assert cgroups.cpu_quota() == 1.5
    assert cgroups.available_memory_bytes() == 300_000


def test_version_1(mount: Path) -> None:
    put(mount.parent / "membership", "4:memory:/box\n3:cpu,cpuacct:/box\n0::/\n")
    put(mount / "cpu/box/cpu.cfs_quota_us", "200000")
    put(mount / "cpu/box/cpu.cfs_period_us", "100000")
    put(mount / "cpu/cpu.cfs_quota_us", "-1")
    put(mount / "cpu/cpu.cfs_period_us", "100000")
    put(mount / "memory/box/memory.limit_in_bytes", "1000000")
    put(mount / "memory/box/memory.usage_in_bytes", "400000")
    put(mount / "memory/memory.limit_in_bytes", "9223372036854771712")
    put(mount / "memory/memory.usage_in_bytes", "400000")
    assert cgroups.cpu_quota() == 2.0
    assert cgroups.available_memory_bytes() == 600_000


def test_in_a_container_whose_group_has_another_name_inside(mount: Path) -> None:
    put(mount.parent / "membership", "0::/../outer/name\n")
    put(mount / "cpu.max", "100000 100000")
    assert cgroups.cpu_quota() == 1.0


def test_more_than_the_limit_in_use_leaves_nothing(mount: Path) -> None:
    put(mount.parent / "membership", "0::/\n")
    put(mount / "memory.max", "1000")
    put(mount / "memory.current", "5000")
    assert cgroups.available_memory_bytes() == 0


def test_swap_space_is_that_of_the_container(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(free=500_000))
    put(mount.parent / "membership", "4:memory:/box\n0::/pod\n")
    assert cgroups.available_swap_bytes() == 500_000
    put(mount / "pod/memory.swap.max", "max")
    put(mount / "pod/memory.swap.current", "0")
    assert cgroups.available_swap_bytes() == 500_000
    # Version 1 counts swap space and memory together.
    sizes = {"limit": 10**6, "usage": 900_000, "memsw.limit": 1_400_000, "memsw.usage": 10**6}
    for name, size in sizes.items():
        put(mount / f"memory/box/memory.{name}_in_bytes", str(size))
        put(mount / f"memory/memory.{name}_in_bytes", "9223372036854771712")
    assert cgroups.available_swap_bytes() == 300_000
    put(mount / "pod/memory.swap.max", "0")
    assert cgroups.available_swap_bytes() == 0


@pytest.mark.parametrize(("quota", "cores"), [("50000", 1), ("100000", 1), ("max", None)])
def test_threads_go_by_the_quota(mount: Path, quota: str, cores: int | None) -> None:
    put(mount.parent / "membership", "0::/\n")
    put(mount / "cpu.max", f"{quota} 100000")
    allowed = len(psutil.Process().cpu_affinity())
    assert processes.usable_cores() == (cores or allowed)
