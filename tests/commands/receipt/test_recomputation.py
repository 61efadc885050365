"""A receipt alone is enough to verify; segments, also drawn by chance, find where a run parts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.checkpoints import forge_state
from tests.commands.command import Capture
from tests.commands.receipt.forging import SHORT, SIX_EPOCHS, forge, verify
from tests.commands.test_verify import forge_weights
from tests.data.picture_folders import write_digits
from tests.distributed.launch import run_forked
from tests.runs import train_here
from trainer.finished import segments


def test_a_receipt_alone(run: Path, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "receipt.json"
    shutil.copy(run / "receipt.json", path)
    finished = run_forked(2, tmp_path, "-m", "trainer", "verify", str(path), "--json")
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    assert (found["steps"], found["epochs"], found["processes"]) == (30, 6, 2)
    results = json.loads((run / "results.json").read_text())
    assert found["weights_sha256"] == results["weights_sha256"]
    assert found["receipt"]["sha256"] == results["receipt_sha256"]
    forge(path, lambda receipt: receipt["chain"][1].update(state_sha256="0" * 64))
    code, output, _ = verify(capsys, path)
    assert code == 3
    assert f"first difference: the end of epoch 2: state_sha256 {'0' * 64} in the rec" in output
    assert "agreed before it: the end of epoch 1" in output
    assert "not known: which step of epoch 2" in output
    assert "not known: which tensor" in output
    for words in (["--segment", "1"], ["--sample", "1"], ["--tolerance", "0.1"]):
        code, _, errors = verify(capsys, path, *words)
        assert code == 2
        assert f"{words[0]}: needs the run's folder" in errors


def test_a_receipt_alone_of_pictures_that_are_somewhere_here(
    tmp_path: Path, capsys: Capture
) -> None:
    pictures = write_digits(tmp_path / "pictures", train=60, test=20)
    own = ["--data.name", "folder", "--data.root", str(pictures), "--data.validation_size", "0"]
    small = ["--data.train_size", "60", "--train.epochs", "1", "--train.batch_size", "20"]
    assert train_here(tmp_path / "run", *SHORT, *own, *small) == 0
    path = shutil.move(tmp_path / "run" / "receipt.json", tmp_path / "receipt.json")
    shutil.rmtree(tmp_path / "run")
    assert verify(capsys, path, "--data.root", str(pictures))[0] == 0
    code, _, errors = verify(capsys, path)
    assert code == 2
    assert f"{path}: data.root: must be the folder" in errors


def test_a_run_that_goes_another_way_from_some_epoch_on(
    own: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Its last three epochs were computed with another weight decay, and it hides that."""
    for name in ("step-00000020", "step-00000025", "step-00000030"):
        shutil.rmtree(own / "checkpoints" / name)
    config, status = (own / "config.yaml").read_text(), own / "status.json"
    (own / "config.yaml").write_text(config.replace("weight_decay: 0.01", "weight_decay: 0.5"))
    status.write_text(status.read_text().replace("finished", "stopped"))
    words = [*SIX_EPOCHS, "--optimizer.weight_decay", "0.5"]
    assert train_here(own, *words) == 0
    (own / "config.yaml").write_text(config)
    forge(
        own / "receipt.json",
        lambda receipt: receipt["configuration"].update({"optimizer.weight_decay": 0.01}),
    )
    alone = tmp_path / "receipt.json"
    shutil.copy(own / "receipt.json", alone)
    code, output, _ = verify(capsys, alone)
    assert code == 3
    # The loss of the first step is that of equal weights.
    assert "first difference: step 17 (epoch 4): not the loss or rate in the receipt" in output
    assert "agreed before it: step 16 (epoch 4)" in output
    assert "first tensor: classifier.bias of best" in output
    seed = next(seed for seed in range(99) if segments.sample(6, 1, seed) == [6])
    code, output, _ = verify(capsys, own, "--sample", "1", "--seed", str(seed), "--json")
    found = json.loads(output)
    assert code == 3
    assert [(part["segment"], part["agrees"]) for part in found["computed"]] == [
        (6, False), (3, True), (4, False),
    ]  # fmt: skip
    assert found["parting_segment"] == 4
    assert found["first_difference"].startswith("step 17 (epoch 4): loss ")
    assert found["parted"]["epoch"] == 4
    assert found["parted"]["step"] == 17
    assert found["parted"]["after"] == "step 16 (epoch 4)"
    assert "in model.safetensors" in found["parted"]["tensor"]


def test_a_manipulated_epoch_is_found_by_its_segment(own: Path, capsys: Capture) -> None:
    """The weights after epoch 2 were changed, and the run went on from these."""
    for name in ("step-00000015", "step-00000020", "step-00000025", "step-00000030"):
        shutil.rmtree(own / "checkpoints" / name)
    forge_weights(own / "checkpoints" / "step-00000010", 0.01)
    status = own / "status.json"
    status.write_text(status.read_text().replace("finished", "stopped"))
    assert train_here(own, *SIX_EPOCHS) == 0
    code, output, _ = verify(capsys, own, "--sample", "6", "--seed", "1")
    assert code == 3
    assert "contradicts its run: receipt.json: step-00000010 is not the state at the" in output
    assert "first difference: step-00000010: features.0.weight in model.safetensors" in output
    assert "first in segment 2: segment 1 agrees; others were not computed" in output
    assert "agreed before it: the end of epoch 2" in output
    assert verify(capsys, own, "--segment", "4")[0] == 3, "as its files contradict each other"


def test_a_step_that_was_left_out_without_need(own: Path, capsys: Capture) -> None:
    """Files and receipt fit each other, and so does all that is computed without this step."""
    for name in ("step-00000015", "step-00000020", "step-00000025", "step-00000030"):
        shutil.rmtree(own / "checkpoints" / name)
    forge_state(
        own / "checkpoints" / "step-00000010",
        lambda state: state["run"].update(skipped_steps=[13]),
    )
    status = own / "status.json"
    status.write_text(status.read_text().replace("finished", "stopped"))
    assert train_here(own, *SIX_EPOCHS) == 0
    assert json.loads((own / "receipt.json").read_text())["skipped_steps"] == [13]
    for path in (own, own / "receipt.json"):
        code, output, _ = verify(capsys, path)
        assert code == 3
        difference = "step 13 (epoch 3) was left out, though its loss is finite"
        assert f"first difference: {difference}" in output
        assert "contradicts its run" not in output


def test_a_step_that_had_to_be_left_out(tmp_path: Path, capsys: Capture) -> None:
    """It is computed and undone, and the epoch after it comes out as it was."""
    plugin = tmp_path / "spoiled.py"
    plugin.write_text(
        "from models.quicknet import QuickNet\n\nclass Spoiled(QuickNet):\n"
        "    def forward(self, images):\n"
        "        bad = self.training and len(images) < 12 and images.mean() > 0\n"
        "        return super().forward(images) * (float('nan') if bad else 1)\n"
    )
    name = ["--model.name", f"{plugin}:Spoiled"]
    words = [*SHORT, *name, "--train.epochs", "3", "--train.ema_decay", "0.9"]
    folder = tmp_path / "run"
    assert train_here(folder, *words, "--train.on_nonfinite", "rollback") == 0
    skipped = json.loads((folder / "receipt.json").read_text())["skipped_steps"]
    assert skipped
    assert skipped[-1] < 15
    shutil.copy(folder / "receipt.json", tmp_path / "receipt.json")
    for path in (folder, tmp_path / "receipt.json"):
        code, output, errors = verify(capsys, path, *name)
        assert code == 0, output + errors
    code, _, errors = verify(capsys, tmp_path / "receipt.json")
    assert code == 2
    assert "to run it, name it yourself: --model.name" in errors


def test_a_sample_is_drawn_by_its_seed(run: Path, capsys: Capture) -> None:
    code, output, _ = verify(capsys, run, "--sample", "2", "--seed", "5")
    drawn = segments.sample(6, 2, 5)
    assert code == 0
    assert f"segments {drawn[0]}, {drawn[1]} of 6 (--seed 5)" in output
    assert segments.sample(6, 9, 5) == [1, 2, 3, 4, 5, 6]
    assert len({tuple(segments.sample(100, 3, seed)) for seed in range(20)}) == 20
    for words, message in (
        (["--sample", "-1"], "--sample: must be 1 or more"),
        (["--sample", "0"], "--sample: must be 1 or more segments, found 0"),
        (["--seed", "1"], "--seed: is that of --sample"),
        (["--sample", "1", "--segment", "1"], "--sample: draws segments"),
    ):
        code, _, errors = verify(capsys, run, *words)
        assert code == 2
        assert message in errors


@pytest.mark.parametrize("first_bad", range(1, 41))
def test_a_parting_is_found_in_a_logarithm_of_segments(first_bad: int) -> None:
    computed = []

    def agrees(number: int) -> bool:
        computed.append(number)
        return number < first_bad

    assert segments.find_parting([40], agrees) == first_bad
    assert len(computed) <= 7
    assert segments.find_parting([first_bad - 1] if first_bad > 1 else [], agrees) is None
