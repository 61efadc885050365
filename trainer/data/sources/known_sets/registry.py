"""All known sets, by their data.name."""

from __future__ import annotations

from trainer.data.sources.known_sets.cifar import CIFAR10, CIFAR100
from trainer.data.sources.known_sets.idx_sets import EMNIST, FASHION_MNIST, KMNIST, MNIST, QMNIST
from trainer.data.sources.known_sets.medmnist import MEDMNIST
from trainer.data.sources.known_sets.picture_folders import EUROSAT, IMAGENETTE
from trainer.data.sources.known_sets.picture_lists import FLOWERS102, FOOD101, OXFORD_PETS
from trainer.data.sources.known_sets.published import KnownSet
from trainer.data.sources.known_sets.svhn import SVHN

_SETS: tuple[KnownSet, ...] = (
    *(FASHION_MNIST, MNIST, KMNIST, QMNIST, *EMNIST),
    *(CIFAR10, CIFAR100, SVHN, *MEDMNIST),
    *(*IMAGENETTE, FLOWERS102, OXFORD_PETS, FOOD101, EUROSAT),
)

KNOWN = {known.name: known for known in _SETS}
