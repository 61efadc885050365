"""What a model has to remember: saved, restored, and the same in every file and digest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.commands.command import run_command
from tests.nets import buffers, catalog
from tests.nets.body import Body
from tests.network.test_trial import SHORT
from tests.runs import Run, sha256_of, train_here
from trainer.base.errors import UserError
from trainer.network import model_state


def build(name: str) -> Body:
    torch.manual_seed(0)
    model: Body = getattr(buffers, name)(10, 1)
    model_state.remember_initial(model)
    return model


IMAGES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_buffer_that_is_not_saved_is_written_once_it_has_changed() -> None:
    model, other = build("UnsavedBuffer"), build("UnsavedBuffer")
    assert "center" not in model_state.tensors_to_write(model)
    model(IMAGES)
    written = model_state.tensors_to_write(model)
    assert torch.equal(written["center"], model.center)
    model_state.load(other, written)
    assert torch.equal(other.center, model.center)
    # A state without it is from before it has changed.
    model_state.load(model, model_state.tensors_to_write(build("UnsavedBuffer")))
    assert torch.equal(model.center, torch.zeros(8))


def test_buffers_that_have_come_apart_stay_apart() -> None:
    model, other = build("SharedBuffer"), build("SharedBuffer")
    assert model.conv.center is model.head.center
    model(IMAGES)
    model_state.load(other, model_state.tensors_to_write(model))
    assert torch.equal(other.conv.center, model.conv.center)
    assert torch.equal(other.head.center, torch.zeros(8))


def test_sharing_survives_what_copies_buffers() -> None:
    model = build("SharedBuffer")
    with model_state.keep_shared_buffers(model):
        model._apply(torch.clone)  # as a move to another device does
    assert model.conv.center is model.head.center


@pytest.mark.parametrize("name", ["LateBuffer", "EmptyBuffer"])
def test_a_buffer_may_get_its_shape_later(name: str) -> None:
    model, other = build(name), build(name)
    model(IMAGES)
    model_state.load(other, model_state.tensors_to_write(model))
    assert torch.equal(other.center, model.center)


def test_versions_and_extra_state_come_back() -> None:
    model = build("Versioned")
    model_state.load(model, model_state.tensors_to_write(model))
    model, other = build("ExtraState"), build("ExtraState")
    model.scale["factor"] = 2.5
    written = model_state.tensors_to_write(model)
    assert all(isinstance(value, torch.Tensor) for value in written.values())
    model_state.load(other, written)
    assert other.scale == {"factor": 2.5}
    with pytest.raises(UserError, match=r"_extra_state: .* a dict that no file can hold safely"):
        model_state.tensors(build("UnsafeExtraState"))


@pytest.mark.parametrize(
    "name", [*("UnsavedBuffer", "DropsInEvaluation", "RandomTable", "Merging"), "ReplacedTeacher"]
)
def test_evaluate_gives_the_figures_of_the_run(
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    run, model = Run(tmp_path / "run", 0), catalog.plugin(name)
    words = [*SHORT, "--model.args", "{}", "--model.name", model, "--train.ema_decay", "0.5"]
    assert train_here(run.folder, *words) == 0
    results = run.json("results.json")
    assert sha256_of(run.folder / "model.safetensors") == results["weights_sha256"]
    assert ("center" in load_file(run.folder / "model.safetensors")) == (name == "UnsavedBuffer")
    capsys.readouterr()
    code, output, errors = run_command(capsys, "evaluate", run.folder, "--model", model, "--json")
    assert code == 0, errors
    found = json.loads(output)
    assert found["test"] == results["test"]
    assert found["weights_sha256"] == results["weights_sha256"]
    assert found["equals_results_json"] is True
    # Whatever else it is: not the machine, which is the same.
    stored = results | {"test": results["test"] | {"loss": 0.5}}
    (run.folder / "results.json").write_text(json.dumps(stored))
    code, output, errors = run_command(capsys, "evaluate", run.folder, "--model", model, "--json")
    assert json.loads(output)["equals_results_json"] is False
    assert "machine, versions, precision and threads are the same" in caplog.text
