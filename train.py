"""Train a model: read the configuration, build the parts, fit, report.

python train.py --config configs/fashion_mnist.yaml [--output_dir DIR] [--a.b value ...]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from trainer import command_line, exit_codes
from trainer.ranks import orphans, processes, rank_output


def train(arguments: Sequence[str]) -> None:
    """Do the run that the arguments describe, or what is left of it."""
    config = command_line.parse(arguments)
    processes.check_count(config)
    # Torch and its company take seconds to import: only after --help and a mistyped key, and while
    # the images are read.
    from trainer.data.reading import read_ahead

    read_source = read_ahead(config.data)
    from trainer import training

    training.train(config, read_source)


def main() -> None:
    """The command: exits with a code of the contract."""
    orphans.end_with_launcher()
    rank_output.hush_other_ranks()
    sys.exit(exit_codes.run(lambda: train(sys.argv[1:])))


if __name__ == "__main__":
    main()
