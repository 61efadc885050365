"""Freeze parameters for some epochs or for the whole run: a function of the epoch.

So a checkpoint has nothing to remember, and a run that was killed at the moment of unfreezing goes
on as if nothing had happened. A frozen parameter has no gradient and hence no state of the
optimiser and no part in the sum over micro-batches, and what comes before the first trained one
keeps no activations.
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from trainer.base.errors import UserError
from trainer.config.schema import TrainConfig
from trainer.network.parameter_names import BACKBONE, matcher

KEY = "train.freeze"


class Freezing:
    """Freezes some parameters of one model up to an epoch.

    A norm with running statistics is frozen with its parameters, or where it has none with its
    statistics' names: it stays in evaluation mode, so that it normalises by the statistics that it
    had, and keeps them. With `freeze_statistics` all norms do so in every epoch, whether their
    parameters are frozen or not. Other modules, such as dropout, stay in training mode.

    Args:
        module: nothing of it is changed yet.
        config: its `freeze`, `unfreeze_epoch` and `freeze_statistics`.
        num_classes: by which the head is known.

    Attributes:
        parameters: those that are frozen before `unfreeze_epoch`; not those that the network's own
            code has frozen, which stay so.

    Raises:
        UserError: a pattern means no parameter, or nothing would be left to train.
    """

    def __init__(self, module: nn.Module, config: TrainConfig, num_classes: int) -> None:
        self.module = module
        self.unfreeze_epoch = config.unfreeze_epoch
        self.caches_features = config.cache_features
        self.parameters: list[nn.Parameter] = []
        self.norms: list[nn.Module] = []
        self.always_frozen_norms: list[nn.Module] = []
        if config.freeze_statistics:
            self.always_frozen_norms = [
                part
                for part in module.modules()
                if isinstance(part, _NormBase) and part.running_mean is not None
            ]
        patterns = [BACKBONE] if config.freeze == BACKBONE else config.freeze
        if not patterns:
            return
        matchers = [matcher(module, pattern, num_classes, KEY) for pattern in patterns]

        def is_meant(name: str) -> bool:
            return any(matches(name) for matches in matchers)

        named = module.named_parameters(remove_duplicate=False)
        frozen = {id(parameter) for name, parameter in named if is_meant(name)}
        trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.parameters = [parameter for parameter in trainable if id(parameter) in frozen]
        if len(self.parameters) == len(trainable):
            raise UserError(
                f"{KEY}: {config.freeze!r} freezes every parameter, so that nothing would be "
                f"trained; leave out some, such as those of the head"
            )
        for name, part in module.named_modules():
            own = [id(parameter) in frozen for parameter in part.parameters(recurse=False)]
            if isinstance(part, _NormBase) and (
                all(own) if own else is_meant(f"{name}.running_mean")
            ):
                self.norms.append(part)

    def describe(self) -> str | None:
        """Return in words what is frozen and until when; None if nothing is."""
        kept = f"statistics of {len(self.always_frozen_norms):,} batch norms, for the whole run"
        if not self.parameters:
            return kept if self.always_frozen_norms else None
        frozen = sum(parameter.numel() for parameter in self.parameters)
        total = sum(parameter.numel() for parameter in self.module.parameters())
        until = "for the whole run"
        if self.unfreeze_epoch is not None:
            until = f"before epoch {self.unfreeze_epoch}"
        once = "; what they make of the images is computed once" if self.caches_features else ""
        more = f"; {kept}" if self.always_frozen_norms else ""
        return f"{frozen:,} of {total:,} parameters, {until}{once}{more}"

    def is_frozen(self, epoch: int) -> bool:
        """Return whether there is anything frozen in an epoch, counted from 1."""
        return bool(self.parameters) and (
            self.unfreeze_epoch is None or epoch < self.unfreeze_epoch
        )

    def set_epoch(self, epoch: int) -> bool:
        """Freeze what is frozen in an epoch and thaw the rest; return whether that is a change."""
        trained = not self.is_frozen(epoch)
        changed = any(parameter.requires_grad != trained for parameter in self.parameters)
        for parameter in self.parameters:
            parameter.requires_grad_(trained)
            parameter.grad = None
        return changed

    def frozen_norms(self) -> list[nn.Module]:
        """Return the norms that are frozen now."""
        thawed = self.parameters and self.parameters[0].requires_grad
        norms = [*self.always_frozen_norms, *([] if thawed else self.norms)]
        return list(dict.fromkeys(norms))

    def set_training_mode(self) -> None:
        """Put the model into training mode, with its frozen norms in evaluation mode."""
        self.module.train()
        for norm in self.frozen_norms():
            norm.eval()
