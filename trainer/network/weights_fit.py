"""Find out how the tensors of a file fit a network that is not quite the one they were made for.

Names may have other prefixes, the head may be of other classes, and the first layer for other
channels. Anything else has to be there.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from models.heads import find_head
from trainer.base.errors import UserError
from trainer.base.tensor_files import Specs, Tensors, TensorSpec
from trainer.network import model_state
from trainer.network.name_matching import Matching, match
from trainer.network.weight_changes import adapt_channels, quieten

_FLOATS = ("F64", "F32", "F16", "BF16")
_MOST_BLOCKS = 12
"""of the table"""
_NOT_NEEDED = "num_batches_tracked"
"""of batch norm: files of early versions of torch do not have it, and nothing here uses it"""


@dataclass(frozen=True)
class Fit:
    """Which tensor of a file goes where in a network.

    Args:
        taken: the name in the file by the name in the network.
        head_rows: (ours, theirs) of the classes whose rows of the head are kept; None: all rows, as
            they are. Of no meaning where the head is new.
        head: names in the network of the head's parameters that the file gives.
        new_head: the head's weight, if the file does not give all of it.
        adapted: the weight of the first layer, if the file has it for other channels.
        new: names in the network that keep the values they were built with.
        left_over: names in the file, without the prefix, that nothing takes.
        notes: what is not as in the file, in words.
    """

    taken: Mapping[str, str]
    head: frozenset[str] = frozenset()
    head_rows: tuple[tuple[int, int], ...] | None = None
    new_head: str | None = None
    adapted: str | None = None
    new: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def apply(self, state: Mapping[str, torch.Tensor], tensors: Tensors) -> Tensors:
        """Return the network's state with the values of the file in it.

        Args:
            state: as the network was built, by name.
            tensors: of the file, at least those that are taken.
        """
        found = dict(state)
        if self.new_head is not None:
            found[self.new_head] = quieten(state[self.new_head])
        for name, source in self.taken.items():
            value, own = tensors[source], found[name]
            if name == self.adapted:
                value = adapt_channels(value, own.shape[1])
            elif name in self.head and self.head_rows is not None:
                rows = own.detach().clone()
                for ours, theirs in self.head_rows:
                    rows[ours] = value[theirs]
                value = rows
            found[name] = value
        return found

    def describe(self) -> list[tuple[str, ...]]:
        """Return a table: for each block of the network how many tensors it has from where."""
        counts = {
            "loaded": Counter(_block(name) for name in self.taken),
            "new": Counter(_block(name) for name in self.new),
            "left over": Counter(_block(name) for name in self.left_over),
        }
        blocks = list(dict.fromkeys(map(_block, (*self.taken, *self.new, *self.left_over))))
        if len(blocks) > _MOST_BLOCKS:
            # Blocks of which all is loaded say nothing one by one.
            plain = [b for b in blocks if not counts["new"][b] and not counts["left over"][b]]
            others = [block for block in blocks if block not in plain][: _MOST_BLOCKS - 1]
            rest = [block for block in blocks if block not in others]
            groups = {f"{len(rest)} more": rest, **{block: [block] for block in others}}
        else:
            groups = {block: [block] for block in blocks}
        rows = [("block", *counts)]
        for label, members in groups.items():
            numbers = (sum(count[block] for block in members) for count in counts.values())
            rows.append((label, *(f"{number:,}" if number else "-" for number in numbers)))
        return rows


def fit(
    model: nn.Module,
    found: Specs,
    *,
    class_names: Sequence[str],
    their_class_names: Sequence[str] | None,
) -> Fit:
    """Find out how the tensors of a file fit a network.

    Args:
        model: as it was built.
        found: the tensors of the file.
        class_names: of the data, in the order of the logits.
        their_class_names: of the file's head, likewise; None: not known.

    Raises:
        UserError: more than the head is missing, or of another shape or kind.
    """
    expected = model_state.expected_specs(model, found)
    matching = match(found, expected)
    taken, misshapen = dict(matching.taken), dict(matching.misshapen)
    notes = [
        words
        for prefix, words in (
            (matching.theirs, f"its names are taken without their prefix {matching.theirs!r}"),
            (matching.ours, f"its names are taken as if they began with {matching.ours!r}"),
        )
        if prefix
    ]
    head, rows, no_head = _fit_head(
        model, found, expected, taken, misshapen, class_names, their_class_names, notes
    )
    adapted = _first_layer(model, found, expected, misshapen)
    if adapted is not None:
        taken[adapted] = misshapen.pop(adapted)
        channels = found[taken[adapted]].shape[1], expected[adapted].shape[1]
        how = "summed" if channels[1] == 1 else "repeated"
        notes.append(f"first layer: {channels[0]} -> {channels[1]} channels, {how}")
    _take_aliases(model, taken, expected)
    new = [name for name in expected if name not in taken]
    needed = [name for name in new if name not in head and not name.endswith(_NOT_NEEDED)]
    sources = set(taken.values())
    left_over = tuple(name.removeprefix(matching.theirs) for name in found if name not in sources)
    if needed:
        raise UserError(
            _describe_lack(needed, misshapen, found, expected, left_over, matching, no_head)
        )
    _check_types(taken, found, expected)
    return Fit(
        taken={name: taken[name] for name in expected if name in taken},
        head=frozenset(head & taken.keys()),
        head_rows=rows,
        new_head=_new_head(head, rows, new),
        adapted=adapted,
        new=tuple(new),
        left_over=left_over,
        notes=tuple(notes),
    )


# ---------------------------------------------------------------------- head and first layer


def _take_aliases(model: nn.Module, taken: dict[str, str], expected: Specs) -> None:
    """Let a tensor that has two names in the network be taken under either."""
    tensors = model_state.tensors(model)
    places = {_place(tensors[name]): source for name, source in taken.items()}
    for name in expected.keys() - taken.keys():
        tensor = tensors.get(name)
        if tensor is not None and tensor.numel() > 0 and _place(tensor) in places:
            taken[name] = places[_place(tensor)]


def _place(tensor: torch.Tensor) -> tuple[int, torch.Size]:
    return tensor.data_ptr(), tensor.shape


def _fit_head(
    model: nn.Module,
    found: Specs,
    expected: Specs,
    taken: dict[str, str],
    misshapen: dict[str, str],
    class_names: Sequence[str],
    their_class_names: Sequence[str] | None,
    notes: list[str],
) -> tuple[frozenset[str], tuple[tuple[int, int], ...] | None, str]:
    """Decide what the head takes: all of it, the rows of equal classes, or nothing.

    Returns:
        The names of its parameters, the rows that it takes, and why there is no head, if so.
    """
    try:
        place = find_head(model, len(class_names))
    except ValueError as error:
        return frozenset(), None, str(error)
    head = frozenset(name for name in expected if name.startswith(f"{place}."))
    sources = {name: source for name in head if (source := (taken | misshapen).get(name))}
    sizes = {found[source].shape[:1] for source in sources.values()}
    count = next(iter(sizes))[0] if len(sizes) == 1 and () not in sizes else None
    same_width = len(sources) == len(head) and all(
        found[source].shape[1:] == expected[name].shape[1:] for name, source in sources.items()
    )
    words = f"{len(class_names):,} classes"
    if count is not None and count != len(class_names):
        words = f"{count:,} -> {words}"
    rows: list[tuple[int, int]] = []
    if same_width and their_class_names is not None and count == len(their_class_names):
        if tuple(class_names) == tuple(their_class_names):
            return head, None, ""
        once = Counter(their_class_names)
        numbers = {name: i for i, name in enumerate(their_class_names) if once[name] == 1}
        rows = [(i, numbers[name]) for i, name in enumerate(class_names) if name in numbers]
    elif same_width and count == len(class_names):
        return head, None, ""
    for name in head:
        taken.pop(name, None)
        misshapen.pop(name, None)
    if not rows:
        notes.append(f"head: {words}, new")
        return head, None, ""
    taken |= sources
    new = f", {len(class_names) - len(rows):,} new" if len(rows) < len(class_names) else ""
    notes.append(f"head: {words}, {len(rows):,} kept by their names{new}")
    return head, tuple(rows), ""


def _new_head(
    head: frozenset[str], rows: tuple[tuple[int, int], ...] | None, new: Sequence[str]
) -> str | None:
    """Return the head's weight if some of it is new; of a parametrised one it has no such name."""
    weights = [name for name in head if name.endswith(".weight")]
    return weights[0] if len(weights) == 1 and (rows is not None or weights[0] in new) else None


def _first_layer(
    model: nn.Module, found: Specs, expected: Specs, misshapen: Mapping[str, str]
) -> str | None:
    """Return the weight of the first convolution if only the channels of the images differ."""
    name, first = next(
        ((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)), ("", None)
    )
    weight = f"{name}.weight".removeprefix(".")
    if first is None or first.groups != 1 or weight not in misshapen:
        return None
    theirs, ours = found[misshapen[weight]].shape, expected[weight].shape
    same = len(theirs) == 4 and (theirs[0], *theirs[2:]) == (ours[0], *ours[2:])
    return weight if same and theirs[1] > 0 else None


# ---------------------------------------------------------------------- messages


def _check_types(taken: Mapping[str, str], found: Specs, expected: Specs) -> None:
    for name, source in taken.items():
        if expected[name].dtype in _FLOATS and found[source].dtype not in _FLOATS:
            raise UserError(
                f"does not fit the model: it has {source} as {found[source].dtype}, where "
                f"{expected[name].dtype} is expected; quantised weights cannot be trained on"
            )


def _describe_lack(
    needed: Sequence[str],
    misshapen: Mapping[str, str],
    found: Specs,
    expected: Specs,
    left_over: Sequence[str],
    matching: Matching,
    no_head: str,
) -> str:
    name = next((one for one in needed if one in misshapen), needed[0])
    more = f" and {len(needed) - 1:,} more" if len(needed) > 1 else ""
    if name in misshapen:
        theirs, ours = found[misshapen[name]], expected[name]
        text = f"{misshapen[name]!a} is {_words(theirs)}, where {_words(ours)} is expected{more}"
    else:
        text = f"it lacks {name!a}{more}"
        near = difflib.get_close_matches(name, left_over, cutoff=0.5)
        if near:
            text += f"; nearest in the file: {', '.join(map(ascii, near))}"
    total = len(expected)
    text += f"; {len(matching.taken):,} of the model's {total:,} tensors fit"
    if no_head:
        text += f"; the model has no head that could be replaced, {no_head.removesuffix('.')}"
    return f"does not fit the model: {text}"


def _words(spec: TensorSpec) -> str:
    return " x ".join(map(str, spec.shape[:8])) or "a single value"


def _block(name: str) -> str:
    return name.partition(".")[0]
