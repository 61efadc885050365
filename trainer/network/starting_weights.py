"""The weights of a file as the first ones of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from trainer.base.errors import UserError
from trainer.base.tensor_files import Tensors, read_specs, read_tensors
from trainer.data.scaling import network_tensors
from trainer.network import model_state, weights_fit
from trainer.network.pretrained import PretrainedWeights
from trainer.network.weights_fit import Fit


@dataclass(frozen=True)
class StartingWeights:
    """Weights that have been read for a network, and how they fit it."""

    weights: PretrainedWeights
    fit: Fit
    tensors: Tensors
    """of the file, by their names there; only those that are taken"""

    def load_into(self, model: nn.Module) -> None:
        """Fill a network, as it was built, with them; what is new keeps its values.

        Raises:
            UserError: the network itself refuses them.
        """
        try:
            model_state.load(model, self.fit.apply(model_state.tensors(model), self.tensors))
        except RuntimeError as error:
            raise _refused(self.weights, str(error)) from error


def read(
    model: nn.Module, weights: PretrainedWeights, class_names: Sequence[str]
) -> StartingWeights:
    """Read the tensors of a file that a network has a place for.

    Args:
        model: as it was built; it is not changed.
        class_names: of the data, in the order of the logits.

    Raises:
        UserError: the file is damaged, does not fit the network, or has parameters that are not
            finite.
    """
    try:
        specs = network_tensors(read_specs(weights.file))
        fit = weights_fit.fit(
            model, specs, class_names=class_names, their_class_names=weights.class_names
        )
        # After the check, so that a file of another size costs no memory.
        tensors = read_tensors(weights.file, set(fit.taken.values()))
        _check_numbers(dict(model.named_parameters(remove_duplicate=False)), fit, tensors)
    except UserError as error:
        raise _refused(weights, str(error)) from error
    return StartingWeights(weights, fit, tensors)


def _check_numbers(parameters: Mapping[str, nn.Parameter], fit: Fit, tensors: Tensors) -> None:
    for name, source in fit.taken.items():
        if name in parameters and not bool(torch.isfinite(tensors[source]).all()):
            raise UserError(
                f"{source} has numbers that are not finite, from which nothing could be learnt; "
                f"take the weights of an earlier epoch"
            )


def _refused(weights: PretrainedWeights, why: str) -> UserError:
    return UserError(f"model.weights: {weights.description}: {why}")
