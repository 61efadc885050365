"""train.compile: the same bits on any number of processes, and one message where it cannot be."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from functorch.compile import make_boxed_func
from safetensors.torch import load_file
from torch import nn
from torch._dynamo.backends.common import aot_autograd

import models
from tests.distributed.matrix import FAMILIES
from tests.runs import check_same, train_forked
from trainer.base import compiler
from trainer.base.errors import UserError
from trainer.config import schema
from trainer.config.rules import validate
from trainer.config.schema import RunConfig, TrainConfig
from trainer.training.forward_pass import ForwardPass

SMALL = [
    *("--model.name", "quicknet", "--model.args", '{"widths": [4], "dropout": 0.3}'),
    *("--train.compile", "default", "--train.epochs", "2", "--train.microbatches", "4"),
    # An epoch has a step of 640 images and one of four.
    *("--train.batch_size", "640", "--data.train_size", "716"),
    *("--checkpoint.every_steps", "1", "--checkpoint.keep", "9"),
    # A maximum over rounded numbers that are compared again in the backward pass.
    *("--train.precision", "bf16"),
]


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_the_same_bits_on_two_processes_that_compile_the_short_batch_first(tmp_path: Path) -> None:
    # The second: without the trial programs by which torch finds out what the processor can do.
    settings = {
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "kernels"),
        "TORCHINDUCTOR_VEC_ISA_OK": "1",
    }
    one = train_forked(tmp_path / "one", 1, *SMALL, **settings)
    assert one.exit_code == 0, one.errors
    (first,) = (tmp_path / "one" / "checkpoints").glob("step-*1")
    again = ["--resume", str(first)]
    two = train_forked(tmp_path / "two", 2, *SMALL, *again, **settings)
    check_same(two, one)
    results = one.json("results.json")
    assert results["train"]["compile"] == "default"
    assert "g++" in results["environment"]["compiled kernels"]
    names = load_file(one.folder / "model.safetensors")
    assert not [name for name in names if "_orig_mod" in name]


def test_without_a_compiler_nothing_is_begun(tmp_path: Path) -> None:
    run = train_forked(tmp_path / "run", 1, *SMALL, CXX="/nowhere/g++")
    assert run.exit_code == 2
    assert "train.compile: compiling for the CPU needs a C++ compiler" in run.errors
    assert not (run.folder / "config.yaml").exists()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"train.compile": "max-autotune"}, "train.compile"),
        ({"train.compile": "default", "train.kernels": "portable"}, "train.compile"),
        (
            {"train.compile": "default", "train.activation_checkpointing": True},
            "train.activation_checkpointing",
        ),
    ],
)
def test_what_would_not_give_bits_is_refused(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=f"^{key}: must be (none|false)"):
        validate(schema.replace(RunConfig(), changes))
    validate(
        schema.replace(RunConfig(), {"train.compile": "max-autotune", "train.reduction": "fast"})
    )


def test_settings_are_equal_each_time() -> None:
    """Else torch compiles a network's step again after the trial of the memory."""
    cpu = torch.device("cpu")
    assert compiler.options("default", cpu) == compiler.options("default", cpu)


@pytest.mark.parametrize("name", ["quicknet", "preact_resnet"])
def test_a_pass_changes_no_input_but_buffers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch records no CUDA graph of a pass that changes another one (docs/speed.md)."""
    found: list[tuple[list[int], list[int], int]] = []

    def note(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        context = torch._guards.TracingContext.get()
        facts: Any = context.fw_metadata
        changed, static = facts.mutated_inp_runtime_indices, facts.static_input_indices
        found.append((changed, static, len(inputs)))
        return make_boxed_func(graph.forward)

    backend = aot_autograd(
        fw_compiler=note, bw_compiler=lambda graph, _: make_boxed_func(graph.forward)
    )

    def trace(forward: Any, *, options: object, **more: Any) -> Any:
        return original(forward, backend=backend, **more)

    original = torch.compile
    monkeypatch.setattr(torch, "compile", trace)
    arguments, _ = FAMILIES[name]
    network = models.create(name, arguments, num_classes=3, in_channels=1, image_size=(16, 16))
    network.train()
    forward_pass = ForwardPass(Accelerator(cpu=True), network, TrainConfig(compile="default"))
    with forward_pass.prepared():
        network(torch.ones(3, 1, 16, 16)).sum().backward()
    ((changed, static, count),) = found
    assert len(changed) == len(list(network.buffers())) > 0
    assert set(changed) <= set(static)
    assert len(static) == count - 1  # all but the images


class Undecided(nn.Module):
    """What it computes depends on the values of the images."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if float(images.sum()) > 0:
            images = -images
        logits: torch.Tensor = self.linear(images)
        return logits


def test_a_network_that_cannot_be_compiled_is_refused() -> None:
    network = Undecided()
    forward_pass = ForwardPass(Accelerator(cpu=True), network, TrainConfig(compile="default"))
    with (
        pytest.raises(UserError, match=r"train.compile: the network Undecided cannot be compiled"),
        forward_pass.prepared(),
    ):
        network(torch.ones(3, 4))
    assert "forward" not in vars(network)
