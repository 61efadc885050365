"""An optimiser of your own: any torch.optim.Optimizer.

python train.py --config configs/digits.yaml --output_dir runs/own_optimizer --optimizer.lr 1e-3 \
    --optimizer.name examples/own_optimizer.py:lion --optimizer.args '{"beta2": 0.98}'
"""

from __future__ import annotations

from typing import Any

import torch

from trainer.api import register_optimizer


@register_optimizer("lion")
class Lion(torch.optim.Optimizer):
    """Lion (Chen et al.: Symbolic Discovery of Optimization Algorithms, 2023): the sign of a mean.

    `params` are groups with their `weight_decay`, `lr` is set before each step, and anything else
    comes from `optimizer.args`. Its state is in `self.state`, which checkpoints save.
    """

    def __init__(self, params: Any, lr: float, beta1: float = 0.9, beta2: float = 0.99) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": 0.0})
        self.beta1, self.beta2 = beta1, beta2

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                mean = state.setdefault("mean", torch.zeros_like(parameter))
                direction = mean.lerp(parameter.grad, 1 - self.beta1).sign_()
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(direction, alpha=-group["lr"])
                mean.lerp_(parameter.grad, 1 - self.beta2)
