"""Match the names of a file's tensors with those of a network, which may have other prefixes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from trainer.base.tensor_files import Specs

PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.", "net.", "network.")
"""in which programs keep a network: DistributedDataParallel, torch.compile, Lightning and others"""


@dataclass
class Matching:
    """What goes where, by names and shapes alone, with one choice of prefixes.

    Args:
        theirs: the prefix that is taken off the names of the file.
        ours: the prefix that they get where the network has such a name.
        taken: the name in the file by the name in the network.
        misshapen: likewise, of tensors that have another shape in the network.
    """

    theirs: str
    ours: str
    taken: dict[str, str] = field(default_factory=dict)
    misshapen: dict[str, str] = field(default_factory=dict)


def match(found: Specs, expected: Specs) -> Matching:
    """Match names with the prefixes that let most tensors fit, the shortest of such."""
    choices = itertools.product(_prefixes(found), _prefixes(expected))
    matchings = [_match(found, expected, theirs, ours) for theirs, ours in choices]
    return max(matchings, key=lambda one: (len(one.taken), len(one.misshapen)))


def _match(found: Specs, expected: Specs, theirs: str, ours: str) -> Matching:
    """Match names with one choice of prefixes; the first of several that fit one place counts."""
    matching = Matching(theirs, ours)
    for source in found:
        name = source.removeprefix(theirs)
        target = ours + name if ours + name in expected else name
        if target not in expected or target in matching.taken:
            continue
        fits = found[source].shape == expected[target].shape
        (matching.taken if fits else matching.misshapen)[target] = source
    for name in matching.taken:
        matching.misshapen.pop(name, None)
    return matching


def _prefixes(names: Mapping[str, object]) -> list[str]:
    """Return the prefixes that names may have, the shortest first, which is none.

    They are those of all names, and the known ones, one in the other, of some names.
    """
    common = os.path.commonprefix(list(names))  # noqa: RUF071 - it is cut at a dot
    shared = [common[:end] for end, letter in enumerate(common, start=1) if letter == "."]
    known = [""]
    for prefix in known:  # which grows
        known += [
            longer
            for longer in (prefix + one for one in PREFIXES)
            if longer not in known and any(name.startswith(longer) for name in names)
        ]
    return sorted({*shared, *known}, key=lambda prefix: (len(prefix), prefix))
