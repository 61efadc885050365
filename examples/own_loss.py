"""A loss of your own: a function of logits and targets that returns the loss of each image.

python train.py --config configs/digits.yaml --output_dir runs/own_loss \
    --train.loss examples/own_loss.py:poly --train.loss_args '{"epsilon": 2.0}'
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

from trainer.api import register_loss


@register_loss("poly")
def poly(logits: torch.Tensor, targets: torch.Tensor, epsilon: float = 1.0) -> torch.Tensor:
    """Poly-1 (Leng et al.: PolyLoss, 2022): cross entropy plus epsilon times 1 - p.

    `logits` are float32 (n, classes). `targets` are classes, int64 (n,); with data.mixup or
    data.cutmix they are shares of the classes, float32 (n, classes). It returns float32 (n,), and
    takes no mean: weights of classes come after it. What else it takes comes from
    `train.loss_args`. It must not remember anything from call to call.
    """
    cross_entropy = F.cross_entropy(logits, targets, reduction="none")
    shares = targets if targets.ndim == 2 else F.one_hot(targets, logits.shape[1])
    probability = (shares * logits.softmax(1)).sum(1)
    return cross_entropy + epsilon * (1.0 - probability)
