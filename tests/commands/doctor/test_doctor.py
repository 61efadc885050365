"""`python -m trainer doctor`: one process."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.commands.command import Capture, run_command
from tests.commands.doctor.conftest import SHORT, Doctor
from tests.nets import catalog
from tests.runs import contents, words
from trainer import __main__
from trainer.base.timeouts import has_abandoned_call
from trainer.commands import doctor
from trainer.commands.doctor import diagnosis, machine, run_checks
from trainer.commands.doctor.finding import Finding
from trainer.config.schema import DataConfig
from trainer.data import loading
from trainer.ranks import process_group


def test_what_works_leaves_nothing_behind(doctor: Doctor, tmp_path: Path) -> None:
    found = doctor(*words(tmp_path / "run"))
    assert doctor.code == 0
    assert {one["state"] for group in found.values() for one in group} == {"ok"}
    assert found["processes"][0]["text"] == "1"
    assert "1,293 training, 144 validation, 360 test" in found["data"][0]["text"]
    assert found["model"][0]["text"] == "quicknet, 14,458 parameters"
    assert found["Weights & Biases"][0]["text"] == "disabled"
    assert list(tmp_path.iterdir()) == []


def test_processes_that_the_command_starts(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = doctor(*words(tmp_path / "run", "--processes", "60", "--train.microbatches", "60"))
    assert found["processes"][0]["text"] == "60, which train.py starts by itself"
    assert found["threads"][0]["text"].startswith("threads: 60 processes of 1 thread share")
    monkeypatch.delenv("LOCKSTEP_PROCESSES")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(6))
    found = doctor(*words(tmp_path / "run"))
    assert found["processes"][0]["text"] == "4, which train.py starts by itself"
    found = doctor(*words(tmp_path / "run", "--train.microbatches", "null"))
    (finding,) = found["processes"]
    assert finding["state"] == "warning"
    assert "this run has one process, though there are 6 cores" in finding["text"]


def test_the_network_is_tried(doctor: Doctor, tmp_path: Path) -> None:
    found = doctor(*words(tmp_path / "run"))
    assert found["trial"][0]["text"] == "equal bits on two processes, and resumed"
    net = catalog.plugin("Counter")
    more = ["--model.args", "{}", "--model.name", net]
    doctor.fails("trial", "calls counts passes", *words(tmp_path / "run", *more))


def test_the_machine_only(doctor: Doctor) -> None:
    found = doctor()
    assert doctor.code == 0
    assert {"cores", "devices", "versions", "threads", "hosts", "memory"} <= found.keys()
    assert not {"data", "model", "disk", "configuration"} & found.keys()


def test_keys_without_a_file_are_for_the_default_recipe(doctor: Doctor) -> None:
    more = ["--processes", "3", "--data.name", "digits", "--data.train_size", "500"]
    doctor.fails("processes", "train.microbatches: 4 do not divide by 3 processes", *more)


@pytest.mark.parametrize(
    ("name", "message", "more"),
    [
        ("configuration", "did you mean seed?", ["--seeed", "3"]),
        ("configuration", "optimizer.lr: must be positive", ["--optimizer.lr", "-1"]),
        ("processes", "4 do not divide by 3 processes", ["--processes", "3"]),
        ("devices", "train.precision: fp16 needs a GPU", ["--train.precision", "fp16"]),
        ("data", "data.root: there is no folder", ["--data.name", "npy", "--data.root", "/none"]),
        ("data", "data.root: /none", ["--data.name", "fashion_mnist", "--data.root", "/none"]),
        ("data", "data.train_size", ["--data.train_size", "5000"]),
        ("model", "model.name, model.args: ", ["--model.name", "lenet7"]),
        ("user code", "data.augment: ./a.py:b: there is no", ["--data.augment", "./a.py:b"]),
        ("user code", "optimizer.name: ./a.py:b: there", ["--optimizer.name", "./a.py:b"]),
        ("user code", "tracking.plugin: ./a.py:b: there", ["--tracking.plugin", "./a.py:b"]),
        ("model", "model.weights: none.safetensors", ["--model.weights", "none.safetensors"]),
        ("output_dir", "cannot be written (Not a dir", ["--output_dir", f"{__file__}/run"]),
        ("output_dir", "manifest.json", ["--resume", "RUN/checkpoints/step-00000001", *SHORT]),
    ],
)
def test_a_mistake_is_named_in_the_words_of_the_run(
    doctor: Doctor, run: Path, tmp_path: Path, name: str, message: str, more: list[str]
) -> None:
    more = [word.replace("RUN", str(run)) for word in more]
    doctor.fails(name, message, *words(tmp_path / "run", *more))


@pytest.mark.parametrize(
    ("variable", "value", "name", "message"),
    [
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "launch variables", "DYNAMO_BACKEND: is IND"),
        ("WORLD_SIZE", "2", "processes", "WORLD_SIZE: is '2', as if by a launcher"),
        ("SLURM_STEP_NUM_TASKS", "4", "processes", "srun has started 4 tasks, but no launcher"),
    ],
)
def test_a_launch_that_a_run_refuses(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch,
    variable: str, value: str, name: str, message: str,
) -> None:  # fmt: skip
    monkeypatch.setenv(variable, value)
    doctor.fails(name, message)


def test_a_folder_with_another_run(doctor: Doctor, run: Path) -> None:
    before = contents(run)
    doctor.fails("output_dir", "holds a run of another configuration", *words(run, "--seed", "1"))
    assert contents(run) == before


def test_a_finished_run(doctor: Doctor, run: Path) -> None:
    found = doctor(*words(run, *SHORT))
    assert doctor.code == 0
    assert found["output_dir"][0]["text"].endswith("finished: nothing is left to do")
    assert "data" not in found


def test_a_folder_in_use(doctor: Doctor, run: Path) -> None:
    with (run / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        doctor.fails("output_dir", "is in use by another run", *words(run))


def test_more_threads_than_cores(doctor: Doctor, tmp_path: Path) -> None:
    found = doctor(*words(tmp_path / "run", "--threads", "512"))
    assert doctor.code == 0
    (finding,) = found["threads"]
    assert finding["state"] == "warning"
    assert finding["text"].startswith("threads: 1 process of 512 threads share")


def test_known_data_that_would_be_downloaded(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = doctor(*words(tmp_path / "run", "--data.name", "mnist"))
    assert doctor.code == 0
    (finding,) = found["data"]
    assert finding["state"] == "warning"
    assert "the files of mnist were not found" in finding["text"]
    assert str(tmp_path / "cache" / "lockstep" / "mnist") in finding["text"]
    assert "download" in finding["advice"]
    assert list(tmp_path.iterdir()) == []


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_group, "runs_on_cpu", lambda: False)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    monkeypatch.setattr(machine, "_gpu_names", lambda count: "1 x card")
    assert machine.check_devices() == Finding("devices", "ok", "1 GPU (1 x card)")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    finding = machine.check_devices()
    assert finding.state == "problem"
    assert finding.text == "2 processes on this machine, but 1 GPUs (1 x card)"


def test_weights_and_biases_without_and_with_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.check_weights_and_biases("online").state == "warning"
    assert "kept offline" in machine.check_weights_and_biases("auto").text
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert machine.check_weights_and_biases("online").text.startswith("a key is found")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert machine.check_weights_and_biases("auto").text == "disabled"


def test_data_that_take_too_long_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "LOADING_LIMIT_S", 0.05)
    monkeypatch.setattr(run_checks, "load", lambda *_: time.sleep(0.5))
    found = {finding.name: finding for finding in doctor.diagnose(words(tmp_path / "run"))}
    assert found["data"].state == "warning"
    assert "not read within 0.05 s" in found["data"].text
    while has_abandoned_call():  # it would end the process of the next test
        time.sleep(0.01)


def test_a_model_that_takes_too_long_to_build_is_not_blamed_on_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading.load(DataConfig(name="digits"), seed=0)  # imports what takes time
    monkeypatch.setattr(diagnosis, "LOADING_LIMIT_S", 2.0)
    monkeypatch.setattr(run_checks, "build_model", lambda *_: time.sleep(2.5))
    found = {finding.name: finding for finding in doctor.diagnose(words(tmp_path / "run"))}
    assert found["data"].state == "ok"
    assert "not built and tried within 2 s" in found["model"].text
    while has_abandoned_call():
        time.sleep(0.01)


PRETRAINED = """
from models.lab import LabCNN

class Own(LabCNN):
    def __init__(self, num_classes, in_channels, image_size, pretrained=False):
        assert not pretrained, "this would be a download"
        super().__init__(num_classes, in_channels, image_size)
"""


def test_pretrained_weights_are_not_asked_for(doctor: Doctor, tmp_path: Path) -> None:
    plugin = tmp_path / "own.py"
    plugin.write_text(PRETRAINED)
    more = ["--model.name", f"{plugin}:Own", "--model.args", '{"pretrained": true}']
    found = doctor(*words(tmp_path / "run", *more))
    assert doctor.code == 0
    (finding,) = found["model"]
    assert "pretrained weights were not looked for" in finding["text"]
    assert "a run gets it from the hub" in finding["advice"]
    assert "memory" in found


def test_a_network_that_a_hub_describes_is_not_built(doctor: Doctor, tmp_path: Path) -> None:
    found = doctor(*words(tmp_path / "run", "--model.name", "timm:hf-hub:owner/name"))
    assert doctor.code == 0
    (finding,) = found["model"]
    assert finding["state"] == "warning"
    assert "is described by a hub, which was not asked" in finding["text"]


def test_a_package_that_cannot_be_imported(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "trainer.commands.doctor.diagnosis")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    doctor.fails("imports", "accelerate")


def test_unknown_arguments_of_other_commands_are_still_errors(capsys: Capture) -> None:
    sys.argv = ["trainer", "compare", "a", "b", "--seed", "3"]
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == 2
    assert "unrecognized arguments: --seed 3" in capsys.readouterr().err


def test_the_text_for_people(capsys: Capture, tmp_path: Path) -> None:
    more = ["--processes", "3"]
    code, output, errors = run_command(capsys, "doctor", *words(tmp_path / "run"), *more)
    assert code == 2
    lines = output.splitlines()
    assert lines[0].startswith(
        "PROBLEM  processes         train.microbatches: 4 do not divide by 3"
    )
    assert "ok       model             quicknet, 14,458 parameters" in lines
    # A path is not broken.
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 100
    assert errors.splitlines()[-1] == "a run would fail here: processes"
