"""Write a run's model card, README.md: what the model is, how good, and how to use and repeat it.

Its front matter is the metadata that the Hugging Face hub reads of a model card:
https://huggingface.co/docs/hub/model-cards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from trainer.base.files import write_text
from trainer.base.tensor_files import read_metadata
from trainer.config import stored_config
from trainer.config.same_run import keys_of_run
from trainer.config.schema import RunConfig, flatten
from trainer.config.weights_rules import HUB_NAME
from trainer.run.console import worst_rows
from trainer.run.main_figure import has_several_labels, main_figure
from trainer.run.report import label_report, pages
from trainer.run.report.figure_rows import figure_rows, label_of
from trainer.run.report.run_facts import facts_of

NAME = "README.md"
MOST_ROWS = 20
"""of the classes' table, if there are too many; the worst"""
MOST_CLASSES_NAMED = 100
FEW_IMAGES = 30
"""of a class, from which its figures say little, as of a slice"""

_OF_CLASSES = ("accuracy", "balanced_accuracy", "macro_f1")
_OF_LABELS = ("average_precision", "micro_f1", "macro_f1")
"""figures in the front matter"""


def write(folder: Path) -> None:
    """Write README.md from config.yaml, results.json and model.safetensors of a finished run.

    Raises:
        OSError, KeyError, ValueError, UserError: a file is missing or not what the run wrote.
    """
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    model = json.loads(read_metadata(folder / "model.safetensors")["model"])
    config = stored_config.read_folder(folder)
    write_text(folder / NAME, render(folder.resolve().name, results, model, config))


def render(
    name: str, results: Mapping[str, Any], model: Mapping[str, Any], config: RunConfig
) -> str:
    """Return the text of the card.

    Args:
        name: of the model.
        results: what results.json holds, of an older version, too.
        model: what model.safetensors holds as its metadata.
    """
    test = results["test"]
    labels = has_several_labels(test)
    head = yaml.safe_dump(front_matter(name, results), sort_keys=False, allow_unicode=True)
    rows = worst_rows(test["per_class"], MOST_ROWS, MOST_ROWS, main_figure(test))
    classes = [row["name"] for row in test["per_class"]]
    channels, (height, width) = model["in_channels"], model["image_size"]
    return pages.render(
        "model_card.md",
        front_matter=head,
        name=name,
        results=results,
        labels=labels,
        figures=label_report.figure_rows(test) if labels else figure_rows(test),
        rows=rows,
        classes=classes[:MOST_CLASSES_NAMED],
        class_count=len(classes),
        rare=[row["name"] for row in test["per_class"] if row["support"] < FEW_IMAGES],
        few_images=FEW_IMAGES,
        model=model,
        input=f"{height} x {width}, {'grey' if channels == 1 else f'{channels} channels'}",
        facts={key: text for key, text in facts_of(results).items() if key != "Model"},
        recipe=changed_keys(config),
    )


def front_matter(name: str, results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the card's metadata, with the figures as the hub's `model-index`."""
    test, data_name = results["test"], Path(results["data"]["name"]).name
    labels = has_several_labels(test)
    metrics = [
        {
            "type": key,
            "value": round(test[key], 6),
            "name": label_report.FIGURES[key][0] if labels else label_of(key),
        }
        for key in (_OF_LABELS if labels else _OF_CLASSES)
        if test.get(key) is not None
    ]
    task = {"type": "image-classification", "name": "Image classification"}
    dataset = {"type": data_name, "name": data_name, "split": "test"}
    index = {"task": task, "dataset": dataset, "metrics": metrics}
    head: dict[str, Any] = {
        "library_name": "lockstep",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "cnn", "lockstep"],
        "metrics": [metric["type"] for metric in metrics],
    }
    source = (results["model"].get("weights") or {}).get("source") or ""
    if of_hub := re.fullmatch(HUB_NAME, source):
        head["base_model"] = of_hub["repository"]
    return head | {"model-index": [{"name": name, "results": [index]}]}


def changed_keys(config: RunConfig) -> dict[str, Any]:
    """Return the keys that make the run what it is, where they differ from their defaults.

    Places on the machine that it ran on are not among them.
    """
    usual = flatten(RunConfig())
    changed = {key: value for key, value in keys_of_run(config).items() if value != usual[key]}
    for key in {"model.weights", "train.teacher"} & changed.keys():
        if not changed[key].startswith("hf:"):
            changed[key] = Path(changed[key]).name
    return changed
