"""The race to an accuracy: that it runs, with tiny sizes, and what its page says; no times."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import apart
import page
import pytest
import time_to_accuracy as benchmark
import torch
from PIL import Image
from race import OURS, RACES, WAYS, Task, held_out, parts, summary

from tests.conftest import REPOSITORY
from trainer.data.sources import idx

MACHINE = "a machine, commit 0123abc"


@pytest.mark.usefixtures("forked")
def test_ours_and_another_way_run_in_turns_and_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "race.json"
    words = ["time_to_accuracy.py", "fashion_mnist", "--ways", OURS, "lab", "--seeds", "0"]
    words += ["--data", "digits", "--images", "1200", "--epochs", "2", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", [*words, "--output", str(output)])
    benchmark.main()
    ways = page.read_figures(output)["fashion_mnist"]
    for runs in ways.values():
        (early_s, early), (late_s, late) = runs["0"]["points"]
        assert 0 < early_s < late_s < runs["0"]["process_s"]
        assert 0.05 < early <= 1 and 0.15 < late <= 1
    text = output.with_suffix(".md").read_text()
    for name in (OURS, "lab"):
        assert f"| {WAYS[name].title} | " in text
    assert "Not measured: " in text and WAYS["keras_fit"].title in text
    assert output.with_suffix(".png").stat().st_size > 10_000


def runs(*curves: list[list[float]], **more: Any) -> dict[str, Any]:
    return {
        str(seed): {"points": points, "version": "1", "epochs": 2, "machine": MACHINE} | more
        for seed, points in enumerate(curves)
    }


def test_the_bar_is_reached_when_the_mean_over_the_seeds_is_there() -> None:
    found = summary.summarise(runs([[1, 0.91], [2, 0.92]], [[3, 0.87], [5, 0.90]]))
    assert found and found.curve == [(2, pytest.approx(0.89)), (3.5, pytest.approx(0.91))]
    assert found.seconds_to(0.90) == 3.5
    assert found.seconds_to(0.93) is None


def test_points_within_an_epoch_are_drawn_and_reach_no_bar() -> None:
    found = summary.summarise(runs([[2, 0.92], [4, 0.93]], within=[[1, 0.91], [3, 0.90]]))
    assert found and found.drawn == [(1, 0.91), (2, 0.92), (3, 0.90), (4, 0.93)]
    assert found.seconds_to(0.90) == 2


def test_the_page_compares_with_ours_and_says_what_failed() -> None:
    ways = {
        "lab": runs([[4.0, 0.85], [8.0, 0.905]], [[5.0, 0.85], [10.0, 0.915]]),
        OURS: runs([[1.0, 0.80], [4.0, 0.92]], [[1.0, 0.80], [5.0, 0.91]], epochs=None),
        "timm_script": {"0": {"failed": "ValueError: no such thing", "machine": MACHINE}},
        "hf_trainer": runs([[1.0, 0.5], [2.0, 0.6]]),
    }
    lines = benchmark.build_page({"fashion_mnist": ways})
    ours = "| **Lockstep** | 1 | 2 | recipe | 4.5 | 0.9150 (0.9100 to 0.9200) | 4.5 | 1.00 |"
    lab = "| the lab's loop, Adam | 1 | 2 | 2 | 9.0 | 0.9100 (0.9050 to 0.9150) | 9.0 | 2.00 |"
    assert lines.index(ours) < lines.index(lab)
    assert any("| 2.0 | 0.6000 (0.6000 to 0.6000) | not reached |  |" in line for line in lines)
    assert "Our whole training over the lab's, seed by seed: 0.500 (0.500 to 0.500)." in lines
    assert f"Failed: {WAYS['timm_script'].title}: `ValueError: no such thing`" in lines
    assert "| **Lockstep** | 4.5 |" in lines
    assert "| HF Trainer, AdamW and a falling rate | 0.6000 after 2.0 |" in lines
    assert f"- {MACHINE}" in lines


def test_a_way_that_fails_is_a_line_and_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        sys.exit("python -m race: Traceback\n  somewhere\nRuntimeError: broken\n")

    monkeypatch.setattr(apart, "run", fail)
    task = Task("mnist", "digits", None, 100, 1, 0, 1, str(tmp_path))
    assert benchmark.run("lab", task, tmp_path) == {"failed": "RuntimeError: broken"}


def test_a_way_that_hangs_is_killed() -> None:
    sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(SystemExit, match="killed after 0 seconds"):
        apart.run(sleeping, limit_s=0.3)


def test_a_measurement_goes_on_where_it_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "machine", lambda: MACHINE)
    run = runs([[1, 0.5]])["0"]
    assert benchmark.is_done(run, 2)
    assert not benchmark.is_done(run, 3), "another length"
    assert not benchmark.is_done(run | {"machine": "another"}, 2)
    assert not benchmark.is_done({"failed": "why", "machine": MACHINE, "epochs": 2}, 2)
    assert not benchmark.is_done(None, 2)


def test_held_out_images_are_those_after_the_ones_to_train_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_out, "TESTED", 100)
    race = RACES["mnist"]
    digits = dataclasses.replace(race, data="digits", images=1300)
    assert held_out.write(digits, None, tmp_path / "two") == 1300
    train, test = idx.read_folder(tmp_path / "two").train, idx.read_folder(tmp_path / "two").test
    assert train is not None and test is not None
    assert (len(train.labels), len(test.labels)) == (1300, 100)
    everything = dataclasses.replace(race, data="digits", images=60_000)
    assert held_out.write(everything, None, tmp_path / "all") == 1437 - 100


def test_every_race_has_a_recipe_and_every_way_but_ours_a_length_and_a_file() -> None:
    for race in RACES.values():
        assert (REPOSITORY / "configs" / f"{race.recipe}.yaml").is_file()
        assert race.epochs.keys() | {OURS} == WAYS.keys()
    for name in WAYS:
        assert (REPOSITORY / "benchmarks" / "race" / f"{name}.py").is_file()


def test_colour_pictures_are_moved_and_mirrored_by_the_others(
    tmp_path: Path,
) -> None:
    for part in ("train", "test"):
        for name, level in (("bright", 200), ("dark", 40)):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(4):
                picture = Image.new("RGB", (32, 32), (level, level // 2, number))
                picture.save(tmp_path / part / name / f"{number}.png")
    task = Task("cifar10", "folder", str(tmp_path), 8, 1, 0, 1, str(tmp_path / "files"))
    made = parts.make(task, batch_size=4, augment=True)
    assert made.images.shape == (8, 3, 40, 40)
    assert made.transform is not None
    black = made.scaling.apply(torch.zeros(1, 3, 1, 1, dtype=torch.uint8))[0]
    places = set()
    for images, _ in (batch for _ in range(8) for batch in made.loader()):
        assert images.shape[1:] == (3, 32, 32)
        for image in images:
            is_black = (image == black).all(0)
            places.add((int(is_black[:4].sum()), int(is_black[:, :4].sum())))
    assert len(places) > 10
    assert sum(one.numel() for one in made.model.parameters()) > 200_000, "a residual net"
    assert 0 <= parts.accuracy(made.model, made) <= 1
