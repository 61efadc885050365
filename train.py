"""Train a model: read the configuration, build the parts, fit, report.

python train.py --config configs/fashion_mnist.yaml [--output_dir DIR] [--a.b value ...]
"""

from __future__ import annotations

import sys

from trainer.commands.train import train
from trainer.ranks import exit_codes

if __name__ == "__main__":
    with exit_codes.program():
        train(sys.argv[1:])
