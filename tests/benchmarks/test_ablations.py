"""The benchmark of single choices: its studies are valid, and one runs; no times."""

from __future__ import annotations

from pathlib import Path

import ablations as benchmark
import page
import pytest

from trainer.config import command_line

STUDY = {
    "about": "Of two.",
    "base": {
        "data.name": "digits",
        "data.train_size": 400,
        "model.name": "quicknet",
        "model.args": {"widths": [8, 16]},
        "train.epochs": 1,
        "optimizer.name": "muon",
        "optimizer.lr": 0.06,
    },
    "variants": {"half the rate": {"optimizer.lr": 0.03}},
}


@pytest.mark.parametrize(
    ("study", "variant"),
    [
        (study, variant)
        for study, found in benchmark.STUDIES.items()
        for variant in [benchmark.BASE, *found["variants"]]
    ],
)
def test_every_variant_is_a_valid_recipe(study: str, variant: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(benchmark.recipe(study, variant))
    config = command_line.parse(["--config", str(recipe), "--data.root", "digits"])
    assert config.data.validation_size, "only held-out images choose"


@pytest.mark.usefixtures("forked")
def test_variants_are_compared_with_their_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(benchmark.STUDIES, "two", STUDY)
    output = tmp_path / "figures.json"
    benchmark.main(["two", "--seeds", "5", "--output", str(output)])
    found = page.read_figures(output)["two"]
    base, half = found["base"]["5"]["accuracy"], found["half the rate"]["5"]["accuracy"]
    assert base > 0.2
    text = output.with_suffix(".md").read_text()
    assert f"| half the rate | `optimizer.lr: 0.03` | 1 | {half:.4f} | {half - base:+.4f} |" in text


def test_an_unknown_variant_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    study = next(iter(benchmark.STUDIES))
    with pytest.raises(SystemExit):
        benchmark.main([study, "pickled"])
    assert "pickled: not a variant; there are base, " in capsys.readouterr().err
