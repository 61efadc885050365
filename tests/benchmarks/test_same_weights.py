"""The benchmark of equal weights: that ours passes it, and that it sees what is not equal."""

from __future__ import annotations

from pathlib import Path

import pytest
import same_weights
import torch
from safetensors.torch import save_file
from same_weights_trainers import trainings


@pytest.mark.usefixtures("forked")
def test_ours_is_the_same_on_two_processes_after_a_kill_and_on_other_cores(tmp_path: Path) -> None:
    data = {"images": 64, "batch_size": 16, "epochs": 2, "save_every": 6}
    more = {"timm": None, "kernels": "native"}
    net = same_weights.NETS["Batch norm and dropout"]
    ours = trainings.Trainings("lockstep", same_weights.TASK | net | data | more, tmp_path)
    assert ours.cells(59, emulated=False) == {
        **dict.fromkeys(("again", "two", "resumed", "cores"), "same"),
        **dict.fromkeys(("seen", "uneven"), "none"),
    }


def test_a_difference_names_the_largest_weight_and_the_share_of_images(tmp_path: Path) -> None:
    end = {
        "model.conv.weight": torch.tensor([0.5, 1.0]),
        "model.norm.running_mean": torch.tensor([1.0]),
        "predicted": torch.tensor([0, 1, 2, 3]),
    }
    others = {
        "bits": {"model.conv.weight": torch.tensor([0.5, 0.75])},
        "statistics": {"model.norm.running_mean": torch.tensor([9.0])},
        "images": {
            "model.conv.weight": torch.tensor([0.25, 1.0]),
            "predicted": torch.tensor([0, 1, 2, 2]),
        },
    }
    for name, changes in {"one": {}, "again": {}, **others}.items():
        (tmp_path / name).mkdir()
        save_file(end | changes, tmp_path / name / "end.safetensors")
    ours = trainings.Trainings("lockstep", {}, tmp_path)
    found = {name: ours.difference("one", name) for name in ["again", *others]}
    assert found == {
        "again": "same",
        "bits": "0.25; 0.00%",
        "statistics": "0; 0.00%",
        "images": "0.25; 25.00%",
    }


def test_images_are_counted_beyond_and_short_of_once_an_epoch() -> None:
    assert trainings.twice_or_never([[0, 1], [2], [2, 0], [1]], images=3, epochs=2) == "none"
    views = [[0, 1], [2, 0], [0, 1]]
    assert trainings.twice_or_never(views, images=4, epochs=1) == "3 twice, 1 never"
