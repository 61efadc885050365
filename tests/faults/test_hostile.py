"""Checkpoints that somebody made to do harm, with a manifest that holds: refused, nothing done."""

from __future__ import annotations

import json
import os
import pickle
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from tests.checkpoints import forge, forge_state, seal, small_state, write_manifest
from trainer.base.errors import FormatVersionError, UserError
from trainer.checkpoint.reading import FORMAT_VERSION, open_checkpoint
from trainer.checkpoint.writing import Checkpoints
from trainer.config.schema import CheckpointConfig
from trainer.network.starting_weights import load_weights

# ------------------------------------------------------------------ files that are no files

NAMES = ("manifest.json", "state.json", "model.safetensors", "optimizer.safetensors")


def link(path: Path) -> None:
    outside = path.parent.parent.parent.parent / f"outside-{path.name}"
    path.rename(outside)
    path.symlink_to(outside)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [link, pipe, directory])
def test_what_is_no_regular_file_is_refused_and_nobody_waits_for_it(
    sound: Path, name: str, kind: Callable[[Path], None]
) -> None:
    kind(sound / name)
    with pytest.raises(UserError, match=rf"{name}: missing,? or .*(link|regular|directory)"):
        open_checkpoint(sound)


def test_a_link_in_the_place_of_a_checkpoint_is_named_and_set_aside(
    sound: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = tmp_path / "elsewhere"
    sound.rename(elsewhere)
    sound.symlink_to(elsewhere)
    with pytest.raises(UserError, match="step-00000001: a link, and links are not followed"):
        open_checkpoint(sound)
    assert Checkpoints(sound.parent, CheckpointConfig()).newest() is None
    assert "step-00000001: a link" in caplog.text
    assert sound.with_name("damaged-step-00000001").is_symlink()
    assert sorted(path.name for path in elsewhere.iterdir()) == sorted(NAMES)


def test_links_under_the_names_that_saving_uses_are_removed_and_not_followed(
    sound: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    links = [sound.with_name(name) for name in ("step-00000000", ".step-00000002")]
    for path in (*links, sound.with_name("superseded-step-00000002")):
        path.symlink_to(outside)
    checkpoints = Checkpoints(sound.parent, CheckpointConfig())
    checkpoints.save(2, {}, small_state(2))
    checkpoints.wait(needed=True)
    newest = sound.with_name("step-00000002")
    assert newest.is_dir()
    assert not any(path.is_symlink() for path in links)
    checkpoints.set_aside_after(1)
    assert not newest.exists()
    superseded = sound.with_name("superseded-step-00000002")
    assert superseded.is_dir()
    assert not superseded.is_symlink()
    assert (outside / "precious").exists()


@pytest.mark.parametrize(
    "name", ["../../secret", "/etc/passwd", "..", ".", "", "a\0b", "a\ud800", "a/b", "x" * 5000]
)
def test_a_name_in_the_manifest_that_is_no_plain_name_is_not_touched(
    sound: Path, name: str
) -> None:
    seal(sound, **{name: {"bytes": 0, "sha256": ""}})
    named = rf"manifest\.json: {re.escape(ascii(name))} is no plain file|missing"
    with pytest.raises(UserError, match=named):
        open_checkpoint(sound)


def test_a_file_that_the_manifest_lacks_is_not_used(sound: Path) -> None:
    manifest = json.loads((sound / "manifest.json").read_text())["files"]
    without = {name: entry for name, entry in manifest.items() if name != "model.safetensors"}
    write_manifest(sound, without)
    with pytest.raises(UserError, match=r"state\.json: files: 'model.safetensors' is not in the"):
        open_checkpoint(sound)
    write_manifest(sound, {n: entry for n, entry in manifest.items() if n != "state.json"})
    with pytest.raises(UserError, match=r"state\.json: not in the manifest"):
        open_checkpoint(sound)


# ------------------------------------------------------------------ JSON

TEXTS = {
    "nothing": b"",
    "binary": b"\x80\x02}q\x00.",
    "NaN": b'{"format_version": NaN}',
    "infinity": b'{"format_version": -Infinity}',
    "a number beyond all": b'{"format_version": 1e999}',
    "a whole number of 100 digits": b'{"format_version": ' + b"9" * 100 + b"}",
    "a whole number of 10,000 digits": b'{"format_version": ' + b"9" * 10_000 + b"}",
    "lists in lists": b"[" * 100_000,
    "objects in objects": b'{"a":' * 100_000,
    "closed lists in lists": b'{"files": ' + b"[" * 900 + b"]" * 900 + b"}",
    "a list": b"[]",
    "null": b"null",
    "five megabytes": b'"' + b"x" * (5 * 2**20) + b'"',
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("name", ["manifest.json", "state.json"])
def test_json_that_we_never_write_is_refused(sound: Path, name: str, text: bytes) -> None:
    if name == "manifest.json":
        (sound / name).write_bytes(text)
    else:
        forge(sound, name, text)
    tracemalloc.start()
    with pytest.raises(UserError, match=name):
        open_checkpoint(sound)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 20 * 2**20


@pytest.mark.parametrize(
    "files",
    [
        None,
        [],
        "state.json",
        {"state.json": None},
        {"state.json": [1, 2]},
        {"state.json": {"bytes": None, "sha256": []}},
        {"state.json": {"bytes": True, "sha256": "0"}},
    ],
)
def test_a_manifest_of_other_types_is_refused(sound: Path, files: Any) -> None:
    write_manifest(sound, files)
    with pytest.raises(UserError, match=r"(manifest|state)\.json"):
        open_checkpoint(sound)


def put(*place: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        *outer, last = place
        for key in outer:
            state = state[key]
        state[last] = value

    return change


def drop(*place: str) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        *outer, last = place
        for key in outer:
            state = state[key]
        del state[last]

    return change


STATES = [
    *(("format_version", put("format_version", value=v)) for v in ("1", True, 1.0, None)),
    *(("files", put("files", value=v)) for v in (None, "model.safetensors", [1], [["a"]], {})),
    *(
        (f"files: '{name}' is", put("files", value=[name]))
        for name in ("../x.safetensors", "/x.safetensors", "state.json", "", "gone.safetensors")
    ),
    *((key, drop(key)) for key in ("format_version", "files", *small_state())),
    *((f"run lacks '{key}'", drop("run", key)) for key in small_state()["run"]),
    ("run has the unknown 'surprise'", put("run", "surprise", value=1)),
    ("run", put("run", value=[])),
    *(
        (f"run.{key}", put("run", key, value=value))
        for key in ("epoch", "step")
        for value in ("3", 1.5, None, True, [1])
    ),
    *(
        (f"run.{key}", put("run", key, value=value))
        for key in ("loss_sum", "hits", "epoch_seconds", "train_seconds")
        for value in ("3", None, False, {})
    ),
    ("run.best_accuracy", put("run", "best_accuracy", value="0.5")),
    ("run.best_epoch", put("run", "best_epoch", value=0.5)),
    *(("run.rounding", put("run", "rounding", value=v)) for v in ("text", [1], None)),
    *(("run.observer", put("run", "observer", value=v)) for v in (None, [], {"a": 1}, "x")),
    *(
        ("run.observer.metrics_bytes", put("run", "observer", "metrics_bytes", value=v))
        for v in (-1, 1.5, "9", None, True)
    ),
    *(
        ("run.observer.wandb_run_id", put("run", "observer", "wandb_run_id", value=v))
        for v in ("", "a\0", 7, None)
    ),
    *(
        (f"wandb_run_id: {re.escape(ascii(v))}", put("run", "observer", "wandb_run_id", value=v))
        for v in ("../../x", "a/b", "ü")
    ),
    *(("optimizer", put("optimizer", value=v)) for v in (None, [], {"0.x": "text"}, {"0.x": [1]})),
    *(
        (f"optimizer: {re.escape(ascii(key))} is no", put("optimizer", value={key: 1}))
        for key in ("a.b", "x", "-1.x", "0.", "0", "0.ü", "1234567890.x")
    ),
    *(("scaler", put("scaler", value=v)) for v in ("x", [], {"scale": "x"}, 1)),
    *(("fingerprints", put("fingerprints", value=v)) for v in (None, 1, [], {"a": 1})),
    *(("environment", put("environment", value=v)) for v in (None, [], {"torch": 2})),
]


def test_a_run_that_nobody_observed_has_nothing_to_be_checked(sound: Path) -> None:
    forge_state(sound, put("run", "observer", value={}))
    assert open_checkpoint(sound).state["run"]["observer"] == {}


@pytest.mark.parametrize(("named", "change"), STATES)
def test_a_state_of_another_form_is_refused_by_its_key(
    sound: Path, named: str, change: Callable[[dict[str, Any]], None]
) -> None:
    forge_state(sound, change)
    with pytest.raises(UserError, match=rf"state\.json: .*{named}"):
        open_checkpoint(sound)


@pytest.mark.parametrize(
    ("version", "age"),
    [(FORMAT_VERSION + 1, "a later"), (FORMAT_VERSION - 1, "an earlier"), (-3, "an earlier")],
)
def test_another_version_says_so_whatever_else_it_holds(
    sound: Path, version: int, age: str
) -> None:
    def change(state: dict[str, Any]) -> None:
        state.clear()
        state["format_version"] = version

    forge_state(sound, change)
    with pytest.raises(FormatVersionError, match=f"format_version {version} is from {age} version"):
        open_checkpoint(sound)


# ------------------------------------------------------------------ pickles


class Bomb:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json"])
def test_a_pickle_in_disguise_is_never_loaded(sound: Path, tmp_path: Path, name: str) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "executed"))
    if name == "manifest.json":
        (sound / name).write_bytes(bomb)
    else:
        forge(sound, name, bomb)
    with pytest.raises(UserError, match=name):
        open_checkpoint(sound)
    with pytest.raises(UserError):
        load_weights(nn.Linear(2, 3), sound / name)
    assert not (tmp_path / "executed").exists()
