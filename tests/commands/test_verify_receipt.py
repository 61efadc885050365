"""`verify` and a run's receipt: every edit is found, alone it is enough, samples find a parting."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import forge_state
from tests.commands.command import Capture, run_command
from tests.commands.test_verify import forge_weights
from tests.distributed.launch import run_forked
from tests.runs import contents, train_here
from trainer.base.errors import DifferentRunError, UserError
from trainer.finished import receipts, run_record, segments
from trainer.run.receipt import Receipt, seal, to_text

SHORT = ["--data.train_size", "300", "--train.batch_size", "67", "--checkpoint.keep", "9"]
CONSTANT = ["--schedule.name", "constant", "--schedule.warmup_epochs", "0"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six epochs of five steps, with a checkpoint after each."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train_here(folder, *SHORT, *CONSTANT, "--train.epochs", "6") == 0
    return folder


@pytest.fixture
def own(run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be changed."""
    shutil.copytree(run, tmp_path / "copy")
    return tmp_path / "copy"


def verify(capsys: Capture, *words: str | Path) -> tuple[int, str, str]:
    return run_command(capsys, "verify", *words)


def forge(path: Path, change: Callable[[Receipt], object]) -> None:
    """Change a receipt, and compute all of its digests again."""
    receipt = json.loads(path.read_text())
    change(receipt)
    path.write_text(to_text(seal(receipt)))


def leaves(value: Any, *place: str | int) -> Iterator[tuple[str | int, ...]]:
    """The place of every value in a receipt that has no others in it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in inner:
        if isinstance(one, dict | list) and one:
            yield from leaves(one, *place, key)
        else:
            yield (*place, key)


def other(value: Any) -> Any:
    """A value of the same type, or where that is not possible of another."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value[:-1] + ("0" if value[-1:] != "0" else "1")
        case _:
            return "something"


def changed(receipt: Receipt, place: tuple[str | int, ...]) -> Receipt:
    found = copy.deepcopy(receipt)
    inner: Any = found
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = other(inner[place[-1]])
    return found


def test_every_edit_of_a_receipt_is_found(own: Path) -> None:
    path = own / "receipt.json"
    receipt = receipts.read(path)
    places = list(leaves(receipt))
    assert len(places) > 100
    for place in places:
        path.write_text(to_text(changed(receipt, place)))
        with pytest.raises((DifferentRunError, UserError), match=r"receipt\.json"):
            receipts.read(path)
    for key in receipt:
        path.write_text(to_text({name: receipt[name] for name in receipt if name != key}))
        with pytest.raises((DifferentRunError, UserError), match=r"receipt\.json"):
            receipts.read(path)
    text = to_text(receipt)
    for edited in (
        text.replace('"result": {', '"result": {"accuracy": 1.0,', 1),
        text.replace('"samples"', '"accuracy": 1.0, "samples"', 1),
        text.replace("{", '{"sha256": "0",', 1),
        text + "\n",
    ):
        path.write_text(edited)
        with pytest.raises(DifferentRunError, match="was changed after the run"):
            receipts.read(path)


def test_every_edit_with_digests_computed_again_contradicts_the_files(own: Path) -> None:
    path = own / "receipt.json"
    receipt = receipts.read(path)
    found = segments.read(segments.open_source(own))
    assert found.contradictions == []
    for place in leaves(receipt):
        if place[-1] in ("sha256", "epoch", "format_version"):
            continue  # computed again; or `read` takes no other value
        forged = seal(changed(receipt, place))
        contradictions = receipts.find_contradictions(run_record.read(own, forged), [])
        assert any("sha256 is not the receipt_sha256 in" in text for text in contradictions)
        # Of Lockstep's own code nothing else is in the folder.
        assert len(contradictions) > 1 or place == ("made_with", "code_sha256"), place


def test_an_edit_is_named(own: Path, capsys: Capture) -> None:
    path = own / "receipt.json"
    text = path.read_text()
    path.write_text(text.replace('"seed": 0', '"seed": 1'))
    code, output, errors = verify(capsys, own)
    assert (code, output) == (3, "")
    assert "was changed after the run: the link of epoch 1, or what comes before" in errors
    state = json.loads(text)["chain"][2]["state_sha256"]
    path.write_text(text.replace(state, "0" * 64))
    assert "after the run: the link of epoch 3\n" in verify(capsys, own)[2]
    path.write_text(text.replace('"format_version": 1', '"format_version": 2'))
    code, _, errors = verify(capsys, own)
    assert code == 2
    assert "reads receipts of 1" in errors
    path.write_text(text)
    forge(path, lambda receipt: receipt["result"]["test"].update(accuracy=1.0))
    code, output, _ = verify(capsys, own, "--segment", "1", "--json")
    assert code == 3
    assert json.loads(output)["first_difference"].startswith("receipt.json: test is {'accuracy': 1")


def test_a_changed_file_of_the_run_is_found_by_the_receipt(own: Path, capsys: Capture) -> None:
    before = contents(own)
    code, output, _ = verify(capsys, own, "--segment", "1")
    assert code == 0
    assert contents(own) == before
    forge_weights(own / "checkpoints" / "step-00000015", 1e-7)
    code, output, _ = verify(capsys, own, "--segment", "1")
    assert code == 3
    assert "step-00000015 is not the state at the end of epoch 3" in output
    path = own / "config.yaml"
    path.write_text(path.read_text().replace("weight_decay: 0.01", "weight_decay: 0.5"))
    code, output, _ = verify(capsys, own, "--segment", "1")
    assert "configuration: optimizer.weight_decay 0.01, but 0.5 in config.yaml" in output
    (own / "receipt.json").unlink()
    code, output, _ = verify(capsys, own, "--segment", "1")
    assert "receipt" not in output, "as of an older version"


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


def test_a_run_that_goes_another_way_from_some_epoch_on(
    own: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Its last three epochs were computed with another weight decay, and it hides that."""
    for name in ("step-00000020", "step-00000025", "step-00000030"):
        shutil.rmtree(own / "checkpoints" / name)
    config, status = (own / "config.yaml").read_text(), own / "status.json"
    (own / "config.yaml").write_text(config.replace("weight_decay: 0.01", "weight_decay: 0.5"))
    status.write_text(status.read_text().replace("finished", "stopped"))
    words = [*SHORT, *CONSTANT, "--train.epochs", "6", "--optimizer.weight_decay", "0.5"]
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
    assert train_here(own, *SHORT, *CONSTANT, "--train.epochs", "6") == 0
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
    assert train_here(own, *SHORT, *CONSTANT, "--train.epochs", "6") == 0
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
    words = [*SHORT, *CONSTANT, *name, "--train.epochs", "3", "--train.ema_decay", "0.9"]
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


# ---------------------------------------------------------------------- signatures


def make_key(folder: Path, name: str) -> str:
    """Make a pair of keys; return the line of a file of allowed signers."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed")
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)]
    subprocess.run(words, check=True)
    return f"{name}@example.org {(folder / f'{name}.pub').read_text()}"


def test_a_signature(own: Path, tmp_path: Path, capsys: Capture) -> None:
    signers, others = tmp_path / "signers", tmp_path / "others"
    signers.write_text(make_key(tmp_path, "ada"))
    others.write_text(make_key(tmp_path, "eve"))
    path = own / "receipt.json"
    quick = ("--segment", "1")
    code, _, errors = verify(capsys, own, *quick, "--signers", signers)
    assert code == 3
    assert "receipt.json: is not signed" in errors
    code, output, _ = verify(capsys, own, *quick, "--sign", tmp_path / "ada")
    assert code == 0
    assert f"signed: {path}.sig" in output
    code, output, _ = verify(capsys, own, *quick, "--signers", signers, "--json")
    assert code == 0
    assert json.loads(output)["receipt"]["signed_by"] == "ada@example.org"
    code, _, errors = verify(capsys, own, *quick, "--signers", others)
    assert code == 3
    assert f"is not a signature of {path} by anybody in {others}" in errors
    forge(path, lambda receipt: receipt["made_with"].update(code_sha256="0" * 64))
    code, output, errors = verify(capsys, own, *quick, "--signers", signers)
    assert (code, output) == (3, "")
    assert "another content or purpose" in errors


def test_no_signature_where_something_differs_or_is_missing(
    own: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_key(tmp_path, "ada")
    key = ("--sign", tmp_path / "ada")
    quick = ("--segment", "1")
    for words, message in (
        (("--sign", tmp_path / "nobody"), "--sign: "),
        ((*key, "--tolerance", "0.1"), "--sign: is for a run that agrees in bits"),
        (("--sign", own / "config.yaml"), "config.yaml: ssh-keygen cannot sign with it: "),
        (("--signers", tmp_path / "nobody"), "--signers: "),
    ):
        code, _, errors = verify(capsys, own, *quick, *words)
        assert code == 2
        assert message in errors
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, errors = verify(capsys, own, *quick, *key)
    assert code == 2
    assert "--sign: needs ssh-keygen of OpenSSH" in errors
    monkeypatch.undo()
    forge(own / "receipt.json", lambda receipt: receipt["result"].update(weights_sha256="0" * 64))
    assert verify(capsys, own, *quick, *key)[0] == 3
    assert not (own / "receipt.json.sig").exists()
    (own / "receipt.json").unlink()
    code, _, errors = verify(capsys, own, *quick, *key)
    assert code == 2
    assert f"--sign: {own} has no receipt" in errors
