"""Lists of transforms in a configuration: what may be written, and what is the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from trainer.base.errors import UserError
from trainer.config import augmentations, plugin_checks, plugins, rules, stored_config
from trainer.config.augmentations import own_augmentations_of
from trainer.config.command_line import combine, parse, to_yaml
from trainer.config.same_run import differences
from trainer.config.schema import RunConfig, replace


def configured(value: Any) -> RunConfig:
    return replace(RunConfig(), {"data.augment": value})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("[flip, {rotate: {degrees: lots}}]",
         "data.augment[1].rotate.degrees: must be a number from 0 to 180, found 'lots'"),
        ("[{rotate: {degrees: 200}}]", "rotate.degrees: must be a number from 0 to 180, found 200"),
        ("[{rotate: {degrees: true}}]", "a number from 0 to 180, found True"),
        ("[{rotate: {degrees: .nan}}]", "a number from 0 to 180, found nan"),
        ("[{rotate: {degree: 3}}]", "[0].rotate: has no argument 'degree'; did you mean degrees?"),
        ("[{erase: {colour: 3}}]", "'colour'; it has probability, area, aspect, noise"),
        ("[{alternating_flip: {a: 3}}]", "alternating_flip: has no argument 'a'; it has none"),
        ("[{erase: {noise: loud}}]", "erase.noise: must be channel or pixel, found 'loud'"),
        ("[{crop: {area: 0.5}}]", "crop.area: must be two numbers from 0.01 to 1, the lower first"),
        ("[{crop: {area: [0.9, 0.5]}}]", "such as [0.6, 1.0], found [0.9, 0.5]"),
        ("[{rand_augment: {operations: 1.5}}]", "must be a whole number from 1 to 10, found 1.5"),
        ("[flip, random_resized_crop]", "data.augment[1]: random_resized_crop must be first"),
        ("[flip, rotat]", "data.augment[1]: there is no augmentation 'rotat'; did you mean rotate"),
        ("[flip_shift]", "there is no augmentation 'flip_shift'"),
        ("[none]", "data.augment[0]: none stands alone, without a list"),
        ("[flip, {spin: {degrees: 3}}]", "data.augment[1]: there is no augmentation 'spin'"),
        ("[{mine.py:f: {degrees: 3}}]", "only they have arguments"),
        ("[{flip: {}, shift: {}}]", "data.augment[0]: must be a name, or one name with its"),
        ("[{flip: 3}]", "must be a name, or one name with its arguments such as {rotate:"),
        ("[flip, 3]", "data.augment[1]: must be a name"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_what_would_be_right(value: str, expected: str) -> None:
    config = configured(yaml.safe_load(value))
    with pytest.raises(UserError) as caught:
        rules.validate(config)
        plugin_checks.check_names(config)
    assert expected in str(caught.value)
    assert str(caught.value).startswith("data.augment")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("[flip, {rotate: {degrees: 200}}]", "data.augment[1].rotate.degrees: must be a number"),
        ("[flip, rotat]", "data.augment[1]: there is no augmentation 'rotat'; did you mean rotate"),
        ("[flip, 3]", "data.augment[1]: must be a name, or one name with its arguments"),
        ("[flip", "data.augment: must be none, or some of flip"),
    ],
)
def test_a_mistake_on_the_command_line(value: str, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(["--data.augment", value])
    assert expected in str(caught.value)


@pytest.mark.parametrize("text", ["3", "{rotate: {degrees: 3}}", "null", "true"])
def test_neither_a_text_nor_a_list(text: str, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"data: {{augment: {text}}}\n")
    with pytest.raises(UserError, match=r"data\.augment: must be none, names joined by _ such as"):
        parse(["--config", str(recipe)])


def test_every_default_is_right_by_its_own_rule() -> None:
    for name, arguments in augmentations.TRANSFORMS_OF_LISTS.items():
        assert augmentations.complete(name, "")[1].keys() == arguments.keys()


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (["flip"], [{"flip": {}}], True),
        (["rotate"], [{"rotate": {"degrees": 15}}], True),
        ([{"erase": {"noise": "channel", "area": [0, 1]}}],
         [{"erase": {"area": [0.0, 1.0], "noise": "channel"}}], True),
        (["flip", "shift"], ["shift", "flip"], False),
        (["flip", "shift"], "flip_shift", False),
        (["rotate"], [{"rotate": {"degrees": 14}}], False),
        ([], "none", True),
    ],
)  # fmt: skip
def test_two_spellings_are_one_run(one: Any, other: Any, is_same: bool) -> None:
    assert bool(differences(configured(one), configured(other))) != is_same


def test_a_list_is_stored_with_all_arguments_and_read_back(tmp_path: Path) -> None:
    config = configured([{"random_resized_crop": {"area": [0.35, 1]}}, "flip", "a/b.py:f"])
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config))
    stored = stored_config.read(file)
    assert stored == config
    assert stored.data.augment == [
        {"random_resized_crop": {"area": [0.35, 1.0], "aspect": 4 / 3}},
        {"flip": {"probability": 0.5}},
        "a/b.py:f",
    ]
    # An older run lacks an argument that came later: it has the default.
    file.write_text("data: {augment: [{erase: {probability: 0.5}}]}")
    older = configured([{"erase": {"probability": 0.5}}])
    assert stored_config.read(file) == older
    file.write_text("data: {augment: [{erase: {probability: 5}}]}")
    with pytest.raises(UserError, match=r"config\.yaml: data\.augment\[0\]\.erase\.probability"):
        stored_config.read(file)


def test_a_program_gives_a_list(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("seed: 3\n")
    config = combine(recipe, {"data": {"augment": ["flip", {"shift": {"fill": "black"}}]}})
    assert config.data.augment == [
        {"flip": {"probability": 0.5}}, {"shift": {"fraction": 0.0625, "fill": "black"}}
    ]  # fmt: skip


def test_users_functions_in_a_list_are_found_and_fingerprinted(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def halve(images, numbers): return images // 2\n")
    config = configured(["flip", f"{file}:halve", "shift"])
    assert own_augmentations_of(config.data.augment) == [f"{file}:halve"]
    plugin_checks.check_names(config)
    before = plugins.fingerprints(config)["data.augment"]
    assert before is not None
    assert plugins.fingerprints(configured(["flip"]))["data.augment"] is None
    with pytest.raises(UserError, match=r"data\.augment\[1\]: there is no augmentation 'halve'"):
        plugin_checks.check_names(configured(["flip", "halve"]))


@pytest.mark.parametrize(
    ("given", "is_same"),
    [
        (["flip", "/else/mine.py:f"], True),
        ([{"flip": {"probability": 0.5}}, "/else/mine.py:f"], True),
        (["flip", "/else/mine.py:g"], False),
        (["/else/mine.py:f", "flip"], False),
        ("/else/mine.py:f", False),
    ],
)
def test_only_the_folder_of_a_file_may_change(given: Any, is_same: bool) -> None:
    config = configured(["flip", "mine.py:f"])
    with pytest.raises(UserError, match=r'name it yourself: --data\.augment "\[\{.flip'):
        plugin_checks.check_code(config, Path("run"), {}, ["data.augment"])
    if is_same:
        named = {"data.augment": given}
        plugin_checks.check_code(config, Path("run"), named, ["data.augment"])
    else:
        with pytest.raises(UserError, match="but the run had"):
            plugin_checks.check_code(config, Path("run"), {"data.augment": given}, ["data.augment"])
