"""A step on a GPU: nothing waits for the device, and the bits are the same each time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.gpu.engines import build, digests, do_steps
from trainer.training.engine import Engine

FEATURES: dict[str, dict[str, Any]] = {
    "plain": {},
    "clipping, average": {"train.clip_norm": 1.0, "train.ema_decay": 0.9},
    "adaptive clipping": {"train.clip_norm": 0.02, "train.clip_mode": "agc"},
    "mixup, smoothing": {"data.mixup": 0.2, "train.label_smoothing": 0.1},
    "cutmix": {"data.cutmix": 1.0},
    "class weights": {"train.class_weights": "auto"},
    "focal": {"train.loss": "focal"},
    "SAM": {"train.sam_rho": 0.05},
    "muon": {"optimizer.name": "muon", "optimizer.lr": 0.02},
    "sgd, one micro-batch": {"optimizer.name": "sgd", "train.microbatches": 1},
    "sgd, dampening": {
        "optimizer.name": "sgd",
        "optimizer.nesterov": False,
        "optimizer.args": {"dampening": 0.5},
    },
    **{name: {"optimizer.name": name} for name in ("torch:ASGD", "torch:Rprop", "torch:Adafactor")},
    "images on the host": {"data.device_memory_gb": 0.0},
    "computed again": {"train.activation_checkpointing": True},
}

NETS: dict[str, dict[str, Any]] = {
    "quicknet": {"widths": [16, 32, 32]},
    "airbench": {"widths": [8, 16]},
    "resnet_d": {"widths": [8, 16], "blocks": [1, 1]},
    "wide_resnet": {"depth": 10, "widen_factor": 1},
}

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")


def skip_unless_possible(device: str, precision: str) -> None:
    if device == "cpu" and precision in ("tf32", "fp16"):
        pytest.skip("the CPU has nothing of this")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("feature", FEATURES)
def test_no_step_waits_for_the_device(device: str, feature: str, precision: str) -> None:
    keys = FEATURES[feature] | {"train.precision": precision}
    skip_unless_possible(device, precision)
    if precision == "fp16" and keys.get("optimizer.name", "").startswith("torch:"):
        pytest.skip("the scaler of fp16 reads whether a gradient has overflowed")
    engine = build(keys)
    do_steps(engine, 1, 4)  # kernels are chosen, and memory is taken
    do_steps(engine, 5, 9, quietly=True)
    losses = torch.stack([result.loss for *_, result in engine.step_log._waiting])
    assert len(losses) == 9
    assert losses.isfinite().all()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("net", NETS)
def test_the_same_steps_give_the_same_bits(device: str, net: str, precision: str) -> None:
    keys = {"model.name": net, "model.args": NETS[net], "train.precision": precision}
    skip_unless_possible(device, precision)
    assert digests(keys) == digests(keys)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_where_the_images_are_changes_no_bits(device: str, precision: str) -> None:
    keys: dict[str, Any] = {"train.precision": precision, "data.mixup": 0.2}
    found = {
        (amount, ahead): digests({**keys, "data.device_memory_gb": amount, "data.prefetch": ahead})
        for amount in (1.0, 0.0)
        for ahead in (0, 3)
    }
    assert len({repr(one) for one in found.values()}) == 1


def test_fp32_is_not_tf32(gpu: None) -> None:
    """Networks as wide as these differ by the mantissa's lost bits, if they were lost."""
    found = {
        precision: digests({"train.precision": precision, "model.args": {"widths": [64, 64, 64]}})
        for precision in ("fp32", "tf32")
    }
    if torch.cuda.get_device_capability() >= (8, 0):
        assert found["fp32"][0] != found["tf32"][0]


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd"])
def test_a_gradient_beyond_fp16_leaves_the_step_out_and_lowers_the_scale(
    gpu: None, name: str
) -> None:
    engine = build({"train.precision": "fp16", "optimizer.name": name})
    before = weights_of(engine)
    scaler = engine.accelerator.scaler
    assert scaler is not None
    scaler._init_scale = 2.0**40
    do_steps(engine, 1, 1)
    assert torch.equal(weights_of(engine), before)
    assert scaler.get_scale() == 2.0**39
    scaler.update(1024.0)
    do_steps(engine, 2, 3)
    assert not torch.equal(weights_of(engine), before)
    assert scaler.get_scale() == 1024.0


def weights_of(engine: Engine) -> torch.Tensor:
    """What is trained, without the statistics of batch norm, which the forward pass changes."""
    return torch.cat([parameter.detach().flatten() for parameter in engine.module.parameters()])


def test_the_exact_sum_has_no_kernel_without_a_fixed_order(device: str) -> None:
    engine = build({})
    do_steps(engine, 1, 2)
    assert engine.inexact_kernels == set()


def test_compiled_steps_wait_for_nothing_and_have_the_same_bits(gpu: None) -> None:
    keys = {"train.compile": "default", "train.precision": "bf16", "train.clip_norm": 1.0}
    engine = build(keys)
    do_steps(engine, 1, 4)
    do_steps(engine, 5, 9, quietly=True)
    assert digests(keys) == digests(keys)
