"""Run commands with a hub that has the weights of a network of timm, then without a network.

`timm_hub_worker.py NAME COMMANDS`: a JSON list of the words after `python -m trainer`. The hub has
gone after the first. Prints the exit codes, and what the hub was asked for, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch
from safetensors.torch import save

from benchmarks.torchvision_operators import define_missing_operators
from tests.network.hub_server import Hub, serve


def publish(hub: Hub, name: str) -> None:
    """Put random weights on a hub, where timm looks for those of a network."""
    import timm

    torch.manual_seed(1)
    net = timm.create_model(name)
    settings: dict[str, Any] = timm.get_pretrained_cfg(name).to_dict()
    files = {
        "model.safetensors": save(net.state_dict()),
        "config.json": json.dumps({"architecture": name, "pretrained_cfg": settings}).encode(),
    }
    hub.files[settings["hf_hub_id"]] = files


def do(words: list[str]) -> int:
    """Run a command in this process and return its exit code."""
    from trainer.__main__ import main

    sys.argv = ["trainer", *words]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


if __name__ == "__main__":
    library = define_missing_operators()
    first, *others = json.loads(sys.argv[2])
    with serve(Hub({})) as hub:
        os.environ["HF_ENDPOINT"] = hub.address  # before timm imports huggingface_hub
        publish(hub, sys.argv[1])
        codes = [do(first)]
    codes += map(do, others)
    print(json.dumps({"codes": codes, "asked": hub.asked}))
