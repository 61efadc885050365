"""Weights of the hub: huggingface_hub itself, and a server that speaks as the hub does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save

import models
from tests.data.picture_folders import write_pictures
from tests.distributed.launch import run_forked
from tests.network.hub_server import Hub, serve
from tests.runs import DIGITS, train_forked, words
from tests.with_timm import run_with_timm

OF_TIMM = {
    "architecture": "quicknet",
    "label_names": [str(number) for number in range(10)],
    "pretrained_cfg": {
        "mean": [0.5], "std": [0.25], "input_size": [1, 8, 8], "crop_pct": 0.9,
        "interpolation": "bicubic",
    },
}  # fmt: skip
OF_TRANSFORMERS = {"id2label": {"0": "cat", "1": "dog"}}
PREPROCESSOR = {"image_mean": [0.5], "image_std": [0.25], "size": 8, "resample": 3}


def weights() -> bytes:
    recipe = yaml.safe_load(DIGITS.read_text())["model"]
    torch.manual_seed(1)
    net = models.create(
        recipe["name"], recipe["args"], num_classes=10, in_channels=1, image_size=(8, 8)
    )
    return save(net.state_dict())


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    content = weights()
    files = {
        "some/timm": {"model.safetensors": content, "config.json": json.dumps(OF_TIMM).encode()},
        "some/transformers": {
            "model.safetensors": content,
            "config.json": json.dumps(OF_TRANSFORMERS).encode(),
            "preprocessor_config.json": json.dumps(PREPROCESSOR).encode(),
        },
        "some/bare": {"model.safetensors": content},
        "some/pickle": {"pytorch_model.bin": b"x"},
        "some/gated": {"model.safetensors": content},
        "some/broken": {"model.safetensors": content, "config.json": b"{"},
    }
    with serve(Hub(files, gated={"some/gated"}, unreliable={"some/cut"})) as server:
        yield server


def ask(home: Path, address: str, *names: str, download: bool = True, **env: str) -> list[Any]:
    attempts = json.dumps([(name, download) for name in names])
    worker = str(Path(__file__).with_name("hub_worker.py"))
    env |= {"HF_ENDPOINT": address, "HF_HOME": str(home)}
    found = run_forked(1, home, worker, attempts, **env)
    assert found.returncode == 0, found.stderr
    answers: list[Any] = json.loads(found.stdout.splitlines()[-1])
    return answers


def test_what_a_repository_says_and_that_the_cache_serves_without_a_network(
    hub: Hub, tmp_path: Path
) -> None:
    commit = hub.commit("some/timm")
    names = ["hf:some/timm", f"hf:some/timm@{commit}", "hf:some/transformers", "hf:some/bare"]
    online = ask(tmp_path, hub.address, *names)
    for found in online:
        assert found["sha256"] == hashlib.sha256(weights()).hexdigest()
    assert {found["source"] for found in online[:2]} == {f"hf:some/timm@{commit}"}
    assert online[0]["class_names"] == OF_TIMM["label_names"]
    assert online[0]["preprocessing"] == {
        "mean": [0.5], "deviation": [0.25], "image_size": [8, 8], "crop_share": 0.9,
        "interpolation": "bicubic",
    }  # fmt: skip
    assert online[2]["class_names"] == ["cat", "dog"]
    assert online[2]["preprocessing"]["interpolation"] == "bicubic"
    assert online[3]["class_names"] is None
    asked = len(hub.asked)
    assert ask(tmp_path, hub.address, *names, HF_HUB_OFFLINE="1") == online
    assert ask(tmp_path, hub.address, *names, download=False) == online
    assert len(hub.asked) == asked


def test_what_is_not_there_is_said_in_one_line(hub: Hub, tmp_path: Path) -> None:
    expected = {
        "hf:some/nothing": "the hub has no such repository",
        "hf:some/timm@other": "has no such revision",
        "hf:some/pickle": "python -m trainer convert-weights pytorch_model.bin",
        "hf:some/gated": "grants access by request",
        "hf:some/broken": "config.json: damaged",
    }
    for found, part in zip(ask(tmp_path, hub.address, *expected), expected.values(), strict=True):
        assert part in found["message"]
        assert "\n" not in found["message"]
        assert found["kind"] == "UserError"
    (nowhere,) = ask(tmp_path, "http://127.0.0.1:9", "hf:some/other")
    assert nowhere["kind"] == "NotAtHandError"
    assert "hf download some/other" in nowhere["message"]
    (cut,) = ask(tmp_path, hub.address, "hf:some/cut")
    assert cut["kind"] == "NotAtHandError"
    assert "model.safetensors cannot be downloaded: Server disconnected" in cut["message"]


def test_one_of_two_processes_downloads_and_the_commit_is_pinned(hub: Hub, tmp_path: Path) -> None:
    before = len(hub.asked)
    more = ["--train.epochs", "1", "--data.train_size", "200", "--model.weights", "hf:some/timm"]
    env = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")}
    run = train_forked(tmp_path / "run", 2, *more, "--data.scaling", "global", **env)
    assert run.exit_code == 0, run.errors
    got = [line for line in hub.asked[before:] if line.startswith("GET")]
    assert len([line for line in got if line.endswith("model.safetensors")]) == 1
    config = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert config["model"]["weights"] == f"hf:some/timm@{hub.commit('some/timm')}"
    assert (
        run.json("results.json")["model"]["weights"]["sha256"] == config["model"]["weights_sha256"]
    )


def test_pretrained_of_a_net_of_timm_is_what_timm_has_for_it(tmp_path: Path) -> None:
    """From its repository, by the settings of timm; later commands find it in the cache."""
    root = write_pictures(tmp_path / "pictures", count=8, size=(40, 50), channels=3)
    run, name = tmp_path / "run", "resnet10t"
    given = ["--data.name", "folder", "--data.root", str(root), "--data.image_size", "64"]
    given += ["--model.name", f"timm:{name}", "--model.args", "{}", "--model.weights", "pretrained"]
    given += ["--train.batch_size", "8", "--train.epochs", "1", "--schedule.name", "constant"]
    recipe = words(run, *given)
    commands = [["train", *recipe], ["verify", str(run), "--model.name", f"timm:{name}"]]
    commands += [["train", *recipe, "--train.epochs", "2"]]
    program = ("-m", "tests.network.timm_hub_worker", name, json.dumps(commands))
    finished = run_with_timm(tmp_path, *program, HF_HOME=str(tmp_path / "home"))
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout.splitlines()[-1])
    assert found["codes"] == [0, 0, 0], finished.stderr
    weights = [one for one in found["asked"] if one.endswith("model.safetensors")]
    assert len([one for one in weights if one.startswith("GET /timm/resnet10t.")]) == 1
    assert "head: 1,000 -> 2 classes, new" in finished.stdout
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["weights"] == "pretrained"
    data = config["data"]  # as timm 1.0 says of resnet10t.c3_in1k
    assert (data["scaling"], data["crop_share"], data["interpolation"]) == (
        "pretrained", 0.875, "bicubic"
    )  # fmt: skip
    assert data["mean"] == [0.485, 0.456, 0.406]
    assert json.loads((run / "results.json").read_text())["train"]["epochs"] == 2
