"""How the tensors of a file fit a network: which are taken, which are refused, and what is said."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from trainer.base.errors import UserError
from trainer.base.tensor_files import Specs, TensorSpec, tensor_specs
from trainer.network import model_state, weights_fit
from trainer.network.weight_changes import adapt_channels, quieten
from trainer.network.weights_fit import Fit

CLASSES = ("cat", "dog", "fox")
BODY = ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var")
BODY += ("1.num_batches_tracked",)
HEAD = ("3.weight", "3.bias")


def net(classes: int = 3, channels: int = 3, filters: int = 2) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, filters, 3),
        nn.BatchNorm2d(filters),
        nn.Flatten(),
        nn.Linear(36 * filters, classes),
    )


def specs(model: nn.Module | None = None, **changes: Sequence[int] | None) -> Specs:
    """Those of a file of a network, with other shapes of some, or without them."""
    found = tensor_specs((model or net()).state_dict())
    for name, shape in changes.items():
        key = name.replace("_", ".").removeprefix(".")
        if shape is None:
            del found[key]
        else:
            found[key] = TensorSpec("F32", tuple(shape))
    return found


def fit(found: Specs, model: nn.Module | None = None, theirs: Sequence[str] | None = None) -> Fit:
    model = model or net()
    model_state.remember_initial(model)
    return weights_fit.fit(model, found, class_names=CLASSES, their_class_names=theirs)


def refusal(
    found: Specs, model: nn.Module | None = None, theirs: Sequence[str] | None = None
) -> str:
    with pytest.raises(UserError) as caught:
        fit(found, model, theirs)
    return str(caught.value)


def same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


# ---------------------------------------------------------------------- the head


def test_everything_fits() -> None:
    whole = Fit(same(*BODY, *HEAD), frozenset(HEAD))
    assert fit(specs()) == whole
    assert fit(specs(), theirs=CLASSES) == whole
    assert fit(specs(), theirs=("a name too", *CLASSES)) == whole, "it is not known of which rows"


def new_head(words: str, left_over: tuple[str, ...] = HEAD) -> Fit:
    return Fit(
        same(*BODY),
        new_head="3.weight",
        new=HEAD,
        left_over=left_over,
        notes=(f"head: {words}, new",),
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_3_weight": (5000, 72), "_3_bias": (5000,)}, "5,000 -> 3 classes"),
        ({"_3_weight": (3, 64)}, "3 classes"),
        ({"_3_weight": (3, 72, 1, 1)}, "3 classes"),
        ({"_3_weight": (3, 72), "_3_bias": (5,)}, "3 classes"),
        ({"_3_weight": (5, 72), "_3_bias": (3,)}, "3 classes"),
        ({"_3_weight": (), "_3_bias": ()}, "3 classes"),
    ],
)
def test_a_head_of_another_shape_is_new(changes: dict[str, Sequence[int]], words: str) -> None:
    assert fit(specs(**changes)) == new_head(words)
    if "->" not in words:
        assert fit(specs(**changes), theirs=CLASSES) == new_head(words)


def test_a_head_that_is_not_whole_is_new() -> None:
    assert fit(specs(_3_bias=None)) == new_head("3 classes", HEAD[:1])
    assert fit(specs(_3_bias=None, _3_weight=None)) == new_head("3 classes", ())


def test_a_head_of_other_classes_is_new_though_there_are_as_many() -> None:
    """Their rows mean other things: to take them would be worse than to begin anew."""
    assert fit(specs(), theirs=("owl", "crane", "hen")) == new_head("3 classes")
    assert fit(specs(), theirs=("cat", "cat", "cat")) == new_head("3 classes")


@pytest.mark.parametrize(
    ("theirs", "rows", "words"),
    [
        (("dog", "cat", "fox"), ((0, 1), (1, 0), (2, 2)), "3 classes, 3 kept by their names"),
        (("owl", "dog", "dog", "cat"), ((0, 3),), "4 -> 3 classes, 1 kept by their names, 2 new"),
        (("fox", "dog"), ((1, 1), (2, 0)), "2 -> 3 classes, 2 kept by their names, 1 new"),
    ],
)
def test_rows_of_the_same_names_are_kept(
    theirs: tuple[str, ...], rows: tuple[tuple[int, int], ...], words: str
) -> None:
    count = len(theirs)
    found = fit(specs(_3_weight=(count, 72), _3_bias=(count,)), theirs=theirs)
    assert found == Fit(
        same(*BODY, *HEAD), frozenset(HEAD), rows, new_head="3.weight", notes=(f"head: {words}",)
    )


def test_the_numbers_of_many_classes_are_readable() -> None:
    names = [f"class {number}" for number in range(3000)]
    model = net(classes=3000)
    model_state.remember_initial(model)
    found = specs(_3_weight=(3000, 72), _3_bias=(3000,))

    def notes(theirs: Sequence[str]) -> tuple[str, ...]:
        return weights_fit.fit(model, found, class_names=names, their_class_names=theirs).notes

    assert notes(names[::-1]) == ("head: 3,000 classes, 3,000 kept by their names",)
    others = [f"{name}!" for name in names]
    kept = ("head: 3,000 classes, 1,000 kept by their names, 2,000 new",)
    assert notes(names[:1000] + others[1000:]) == kept


def test_a_parametrised_head_is_new_as_it_was_built() -> None:
    model = net()
    nn.utils.parametrizations.weight_norm(model[3])
    kernels = tuple(f"3.parametrizations.weight.original{number}" for number in (0, 1))
    found = fit(specs(net(classes=5)), model)
    assert found.new == ("3.bias", *kernels)
    assert found.new_head is None
    assert found.notes == ("head: 5 -> 3 classes, new",)


# ---------------------------------------------------------------------- the first layer


def test_the_first_layer_may_be_of_other_channels() -> None:
    whole = Fit(same(*BODY, *HEAD), frozenset(HEAD), adapted="0.weight")
    how = {1: "repeated", 2: "repeated", 4: "repeated"}
    for channels, word in how.items():
        note = f"first layer: {channels} -> 3 channels, {word}"
        found = fit(specs(_0_weight=(2, channels, 3, 3)))
        assert (found.taken, found.adapted, found.notes) == (whole.taken, "0.weight", (note,))
        assert (found.new, found.left_over) == ((), ())
    found = fit(specs(), net(channels=1))
    assert found.notes == ("first layer: 3 -> 1 channels, summed",)


def test_the_first_layer_may_be_the_whole_network() -> None:
    model = nn.Conv2d(1, 2, 3)
    found = {"weight": TensorSpec("F32", (2, 3, 3, 3)), "bias": TensorSpec("F32", (2,))}
    assert fit(found, model).adapted == "weight"


@pytest.mark.parametrize("shape", [(2, 3, 5, 5), (2, 3, 3, 5), (4, 3, 3, 3), (2, 0, 3, 3), (2, 27)])
def test_another_first_layer_is_refused(shape: tuple[int, ...]) -> None:
    words = " x ".join(map(str, shape))
    assert refusal(specs(_0_weight=shape), net(channels=1)) == (
        f"does not fit the model: '0.weight' is {words}, where 2 x 1 x 3 x 3 is expected; "
        "8 of the model's 9 tensors fit"
    )


def test_only_the_first_layer_is_adapted_and_none_with_groups() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Flatten(), nn.Linear(108, 3))
    found = tensor_specs(model.state_dict()) | {"0.weight": TensorSpec("F32", (3, 3, 3, 3))}
    assert "'0.weight' is 3 x 3 x 3 x 3, where 3 x 1 x 3 x 3 is expected" in refusal(found, model)
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(32, 3))
    found = tensor_specs(model.state_dict()) | {"1.weight": TensorSpec("F32", (2, 4, 3, 3))}
    assert "'1.weight' is 2 x 4 x 3 x 3, where 2 x 2 x 3 x 3 is expected" in refusal(found, model)


# ---------------------------------------------------------------------- names


def test_other_names_and_what_is_left_over_are_said() -> None:
    found = {f"model.{name}": spec for name, spec in specs().items()}
    found |= {"model.more.model.weight": TensorSpec("F32", (1,)), "z": TensorSpec("F32", (1,))}
    assert fit(found) == Fit(
        {name: f"model.{name}" for name in (*BODY, *HEAD)},
        frozenset(HEAD),
        left_over=("more.model.weight", "z"),
        notes=("its names are taken without their prefix 'model.'",),
    )
    model = nn.Sequential()
    model.add_module("backbone", net()[:3])
    model.add_module("fc", nn.Linear(72, 3))
    found = {name: spec for name, spec in specs().items() if name[0] != "3"}
    assert fit(found, model) == Fit(
        {f"backbone.{name}": name for name in BODY},
        new_head="fc.weight",
        new=("fc.weight", "fc.bias"),
        notes=(
            "its names are taken as if they began with 'backbone.'",
            "head: 3 classes, new",
        ),
    )


def test_counts_of_batches_are_not_needed() -> None:
    found = specs()
    del found["1.num_batches_tracked"]
    assert fit(found) == Fit(
        same(*BODY[:-1], *HEAD), frozenset(HEAD), new=("1.num_batches_tracked",)
    )


class Tied(nn.Module):
    """Two names of one number, two buffers without any, and a part of a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(1))
        self.again = self.one
        self.matrix = nn.Parameter(torch.ones(4, 4))
        self.register_buffer("empty", torch.ones(0))
        self.register_buffer("nothing", torch.ones(0))
        self.register_buffer("part", self.matrix.detach()[:2])
        self.head = nn.Linear(4, 3)


def test_only_a_tensor_of_two_names_is_taken_under_either() -> None:
    found = specs(Tied())
    del found["again"]
    taken = fit(found, Tied()).taken
    assert taken == same(*found) | {"again": "one"}
    for name in ("nothing", "part"):
        assert refusal({key: found[key] for key in found if key != name}, Tied()) == (
            f"does not fit the model: it lacks '{name}'; 6 of the model's 8 tensors fit"
        )


# ---------------------------------------------------------------------- messages


def test_a_lack_is_said_with_the_nearest_names() -> None:
    names = [f"0.weight{number}" for number in range(4)]
    found = {name: TensorSpec("F32", (1,)) for name in names} | specs()
    del found["0.weight"], found["1.weight"], found["1.bias"]
    near = ", ".join(f"'{name}'" for name in names[:0:-1])
    assert refusal(found) == (
        f"does not fit the model: it lacks '0.weight' and 2 more; nearest in the file: {near}; "
        "6 of the model's 9 tensors fit"
    )
    assert refusal({"0.wexyz": TensorSpec("F32", (1,))}) == (
        "does not fit the model: it lacks '0.weight' and 5 more; nearest in the file: '0.wexyz'; "
        "0 of the model's 9 tensors fit"
    )
    assert refusal({}) == (
        "does not fit the model: it lacks '0.weight' and 5 more; 0 of the model's 9 tensors fit"
    )


def test_a_lack_is_said_whatever_becomes_of_the_head() -> None:
    text = "does not fit the model: it lacks '0.weight'; 8 of the model's 9 tensors fit"
    for theirs in (None, CLASSES, ("dog", "cat", "fox")):
        assert refusal(specs(_0_weight=None), theirs=theirs) == text
    near = "'0.weight'; nearest in the file: '3.weight'; 8"
    text = text.replace("'0.weight'; 8", near)
    assert refusal(specs(_0_weight=None), theirs=("owl", "crane", "hen")) == text


def test_a_tensor_of_another_shape_is_said_before_those_that_lack() -> None:
    found = specs(_1_bias=())
    del found["0.bias"]
    assert refusal(found) == (
        "does not fit the model: '1.bias' is a single value, where 2 is expected and 1 more; "
        "7 of the model's 9 tensors fit"
    )
    assert "'1.bias' is 1 x 2 x 3 x 4 x 5 x 6 x 7 x 8, where" in refusal(
        specs(_1_bias=range(1, 10))
    )


def test_a_network_without_a_head_is_said() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    found = specs(model)
    del found["1.bias"]
    text = refusal(found, model)
    assert text == (
        "does not fit the model: it lacks '1.bias'; 6 of the model's 7 tensors fit; the model has "
        "no head that could be replaced, its last parameter, 1.bias, is not of a linear layer or a "
        "1x1 convolution, so it is not known which part turns features into logits"
    )


def test_numbers_of_a_large_network_are_readable() -> None:
    model = nn.ParameterDict({f"p{number}": nn.Parameter(torch.ones(1)) for number in range(3002)})
    found = specs(model)
    assert "; 2,000 of the model's 3,002 tensors fit" in refusal(
        {name: found[name] for name in list(found)[:2000]}, model
    )
    assert "it lacks 'p0' and 1,500 more" in refusal(
        {name: found[name] for name in list(found)[1501:]}, model
    )


def test_quantised_tensors_are_refused() -> None:
    found = specs()
    found["1.running_mean"] = TensorSpec("I8", (2,))
    assert refusal(found) == (
        "does not fit the model: it has 1.running_mean as I8, where F32 is expected; quantised "
        "weights cannot be trained on"
    )
    for dtype in ("F64", "F16", "BF16"):
        found["1.running_mean"] = TensorSpec(dtype, (2,))
        found["1.num_batches_tracked"] = TensorSpec("I32", ())
        assert len(fit(found).taken) == 9


# ---------------------------------------------------------------------- what is done


def test_what_is_taken_gets_its_place_and_the_rest_stays() -> None:
    torch.manual_seed(0)
    state = {"0.weight": torch.rand(2, 1, 3, 3), "3.weight": torch.full((3, 4), 8.0)}
    state |= {"3.bias": torch.rand(3), "more": torch.rand(2)}
    tensors = {"a": torch.rand(2, 3, 3, 3), "w": torch.rand(2, 4, dtype=torch.float64)}
    tensors |= {"b": torch.rand(2), "unused": torch.rand(1)}
    taken = {"0.weight": "a", "3.weight": "w", "3.bias": "b"}
    done = Fit(
        taken, frozenset(HEAD), ((2, 0), (0, 1)), new_head="3.weight", adapted="0.weight"
    ).apply(state, tensors)
    assert done.keys() == state.keys()
    assert torch.equal(done["0.weight"], tensors["a"].sum(1, keepdim=True))
    rows = torch.stack([tensors["w"][1].float(), torch.full((4,), 0.5), tensors["w"][0].float()])
    assert torch.equal(done["3.weight"], rows)
    assert done["3.weight"].dtype == torch.float32
    bias = torch.stack([tensors["b"][1], state["3.bias"][1], tensors["b"][0]])
    assert torch.equal(done["3.bias"], bias)
    assert done["more"] is state["more"]
    assert torch.equal(state["3.weight"], torch.full((3, 4), 8.0)), "as it was built"
    # Rows that are kept concern the head only.
    rest = Fit({"more": "b"}, frozenset(), ((0, 1),)).apply(state, tensors)
    assert torch.equal(rest["more"], tensors["b"])


def test_the_bound_of_a_quiet_head() -> None:
    """Twice one over the root of the inputs; a power of two, so that no digit is lost."""
    weight = torch.tensor([[1.0, -0.3, 0.7, 0.1]])
    assert quieten(weight) is weight
    assert torch.equal(quieten(1.01 * weight), 1.01 * weight / 2)
    assert torch.equal(quieten(-4 * weight), -4 * weight / 8)
    assert torch.equal(quieten(3.99 * weight), 3.99 * weight / 4)
    for number in (float("inf"), float("nan")):
        strange = torch.tensor([[number, 1.0]])
        assert quieten(strange) is strange


def test_adapted_filters_have_their_shape_in_float32() -> None:
    weight = torch.rand(2, 3, 5, 4, dtype=torch.float16)
    for channels in (1, 2, 3, 4, 7):
        found = adapt_channels(weight, channels)
        assert (found.shape, found.dtype) == ((2, channels, 5, 4), torch.float32)
        repeated = [weight[:, place % 3].float() * (3 / channels) for place in range(channels)]
        if channels > 1:
            assert torch.equal(found, torch.stack(repeated, 1))
    assert torch.equal(adapt_channels(weight, 1)[:, 0], weight.float().sum(1))


def test_the_table_of_blocks() -> None:
    names = [f"block{number}.{part}.weight" for number in range(12) for part in "ab"]
    table = Fit(same(*names)).describe()
    assert table == [
        ("block", "loaded", "new", "left over"),
        *((f"block{number}", "2", "-", "-") for number in range(12)),
    ]
    more = [f"layer.{number}" for number in range(1500)]
    news = [f"new{number}.weight" for number in range(10)]
    table = Fit(same(*names, *more), new=tuple(news), left_over=("left.a", "left.b")).describe()
    assert table == [
        ("block", "loaded", "new", "left over"),
        ("13 more", "1,524", "-", "-"),
        *((f"new{number}", "-", "1", "-") for number in range(10)),
        ("left", "-", "-", "2"),
    ]
    table = Fit(same(*names), new=tuple(news), left_over=("left.a", "last.b")).describe()
    assert table[1] == ("13 more", "24", "-", "1")
    assert table[-1] == ("left", "-", "-", "1")
    assert len(table) == 13
