"""The networks by their names."""

from __future__ import annotations

import inspect

from tests.nets import attributes, buffers, counters, draws, parameters
from tests.nets.body import Body

NETWORKS: dict[str, type] = {
    name: value
    for module in (attributes, buffers, counters, draws, parameters)
    for name, value in vars(module).items()
    if isinstance(value, type) and value.__module__ == module.__name__
}


def plugin(name: str) -> str:
    """Return what `model.name` says for a network."""
    network = Body if name == "Body" else NETWORKS[name]
    return f"{inspect.getfile(network)}:{name}"
