"""`python -m trainer verify`: a run is computed again and compared with its folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints import seal
from tests.commands.command import Capture, run_command
from tests.conftest import REPOSITORY
from tests.distributed.launch import run_forked
from tests.runs import contents, train_here

# Two epochs of five steps, the last of which leaves two of its four micro-batches empty.
SHORT = ["--train.epochs", "2", "--data.train_size", "300", "--train.batch_size", "67"]
SAVING = ["--checkpoint.every_steps", "3", "--checkpoint.keep", "9"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train_here(folder, *SHORT, *SAVING) == 0
    return folder


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be changed."""
    folder = tmp_path / "copy"
    shutil.copytree(run, folder)
    return folder


def verify(capsys: Capture, *words: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command."""
    return run_command(capsys, "verify", *words)


def change_json(path: Path, change: Callable[[Any], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def change_line(folder: Path, number: int, **values: Any) -> None:
    """Change a record of metrics.jsonl."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines()
    lines[number] = json.dumps(json.loads(lines[number]) | values)
    path.write_text("".join(f"{line}\n" for line in lines))


def test_an_unchanged_run_agrees(run: Path, capsys: Capture) -> None:
    before = contents(run)
    code, output, _ = verify(capsys, run)
    assert code == 0
    results = json.loads((run / "results.json").read_text())
    assert "steps 1 to 10, on 1 process of 1 thread" in output
    assert f"weights after the last step: {results['final_weights_sha256']}, as in" in output
    assert f"chosen weights: {results['weights_sha256']}, as in the run" in output
    assert output.endswith("bit-identical: the run gives what its folder says\n")
    assert contents(run) == before


def test_every_segment_by_itself(run: Path, capsys: Capture) -> None:
    steps = []
    for segment in range(1, 6):
        code, output, _ = verify(capsys, run, "--segment", str(segment), "--json")
        assert code == 0, output
        found = json.loads(output)
        assert found["agrees"] is found["in_bits"] is True
        assert found["checkpoints"] == [f"step-{found['last_step']:08d}"]
        assert (found["final_weights_sha256"] is None) == (segment < 5)
        steps.append((found["first_step"], found["last_step"], found["epochs"]))
    assert steps == [(1, 3, 0), (4, 5, 1), (6, 6, 0), (7, 9, 0), (10, 10, 1)]


def test_a_segment_that_is_not_there(run: Path, capsys: Capture) -> None:
    code, output, errors = verify(capsys, run, "--segment", "7")
    assert (code, output) == (2, "")
    assert "--segment: 7, but by its checkpoints" in errors
    assert (
        "1: steps 1 to 3; 2: steps 4 to 5; 3: steps 6 to 6; 4: steps 7 to 9; 5: steps 10" in errors
    )


def test_on_four_processes(run: Path, tmp_path: Path) -> None:
    finished = run_forked(4, tmp_path, "-m", "trainer", "verify", str(run), "--json")
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    assert found["processes"] == 4
    assert found["in_bits"] is True
    assert found["steps"] == 10


def test_the_first_step_that_differs_is_named(copy: Path, capsys: Capture) -> None:
    """The loss of step 2 is the first that another weight decay shows."""
    path = copy / "config.yaml"
    path.write_text(path.read_text().replace("weight_decay: 0.01", "weight_decay: 0.5"))
    code, output, errors = verify(capsys, copy)
    assert code == 3
    assert "first difference: step 2 (epoch 1): loss " in output
    assert errors.count("not what was computed here") == 1
    assert "compared: the losses of 3 steps" in output, "it goes no further than the checkpoint"


def test_forged_figures_are_found(copy: Path, capsys: Capture) -> None:
    def difference() -> str:
        code, output, _ = verify(capsys, copy, "--json")
        assert code == 3
        found: str = json.loads(output)["first_difference"]
        return found

    change_json(copy / "results.json", lambda results: results["test"].update(accuracy=1.0))
    assert difference() == "results.json: test.accuracy differs"
    change_json(copy / "results.json", lambda results: results.update(weights_sha256="0" * 64))
    assert difference().startswith(f"the chosen weights: {'0' * 64} in the run, ")
    change_line(copy, 11, weights_sha256="1" * 64)  # epoch 2
    assert difference().startswith(f"the end of epoch 2: weights_sha256 {'1' * 64} in the run")
    forge_weights(copy / "checkpoints" / "step-00000006", 1e-7)
    assert difference() == "step-00000006: features.0.weight in model.safetensors"
    change_line(copy, 2, loss=1.5)
    assert difference().startswith("step 3 (epoch 1): loss 1.5 in the run, ")


def forge_weights(checkpoint: Path, by: float) -> None:
    """Change a number of the first filter a little, and fix the manifest."""
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["features.0.weight"].view(-1)[0] += by
    save_file(tensors, checkpoint / "model.safetensors")
    seal(checkpoint)


def test_other_threads_are_refused_and_judged_by_a_tolerance(
    run: Path, copy: Path, capsys: Capture
) -> None:
    # As another machine would have done it; its receipt would say so too.
    (copy / "receipt.json").unlink()
    change_json(copy / "results.json", lambda results: results["environment"].update(torch="1.0"))
    code, output, errors = verify(capsys, copy)
    assert (code, output) == (2, "")
    assert "cannot be computed again in the same bits here" in errors
    assert f"torch 1.0 against {torch.__version__}" in errors
    assert verify(capsys, run, "--threads", "2", "--segment", "1")[0] == 2
    change_line(copy, 4, loss=1.01 * json.loads(metrics(copy)[4])["loss"])
    code, output, _ = verify(capsys, copy, "--tolerance", "0.02")
    assert code == 0
    assert "equal at best to rounding: torch 1.0 against" in output
    assert "the largest relative difference is 0.0099" in output
    assert output.endswith("equal to the tolerance: the run gives what its folder says\n")
    assert verify(capsys, copy, "--tolerance", "0.005")[0] == 3
    assert verify(capsys, copy, "--tolerance", "7")[0] == 2


def metrics(folder: Path) -> list[str]:
    return (folder / "metrics.jsonl").read_text().splitlines(keepends=True)


def test_other_images_are_refused(copy: Path, capsys: Capture) -> None:
    path = copy / "config.yaml"
    path.write_text(path.read_text().replace("train_size: 300", "train_size: 299"))
    code, _, errors = verify(capsys, copy)
    assert code == 2
    assert "data.root: the images differ from those" in errors


def change_config(folder: Path, old: str, new: str) -> None:
    path = folder / "config.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("number", "values", "expected"),
    [
        (0, {"lr": None}, "metrics.jsonl: lr: must be float, found None"),
        (1, {"loss": [1]}, "metrics.jsonl: loss: must be float | None, found [1]"),
        (5, {"train_loss": "x"}, "metrics.jsonl: train_loss: must be float | None, found 'x'"),
    ],
)
def test_damaged_figures_are_named(
    number: int, values: dict[str, Any], expected: str,
    copy: Path, capsys: Capture,
) -> None:  # fmt: skip
    change_line(copy, number, **values)
    code, output, errors = verify(capsys, copy)
    assert (code, output) == (2, "")
    assert expected in errors


def test_a_configuration_that_would_run_code_is_refused(copy: Path, capsys: Capture) -> None:
    code, _, errors = verify(capsys, copy, "--threads", "100000")
    assert code == 2
    assert "threads: must be at most 1,024, found 100000" in errors
    change_config(copy, "name: adamw", "name: mine")
    for more in ([], ["--optimizer.name", "own.py:mine"]):
        code, _, errors = verify(capsys, copy, *more)
        assert code == 2
        assert f"optimizer.name: mine of {copy} was registered in the program" in errors
    change_config(copy, "name: mine", "name: adamw")
    change_config(copy, "name: quicknet", "name: timm:resnet18")
    change_config(copy, "  args:\n    widths:", "  args:\n    checkpoint_path: x.pth\n    widths:")
    code, _, errors = verify(capsys, copy, "--model.name", "timm:resnet18")
    assert code == 2
    assert "model.args: checkpoint_path starts the run from weights that timm would load" in errors


def test_a_run_that_was_killed_and_has_lost_a_checkpoint(
    copy: Path, capsys: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    (copy / "results.json").unlink()
    change_json(copy / "status.json", lambda status: status.update(state="running"))
    (copy / "metrics.jsonl").write_text("".join(metrics(copy)[:9]) + '{"event": "st')
    for later in ("step-00000009", "step-00000010"):
        shutil.rmtree(copy / "checkpoints" / later)
    (copy / "checkpoints" / "step-00000005" / "model.safetensors").write_bytes(b"")
    code, output, _ = verify(capsys, copy, "--json")
    found = json.loads(output)
    assert code == 0
    assert (found["last_step"], found["epochs"]) == (8, 1)
    assert found["checkpoints"] == ["step-00000003", "step-00000006"]
    assert "skipped: " in caplog.text
    assert "step-00000005/model.safetensors: damaged" in caplog.text


def test_every_part_of_a_run_is_in_it(tmp_path: Path, capsys: Capture) -> None:
    """Dropout, averaged weights, patience, mixed images and the rest that a step depends on."""
    more = ["--model.args", "{widths: [8, 16], dropout: 0.3}", "--train.epochs", "6"]
    more += ["--train.patience", "1", "--optimizer.lr", "0.2", "--train.ema_decay", "0.9"]
    more += ["--data.mixup", "0.3", "--data.cutmix", "0.3", "--train.clip_norm", "1"]
    more += ["--optimizer.name", "sgd", "--data.test_augment", "flip", "--checkpoint.keep", "3"]
    assert train_here(tmp_path / "run", *SHORT, *more) == 0
    assert len(metrics(tmp_path / "run")) < 6 * 6, "patience has ended it"
    assert verify(capsys, tmp_path / "run")[0] == 0


def test_a_user_defined_network_runs_only_where_it_is_named(
    tmp_path: Path, capsys: Capture
) -> None:
    plugin = tmp_path / "own.py"
    plugin.write_text((REPOSITORY / "examples" / "own_model.py").read_text())
    name = f"{plugin}:OwnModel"
    more = ["--model.name", name, "--model.args", "{}"]
    assert train_here(tmp_path / "run", *SHORT, *more) == 0
    code, output, errors = verify(capsys, tmp_path / "run")
    assert (code, output) == (2, "")
    assert f"to run it, name it yourself: --model.name {name}" in errors
    assert verify(capsys, tmp_path / "run", "--model.name", name)[0] == 0
    plugin.write_text(plugin.read_text() + "# changed\n")
    code, _, errors = verify(capsys, tmp_path / "run", "--model.name", name)
    assert code == 2
    assert "model.name: the code differs from that" in errors


def test_a_last_step_that_was_left_out_is_not_the_end(tmp_path: Path, capsys: Capture) -> None:
    """Its only step has no finite loss, and the weights are those of the start."""
    plugin = tmp_path / "spoiled.py"
    plugin.write_text(
        "from models.quicknet import QuickNet\n\nclass Spoiled(QuickNet):\n"
        "    def forward(self, images):\n"
        "        return super().forward(images) * (float('nan') if self.training else 1)\n"
    )
    name = ["--model.name", f"{plugin}:Spoiled"]
    more = ["--train.epochs", "1", "--data.train_size", "300", "--train.batch_size", "400"]
    folder = tmp_path / "run"
    assert train_here(folder, *name, *more, "--train.on_nonfinite", "rollback") == 0
    code, output, errors = verify(capsys, folder, *name, "--json")
    assert code == 0, output + errors
    results = json.loads((folder / "results.json").read_text())
    assert results["train"]["skipped_steps"] == [1]
    assert json.loads(output)["weights_sha256"] == results["weights_sha256"]
    change_json(folder / "results.json", lambda results: results["test"].update(accuracy=1.0))
    code, output, _ = verify(capsys, folder, *name)
    assert code == 3
    assert "first difference: results.json: test.accuracy differs" in output
    (folder / "metrics.jsonl").write_text(metrics(folder)[0])
    code, output, _ = verify(capsys, folder, *name)
    assert code == 3
    assert "first difference: the loss of step 1 is nan" in output


def test_a_folder_without_a_run(tmp_path: Path, capsys: Capture) -> None:
    code, _, errors = verify(capsys, tmp_path)
    assert code == 2
    assert "not a run, there is no config.yaml in it" in errors


def test_a_difference_under_a_launcher(copy: Path, tmp_path: Path) -> None:
    change_line(copy, 2, loss=1.5)
    words = ["-m", "trainer", "verify", str(copy), "--segment", "1"]
    finished = run_forked(2, tmp_path, *words)
    assert finished.returncode == 3
    assert finished.stdout.count("first difference: step 3 (epoch 1): loss 1.5") == 1
    assert finished.stderr.count("not what was computed here") == 1
