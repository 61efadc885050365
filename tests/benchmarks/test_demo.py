"""benchmarks/demo.py, with a few requests."""

from __future__ import annotations

import sys
from pathlib import Path

import demo
import pytest

from tests.stored import write_model


def test_the_page_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_model(tmp_path / "model.safetensors", channels=3)
    words = ["--run", str(model), "--requests", "2", "--in_flight", "8"]
    output = tmp_path / "demo.md"
    monkeypatch.setattr(sys, "argv", ["demo.py", *words, "--output", str(output)])
    monkeypatch.setattr(demo, "SIZE", (80, 120))
    demo.main()
    assert "8 of 8 right in" in output.read_text(encoding="utf-8")
