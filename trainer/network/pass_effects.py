"""Find out, on a throw-away copy, what the passes of a model do to its tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from trainer.base import seeding
from trainer.base.errors import UserError
from trainer.base.tensor_files import Tensors
from trainer.network.buffers_in_passes import save_values
from trainer.network.model_state import PassEffects, buffer_slots

SCALES = (1.0, 4.0)
"""of the parameters in the passes: a weight may be limited to a norm that it has not at first"""

Shapes = dict[str, tuple[torch.Size, torch.dtype] | None]


class TrainedParameters:
    """The parameters that an optimiser is to train: the ones that a model has now."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.all = dict(module.named_parameters())
        self.trained = {name for name, parameter in self.all.items() if parameter.requires_grad}

    def check(self) -> None:
        """Check after a pass that the optimiser still has what is to be trained.

        Raises:
            UserError: names the parameter that is another one, or was frozen.
        """
        now = dict(self.module.named_parameters())
        for name in dict.fromkeys([*self.all, *now]):
            if now.get(name) is not self.all.get(name):
                raise UserError(
                    f"model.name: a forward pass puts another parameter in the place of {name}, "
                    f"which the optimiser knows nothing of, so it would never be trained; change "
                    f"the values of the one that is there, with torch.no_grad() and copy_()"
                )
            if now[name].requires_grad and name not in self.trained:
                raise UserError(
                    f"model.name: a forward pass sets requires_grad of {name}, which was frozen "
                    f"when the optimiser was built, so it would never be trained; thaw it in the "
                    f"constructor"
                )


def find_effects(
    module: nn.Module, images: torch.Tensor, targets: torch.Tensor, seed: int
) -> PassEffects:
    """Try two training passes, with one image less in the second, and an evaluation.

    Args:
        module: of no use afterwards.
        images: scaled, (3, channels, height, width), on the module's device.

    Raises:
        UserError: as `TrainedParameters.check`.
    """
    trained = TrainedParameters(module)
    shapes = [_shapes(module)]
    before, in_training = save_values(module), set[str]()
    with seeding.preserve_generators():
        for number, scale in enumerate(SCALES):
            _disturb(trained.all, scale)
            values = _copy(trained.all)
            size = len(images) - number
            before.restore()
            module.train()
            seeding.seed_all(seed, "forward", 1, number)
            logits = module(images[:size].clone())
            F.cross_entropy(logits.float(), targets[:size]).backward()  # type: ignore[no-untyped-call]
            trained.check()
            shapes.append(_shapes(module))
            in_training |= _changed(trained.all, values)
            with torch.no_grad():
                for name, parameter in trained.all.items():
                    parameter.grad = None
                    parameter.copy_(values[name])
        before.restore()
        in_evaluation = _changed_by_evaluation(module, trained.all, images, seed)
    first, *later = shapes
    reshaped = {name for name in first if any(found[name] != first[name] for found in later)}
    final = {name: later[0][name] for name in reshaped if later[0][name] == later[1][name]}
    return PassEffects(
        set_in_training=frozenset(in_training),
        set_in_evaluation=frozenset(in_evaluation),
        final_shapes={name: shape for name, shape in final.items() if shape is not None},
        follow_batch=frozenset(reshaped - final.keys()),
    )


def _changed_by_evaluation(
    module: nn.Module, parameters: dict[str, nn.Parameter], images: torch.Tensor, seed: int
) -> set[str]:
    """Return the parameters that a pass or a change of mode sets, as merging an adapter does."""
    values, found = _copy(parameters), set[str]()
    module.eval()
    found |= _changed(parameters, values)
    seeding.seed_all(seed, "evaluation", 0)
    with torch.no_grad():
        module(images.clone())
    found |= _changed(parameters, values)
    module.train()
    return found | _changed(parameters, values)


@torch.no_grad()
def _disturb(parameters: dict[str, nn.Parameter], scale: float) -> None:
    """Move parameters away from values such as 0, with which a change would not be seen."""
    for number, parameter in enumerate(parameters.values(), start=1):
        if parameter.is_floating_point() or parameter.is_complex():
            count = parameter.numel()
            steps = torch.arange(-3, 4, device=parameter.device).repeat(count // 7 + 1)[:count]
            # Each by another amount: of two equal ones, one may follow the other.
            amount = 0.003 * (1 + number / len(parameters))
            parameter.mul_(scale).add_(steps.view(parameter.shape), alpha=amount)


def _copy(parameters: dict[str, nn.Parameter]) -> Tensors:
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


def _changed(parameters: dict[str, nn.Parameter], values: Tensors) -> set[str]:
    return {
        name
        for name, parameter in parameters.items()
        if not torch.equal(parameter, values[name])  # which holds for most, and takes no memory
        and not torch.equal(torch.nan_to_num(parameter.detach()), torch.nan_to_num(values[name]))
    }


def _shapes(module: nn.Module) -> Shapes:
    buffers = {name: getattr(*slot) for name, slot in buffer_slots(module).items()}
    return {
        name: None if buffer is None else (buffer.shape, buffer.dtype)
        for name, buffer in buffers.items()
    }
