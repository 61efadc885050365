"""The trainers that same_weights.py compares, as its page names them."""

from __future__ import annotations

import importlib.metadata
import sys
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

import apart


@dataclass(frozen=True)
class Entry:
    """A trainer as the page names it."""

    title: str
    package: str
    """whose version counts; of ours, which has the page's commit, torch"""
    module: str
    """what has to be importable too"""
    driven: str
    """how, and where that is documented"""
    function: str
    """of ours that trains with it, after its module's name"""
    folder: str = ""
    """where its packages are among those of `--packages`, if they are not installed"""
    imports: tuple[str, ...] = ()
    """what its trainings import"""
    resumes_epochs: bool = False
    """whether it resumes at the start of an epoch"""

    def search_path(self, packages: Path) -> list[Path]:
        """Return where its processes look for modules."""
        folder = packages / self.folder
        own = [folder] if self.folder and folder.is_dir() else []
        return [Path(__file__).parent.parent, *own]

    def version(self, packages: Path) -> str | None:
        """Return its package's version; None: something is not installed."""
        places = [*map(str, (apart.REPOSITORY, *self.search_path(packages))), *sys.path]
        if PathFinder.find_spec(self.module, places) is None:
            return None
        found = importlib.metadata.distributions(name=self.package, path=places)
        return next((one.version for one in found), None)


ENTRIES = {
    "lockstep": Entry(
        "**Lockstep**",
        "torch",
        "trainer",
        "the engine as `train.py` builds it, `train.kernels: portable`, "
        "`checkpoint.every_steps`, the same command again; on another number of cores "
        "`train.py` itself, which starts a process for each",
        function="same_weights_trainers.ours:lockstep",
    ),
    "accelerate": Entry(
        "Accelerate",
        "accelerate",
        "accelerate",
        "the loop of its `examples/complete_cv_example.py` with `save_state`, `load_state` and "
        "`skip_first_batches` (huggingface.co/docs/accelerate/usage_guides/checkpoint), "
        "`set_seed(deterministic=True)`, `DataLoaderConfiguration(split_batches=True, "
        "use_seedable_sampler=True)`, `set_epoch` of its loader before each epoch, without which "
        "it resumed in the order of the first epoch, and a `generator` for the loader "
        "(docs.pytorch.org/docs/stable/notes/randomness.html), without which it resumed with other "
        "dropout",
        function="same_weights_trainers.within_epochs:accelerate",
        imports=("accelerate",),
    ),
    "lightning": Entry(
        "PyTorch Lightning",
        "pytorch-lightning",
        "pytorch_lightning",
        "`seed_everything`, `deterministic=True`, `ModelCheckpoint(every_n_train_steps=...)` and "
        "`fit(ckpt_path=...)` (lightning.ai/docs/pytorch/stable/common/checkpointing_basic.html); "
        '`strategy="ddp"` on one process too, where it otherwise shuffles by another sampler',
        folder="lightning",
        function="same_weights_trainers.within_epochs:lightning",
        imports=("pytorch_lightning", "contenders.lightning"),
    ),
    "lightning_stateful": Entry(
        "PyTorch Lightning, stateful loader",
        "pytorch-lightning",
        "torchdata",
        "as before, with torchdata's `StatefulDataLoader` (docs.pytorch.org/data, "
        "`torchdata.stateful_dataloader`), as Lightning warns of resuming within an epoch with any "
        'that cannot; on one process without `strategy="ddp"`, with which it resumed in the order '
        "of the first epoch",
        folder="lightning",
        function="same_weights_trainers.within_epochs:lightning_stateful",
        imports=("pytorch_lightning", "contenders.lightning", "torchdata.stateful_dataloader"),
    ),
    "hf_trainer": Entry(
        "HF Trainer",
        "transformers",
        "transformers",
        "`full_determinism=True`, `save_steps` and `train(resume_from_checkpoint=True)` "
        "(huggingface.co/docs/transformers/main_classes/trainer)",
        folder="transformers",
        function="same_weights_trainers.within_epochs:hf_trainer",
        imports=("contenders.hf_trainer",),
    ),
    "fastai": Entry(
        "fastai",
        "fastai",
        "fastai",
        "`Learner` with `set_seed(reproducible=True)`, `distrib_ctx(sync_bn=False)` "
        "(docs.fast.ai/distributed.html), `SaveModelCallback(every_epoch=True, with_opt=True)` "
        "(docs.fast.ai/callback.tracker.html), and `load` and `fit(start_epoch=...)` "
        "(docs.fast.ai/learner.html), which go on at the start of the interrupted epoch; its "
        "loader for several processes shares their indices by way of GPUs, here by the CPU",
        folder="fastai",
        resumes_epochs=True,
        function="same_weights_trainers.at_epochs:fastai",
        imports=("fastai.basics", "fastai.callback.tracker", "fastai.distributed"),
    ),
    "timm": Entry(
        "timm, `train.py`",
        "timm",
        "timm",
        "`train.py` of its repository with `--seed`, `--no-aug` and `--resume last.pth.tar` "
        "(huggingface.co/docs/timm/training_script), which goes on at the start of the interrupted "
        "epoch, from PNG copies of the images; it leaves out the last short batch of an epoch; it "
        "hands DistributedDataParallel a CPU's number, which is left out here, as that refuses it",
        folder="timm",
        resumes_epochs=True,
        function="same_weights_trainers.at_epochs:timm",
        imports=("timm.data", "timm.models", "timm.optim", "timm.task"),
    ),
}
