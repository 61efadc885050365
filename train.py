"""Train a model: read the configuration, build the parts, fit, report.

python train.py --config configs/fashion_mnist.yaml [--output_dir DIR] [--a.b value ...]
"""

from __future__ import annotations

import sys

from trainer.commands.train import train
from trainer.ranks import exit_codes


def main() -> None:
    """The command: exits with a code of the contract."""
    exit_codes.exit_after(lambda: train(sys.argv[1:]))


if __name__ == "__main__":
    main()
