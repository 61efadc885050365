"""A run's folder from somebody else: its configuration and records run no code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands.command import run_command
from trainer.base.errors import UserError
from trainer.config import stored_config


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
    monkeypatch.chdir(tmp_path)
    return target


CONFIGURATIONS = {
    "a class by its name": "data: hostile_module.Thing\n",
    "a class as a section": "data: {class_path: hostile_module.Thing}\n",
    "a class in the arguments": "model: {args: 3, class_path: hostile_module.Thing}\n",
    "another file": "data: ../data.yaml\n",
    "a tag of Python": "seed: !!python/object/apply:os.system ['touch executed']\n",
    "an unknown key": "sneed: 3\n",
    "a list": "[1, 2]\n",
    "text": "seed\n",
    "a wrong type": "seed: text\n",
    "a value out of range": "seed: -3\n",
    "a key that is not text": "{[1]: 2}\n",
    "not a date": "seed: 2001-99-99\n",
    "nested deeply": "[" * 2**17,
    "nested deeply, to the end": "[" * 2**17 + "]" * 2**17,
    "a key twice": "seed: 1\nseed: 2\n",
    "not UTF-8": b"\xff\xfe",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_configuration_is_plain_values_or_refused(
    tmp_path: Path, canary: Path, text: str | bytes
) -> None:
    (tmp_path.parent / "data.yaml").write_text("name: digits\n")
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as refused:
        stored_config.read(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert not canary.exists()


def test_a_plug_in_that_the_folder_names_is_not_run(
    run: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text(f"from pathlib import Path\nPath({str(tmp_path / 'executed')!r}).touch()\n")
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("name: quicknet", f"name: {plugin}:Net"))
    assert "a run of another configuration" in refused()
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.jsonl", b'{"event": "other"}\n'),
        ("metrics.jsonl", b'{"event": "step", "epoch": "x", "step": []}\n'),
        ("results.json", b'{"environment": 3}'),
        ("results.json", b"[" * 100_000),
        ("config.yaml", b"data: hostile_module.Thing\n"),
    ],
)
def test_comparing_with_a_damaged_run_is_one_message(
    trained: Path,
    run: Path,
    canary: Path,
    name: str,
    content: bytes,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (run / "results.json").write_text(json.dumps({"final_weights_sha256": "another"}))
    (run / name).write_bytes(content)
    exit_code, _, message = run_command(capsys, "compare", trained, run)
    assert exit_code == 2
    assert message.startswith(f"{run / name}: ")
    assert "Traceback" not in message
    assert not canary.exists()
