"""The parts of a receipt, of a run that was made up."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from pathlib import Path

import pytest

import models
import trainer
from tests.made_up_receipt import (
    CODE,
    FINGERPRINTS,
    IMAGES,
    TEST_IMAGES,
    make_config,
    make_receipt,
    make_records,
    make_results,
    sha256,
)
from trainer.config.same_run import keys_of_run
from trainer.run import receipt
from trainer.training.observer import Record


def marks_of(rows: list[list[object]], places: list[int]) -> str:
    """The first digits of the digests of these rows up to some of them."""
    lines = [json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in rows]
    digests = [hashlib.sha256(b"".join(lines[: place + 1])).hexdigest() for place in places]
    return "".join(digest[:4] for digest in digests)


def test_a_receipt_as_the_documentation_defines_it() -> None:
    results = make_results()
    results["train"]["skipped_steps"] = [4]
    records = make_records()
    unfinished = {"event": "step", "epoch": 3, "step": 6, "loss": 1.0, "lr": 1.0}
    found = receipt.make(make_config(), results, FINGERPRINTS, [*records, unfinished])
    assert found is not None
    configuration = receipt.configuration_of(make_config(), 2)
    head = {
        "format_version": 1,
        "configuration": configuration,
        "fingerprints": {"data.root": IMAGES, "train.loss": CODE, "test": TEST_IMAGES},
        "skipped_steps": [4],
    }
    before, chain = sha256(head), []
    for epoch, steps in ((1, [1, 2]), (2, [3, 4, 5])):
        rows: list[list[object]] = [[step, 1 / step, 0.1 * step] for step in steps]
        figures = [(epoch + place) / 8 for place in range(4)]
        link = {
            "epoch": epoch,
            "step": steps[-1],
            "records_sha256": sha256([rows, *figures]),
            "state_sha256": f"{epoch}a" * 32,
            "step_marks": marks_of(rows, list(range(len(rows)))),
            "state_marks": f"{epoch}bcd" * 3,
        }
        before = sha256([before, *link.values()])
        chain.append({**link, "sha256": before})
    test = {"accuracy": 0.5, "loss": 1.25, "samples": 8}
    result = {"final_weights_sha256": "4" * 64, "weights_sha256": "5" * 64, "test": test}
    result["sha256"] = sha256([before, *result.values()])
    made_with = {
        "code_sha256": receipt.code_sha256(),
        "versions": {"torch": "9.9"},
        "environment": {"device": "cpu", "torch": "9.9"},
        "equality": {"in_bits": True, "because": []},
    }
    whole = {**head, "chain": chain, "result": result, "made_with": made_with}
    whole["sha256"] = sha256(whole)
    # As texts, as the order of the keys is that of the documentation too.
    assert receipt.to_text(found) == json.dumps(whole, indent=2) + "\n"


def test_the_code_is_that_of_all_python_files() -> None:
    digest = hashlib.sha256()
    for package in (models, trainer):
        folder = Path(str(package.__file__)).parent
        for path in sorted(folder.rglob("*.py")):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(folder.parent)} {content}\n".encode())
    assert receipt.code_sha256() == digest.hexdigest()


@pytest.mark.parametrize("lacking", [1, 2])
def test_a_run_of_which_an_epoch_has_no_digests_has_none(lacking: int) -> None:
    records = make_records()
    for record in records:
        if (record["event"], record["epoch"]) == ("epoch", lacking):
            del record["state_marks"]
    assert receipt.make(make_config(), make_results(), FINGERPRINTS, records) is None


def test_sealing_computes_every_digest_again_and_drops_what_is_no_part() -> None:
    whole = make_receipt()
    changed = copy.deepcopy(whole)
    for part in (*changed["chain"], changed["result"], changed):
        part["sha256"], part["more"] = "0" * 64, 1
    assert receipt.to_text(receipt.seal(changed)) == receipt.to_text(whole)
    changed["chain"][0]["step_marks"] = "0000"
    sealed = receipt.seal(changed)
    assert all(
        ours["sha256"] != theirs["sha256"]
        for ours, theirs in (
            *zip(sealed["chain"], whole["chain"], strict=True),
            (sealed["result"], whole["result"]),
            (sealed, whole),
        )
    ), "each digest is of all before it"


def test_numbers_that_json_lacks_are_null_in_digests() -> None:
    steps: list[Record] = [
        {"step": 1, "loss": math.nan, "lr": 0.1},
        {"step": 2, "loss": 0.5, "lr": 0.2},
    ]
    epoch = {
        "train_loss": math.inf, "train_accuracy": 0.1, "validation_loss": None,
        "validation_accuracy": math.nan,
    }  # fmt: skip
    rows: list[list[object]] = [[1, None, 0.1], [2, 0.5, 0.2]]
    assert receipt.records_sha256(steps, epoch) == sha256([rows, None, 0.1, None, None])
    assert receipt.step_marks(steps) == marks_of(rows, [0, 1])


@pytest.mark.parametrize(
    ("count", "marked"),
    [
        (0, []),
        (1, [0]),
        (256, list(range(256))),
        (257, [*range(1, 257, 2), 256]),
        (512, list(range(1, 512, 2))),
        (600, list(range(2, 600, 3))),
        (515, [*range(2, 515, 3), 514]),
    ],
)
def test_some_steps_of_a_long_epoch_have_marks(count: int, marked: list[int]) -> None:
    assert receipt.marked_steps(count) == marked
    steps: list[Record] = [{"step": step, "loss": 1 / 3, "lr": 0.5} for step in range(count)]
    rows: list[list[object]] = [[step, 1 / 3, 0.5] for step in range(count)]
    assert receipt.step_marks(steps) == marks_of(rows, marked)


def test_only_what_can_change_the_weights_is_in_it() -> None:
    found = receipt.configuration_of(make_config(), 2)
    assert found == json.loads(json.dumps(keys_of_run(make_config())))
    assert receipt.configuration_of(make_config(**{"model.args": {"a": (1, 2)}}), 1) == {
        **found,
        "model.args": {"a": [1, 2]},
    }
    # Sums whose order depends on the processes.
    fast = make_config(**{"train.reduction": "fast"})
    expected = {**found, "train.reduction": "fast", "processes": 2}
    assert receipt.configuration_of(fast, 2) == expected
    whole = receipt.make(fast, make_results(), FINGERPRINTS, make_records())
    assert whole is not None
    assert whole["configuration"] == expected


@pytest.mark.parametrize(
    ("weights", "named"),
    [("/home/ada/w.safetensors", "FILE"), ("pretrained", "pretrained"), ("hf:a/b", "hf:a/b")],
)
def test_a_file_is_known_by_its_digest_alone(weights: str, named: str) -> None:
    keys = {"model.weights": weights, "model.weights_sha256": "6" * 64}
    found = receipt.configuration_of(make_config(**keys), 1)
    assert {key: found[key] for key in keys} == {**keys, "model.weights": named}
    assert found["train.teacher"] is None
    keys = {"train.teacher": "/home/ada/run", "train.teacher_sha256": "6" * 64}
    found = receipt.configuration_of(make_config(**keys), 1)
    assert {key: found[key] for key in keys} == {**keys, "train.teacher": "FILE"}
    assert found["model.weights"] is None


def test_a_receipt_is_written_and_an_older_one_goes_with_its_signature(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, signature = tmp_path / "receipt.json", tmp_path / "receipt.json.sig"
    assert receipt.signature_of(path) == signature
    for _ in range(2):
        receipt.write(tmp_path, {"a": math.inf, "b": [1]})
        assert path.read_text() == '{\n  "a": Infinity,\n  "b": [\n    1\n  ]\n}\n'
        assert not signature.exists()
        signature.touch()
    assert caplog.messages == []
    for _ in range(2):
        receipt.write(tmp_path, None)
        assert list(tmp_path.iterdir()) == []
    message = "no receipt.json: a version of Lockstep that had none did a part of this run"
    assert caplog.messages == [message] * 2
