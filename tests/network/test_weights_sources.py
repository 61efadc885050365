"""Where weights are found, and what the files beside them say: in files, and in the hub's cache."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save

from models import timm_models
from trainer.base.errors import UserError
from trainer.config.schema import ModelConfig, RunConfig
from trainer.network import hub, weights_sources
from trainer.network.hub import NotAtHandError
from trainer.network.pretrained import Preprocessing, PretrainedWeights

COMMIT = "0123456789" * 4
WEIGHTS = save({"a": torch.ones(2)})
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
OF_TIMM = {"mean": [0.5], "std": [0.25], "input_size": [1, 8, 9], "crop_pct": 0.9}
PREPROCESSING = Preprocessing((0.5,), (0.25,), (8, 9), 0.9)
OF_TRANSFORMERS = {"image_mean": [0.5], "image_std": [0.25], "size": 8, "resample": 3}


def find(weights: Path | str, **keys: Any) -> PretrainedWeights:
    found = weights_sources.find(ModelConfig(weights=str(weights), **keys), download=False)
    assert found is not None
    return found


def refusal(ask: Callable[[], object], kind: type[UserError] = UserError) -> str:
    with pytest.raises(UserError) as caught:
        ask()
    assert type(caught.value) is kind
    return str(caught.value)


def write(folder: Path, *, weights: bytes = WEIGHTS, **files: Any) -> Path:
    """Write weights and files of JSON into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(weights)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """What puts a repository, some/net, into the hub's cache of this machine."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "models--some--net"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)

    def put(*lacking: str, **files: Any) -> Path:
        for name in lacking:  # as the cache remembers what the hub does not have
            (folder / ".no_exist" / COMMIT).mkdir(parents=True, exist_ok=True)
            (folder / ".no_exist" / COMMIT / name).touch()
        return write(folder / "snapshots" / COMMIT, **files)

    return put


# ---------------------------------------------------------------------- files and folders


def test_a_file_is_found_wherever_it_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path) / "model.safetensors"
    (tmp_path / "link").symlink_to(file)
    expected = PretrainedWeights(str(file), str(file), file.resolve(), SHA256)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in (str(file), "model.safetensors", "~/model.safetensors"):
        assert find(name) == expected
    link = str(tmp_path / "link")
    assert find("link") == PretrainedWeights(link, link, file.resolve(), SHA256)
    assert weights_sources.find(ModelConfig()) is None


def test_other_weights_than_those_that_are_meant_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path) / "model.safetensors"
    assert find(file, weights_sha256=SHA256).sha256 == SHA256
    assert refusal(lambda: find(file, weights_sha256="0" * 64)) == (
        f"model.weights: {file} has the SHA-256 {SHA256}, but model.weights_sha256 is {'0' * 64}: "
        "the file is not the one that this configuration means; bring that back, or start another "
        "run, with model.weights_sha256: null"
    )


def test_they_are_pinned_by_source_and_digest(tmp_path: Path) -> None:
    found = find(write(tmp_path) / "model.safetensors")
    config = RunConfig(model=ModelConfig(weights="somewhere", args={"a": 1}))
    assert weights_sources.pin(config, None) is config
    assert weights_sources.pin(config, found) == RunConfig(
        model=ModelConfig(weights=found.source, weights_sha256=SHA256, args={"a": 1})
    )


@pytest.mark.parametrize(
    ("weights", "is_loaded"),
    [(None, False), ("pretrained", True), ("hf:some/net", True), ("own/pretrained", False)],
)
def test_a_file_of_the_user_is_not_downloaded(weights: str | None, is_loaded: bool) -> None:
    assert weights_sources.may_be_downloaded(ModelConfig(weights=weights)) is is_loaded


def test_a_folder_says_more(tmp_path: Path) -> None:
    folder, config = tmp_path / "folder", {"id2label": {"0": "cat", "1": "dog"}}
    file, source = folder / "model.safetensors", str(folder)
    bare = PretrainedWeights(source, source, file.resolve(), SHA256)
    assert find(write(folder)) == bare
    assert find(write(folder, config=config)) == PretrainedWeights(
        source, source, file.resolve(), SHA256, ("cat", "dog")
    )
    write(folder, preprocessor_config=OF_TRANSFORMERS)
    found = find(folder).preprocessing
    assert (found.image_size, found.interpolation) == ((8, 8), "bicubic")
    # What timm says goes before what transformers would.
    write(folder, config=config | {"pretrained_cfg": OF_TIMM})
    assert find(folder).preprocessing == PREPROCESSING


def test_a_run_says_more_in_its_own_file(tmp_path: Path) -> None:
    def weights(about: Any) -> bytes:
        text = about if isinstance(about, str) else json.dumps(about)
        return save({"a": torch.ones(2)}, metadata={"model": text})

    about: dict[str, Any] = {"image_size": [8, 9], "in_channels": 1, "class_names": ["x", "y"]}
    folder = write(tmp_path / "run", weights=weights(about), config={"id2label": {"0": "z"}})
    file = folder / "model.safetensors"
    for place in (folder, file):
        found = find(place)
        assert found.class_names == ("x", "y")
        assert found.preprocessing.image_size == (8, 9)
    write(folder, weights=weights({**about, "class_names": None}))
    assert find(folder).class_names is None
    for wrong, part in (
        ("{", "damaged, not JSON that Lockstep writes"),
        ([], "model: must be dict[str, typing.Any], found []"),
        ({**about, "class_names": [1]}, "model.class_names: must be list[str] | None, found [1]"),
        ({**about, "image_size": 8}, "model: image_size: must be list[int], found 8"),
    ):
        write(folder, weights=weights(wrong))
        assert refusal(lambda: find(folder)).startswith(f"model.weights: {file}: {part}")


def test_what_is_no_weights_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    nowhere = refusal(lambda: find(folder), NotAtHandError)
    assert nowhere == f"model.weights: {folder}: No such file or folder"
    folder.mkdir()
    assert refusal(lambda: find(folder)) == (
        f"model.weights: {folder}: is neither the folder of a finished run nor one of the hub's, "
        "there is no model.safetensors in it"
    )
    (folder / "config.yaml").touch()
    assert refusal(lambda: find(folder)) == (
        f"model.weights: {folder}: has no model.safetensors, its run is not finished; let it come "
        "to its end (the same command goes on)"
    )
    file = write(folder, weights=b"else") / "model.safetensors"
    assert refusal(lambda: find(folder)).startswith(f"model.weights: {file}: not a valid safetens")
    os.mkfifo(tmp_path / "pipe")
    pipe = tmp_path / "pipe"
    assert refusal(lambda: find(pipe)) == f"model.weights: {pipe}: is no regular file"
    unreadable = "/proc/self/mem"  # a file whose beginning is no memory
    assert refusal(lambda: find(unreadable)) == f"model.weights: {unreadable}: Input/output error"
    torch.save({"a": torch.ones(1)}, file)
    assert refusal(lambda: find(file)).startswith(
        f"model.weights: {file}: is a file of torch.save, a pickle"
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, None),
        ({"label_names": ["b", "a"]}, ("b", "a")),
        ({"pretrained_cfg": {"label_names": ["b", "a"]}}, ("b", "a")),
        ({"label_names": ["b"], "pretrained_cfg": {"label_names": ["c"]}}, ("b",)),
        ({"label_names": ["b"], "id2label": {"0": "c"}}, ("b",)),
        ({"pretrained_cfg": "its name", "id2label": {"0": "c"}}, ("c",)),
        (
            {"id2label": {str(number): f"{number}!" for number in (*range(5, 12), *range(5))}},
            tuple(f"{number}!" for number in range(12)),
        ),
    ],
)
def test_the_names_of_classes(
    config: Mapping[str, Any], expected: tuple[str, ...] | None, tmp_path: Path
) -> None:
    assert find(write(tmp_path, config=config)).class_names == expected


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ([], ": must be dict[str, typing.Any], found []"),
        ({"label_names": "x"}, ": the names of its classes: must be list[str] | None, found 'x'"),
        ({"id2label": ["x"]}, ": id2label: must be dict[str, str], found ['x']"),
        ({"id2label": {"0": "x", "2": "y"}}, ": the names of its classes: must be list[str] | "),
        ({"pretrained_cfg": {"mean": 1}}, ": pretrained_cfg: mean: must be list[float] | None"),
    ],
)
def test_what_is_wrong_beside_the_weights_is_named(config: Any, part: str, tmp_path: Path) -> None:
    message = refusal(lambda: find(write(tmp_path, config=config)))
    assert message.startswith(f"model.weights: {tmp_path / 'config.json'}{part}")
    write(tmp_path, config={}, preprocessor_config={"size": "x"})
    message = refusal(lambda: find(tmp_path))
    assert message.startswith(f"model.weights: {tmp_path / 'preprocessor_config.json'}: size: ")


# ---------------------------------------------------------------------- the hub's cache


def test_a_repository_in_the_cache(repository: Callable[..., Path]) -> None:
    name, none = f"hf:some/net@{COMMIT}", ("config.json", "preprocessor_config.json")
    file = repository(*none) / "model.safetensors"
    for asked in ("hf:some/net", name):
        assert find(asked) == PretrainedWeights(name, name, file.resolve(), SHA256)
    repository(config={"label_names": ["x"]}, preprocessor_config=OF_TRANSFORMERS)
    found = find("hf:some/net")
    assert found.class_names == ("x",)
    assert (found.preprocessing.mean, found.preprocessing.interpolation) == ((0.5,), "bicubic")
    assert find("hf:some/net", weights_sha256=SHA256) == found
    with pytest.raises(UserError, match=f"weights: {name} has the SHA-256 {SHA256}, but"):
        find("hf:some/net", weights_sha256="0" * 64)


def test_what_the_cache_does_not_have_may_be_at_the_hub(repository: Callable[..., Path]) -> None:
    """Whoever asks tries again with a network, where a wrong file would end the run."""
    repository(config={"label_names": ["x"]})
    message = refusal(lambda: find("hf:some/net"), NotAtHandError)
    assert message.startswith(f"model.weights: hf:some/net@{COMMIT}: preprocessor_config.json is ")


def test_the_hub_is_asked_only_where_that_is_meant(
    repository: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository("config.json")
    asked, real = [], hub.find

    def note(name: str, *, download: bool, file: str = hub.WEIGHTS) -> Any:
        asked.append((name, download))
        return real(name, download=False, file=file)

    monkeypatch.setattr(hub, "find", note)
    own = {"hf_hub_id": "some/net"}
    monkeypatch.setattr(timm_models, "pretrained_settings", lambda _: own)
    models = [ModelConfig(weights="hf:some/net")]
    for name in ("timm:hf-hub:some/net", "timm:hf_hub:some/net", "timm:net"):
        models.append(ModelConfig(name=name, weights="pretrained"))
    for model in models:
        assert weights_sources.find(model) is not None
        assert asked.pop() == ("hf:some/net", True)
        for download in (True, False):
            assert weights_sources.find(model, download=download) is not None
            assert asked.pop() == ("hf:some/net", download)
    assert asked == []


# ---------------------------------------------------------------------- networks of libraries


def test_weights_of_timm_are_in_its_repository_and_as_it_says(
    repository: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"hf_hub_id": "some/net", **OF_TIMM}
    monkeypatch.setattr(timm_models, "pretrained_settings", lambda name: {**settings, "name": name})
    beside = {"label_names": ["x"], "pretrained_cfg": {"mean": [0.1], "std": [0.1]}}
    folder = repository(config=beside)
    (folder / "other.safetensors").write_bytes(save({"b": torch.ones(1)}))

    def pretrained() -> PretrainedWeights:
        return find("pretrained", name="timm:net")

    assert pretrained() == PretrainedWeights(
        "pretrained",
        f"timm:net, from hf:some/net@{COMMIT}",
        (folder / "model.safetensors").resolve(),
        SHA256,
        ("x",),
        PREPROCESSING,
    )
    settings["hf_hub_filename"] = "of/timm/other.bin"
    assert pretrained().file == (folder / "other.safetensors").resolve()
    settings["mean"] = ["x"]
    message = refusal(pretrained)
    assert message.startswith("timm:net: its settings in timm: mean: must be list[float] | None")


def test_what_timm_does_not_have_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, str] = {}
    monkeypatch.setattr(timm_models, "pretrained_settings", lambda _: settings)

    def message() -> str:
        return refusal(lambda: find("pretrained", name="timm:net"))

    assert message() == (
        "model.weights: pretrained: timm:net: timm has none for it; timm.list_pretrained() lists "
        "the networks that have some"
    )
    settings["url"] = "https://example.org/net.pth"
    assert message() == (
        "model.weights: pretrained: timm:net: timm has them at https://example.org/net.pth: "
        "download them, and convert them once by python -m trainer convert-weights"
    )

    def fail(name: str) -> None:
        raise ValueError(f"of {name} nothing is known")

    monkeypatch.setattr(timm_models, "pretrained_settings", fail)
    assert message() == "model.name: of timm:net nothing is known"


def test_other_networks_have_none_but_by_a_package() -> None:
    message = refusal(lambda: find("pretrained", name="lab_cnn"))
    assert message.startswith("model.weights: pretrained is known of efficientnet_lite0, ")
    assert "not of lab_cnn; give a file" in message
