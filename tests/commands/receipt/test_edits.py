"""Every edit of a receipt is found, also where its digests were computed again."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands.command import Capture
from tests.commands.receipt.forging import forge, verify
from tests.commands.test_verify import forge_weights
from tests.runs import contents
from trainer.base.errors import DifferentRunError, UserError
from trainer.finished import receipts, run_record, segments
from trainer.run.receipt import Receipt, head_sha256, link_sha256, seal, to_text


def leaves(value: Any, *place: str | int) -> Iterator[tuple[str | int, ...]]:
    """The place of every value in a receipt that has no others in it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in inner:
        if isinstance(one, dict | list) and one:
            yield from leaves(one, *place, key)
        else:
            yield (*place, key)


def other(value: Any) -> Any:
    """A value of the same type, or where that is not possible of another."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value[:-1] + ("0" if value[-1:] != "0" else "1")
        case _:
            return "something"


def changed(receipt: Receipt, place: tuple[str | int, ...]) -> Receipt:
    found = copy.deepcopy(receipt)
    inner: Any = found
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = other(inner[place[-1]])
    return found


def test_every_edit_of_a_receipt_is_found(own: Path) -> None:
    path = own / "receipt.json"
    receipt = receipts.read(path)
    places = list(leaves(receipt))
    assert len(places) > 100
    for place in places:
        path.write_text(to_text(changed(receipt, place)))
        with pytest.raises((DifferentRunError, UserError), match=r"receipt\.json"):
            receipts.read(path)
    for key in receipt:
        path.write_text(to_text({name: receipt[name] for name in receipt if name != key}))
        with pytest.raises((DifferentRunError, UserError), match=r"receipt\.json"):
            receipts.read(path)
    text = to_text(receipt)
    for edited in (
        text.replace('"result": {', '"result": {"accuracy": 1.0,', 1),
        text.replace('"samples"', '"accuracy": 1.0, "samples"', 1),
        text.replace("{", '{"sha256": "0",', 1),
        text + "\n",
    ):
        path.write_text(edited)
        with pytest.raises(DifferentRunError, match="was changed after the run"):
            receipts.read(path)


def test_every_edit_with_digests_computed_again_contradicts_the_files(own: Path) -> None:
    path = own / "receipt.json"
    receipt = receipts.read(path)
    found = segments.read(segments.open_source(own))
    assert found.contradictions == []
    for place in leaves(receipt):
        if place[-1] in ("sha256", "epoch", "format_version"):
            continue  # computed again; or `read` takes no other value
        forged = seal(changed(receipt, place))
        contradictions = receipts.find_contradictions(run_record.read(own, forged), [])
        assert any("sha256 is not the receipt_sha256 in" in text for text in contradictions)
        # Of Lockstep's own code nothing else is in the folder.
        assert len(contradictions) > 1 or place == ("made_with", "code_sha256"), place


def test_an_edit_is_named(own: Path, capsys: Capture) -> None:
    path = own / "receipt.json"
    text = path.read_text()
    path.write_text(text.replace('"seed": 0', '"seed": 1'))
    code, output, errors = verify(capsys, own)
    assert (code, output) == (3, "")
    assert "was changed after the run: the link of epoch 1, or what comes before" in errors
    state = json.loads(text)["chain"][2]["state_sha256"]
    path.write_text(text.replace(state, "0" * 64))
    assert "after the run: the link of epoch 3\n" in verify(capsys, own)[2]
    path.write_text(text.replace('"format_version": 1', '"format_version": 2'))
    code, _, errors = verify(capsys, own)
    assert code == 2
    assert "reads receipts of 1" in errors
    path.write_text(text)
    forge(path, lambda receipt: receipt["result"]["test"].update(accuracy=1.0))
    code, output, _ = verify(capsys, own, "--segment", "1", "--json")
    assert code == 3
    assert json.loads(output)["first_difference"].startswith("receipt.json: test is {'accuracy': 1")


def test_a_receipt_of_the_first_form_is_told_from_an_edited_one(own: Path, capsys: Capture) -> None:
    path = own / "receipt.json"
    receipt = receipts.read(path)
    before, keys = head_sha256(receipt), ("epoch", "step", "records_sha256", "state_sha256")
    for place, link in enumerate(receipt["chain"]):
        before = link_sha256(before, link, keys)
        receipt["chain"][place] = {**{key: link[key] for key in keys}, "sha256": before}
    path.write_text(to_text(receipt))
    code, output, errors = verify(capsys, path)
    assert (code, output) == (2, "")
    assert "receipt.json: is a receipt of the first form, whose links have no step_marks" in errors
    assert "move it away and verify the run's folder" in errors
    receipt["chain"][1]["state_sha256"] = "0" * 64
    path.write_text(to_text(receipt))
    code, _, errors = verify(capsys, own)
    assert code == 2
    assert "link 1: step_marks" in errors
    path.unlink()
    assert verify(capsys, own, "--segment", "1")[0] == 0


def test_a_changed_file_of_the_run_is_found_by_the_receipt(own: Path, capsys: Capture) -> None:
    before = contents(own)
    code, output, _ = verify(capsys, own, "--segment", "1")
    assert code == 0
    assert contents(own) == before
    forge_weights(own / "checkpoints" / "step-00000015", 1e-7)
    code, output, _ = verify(capsys, own, "--segment", "1")
    assert code == 3
    assert "step-00000015 is not the state at the end of epoch 3" in output
    path = own / "config.yaml"
    path.write_text(path.read_text().replace("weight_decay: 0.01", "weight_decay: 0.5"))
    code, output, _ = verify(capsys, own, "--segment", "1")
    assert "configuration: optimizer.weight_decay 0.01, but 0.5 in config.yaml" in output
    (own / "receipt.json").unlink()
    code, output, _ = verify(capsys, own, "--segment", "1")
    assert "receipt" not in output, "as of an older version"
