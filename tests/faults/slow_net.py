"""A network whose steps wait where the environment says so: a run to disturb that costs little."""

from __future__ import annotations

import os
import time

import torch

from models.quicknet import QuickNet


class SlowNet(QuickNet):
    """Waits `STEP_S` seconds for each micro-batch."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, in training after a while."""
        if self.training:
            time.sleep(float(os.environ.get("STEP_S", "0")))
        return super().forward(images)
