"""The code and commands in the README and the examples work as shown."""

from __future__ import annotations

import json
import linecache
import shlex
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.runs import Run, train_here

EXAMPLES = sorted(path.name for path in (REPOSITORY / "examples").glob("*.py"))


def command_of(example: str) -> list[str]:
    """The words after the recipe of the command that an example's text begins with."""
    text = (REPOSITORY / "examples" / example).read_text(encoding="utf-8").split('"""')[1]
    lines = text[text.index("python train.py") :].split("\n\n")[0]
    words = shlex.split(lines.replace("\\\n", " "))
    assert words[:4] == ["python", "train.py", "--config", "configs/digits.yaml"]
    place = words.index("--output_dir")
    return words[4:place] + words[place + 2 :]


def test_there_is_an_example_of_each_part() -> None:
    parts = ("augmentation", "data", "loss", "model", "optimizer", "schedule", "tracker")
    assert [f"own_{part}.py" for part in parts] == EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_command_of_an_example(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    epochs = "5" if example == "own_model.py" else "2"  # that network learns slowly
    assert train_here(tmp_path / "run", *command_of(example), "--train.epochs", epochs) == 0
    run = Run(tmp_path / "run", 0)
    assert run.json("results.json")["test"]["accuracy"] > 0.5
    if example == "own_tracker.py":
        lines = (run.folder / "epochs.tsv").read_text().splitlines()
        assert [line.split("\t")[0] for line in lines] == ["1", "2"]


def test_the_cells_of_the_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run in a folder next to the recipes, with each cell's lines known, as in a notebook."""
    notebook = json.loads((REPOSITORY / "examples" / "notebook.ipynb").read_text("utf-8"))
    # With native kernels, as torch is imported here already.
    (tmp_path / "configs").symlink_to(REPOSITORY / "tests" / "recipes")
    (tmp_path / "examples").mkdir()
    monkeypatch.chdir(tmp_path / "examples")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    names: dict[str, object] = {"__name__": "__main__"}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == []
        source, file = "".join(cell["source"]), f"<cell {number}>"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        exec(compile(source, file, "exec"), names)
    assert "epoch 3 0." in capsys.readouterr().out
    darker = Run(tmp_path / "examples/runs/notebook_darker", 0)
    assert darker.json("results.json")["test"]["accuracy"] > 0.5
    assert darker.digest != Run(tmp_path / "examples/runs/notebook", 0).digest


def test_the_model_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## Your own model") :]
    (tmp_path / "my_net.py").write_text(section.split("```")[1].removeprefix("python\n"))
    monkeypatch.chdir(tmp_path)
    command = section[section.index("--model.name") :].splitlines()[0]
    assert train_here(tmp_path / "run", *shlex.split(command), "--train.epochs", "1") == 0
    assert Run(tmp_path / "run", 0).json("results.json")["model"]["name"] == "my_net.py:MyNet"
