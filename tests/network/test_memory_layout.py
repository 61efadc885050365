"""The memory layout of a network's filters."""

from __future__ import annotations

import pytest
import torch

import models
from trainer.base.errors import UserError
from trainer.network.memory_layout import choose_layout, describe_layout


def test_what_damages_memory_with_avx2_is_not_channels_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {}
    for capability in ("AVX2", "AVX512"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda c=capability: c)
        for width in (4, 8):
            net = models.create(
                "preact_resnet", {"depth": 8, "width": width},
                num_classes=3, in_channels=1, image_size=(8, 8),
            )  # fmt: skip
            choose_layout(net, "auto", lambda net: None)
            found[capability, width] = describe_layout(net)
            if found[capability, width] == "contiguous":
                with pytest.raises(UserError, match=r"memory_format: .*projection, whose filters"):
                    choose_layout(net, "channels_last", lambda net: None)
    assert [where for where, layout in found.items() if layout == "contiguous"] == [("AVX2", 4)]
