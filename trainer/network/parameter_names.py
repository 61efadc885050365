"""Find the parameters that a pattern of a configuration means."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

from models.heads import find_head
from trainer.base.errors import UserError

BACKBONE = "backbone"
"""means every parameter but those of the head"""


def matcher(model: nn.Module, pattern: str, num_classes: int, key: str) -> Callable[[str], bool]:
    """Return what tells whether a pattern means a parameter or buffer, by its name in the model.

    Args:
        pattern: of whole names, as in a shell (`*`, `?`, `[...]`), such as layer1.*; or `backbone`.
        num_classes: by which the head is known.
        key: of the configuration, for messages.

    Raises:
        UserError: it means no parameter; the nearest names are given.
    """
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    if pattern == BACKBONE:
        try:
            head = find_head(model, num_classes)
        except ValueError as error:
            raise UserError(
                f"{key}: no backbone can be told from a head here: {error}; name the parameters by "
                f"patterns instead, such as {_patterns(names)[0]}"
            ) from error
        return lambda name: not name.startswith(f"{head}.")
    if not any(fnmatchcase(name, pattern) for name in names):
        patterns = _patterns(names)
        near = get_close_matches(pattern, [*names, *patterns], cutoff=0.5)
        nearest = f"did you mean {' or '.join(near)}?" if near else f"there are {_some(patterns)}"
        raise UserError(f"{key}: {pattern!r} is the name of no parameter; {nearest}")
    return lambda name: fnmatchcase(name, pattern)


def head_parameters(model: nn.Module, num_classes: int) -> list[nn.Parameter]:
    """Return the parameters of the head; none where it cannot be told from the rest."""
    try:
        return list(model.get_submodule(find_head(model, num_classes)).parameters())
    except ValueError:
        return []


def _patterns(names: list[str]) -> list[str]:
    """Return a pattern for each module that has parameters, its own or those of its parts."""
    parts = [name.split(".")[:-1] for name in names]
    prefixes = [".".join(part[:count]) for part in parts for count in range(1, len(part) + 1)]
    return [f"{prefix}.*" for prefix in dict.fromkeys(prefixes)] or names


def _some(patterns: list[str]) -> str:
    shortest = sorted(patterns, key=lambda pattern: pattern.count("."))[:8]
    return ", ".join(shortest) + (", ..." if len(patterns) > len(shortest) else "")
