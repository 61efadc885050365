"""Runs with portable kernels give the digests that are written down, on other processors too."""

from __future__ import annotations

import json
import re
from typing import Any, get_args, get_type_hints

import pytest

import models
from tests.conftest import REPOSITORY
from tests.golden import cases, running
from tests.models.test_families import LARGER
from trainer.config.augmentations import TRANSFORMS
from trainer.config.schema import DataConfig, Interpolation, LossName
from trainer.data.augment import list_transforms, short_form

WRITTEN: dict[str, Any] = json.loads(running.FILE.read_text())
DIGESTS: dict[str, str] = WRITTEN["digests"]

EMULATED = [
    "train.lab_cnn.adam",
    "train.quicknet.muon",
    "train.resnet_d.sgd",
    "feature.mixup",
    "feature.scaling_per_pixel",
    "schedule.cosine",
    "transform.erase",
    "transform.crop",
    "list.colour_jitter",
    "list.rotate",
    "picture.bilinear",
    "distillation",
]
"""what is computed on an emulated processor in seconds; the others by python -m tests.golden"""

of_these_versions = pytest.mark.skipif(
    running.versions() != WRITTEN["versions"], reason="the digests are of other versions"
)


def test_every_part_of_a_run_has_a_digest() -> None:
    """After adding one: python -m tests.golden --write, which must change no other digest."""
    assert sorted([*cases.FAMILIES, *LARGER]) == models.names()
    assert set(cases.LIST_TRANSFORMS) == set(list_transforms.TABLE)
    assert set(TRANSFORMS) == set(short_form.TABLE)
    assert set(cases.INTERPOLATIONS) == set(get_args(Interpolation))
    assert set(cases.LOSSES) == set(get_args(LossName))
    assert set(cases.ORDERS) == set(get_args(get_type_hints(DataConfig)["sampling"]))
    assert list(DIGESTS) == cases.names()


def test_the_digests_are_of_the_pinned_versions() -> None:
    pins = dict(
        re.findall(r"^([\w-]+)==(\S+)", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    )
    for name, version in WRITTEN["versions"].items():
        assert version.partition("+")[0] == pins[name], "python -m tests.golden --write"


def differing(found: dict[str, str]) -> list[str]:
    return [name for name, digest in found.items() if digest != DIGESTS[name]]


@of_these_versions
def test_here() -> None:
    found = running.compute(list(DIGESTS))
    assert differing(found) == []
    assert list(found) == list(DIGESTS)


@of_these_versions
def test_with_other_functions_of_the_c_library_and_of_the_jpeg_decoder() -> None:
    """Those for older processors, of which the JPEG decoder's are in plain C."""
    variables = {
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-FMA,-FMA4,-AVX2",
        "JSIMD_FORCENONE": "1",
    }
    groups = ("feature", "schedule", "transform", "list", "picture")
    found = running.compute([name for name in DIGESTS if name.split(".")[0] in groups], **variables)
    assert differing(found) == []


@of_these_versions
@pytest.mark.skipif(not running.has_emulator(), reason=f"{running.EMULATOR} is not installed")
def test_on_an_emulated_processor_of_the_other_maker() -> None:
    """Whose libraries choose other code, as without AVX-512; `test_here` is by this one's."""
    found = running.compute(EMULATED, running.of_the_other_maker())
    assert differing(found) == []
    assert list(found) == EMULATED
