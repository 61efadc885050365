"""Run one training: python -m finetune_loops NAME TASK, which is a JSON object."""

from __future__ import annotations

import json
import sys

import torch
from torchvision_operators import define_missing_operators

from finetune_loops import Task
from finetune_loops.others import LOOPS
from trainer.ranks.caller_settings import keep_freed_memory, use_huge_pages


def main() -> None:
    """Train, and print the seconds and the accuracies as the last line."""
    name, text = sys.argv[1:]
    task = Task(**json.loads(text))
    torch.manual_seed(task.seed)
    torch.set_num_threads(task.workers)
    keep_freed_memory()  # as Lockstep does
    use_huge_pages()
    library = define_missing_operators()
    print(json.dumps(LOOPS[name](task)))
    del library  # it would have taken the operators with it


if __name__ == "__main__":
    main()
