"""What forked processes have behind them: slow imports, and what is computed once a process."""
# ruff: noqa: F401

import sklearn.datasets

import tests.distributed.worker
import trainer.commands.train
import trainer.data.sources.head_start
import trainer.ranks.local_processes
import trainer.run.training_run
from trainer.config import command_line
from trainer.run import receipt

command_line.parse(["--config", "digits"])
receipt.code_sha256()
