"""Which tensor of a file is which of a network's, by names and shapes alone."""

from __future__ import annotations

import pytest

from trainer.base.tensor_files import Specs, TensorSpec
from trainer.network.name_matching import Matching, match


def specs(*names: str, shape: tuple[int, ...] = (2,)) -> Specs:
    return dict.fromkeys(names, TensorSpec("F32", shape))


def test_a_file_without_tensors_matches_nothing() -> None:
    assert match({}, specs("a")) == Matching("", "")
    assert match(specs("a"), {}) == Matching("", "")


def test_names_that_nothing_takes_are_passed_over() -> None:
    assert match(specs("x", "a", "y", "b"), specs("a", "b", "c")) == Matching(
        "", "", {"a": "a", "b": "b"}
    )


@pytest.mark.parametrize(
    ("found", "theirs", "taken"),
    [
        (("own.a.b", "own.a.c"), "own.a.", {"b": "own.a.b", "c": "own.a.c"}),
        (("own.a.b", "own.abc"), "own.", {"a.b": "own.a.b", "abc": "own.abc"}),
        (("one.two.c",), "one.two.", {"c": "one.two.c"}),
        (("model.backbone.c", "other"), "model.backbone.", {"c": "model.backbone.c"}),
        (("mine.backbone.c", "other"), "", {"other": "other"}),
    ],
)
def test_the_prefix_that_lets_most_fit(
    found: tuple[str, ...], theirs: str, taken: dict[str, str]
) -> None:
    expected = specs("a.b", "abc", "b", "c") | ({} if theirs else specs("other"))
    assert match(specs(*found), expected) == Matching(theirs, "", taken)


def test_of_prefixes_that_do_as_well_the_shortest_counts() -> None:
    found, expected = specs("module.a", "net.b"), specs("a", "b")
    assert match(found, expected) == Matching("net.", "", {"b": "net.b"})
    assert match(specs("module.a"), specs("x")) == Matching("", "")
    # One that changes nothing is none.
    assert match(specs("a"), specs("a", "net.b")) == Matching("", "", {"a": "a"})


def test_names_get_the_prefix_of_the_network_where_it_has_such_a_name() -> None:
    found, expected = specs("a", "b", "c"), specs("net.a", "net.b", "c", "net.d")
    taken = {"net.a": "a", "net.b": "b", "c": "c"}
    assert match(found, expected) == Matching("", "net.", taken)
    found = specs("module.a", "module.b", "module.c")
    taken = {name: f"module.{name.removeprefix('net.')}" for name in taken}
    assert match(found, expected) == Matching("module.", "net.", taken)


def test_a_tensor_of_the_right_shape_goes_before_one_of_another() -> None:
    """And the first of two that fit before the second."""
    found = specs("a", shape=(3,)) | specs("module.a", "module.b", "b", "module.c")
    found |= specs("module.d", shape=(4,))
    assert match(found, specs("a", "b", "c", "d")) == Matching(
        "module.",
        "",
        {"a": "module.a", "b": "module.b", "c": "module.c"},
        {"d": "module.d"},
    )


def test_among_names_of_other_shapes_most_count_too() -> None:
    """So that a message names the tensor that was meant, and not a lack of all of them."""
    found = specs("net.a", "net.b", shape=(3,))
    taken = {"a": "net.a", "b": "net.b"}
    assert match(found, specs("a", "b")) == Matching("net.", "", {}, taken)
    # What fits counts more than any number of these.
    found |= specs("c")
    assert match(found, specs("a", "b", "c")) == Matching("net.", "", {"c": "c"}, taken)
    mixed = specs("net.a", "net.b", "c", shape=(3,)) | specs("model.c")
    assert match(mixed, specs("a", "b", "c")) == Matching("model.", "", {"c": "model.c"})
