"""Read YAML that has no key twice, as YAML itself takes the last one in silence."""

from __future__ import annotations

from typing import Any

import yaml

from trainer.base.errors import UserError

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MOST_LEVELS = 100
"""of lists and sections in each other; many more overflow the stack of the loader in C"""


def load(text: str) -> Any:
    """Return the content of YAML as `yaml.safe_dump` writes it.

    Raises:
        UserError: names the line and the key that is there twice.
        yaml.YAMLError: it is no YAML, or more than plain values.
    """
    _check(text)
    return yaml.load(text, Loader=_LOADER)


def load_recipe(text: str) -> Any:
    """Return the content of YAML as people write it, where 1e-3 is a number too.

    Raises:
        UserError, yaml.YAMLError: as `load`.
    """
    from jsonargparse import get_loader

    _check(text)
    return get_loader("yaml")(text)


class _Collection:
    """A list or a section that is being read."""

    def __init__(self, start: yaml.CollectionStartEvent) -> None:
        self.anchor = start.anchor
        self._keys: set[str] | None = set() if isinstance(start, yaml.MappingStartEvent) else None
        self._is_key = True

    def add(self, event: yaml.NodeEvent) -> None:
        """Note the next key or value."""
        if self._keys is not None and self._is_key and isinstance(event, yaml.ScalarEvent):
            if event.value in self._keys:
                raise UserError(f"{_line_of(event)}: {event.value} is there twice")
            self._keys.add(event.value)
        self._is_key = not self._is_key


def _check(text: str) -> None:
    unended: list[_Collection] = []
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionEndEvent):
            unended.pop()
        if not isinstance(event, yaml.NodeEvent):
            continue
        if unended:
            unended[-1].add(event)
        if isinstance(event, yaml.CollectionStartEvent):
            if len(unended) == _MOST_LEVELS:
                raise yaml.YAMLError(f"{_line_of(event)}: nested too deeply")
            unended.append(_Collection(event))
        elif isinstance(event, yaml.AliasEvent) and event.anchor in [one.anchor for one in unended]:
            raise yaml.YAMLError(f"{_line_of(event)}: *{event.anchor} is within itself")


def _line_of(event: Any) -> str:
    return f"line {event.start_mark.line + 1}"
