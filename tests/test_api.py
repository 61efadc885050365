"""The Python API: the command's own run, from a program, any number of times."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands.command import run_command
from tests.distributed.launch import environment, run_forked
from tests.runs import DIGITS, Run, train_here
from trainer import api
from trainer.config.schema import RunConfig, replace

QUIET: dict[str, Any] = {"threads": 1, "tracking": {"wandb": "disabled"}}
IMAGES = 300
"""to train on, five steps"""


def train(folder: Path, epochs: int = 1, **changes: Any) -> api.Run:
    """A run of some digits that asks nobody."""
    train_keys = {"epochs": epochs} | changes.pop("train", {})
    own = QUIET | {"data": {"train_size": IMAGES}} | changes
    return api.train(DIGITS, output_dir=folder, train=train_keys, **own)


@pytest.fixture(scope="module")
def by_command(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("command") / "run"
    assert train_here(folder, "--train.epochs", "1", "--data.train_size", str(IMAGES)) == 0
    return Run(folder, 0)


def test_a_run_in_a_few_lines(by_command: Run, tmp_path: Path) -> None:
    """The command's bits; hooks see every record, and may do what they like."""
    seen: list[dict[str, Any]] = []

    def spoil(record: dict[str, Any]) -> None:
        seen.append(dict(record))
        record.clear()
        torch.manual_seed(len(seen))
        torch.rand(3)

    threads = torch.get_num_threads()
    torch.set_deterministic_debug_mode(0)
    run = train(tmp_path / "run", on_step=spoil, on_epoch=spoil, threads=1)
    assert run.results["final_weights_sha256"] == by_command.digest
    assert seen == by_command.metrics("step") + Run(run.folder, 0).metrics("epoch")
    assert run.steps["loss"] == [record["loss"] for record in by_command.metrics("step")]
    assert run.epochs["epoch"] == [1]
    assert torch.get_num_threads() == threads
    assert torch.get_deterministic_debug_mode() == 0
    assert f"{run.results['test']['accuracy']:.2%}".replace("%", " %") in repr(run)
    assert run._repr_html_().count("<tr>") == 11
    assert len(run.predictions["predicted"]) == 360
    assert run.model.weights_sha256 == run.results["weights_sha256"]
    assert run.model.probabilities(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_a_hook_that_fails_is_one_warning(
    by_command: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def fail(record: dict[str, Any]) -> None:
        calls.append(record)
        sys.exit("no more")

    run = train(tmp_path / "run", on_step=fail)
    assert run.results["final_weights_sha256"] == by_command.digest
    assert len(calls) == 1
    assert [r.message for r in caplog.records if "on_step" in r.message] == [
        "on_step is not called any more: it failed with SystemExit: no more; the training goes on"
    ]


def test_runs_after_each_other(by_command: Run, tmp_path: Path) -> None:
    """Of another precision, after an error and after a stop, and once more what is finished."""
    train(tmp_path / "half", train={"precision": "bf16"})
    with pytest.raises(api.UserError, match="LabCNN9"):
        train(tmp_path / "wrong", model={"name": "LabCNN9", "args": {}})
    with pytest.raises(api.StoppedOnRequest, match="the same command goes on"):
        train(tmp_path / "run", train={"max_seconds": 0.001})
    for _ in range(2):
        assert train(tmp_path / "run").results["final_weights_sha256"] == by_command.digest


def test_a_configuration_instead_of_a_recipe_and_another_thread(tmp_path: Path) -> None:
    config = replace(RunConfig(), {"data.name": "digits", "train.epochs": 9})
    with pytest.raises(api.UserError, match="output_dir: null"):
        api.train(config)
    runs: list[api.Run] = []

    def work() -> None:
        changes = {"output_dir": tmp_path, "train": {"epochs": 1}, "data": {"train_size": 200}}
        runs.append(api.train(config, **(QUIET | changes)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert runs[0].config.data.name == "digits"
    assert runs[0].results["train"]["epochs"] == 1


SURROUNDINGS = """
import json, logging, os, random, signal, sys, warnings
import numpy as np, torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from trainer import api

def quiet(number, frame):
    pass

def surroundings():
    backends = torch.backends
    return {
        "threads": torch.get_num_threads(),
        "dtype": str(torch.get_default_dtype()),
        "device": str(torch.get_default_device()),
        "deterministic": torch.get_deterministic_debug_mode(),
        "filled": torch.utils.deterministic.fill_uninitialized_memory,
        "cudnn": [backends.cudnn.enabled, backends.cudnn.benchmark, backends.cudnn.deterministic,
                  backends.cudnn.allow_tf32],
        "mkldnn": backends.mkldnn.enabled,
        "small": float(torch.tensor(1e-40, dtype=torch.float32, device="cpu") * 1),
        "products": torch.get_float32_matmul_precision(),
        "float32": [one.fp32_precision for one in (backends, backends.cudnn, backends.cudnn.conv,
                    backends.cudnn.rnn, backends.cuda.matmul, backends.mkldnn.conv,
                    backends.mkldnn.rnn, backends.mkldnn.matmul)],
        "torch's draws": torch.get_rng_state().tolist(),
        "numpy's draws": repr(np.random.get_state()),
        "Python's draws": repr(random.getstate()),
        "gradients": torch.is_grad_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "environment": dict(os.environ),
        "signals": [repr(signal.getsignal(number)) for number in
                    (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)],
        "warnings": [repr(warnings.filters), repr(warnings.showwarning)],
        "logging": [repr(logging.root.handlers), logging.root.level, logging.root.manager.disable],
        "hooks": [repr(sys.excepthook), repr(sys.stdout), repr(sys.stderr), sys.path, os.getcwd()],
        "numpy": np.geterr(),
        "accelerate": [repr(sorted(kind._shared_state.items(), key=str)) for kind in
                       (PartialState, AcceleratorState, GradientState)],
    }

os.chdir(sys.argv[3])
if sys.argv[2] == "unusual":  # without the report
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = torch.backends.cudnn.deterministic = True
    torch.backends.mkldnn.conv.fp32_precision = "bf16"
    torch.set_float32_matmul_precision("high")
    torch.set_flush_denormal(True)
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    signal.signal(signal.SIGTERM, quiet)
    warnings.filterwarnings("ignore", "nothing")
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":16:8"
    own = Accelerator(cpu=True, mixed_precision="bf16")
    torch.set_grad_enabled(False)

def train(name, **changes):
    return api.train(sys.argv[1], output_dir=name, threads=1, tracking={"wandb": "disabled"},
                     **changes)

before = surroundings()
ends = {
    "finished": {"train": {"epochs": 1}, "data": {"train_size": 200}},
    "stopped": {"train": {"max_seconds": 0.001}},
    "lost": {"optimizer": {"name": "sgd", "lr": 1e30}},
    "wrong": {"model": {"name": "LabCNN9", "args": {}}},
}
for name, changes in ends.items():
    try:
        digest = train(name, **changes).results["final_weights_sha256"]
        end = "finished"
    except api.StoppedOnRequest:
        end = "stopped"
    except api.NonFiniteLossError:
        end = "lost"
    except api.UserError:
        end = "wrong"
    assert end == name, (end, name)
    after = surroundings()
    changed = {key: [before[key], after[key]] for key in before if before[key] != after[key]}
    assert not changed, (name, changed)
print(digest)
"""


def test_the_callers_surroundings_come_back(tmp_path: Path) -> None:
    """However a run ends, and whatever they are; the bits do not depend on them."""
    script = tmp_path / "surroundings.py"
    script.write_text(SURROUNDINGS)
    digests = set()
    for kind in ("usual", "unusual"):
        folder = tmp_path / kind
        folder.mkdir()
        words = [str(script), str(DIGITS), kind, str(folder)]
        if kind == "usual":
            finished = subprocess.run(
                [sys.executable, *words],
                env=environment(), capture_output=True, text=True, check=False,
            )  # fmt: skip
        else:
            finished = run_forked(1, folder, *words)
        assert finished.returncode == 0, finished.stderr
        digests.add(finished.stdout.splitlines()[-1])
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sead": 1}, "did you mean seed"),
        ({"train": {"epochz": 1}}, r"did you mean train\.epochs"),
        ({"train": {"epochs": "many"}}, r"train\.epochs: must be a whole number, found many"),
        ({"train": {"epochs": 0}}, r"train\.epochs: must be at least 1"),
        ({"train": 3}, "train: must be a section"),
        ({"data": {"name": "digts"}}, "did you mean digits"),
        ({"optimizer": {"name": "adm"}}, "did you mean adam"),
        ({"processes": 3}, "processes: this run must have 3"),
    ],
)
def test_a_mistake_is_an_exception_with_one_message(
    changes: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    with pytest.raises(api.UserError, match=expected) as caught:
        api.train(DIGITS, output_dir=tmp_path / "run", **changes)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


SCRIPT = """
import sys, torch
from trainer.api import register_augmentation, register_model, register_optimizer, train
from models.lab import LabCNN

@register_augmentation("dim", numbers=1)
def dim(images, numbers):
    return (images * (0.5 + 0.5 * numbers[:, :, None, None])).to(torch.uint8)

register_optimizer("nadam")(torch.optim.NAdam)

@register_model("mine")
class Mine(LabCNN):
    pass

for name, seed in (("first", 0), ("second", 1)):
    run = train(sys.argv[1], output_dir=f"{sys.argv[2]}/{name}", seed=seed, threads=1,
                train={"epochs": 1}, model={"name": "mine", "args": {}},
                data={"augment": "shift+dim", "train_size": 300}, tracking={"wandb": "disabled"},
                optimizer={"name": "nadam", "args": {"eps": 1e-6}})
    assert run.results["train"]["epochs"] == 1
"""


def test_a_script_with_registered_parts_on_two_processes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two runs in each process; other commands read what names it has without knowing them."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    digests = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        finished = run_forked(processes, tmp_path, str(script), str(DIGITS), str(folder))
        assert finished.returncode == 0, finished.stderr
        digests.append([Run(folder / name, 0).digest for name in ("first", "second")])
    assert digests[0] == digests[1]
    assert digests[0][0] != digests[0][1]
    folders = [tmp_path / "1" / name for name in ("first", "second")]
    exit_code, shown, errors = run_command(capsys, "summary", *folders)
    assert exit_code == 0, errors
    assert "test" in shown
