"""The model card, as the hub and a reader of Markdown read it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from tests.run.report.test_run_report import write_run
from trainer.config.schema import RunConfig, replace
from trainer.run.report import model_card

MODEL = {"in_channels": 3, "image_size": [96, 128]}
AWKWARD = ["a|b", "*bold*", "[link](x)", "two\nlines", "`code`", "<script>", "Žluťoučký", "猫"]


def card(
    folder: Path, config: RunConfig | None = None, *, name: str = "mine", **choices: Any
) -> str:
    write_run(folder, **choices)
    results = json.loads((folder / "results.json").read_text())
    return model_card.render(name, results, MODEL, config or RunConfig())


def rows(text: str) -> list[list[str]]:
    """Return the cells of the lines of tables, without their escapes."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    return [[re.sub(r"\\(.)", r"\1", cell.strip()) for cell in row] for row in cells]


def test_the_hub_reads_its_figures(tmp_path: Path) -> None:
    found = huggingface_hub.ModelCard(card(tmp_path, name="fashion-net"))
    accuracy = json.loads((tmp_path / "results.json").read_text())["test"]["accuracy"]
    assert found.data.pipeline_tag == "image-classification"
    assert found.data.model_name == "fashion-net"
    (result,) = found.data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", pytest.approx(accuracy))
    assert (result.dataset_name, result.dataset_split) == ("fashion_mnist", "test")


@pytest.mark.parametrize(
    ("weights", "base"),
    [
        ("hf:timm/resnet18.a1_in1k", "timm/resnet18.a1_in1k"),
        (f"hf:some/net@{'ab' * 20}", "some/net"),
        ("a/file", None),
    ],
)
def test_a_net_of_the_hub_is_named_as_its_base(
    tmp_path: Path, weights: str, base: str | None
) -> None:
    write_run(tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    results["model"]["weights"] = {"source": weights, "sha256": "ab" * 32}
    assert model_card.front_matter("mine", results).get("base_model") == base


def test_names_with_marks_of_markdown_are_shown_as_they_are(tmp_path: Path) -> None:
    table = [row for row in rows(card(tmp_path, names=AWKWARD, samples=80)) if len(row) == 5]
    assert [row[0] for row in table[2:]] == [" ".join(name.split()) for name in AWKWARD]


def test_of_many_classes_the_worst_have_rows(tmp_path: Path) -> None:
    names = [f"class{place}" for place in range(150)]
    text = card(tmp_path, names=names, samples=1500)
    table = [row for row in rows(text) if row[0].startswith("class")]
    assert len(table) == model_card.MOST_ROWS
    assert table[0][0] == "class149"
    assert "and 50 more, which `results.json` names" in text
    assert "With fewer than 30 test images" in text


def test_it_names_no_folder_of_the_machine(tmp_path: Path) -> None:
    words = {
        "output_dir": "/home/someone/runs/x",
        "data.root": "/home/someone/pictures",
        "model.name": "/home/someone/nets/own.py:Net",
        "model.weights": "/home/someone/start.safetensors",
        "train.loss": "/home/someone/loss.py:own",
        "train.epochs": 77,
    }
    text = card(tmp_path, replace(RunConfig(), words))
    assert "someone" not in text
    for shown in ("own.py:Net", "start.safetensors", "loss.py:own", "`train.epochs`: `77`"):
        assert shown in text


def test_it_says_how_equal_a_repetition_is(tmp_path: Path) -> None:
    assert "ends with the same\nbits" in card(tmp_path)
    rounding = card(tmp_path, rounding=("another machine",))
    assert "up to rounding (another machine)" in rounding
    assert "same\nbits" not in rounding
    assert ["`receipt.json`, by its field `sha256`", f"`{'12' * 32}`"] in rows(rounding)
