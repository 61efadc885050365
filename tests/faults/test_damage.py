"""A disk that damages checkpoints: every damage is noticed, named, and costs no more than time."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runs import Run, check_same, contents, train_here
from trainer.base.errors import UserError
from trainer.checkpoint.reading import open_checkpoint

# Three epochs of five steps with a checkpoint after each, all of them kept.
SHORT = ["--train.epochs", "3", "--data.train_size", "300", "--checkpoint.keep", "3"]
SHORT += ["--train.ema_decay", "0.9"]
STEPS = [5, 10, 15]

FILES = (
    "best.safetensors",
    "average.safetensors",
    "manifest.json",
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
)

PLACES: dict[str, Callable[[int], int]] = {
    "first": lambda _: 0,
    "header": lambda size: min(20, size // 4),
    "middle": lambda size: size // 2,
    "last": lambda size: size - 1,
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert train_here(folder, *SHORT) == 0
    assert sorted(path.name for path in checkpoint(folder, 15).iterdir()) == sorted(FILES)
    return Run(folder, 0)


@pytest.fixture
def run(undisturbed: Run, tmp_path: Path) -> Run:
    """A copy of the run that was killed before it could write what it found."""
    shutil.copytree(undisturbed.folder, tmp_path / "run")
    (tmp_path / "run" / "status.json").unlink()
    (tmp_path / "run" / "results.json").unlink()
    return Run(tmp_path / "run", 0)


def checkpoint(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step-{step:08d}"


def flip(path: Path, place: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def cut(path: Path, place: int) -> None:
    path.write_bytes(path.read_bytes()[:place])


def extend(path: Path, _: int) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def remove(path: Path, _: int) -> None:
    path.unlink()


DAMAGES = [(way, place) for way in (flip, cut) for place in PLACES]
DAMAGES += [(extend, "last"), (remove, "first")]


def check_noticed(path: Path, damage: Callable[[Path], None]) -> None:
    """Damage a file, see that opening the checkpoint names it, and put it back."""
    content = path.read_bytes()
    damage(path)
    with pytest.raises(UserError, match=path.name):
        open_checkpoint(path.parent)
    path.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_damage_of_every_file_is_noticed(run: Run, name: str) -> None:
    path = checkpoint(run.folder, 15) / name
    for way, place in DAMAGES:
        position = PLACES[place](path.stat().st_size)
        check_noticed(path, lambda path, way=way, at=position: way(path, at))  # type: ignore[misc]
    open_checkpoint(path.parent)


def test_hundreds_of_bits_and_cuts_drawn_at_random(run: Run) -> None:
    draw = random.Random(5)
    for _ in range(400):
        path = checkpoint(run.folder, 15) / draw.choice(FILES)
        place, bit = draw.randrange(path.stat().st_size), draw.randrange(8)
        if draw.random() < 0.75:
            check_noticed(path, lambda path, at=place, bit=bit: flip(path, at, bit))  # type: ignore[misc]
        else:
            check_noticed(path, lambda path, at=place: cut(path, at))  # type: ignore[misc]
    open_checkpoint(checkpoint(run.folder, 15))


@pytest.mark.parametrize(
    ("name", "way", "place"),
    [
        ("model.safetensors", flip, "middle"),
        ("optimizer.safetensors", cut, "middle"),
        ("best.safetensors", remove, "first"),
        ("average.safetensors", flip, "header"),
        ("state.json", cut, "first"),
        ("manifest.json", extend, "last"),
    ],
)
def test_a_damaged_checkpoint_is_set_aside_and_the_run_ends_as_if_nothing_had_been(
    undisturbed: Run,
    run: Run,
    name: str,
    way: Callable[[Path, int], None],
    place: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = checkpoint(run.folder, 15) / name
    way(path, PLACES[place](path.stat().st_size))
    damaged = contents(path.parent)
    check_resumed(run, undisturbed, capfd, "going on after step 10")
    assert str(path) in caplog.text
    aside = path.parent.with_name("damaged-step-00000015")
    assert aside.name in caplog.text
    assert contents(aside) == damaged, "nothing is deleted that somebody may want to look at"


def test_with_every_checkpoint_damaged_it_starts_again(
    undisturbed: Run, run: Run, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    for step, name in zip(STEPS, FILES, strict=False):
        cut(checkpoint(run.folder, step) / name, 7)
    check_resumed(run, undisturbed, capfd, "run        ")
    for step in STEPS:
        assert f"it is now damaged-step-{step:08d}" in caplog.text
        assert checkpoint(run.folder, step).with_name(f"damaged-step-{step:08d}").is_dir()


def test_damage_at_the_same_step_twice_keeps_both(
    undisturbed: Run, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    aside = checkpoint(run.folder, 15).with_name("damaged-step-00000015")
    shutil.copytree(checkpoint(run.folder, 5), aside)
    cut(checkpoint(run.folder, 15) / "state.json", 0)
    check_resumed(run, undisturbed, capfd, "going on after step 10")
    assert (aside / "state.json").stat().st_size > 0
    assert (aside.with_name(f"{aside.name}-2") / "state.json").stat().st_size == 0


def test_a_copy_that_somebody_made_is_no_checkpoint_and_stays(
    undisturbed: Run, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    copy = checkpoint(run.folder, 5).with_name("step-00000005.bak")
    shutil.copytree(checkpoint(run.folder, 5), copy)
    shutil.rmtree(checkpoint(run.folder, 15))
    before = contents(copy)
    check_resumed(run, undisturbed, capfd, "going on after step 10")
    assert contents(copy) == before


@pytest.mark.parametrize("content", [b'{"sta', b"\xff\xfe\0", b'{"state": 3}'])
def test_a_damaged_status_is_named_and_loses_nothing(
    undisturbed: Run,
    run: Run,
    content: bytes,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What a full disk may have left; the training itself is all there."""
    (run.folder / "status.json").write_bytes(content)
    check_resumed(run, undisturbed, capfd, "going on after step 15")
    assert "status.json: " in caplog.text
    assert run.json("status.json")["state"] == "finished"


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0" * 5000, b"[1, 2]\n" * 2000, "half"])
def test_a_damaged_record_or_configuration_is_named_and_nothing_changed(
    run: Run, name: str, content: bytes | str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = run.folder / name
    whole = path.read_bytes()
    # In the middle of a word.
    half = whole[: whole.index(b"epoch", len(whole) // 3) + 3]
    path.write_bytes(half if isinstance(content, str) else content)
    before = contents(run.folder)
    assert train_here(run.folder, *SHORT) == 2
    errors = capfd.readouterr().err
    assert f"{path}: " in errors
    assert "Traceback" not in errors
    after = contents(run.folder)
    status = after.pop("status.json", None)
    assert status is None or json.loads(status)["exit_code"] == 2
    assert after == before


def test_half_a_record_in_the_middle_is_named(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    path = run.folder / "metrics.jsonl"
    flip(path, path.read_bytes().index(b"\n"))
    assert train_here(run.folder, *SHORT) == 2
    assert f"{path}: damaged, a line is not a record" in capfd.readouterr().err


def check_resumed(run: Run, undisturbed: Run, capfd: pytest.CaptureFixture[str], said: str) -> None:
    assert train_here(run.folder, *SHORT) == 0
    printed = capfd.readouterr()
    assert "Traceback" not in printed.err
    assert said in printed.out
    check_same(run, undisturbed)
    chosen = [json.loads((one.folder / "results.json").read_text()) for one in (run, undisturbed)]
    assert chosen[0]["weights_sha256"] == chosen[1]["weights_sha256"]
