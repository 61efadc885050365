"""Whether a receipt is whole: one that was made up is changed in every place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.made_up_receipt import (
    IMAGES,
    make_config,
    make_receipt,
    make_results,
)
from trainer.base.errors import DifferentRunError, UserError
from trainer.finished import receipts
from trainer.run.receipt import Receipt, head_sha256, link_sha256, to_text

OTHERWISE = (
    "; verify it with the version that wrote it, or move it away and verify the run's folder, "
    "whose metrics, checkpoints and results are then compared"
)


def refusal(path: Path, receipt: Receipt | str, kind: type[Exception] = UserError) -> str:
    """What is said of a receipt after its path."""
    path.write_text(receipt if isinstance(receipt, str) else to_text(receipt))
    with pytest.raises((UserError, DifferentRunError)) as caught:
        receipts.read(path)
    assert type(caught.value) is kind
    before, colon, text = str(caught.value).partition(f"{path}: ")
    assert (before, colon) == ("", f"{path}: ")
    return text


def changed(*place: str | int, to: Any) -> Receipt:
    """A receipt with another value there; None: without it."""
    found = make_receipt()
    inner: Any = found
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = to
    if to is None:
        del inner[place[-1]]
    return found


def test_a_whole_receipt_is_read(tmp_path: Path) -> None:
    (tmp_path / "receipt.json").write_text(to_text(make_receipt()))
    assert receipts.read(tmp_path / "receipt.json") == make_receipt()


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("configuration",), [], "configuration: must be dict[str, typing.Any], found []"),
        (("fingerprints",), {"a": 1}, "fingerprints: must be dict[str, str], found {'a': 1}"),
        (("skipped_steps",), ["1"], "skipped_steps: must be list[int], found ['1']"),
        (("chain",), None, "chain: must be list[dict[str, int | str]], found None"),
        (("result",), "x", "result: must be dict[str, typing.Any], found 'x'"),
        (("made_with",), None, "made_with: must be dict[str, typing.Any], found None"),
        (("sha256",), 1, "sha256: must be str, found 1"),
        (("chain", 0, "epoch"), "1", "chain: link 1: epoch: must be int, found '1'"),
        (("chain", 1, "step"), "5", "chain: link 2: step: must be int, found '5'"),
        (("chain", 1, "state_marks"), 5, "chain: link 2: state_marks: must be str, found 5"),
        (("chain", 0, "sha256"), None, "chain: link 1: sha256: must be str, found None"),
        (("chain", 1, "epoch"), 3, "chain: must be of the epochs 1, 2, 3 and so on"),
        (("chain", 0, "epoch"), 0, "chain: must be of the epochs 1, 2, 3 and so on"),
        (("chain",), [], "chain: must have a link for each epoch, found none"),
        (("result", "weights_sha256"), 1, "result.weights_sha256: must be str, found 1"),
        (("result", "sha256"), None, "result.sha256: must be str, found None"),
        (("result", "test"), {"a": "b"}, "result.test: must be dict[str, float], found {'a': 'b'}"),
        (("result", "test", "loss"), None, "result.test.loss: must be float, found None"),
        (
            ("made_with", "environment"),
            {"a": 1},
            "made_with.environment: must be dict[str, str], found {'a': 1}",
        ),
        (("made_with", "versions"), None, "made_with.versions: must be dict[str, str], found None"),
        (
            ("made_with", "equality"),
            [],
            "made_with.equality: must be dict[str, typing.Any], found []",
        ),
        (
            ("made_with", "equality", "because"),
            None,
            "made_with.equality.because: must be list[str], found None",
        ),
        (
            ("fingerprints", "data.root"),
            None,
            "fingerprints.data.root: must be str, found None",
        ),
        (
            ("format_version",),
            2,
            f"format_version is 2, and this version of Lockstep reads receipts of 1{OTHERWISE}",
        ),
        (
            ("format_version",),
            None,
            f"format_version is None, and this version of Lockstep reads receipts of 1{OTHERWISE}",
        ),
    ],
)
def test_what_is_no_receipt_is_refused(
    place: tuple[str | int, ...], value: Any, message: str, tmp_path: Path
) -> None:
    assert refusal(tmp_path / "r.json", changed(*place, to=value)) == message


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    assert refusal(path, "[]") == "must be dict[str, typing.Any], found []"
    assert refusal(path, "{").startswith("damaged, not JSON that Lockstep writes (")


BEFORE = "the link of epoch 1, or what comes before it: "
BEFORE += "format_version, configuration, fingerprints, skipped_steps"


@pytest.mark.parametrize(
    ("place", "value", "where"),
    [
        (("configuration", "seed"), 1, BEFORE),
        (("skipped_steps",), [1], BEFORE),
        (("chain", 0, "records_sha256"), "0", BEFORE),
        (("chain", 0, "sha256"), "0", BEFORE),
        (("chain", 1, "step"), 6, "the link of epoch 2"),
        (("result", "test", "accuracy"), 1.0, "result"),
        (("result", "sha256"), "0", "result"),
        (("made_with", "code_sha256"), "0", "made_with or its own sha256"),
        (("sha256",), "0", "made_with or its own sha256"),
        (("more",), 1, "it has something that no receipt has"),
        (("chain", 1, "more"), 1, "it has something that no receipt has"),
    ],
)
def test_an_edit_is_found_where_it_is(
    place: tuple[str | int, ...], value: Any, where: str, tmp_path: Path
) -> None:
    text = refusal(tmp_path / "r.json", changed(*place, to=value), DifferentRunError)
    assert text == f"was changed after the run: {where}"


def first_form() -> Receipt:
    """A receipt as the first version wrote it: links without marks."""
    found = make_receipt()
    before, keys = head_sha256(found), ("epoch", "step", "records_sha256", "state_sha256")
    for place, link in enumerate(found["chain"]):
        before = link_sha256(before, link, keys)
        found["chain"][place] = {**{key: link[key] for key in keys}, "sha256": before}
    return found


def test_a_receipt_of_the_first_form_is_told_from_an_edited_one(tmp_path: Path) -> None:
    path, found = tmp_path / "r.json", first_form()
    assert refusal(path, found) == (
        "is a receipt of the first form, whose links have no step_marks and state_marks, and this "
        f"version of Lockstep reads only those that have them{OTHERWISE}"
    )
    for key, value in (("sha256", "0"), ("step", 9), ("more", 1)):
        found = first_form()
        found["chain"][1][key] = value
        message = "chain: link 1: step_marks: must be str, found None"
        assert refusal(path, found) == message


def test_the_configuration_is_that_of_the_run_with_images_from_here() -> None:
    found, path = make_receipt(), Path("r.json")
    assert receipts.configuration(found, path, None) == make_config()
    folder = {"data.name": "folder", "data.resize": "crop", "data.crop_share": 0.5}
    folder |= {"data.interpolation": "bicubic"}
    found["configuration"] |= folder
    config = receipts.configuration(found, path, "/pictures")
    assert config == make_config(**folder, **{"data.root": "/pictures"})
    found["configuration"]["train.epochs"] = "x"
    with pytest.raises(UserError, match=r"^r\.json: train\.epochs: must be int, found 'x'$"):
        receipts.configuration(found, path, None)


def test_the_record_of_a_receipt_alone() -> None:
    found, results = make_receipt(), make_results()
    found["skipped_steps"] = [3]
    run = receipts.record_of(found, Path("r.json"))
    assert (run.folder, run.steps, run.epochs, run.receipt) == (Path("r.json"), {}, {}, found)
    keys = ("environment", "equality", "final_weights_sha256", "weights_sha256")
    test = {key: results["test"][key] for key in ("accuracy", "loss", "samples")}
    kept = {key: results[key] for key in keys}
    assert run.results == {**kept, "test": test, "data": {"fingerprint": IMAGES}}
    assert (run.last_step, run.end, run.skipped_steps) == (5, (3, 5), [3])
