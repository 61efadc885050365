"""All known sets, by their data.name."""

from __future__ import annotations

from trainer.data.sources.known_sets.cifar import CIFAR10, CIFAR100
from trainer.data.sources.known_sets.idx_sets import EMNIST, FASHION_MNIST, KMNIST, MNIST, QMNIST
from trainer.data.sources.known_sets.medmnist import MEDMNIST
from trainer.data.sources.known_sets.svhn import SVHN

KNOWN = {
    known.name: known
    for known in (
        *(FASHION_MNIST, MNIST, KMNIST, QMNIST, *EMNIST),
        *(CIFAR10, CIFAR100, SVHN, *MEDMNIST),
    )
}
