"""`timm:NAME`: the real package in a process of its own, and messages where it is missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import models
from tests.with_timm import run_with_timm


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of each attempt; one process for all, because importing timm takes seconds."""
    attempts: dict[str, tuple[str, dict[str, Any]]] = {
        "plain": ("timm:resnet18", {}),
        "with argument": ("timm:resnet18", {"stem_width": 32, "stem_type": "deep"}),
        "unknown name": ("timm:resnet188", {}),
        "unknown argument": ("timm:resnet18", {"dropuot": 0.1}),
        "from the data": ("timm:resnet18", {"in_chans": 3}),
        "other image size": ("timm:vit_tiny_patch16_224", {}),
        "given image size": ("timm:vit_tiny_patch16_224", {"img_size": 28, "patch_size": 7}),
        "mobile": ("timm:mobilenetv3_small_050", {}),
        "two heads": (
            "timm:deit_tiny_distilled_patch16_224",
            {"img_size": 28, "patch_size": 7},
        ),
    }
    worker, words = Path(__file__).with_name("timm_worker.py"), json.dumps(list(attempts.values()))
    finished = run_with_timm(tmp_path_factory.mktemp("timm"), str(worker), words)
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout.splitlines()[-1])
    return dict(zip(attempts, found, strict=True))


def test_resnet18(outcomes: dict[str, Any]) -> None:
    # 11,689,512 with three channels and a thousand classes, as the model's card says.
    stem, head = 64 * 2 * 7 * 7, (512 + 1) * (1000 - 7)
    parameters = 11_689_512 - stem - head
    assert outcomes["plain"] == {"shape": [3, 7], "parameters": parameters, "head": "fc"}


def test_arguments_reach_timm(outcomes: dict[str, Any]) -> None:
    assert outcomes["with argument"]["shape"] == [3, 7]
    assert outcomes["with argument"]["parameters"] > outcomes["plain"]["parameters"]
    assert outcomes["given image size"]["shape"] == [3, 7]


def test_the_head_is_what_timm_says(outcomes: dict[str, Any]) -> None:
    assert outcomes["given image size"]["head"] == "head"
    assert outcomes["mobile"]["head"] == "classifier"
    assert "several layers that give logits, head, head_dist" in outcomes["two heads"]["message"]


@pytest.mark.parametrize(
    ("attempt", "parts"),
    [
        ("unknown name", ["has no model 'resnet188'", "did you mean resnet18"]),
        ("unknown argument", ["timm:resnet18 cannot be built", "'dropuot'"]),
        ("from the data", ["timm:resnet18 gets in_chans from the data"]),
        ("other image size", ["VisionTransformer fails on images of shape (2, 1, 28, 28)", "224"]),
    ],
)
def test_messages(outcomes: dict[str, Any], attempt: str, parts: list[str]) -> None:
    for part in parts:
        assert part in outcomes[attempt]["message"]


def message() -> str:
    with pytest.raises(ValueError) as caught:
        models.create("timm:resnet18", {}, num_classes=7, in_channels=1, image_size=(28, 28))
    return str(caught.value)


def test_timm_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "timm:resnet18 needs a package that is not installed, timm" in message()
    assert "pip install timm" in message()


def test_import_of_timm_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "timm").mkdir()
    code = "raise RuntimeError('operator torchvision::nms does not exist')\n"
    (tmp_path / "timm" / "__init__.py").write_text(code)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    text = message()
    assert "RuntimeError: operator torchvision::nms does not exist" in text
    assert "torchvision made for the installed torch 2" in text and "pip install timm" in text
