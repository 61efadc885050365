"""The benchmark of reports: that the report is of the answers that were made up; no times."""

from __future__ import annotations

import json
from pathlib import Path

import report_cost


def test_a_run_with_made_up_answers_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    pixels, target = report_cost.write_images(tmp_path, 300, 1200)
    report_cost.train(folder, tmp_path)
    report_cost.make_up(folder, pixels, target, 300)
    seconds, size_mb = report_cost.measure(folder)
    assert seconds > 0 and size_mb > 50
    page = (folder / "report.html").read_text(encoding="utf-8")
    test = json.loads((folder / "results.json").read_text())["test"]
    assert 0.4 < test["accuracy"] < 0.6
    assert f"{sum(row['correct'] for row in test['per_class'])} of 1,200 images correct" in page
    assert "All 300 classes, to be searched and sorted" in page
