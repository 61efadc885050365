"""`python -m trainer push`: a run on a hub, by huggingface_hub itself."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from tests.commands.command import Capture, run_command
from tests.distributed.launch import run_forked
from tests.network.hub_server import READER, WRITER, Hub, serve
from tests.runs import Run, contents, train_forked
from trainer.base.errors import UserError
from trainer.commands.push import collect
from trainer.config import stored_config
from trainer.config.same_run import differences

PUSHED = {"README.md", "model.safetensors", "results.json", "receipt.json", "config.yaml"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A short run with its report, and so its card."""
    folder = tmp_path_factory.mktemp("runs") / "clothes"
    small = ["--train.epochs", "1", "--data.train_size", "300"]
    return train_forked(folder, 1, *small, report=True)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve(Hub({})) as server:
        yield server


def push(
    address: str, home: Path, *words: str | Path, token: str = WRITER
) -> subprocess.CompletedProcess[str]:
    # The server speaks Git LFS, which huggingface_hub uses where there is no Xet.
    variables = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_TOKEN": token}
    home.mkdir(exist_ok=True)
    command = ("-m", "trainer", "push", *map(str, words))
    return run_forked(1, home, *command, **variables, HF_HUB_DISABLE_XET="1")


def test_what_is_pushed_starts_another_run(run: Run, hub: Hub, tmp_path: Path) -> None:
    before = contents(run.folder)
    done = push(hub.address, tmp_path, run.folder, "someone/clothes", "--private", "--json")
    assert done.returncode == 0, done.stderr
    assert contents(run.folder) == before
    found, files = json.loads(done.stdout), hub.files["someone/clothes"]
    assert files.keys() == set(found["files"]) == PUSHED
    assert found["commit"] == hub.commit("someone/clothes")
    assert hub.private == {"someone/clothes"}
    for name in PUSHED - {"config.yaml"}:
        assert files[name] == (run.folder / name).read_bytes()
    assert str(run.folder).encode() not in b"".join(files.values())

    (tmp_path / "config.yaml").write_bytes(files["config.yaml"])
    pushed, own = (stored_config.read_folder(folder) for folder in (tmp_path, run.folder))
    assert differences(pushed, own) == []
    assert "output_dir" not in yaml.safe_load(files["config.yaml"])

    again = train_forked(
        tmp_path / "again",
        1,
        *("--model.weights", "hf:someone/clothes", "--train.epochs", "1"),
        *("--data.train_size", "300"),
        HF_ENDPOINT=hub.address,
        HF_HOME=str(tmp_path / "home"),
    )
    assert again.exit_code == 0, again.errors
    assert again.digest != run.digest
    assert again.metrics("step")[0]["loss"] < run.metrics("step")[0]["loss"]


def test_no_folder_of_this_machine_is_pushed(run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.folder, copy)
    whole = {"weights": str(tmp_path / "first.safetensors"), "teacher": str(tmp_path / "large")}
    recipe = yaml.safe_load((copy / "config.yaml").read_text())
    recipe["model"] |= {"weights": whole["weights"], "weights_sha256": "0" * 64}
    recipe["train"]["teacher"] = whole["teacher"]
    (copy / "config.yaml").write_text(yaml.safe_dump(recipe))
    results = json.loads((copy / "results.json").read_text())
    results["model"]["weights"] = {"source": whole["weights"], "sha256": "0" * 64}
    results["train"]["teacher"] = {"source": whole["teacher"], "weight": 0.5}
    (copy / "results.json").write_text(json.dumps(results))

    files = collect(copy)
    assert str(tmp_path).encode() not in b"".join(files.values())
    pushed = json.loads(files["results.json"])
    assert pushed["model"]["weights"] == {"source": "first.safetensors", "sha256": "0" * 64}
    assert yaml.safe_load(files["config.yaml"])["train"]["teacher"] == "large"
    results["model"]["weights"]["source"] = "hf:someone/else@main"
    (copy / "results.json").write_text(json.dumps(results))
    assert b'"hf:someone/else@main"' in collect(copy)["results.json"]
    (copy / "results.json").write_text(json.dumps(results | {"model": 3}))
    with pytest.raises(UserError, match=r"results\.json: model: must be"):
        collect(copy)


@pytest.mark.parametrize(
    ("token", "message"),
    [("hf_other", "log in (hf auth login)"), (READER, "the permission to write")],
)
def test_a_token_that_is_refused(
    token: str, message: str, run: Run, hub: Hub, tmp_path: Path
) -> None:
    done = push(hub.address, tmp_path, run.folder, "someone/clothes", token=token)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert hub.files == {}


def test_a_plug_in_is_named_without_its_folder(run: Run, tmp_path: Path) -> None:
    copy, name = tmp_path / "run", str(tmp_path / "net.py:Net")
    shutil.copytree(run.folder, copy)
    recipe = yaml.safe_load((copy / "config.yaml").read_text())
    own = recipe["model"]["name"]
    recipe["model"]["name"] = name
    (copy / "config.yaml").write_text(yaml.safe_dump(recipe))
    for file in ("README.md", "results.json", "receipt.json"):
        text = (copy / file).read_text()
        assert own in text
        (copy / file).write_text(text.replace(own, name))
    before = load_file(copy / "model.safetensors")
    metadata = json.dumps({"name": name})
    save_file(before, copy / "model.safetensors", {"model": metadata})

    files = collect(copy)
    assert files.keys() == PUSHED - {"receipt.json"}
    assert str(tmp_path).encode() not in b"".join(files.values())
    assert yaml.safe_load(files["config.yaml"])["model"]["name"] == "net.py:Net"
    (tmp_path / "pushed.safetensors").write_bytes(files["model.safetensors"])
    with safe_open(tmp_path / "pushed.safetensors", "np") as pushed:
        assert json.loads(pushed.metadata()["model"]) == {"name": "net.py:Net"}
        for key, tensor in before.items():
            assert np.array_equal(pushed.get_tensor(key), tensor)


def test_a_large_file_that_is_refused_and_a_repository_that_everybody_sees(
    run: Run, hub: Hub, tmp_path: Path
) -> None:
    hub.refuses_large = True
    done = push(hub.address, tmp_path, run.folder, "someone/clothes")
    assert (done.returncode, done.stdout) == (2, "")
    assert "someone/clothes: was not pushed: Error while uploading" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert hub.files["someone/clothes"] == {}
    done = push(hub.address, tmp_path, run.folder, "someone/clothes", "--private")
    assert done.returncode == 2
    assert "--private makes only a new one private" in done.stderr


def test_what_cannot_be_pushed(run: Run, tmp_path: Path, capsys: Capture) -> None:
    unfinished, bare = tmp_path / "unfinished", tmp_path / "bare"
    for copy in (unfinished, bare):
        shutil.copytree(run.folder, copy)
    status = json.loads((unfinished / "status.json").read_text())
    (unfinished / "status.json").write_text(json.dumps(status | {"state": "stopped"}))
    (bare / "README.md").unlink()
    expected = {
        (unfinished, "a/b"): "is not finished, but stopped at step",
        (bare, "a/b"): f"python -m trainer report {bare}",
        (tmp_path, "a/b"): "not a run",
        (run.folder, "name"): "OWNER/NAME: 'name' is not",
    }
    for words, message in expected.items():
        code, output, errors = run_command(capsys, "push", *words)
        assert (code, output) == (2, "")
        assert message in errors
        assert len(errors.splitlines()) == 1
    done = push("http://127.0.0.1:9", tmp_path / "home", run.folder, "a/b")
    assert (done.returncode, done.stdout) == (2, "")
    assert "a/b: was not pushed: " in done.stderr
    assert len(done.stderr.splitlines()) == 1
