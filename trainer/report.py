"""The report of a finished run: pictures and one HTML page, made from the run's files only."""

from __future__ import annotations

import base64
import io
import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer import plots
from trainer.files import write_text

MOST_MISTAKES = 24
LAB_SAMPLES = 1000


def write_report(output_dir: Path, pictures: Callable[[np.ndarray], np.ndarray]) -> None:
    """Write curves.png, confusion.png, mistakes.png and report.html into `output_dir`.

    Reads config.yaml, metrics.jsonl, results.json and predictions.npz there, so a report can be
    made again at any time.

    Args:
        pictures: gives the test images at some positions in file order, int64 (n,), as uint8
            (n, height, width) or (n, height, width, 3).

    Raises:
        OSError, KeyError, ValueError: a file is missing or is not what the run wrote.
    """
    results = json.loads((output_dir / "results.json").read_text(encoding="utf-8"))
    config_text = (output_dir / "config.yaml").read_text(encoding="utf-8")
    steps, epochs = _read_metrics(output_dir / "metrics.jsonl")
    names = [row["name"] for row in results["test"]["per_class"]]
    confusion = np.array(results["test"]["confusion"])
    mistakes = mistakes_of(read_predictions(output_dir / "predictions.npz"))
    images = pictures(mistakes["index"])

    plots.save(plots.draw_curves(steps, epochs), output_dir / "curves.png")
    plots.save(plots.draw_confusion(confusion, names), output_dir / "confusion.png")
    answers = (mistakes["target"], mistakes["predicted"], mistakes["probability"])
    plots.save(plots.draw_mistakes(images, *answers, names), output_dir / "mistakes.png")

    page = template("report.html").render(
        results=results,
        worst=worst_class(results["test"], confusion, names),
        mistakes=[
            {
                "picture": image_uri(image),
                "true": names[target],
                "predicted": names[predicted],
                "probability": float(probability),
            }
            for image, target, predicted, probability in zip(images, *answers, strict=True)
        ],
        pictures={name: file_uri(output_dir / f"{name}.png") for name in ("curves", "confusion")},
        lab_samples=min(LAB_SAMPLES, results["test"]["samples"]),
        facts=_facts(results),
        config_text=config_text,
        command=_command(output_dir),
    )
    write_text(output_dir / "report.html", page)


def _read_metrics(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The records of the steps and those of the epochs."""
    with path.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    steps = [record for record in records if record["event"] == "step"]
    return steps, [record for record in records if record["event"] == "epoch"]


def read_predictions(path: Path) -> dict[str, np.ndarray]:
    """The columns of predictions.npz: index, target, predicted, probability, each (n,)."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in ("index", "target", "predicted", "probability")}


def mistakes_of(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The rows with the wrong answers that were given most confidently, best first."""
    wrong = np.flatnonzero(columns["target"] != columns["predicted"])
    order = np.argsort(-columns["probability"][wrong], kind="stable")
    return {name: column[wrong[order[:MOST_MISTAKES]]] for name, column in columns.items()}


def worst_class(
    test: dict[str, Any], confusion: np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
    """The row of the worst class, and what it was most often taken for (None: nothing)."""
    place = names.index(test["worst_class"])
    others = confusion[place].copy()
    others[place] = 0
    taken_for = int(others.argmax())
    row: dict[str, Any] = test["per_class"][place]
    return {
        **row,
        "taken_for": names[taken_for] if others[taken_for] else None,
        "taken_count": int(others[taken_for]),
    }


def _facts(results: dict[str, Any]) -> dict[str, str]:
    """What was trained, on what and how long: label and text."""
    train, data, model = results["train"], results["data"], results["model"]
    epoch, accuracy = (results["validation"][f"chosen_{key}"] for key in ("epoch", "accuracy"))
    facts = {
        "Model": f"{model['name']}, {model['parameters']:,} parameters",
        "Data": f"{data['name']}: {data['train']:,} training, {data['validation']:,} validation "
        f"and {data['test']:,} test images",
        "Training": f"{train['epochs']:,} epochs, {train['steps']:,} steps, "
        f"{duration(train['seconds'])}, {train['samples_per_second']:,.0f} images/s",
        "Device": f"{train['device']}, {train['precision']}, processes: {train['processes']}, "
        f"micro-batches: {train['microbatches']}",
        "Seed": str(results["seed"]),
        "Chosen weights": f"those after epoch {epoch}",
    }
    if accuracy is not None:
        facts["Chosen weights"] += f", with {percent(accuracy)} on validation"
    return facts


def _command(output_dir: Path) -> str:
    """The command that repeats the run beside it."""
    again = output_dir.with_name(f"{output_dir.name}-again")
    config = output_dir / "config.yaml"
    return shlex.join(["python", "train.py", "--config", str(config), "--output_dir", str(again)])


def percent(share: float) -> str:
    """0.9057 as 90.57 %, with a space that does not break."""
    return f"{100 * share:.2f}\N{NO-BREAK SPACE}%"


def duration(seconds: float) -> str:
    """Seconds for reading: 41.3 s, 12 min 5 s or 3 h 20 min."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def template(name: str) -> Any:
    """A page of trainer/templates; it escapes what it is given."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trainer"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    return environment.get_template(name)


def image_uri(image: np.ndarray) -> str:
    """A picture, uint8 (height, width) or (height, width, 3), as an address that holds it."""
    from PIL import Image

    memory = io.BytesIO()
    Image.fromarray(image).save(memory, "PNG")
    return _uri(memory.getvalue())


def file_uri(path: Path) -> str:
    """A PNG file as an address that holds it."""
    return _uri(path.read_bytes())


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
