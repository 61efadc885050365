"""Folders of runs that somebody made to do harm: nothing outside of them is read or written."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from tests.checkpoints import forge, forge_state
from tests.runs import Run, contents, train_here
from trainer import __main__
from trainer.base.files import write_text

SHORT = ["--train.epochs", "2", "--data.train_size", "300"]

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert train_here(folder, *SHORT) == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of a run with both epochs done and no results yet."""
    shutil.copytree(trained, tmp_path / "run")
    for name in ("status.json", "results.json"):
        (tmp_path / "run" / name).unlink()
    return tmp_path / "run"


@pytest.fixture
def refused(run: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Start the run again, which must end in one message and leave its files as they are."""

    def check(*more: str) -> str:
        before = contents(run / "checkpoints")
        capfd.readouterr()
        assert train_here(run, *SHORT, *more) == 2
        message = capfd.readouterr().err
        assert "Traceback" not in message
        assert contents(run / "checkpoints") == before
        return message

    return check


def newest(run: Path) -> Path:
    return run / "checkpoints" / "step-00000010"


# ------------------------------------------------------------------ checkpoints that do not fit


def lose(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[min(tensors)]


def gain(tensors: dict[str, torch.Tensor]) -> None:
    tensors["999.x"] = torch.ones(1)


def reshape(tensors: dict[str, torch.Tensor]) -> None:
    tensors[min(tensors)] = tensors[min(tensors)].flatten()[:-1].clone()


def retype(tensors: dict[str, torch.Tensor]) -> None:
    tensors[min(tensors)] = tensors[min(tensors)].double()


def rename(tensors: dict[str, torch.Tensor]) -> None:
    tensors["a.b"] = tensors.pop(min(tensors))


@pytest.mark.parametrize("change", [lose, gain, reshape, retype, rename])
@pytest.mark.parametrize("name", ["model", "optimizer", "best"])
def test_tensors_that_do_not_fit_are_named(
    run: Path, refused: Callable[..., str], name: str, change: Change
) -> None:
    file = newest(run) / f"{name}.safetensors"
    tensors = load_file(file)
    change(tensors)
    forge(newest(run), file.name, save(tensors))
    assert refused().startswith(f"{file}: does not fit this run: ")


def test_an_optimiser_without_any_state_is_that_of_a_first_step(run: Path) -> None:
    """A parameter that never had a gradient has no state: allowed, for all of them too."""
    forge(newest(run), "optimizer.safetensors", save({}))
    assert train_here(run, *SHORT) == 0


def set_run(**values: Any) -> Change:
    return lambda state: state["run"].update(values)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (set_run(step=11), "step 11 is not in epoch 3"),
        (set_run(step=9), "step 9 is not in epoch 3"),
        (set_run(epoch=0), "step 10 is not in epoch 0"),
        (set_run(epoch=-5, step=-30), "step -30 is not in epoch -5"),
        (set_run(train_seconds=0.0), "times of run"),
        (set_run(epoch_seconds=-1), "times of run"),
        (set_run(best_accuracy=None), "best.safetensors"),
        (lambda state: state.update(optimizer={"0.lr": 1.0}), "optimizer: '0.lr'"),
        (lambda state: state.update(optimizer={"77.lr": 1.0}), "optimizer: '77.lr'"),
        (lambda state: state.update(scaler={"scale": 1.0}), "scaler"),
        (lambda state: state["files"].remove("model.safetensors"), "model.safetensors"),
        (lambda state: state["files"].remove("best.safetensors"), "best.safetensors"),
        (lambda state: state.update(fingerprints={}), "data.root: the images differ"),
    ],
)
def test_a_state_that_does_not_fit_is_named(
    run: Path, refused: Callable[..., str], change: Change, named: str
) -> None:
    forge_state(newest(run), change)
    message = refused()
    assert named in message
    assert str(newest(run)) in message


def test_a_checkpoint_of_another_network_by_its_path(run: Path, tmp_path: Path) -> None:
    """The configuration says what differs before the tensors do."""
    other = tmp_path / "other"
    words = ["--resume", str(newest(run)), "--model.args", '{"widths": [8, 8, 8]}']
    assert train_here(other, *SHORT, *words) == 2


# ------------------------------------------------------------------ links


@pytest.mark.parametrize(
    "name", ["config.yaml", "metrics.jsonl", "model.safetensors", ".lock", "checkpoints", "wandb"]
)
def test_a_link_in_the_folder_leads_nowhere(
    run: Path, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    target = outside / name
    if (run / name).exists():
        (run / name).rename(target)
    else:
        target.mkdir()
    (run / name).symlink_to(target)
    before = contents(outside)
    assert train_here(run, *SHORT) == 2
    message = capfd.readouterr().err
    assert "Traceback" not in message
    assert name in message
    assert contents(outside) == before


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "status.json", ".lock"])
def test_nobody_waits_for_a_pipe(run: Path, refused: Callable[..., str], name: str) -> None:
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    message = refused()
    assert name in message


def test_the_record_of_another_run_is_not_taken_through_a_link(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (run / "metrics.jsonl").rename(tmp_path / "secret")
    (run / "metrics.jsonl").symlink_to(tmp_path / "secret")
    assert train_here(tmp_path / "mine", *SHORT, "--resume", str(newest(run))) == 2
    assert f"{run / 'metrics.jsonl'}: cannot be read (a link" in capfd.readouterr().err
    assert not (tmp_path / "mine" / "metrics.jsonl").exists()


def test_a_file_is_not_written_through_a_planted_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".status.{os.getpid()}.json").symlink_to(victim)
    write_text(tmp_path / "status.json", "new")
    assert victim.read_text() == "precious"
    assert (tmp_path / "status.json").read_text() == "new"
    assert not (tmp_path / "status.json").is_symlink()


# ------------------------------------------------------------------ configurations


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that could be imported, and leaves a file where it is."""
    target = tmp_path / "executed"
    (tmp_path / "hostile_module.py").write_text(f"""
from pathlib import Path
Path({str(target)!r}).touch()
class Thing: ...
""")
    monkeypatch.syspath_prepend(str(tmp_path))
    return target


CONFIGURATIONS = {
    "a class by its name": "data: hostile_module.Thing\n",
    "a class of one's own": "data: {class_path: hostile_module.Thing}\n",
    "a class in the arguments": "model: {args: 3, class_path: hostile_module.Thing}\n",
    "another file": "data: ../data.yaml\n",
    "a tag of Python": "seed: !!python/object/apply:os.system ['touch executed']\n",
    "a key that there is not": "sneed: 3\n",
    "a list": "[1, 2]\n",
    "text": "seed\n",
    "a wrong type": "seed: text\n",
    "a value out of range": "seed: -3\n",
    "a key that is no text": "{[1]: 2}\n",
    "no date": "seed: 2001-99-99\n",
    "nested in one line": "[" * 2**17,
    "nested in many lines": "[\n" * 2**16,
    "nested lists": "- " * 2**16,
    "nested objects": "{a: " * 2**15,
    "two megabytes": "# " + "x" * 2**21,
    "no UTF-8": b"\xff\xfe",
    "aliases of aliases": "model: {args: {a0: &a0 [x, x], "
    + ", ".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))
    + "}}\n",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_configuration_is_plain_values_or_refused(
    run: Path, refused: Callable[..., str], canary: Path, text: str | bytes
) -> None:
    (run.parent / "data.yaml").write_text("name: digits\n")
    (run / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert f"{run / 'config.yaml'}: " in refused()
    assert not canary.exists()


def test_a_plug_in_that_the_folder_names_is_not_run(
    run: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text(f"from pathlib import Path\nPath({str(tmp_path / 'executed')!r}).touch()\n")
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("name: quicknet", f"name: {plugin}:Net"))
    assert "holds a run of another configuration" in refused()
    assert not (tmp_path / "executed").exists()


# ------------------------------------------------------------------ compare


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.jsonl", b"\xff\xfe\n"),
        ("metrics.jsonl", b"[1]\n"),
        ("metrics.jsonl", b'{"event": "other"}\n'),
        ("metrics.jsonl", b'{"event": "step", "epoch": "x", "step": []}\n'),
        ("metrics.jsonl", None),
        ("results.json", b"[]"),
        ("results.json", b'{"environment": 3}'),
        ("results.json", b"[" * 100_000),
        ("results.json", None),
        ("config.yaml", b"data: hostile_module.Thing\n"),
        ("config.yaml", None),
    ],
)
def test_comparing_with_a_hostile_run_is_one_message(
    trained: Path,
    run: Path,
    canary: Path,
    name: str,
    content: bytes | None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (run / "results.json").write_text(json.dumps({"final_weights_sha256": "another"}))
    path = run / name
    if content is None:
        path.rename(run.parent / "outside")
        path.symlink_to(run.parent / "outside")
    else:
        path.write_bytes(content)
    sys.argv = ["trainer", "compare", str(trained), str(run)]
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == 2
    message = capfd.readouterr().err
    assert message.startswith(f"{path}: ")
    assert "Traceback" not in message
    assert not canary.exists()


def test_the_untouched_copy_resumes(run: Path, trained: Path) -> None:
    """What all these folders were before they were changed."""
    assert train_here(run, *SHORT) == 0
    assert Run(run, 0).digest == Run(trained, 0).digest
