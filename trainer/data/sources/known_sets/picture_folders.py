"""Published sets in archives whose folders are the classes: Imagenette and EuroSAT."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from trainer.data.pictures.names import is_picture
from trainer.data.sources.known_sets.picture_rows import Rows, list_rows
from trainer.data.sources.known_sets.published import (
    Archives,
    Files,
    Listing,
    PictureSet,
    PublishedFile,
)

_IMAGENETTE_CLASSES = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}

_EUROSAT_CLASSES = (
    "AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture",
    "PermanentCrop", "Residential", "River", "SeaLake",
)  # fmt: skip


def _list_folders(
    _: Files, archives: Archives, prefixes: Mapping[str, str], classes: Mapping[str, str]
) -> Listing:
    """List the pictures PREFIX/CLASS/FILE of each part.

    Args:
        prefixes: the folder of each part.
        classes: the name of each class, by that of its folder, in order.
    """
    (members,) = archives.values()
    labels = {folder: label for label, folder in enumerate(classes)}
    parts: dict[str, Rows] = {part: [] for part in prefixes}
    for name in members.names:
        for part, prefix in prefixes.items():
            folder = name.removeprefix(prefix).partition("/")[0]
            if name.startswith(prefix) and folder in labels and is_picture(name):
                parts[part].append((name, labels[folder]))
    return Listing(
        tuple(classes.values()),
        {part: list_rows(members, sorted(rows)) for part, rows in parts.items()},
    )


def _imagenette(name: str, archive: str, md5: str) -> PictureSet:
    return PictureSet(
        name=name,
        files=(PublishedFile(f"{archive}.tgz", f"md5:{md5}"),),
        mirrors=("https://s3.amazonaws.com/fast-ai-imageclas/",),
        archives=(f"{archive}.tgz",),
        list_pictures=partial(
            _list_folders,
            prefixes={"train": f"{archive}/train/", "test": f"{archive}/val/"},
            classes=_IMAGENETTE_CLASSES,
        ),
    )


# Howard: Imagenette, 2019, in its version of 70 % for training. MD5 and the names of the classes as
# in torchvision's list.
IMAGENETTE = (
    _imagenette("imagenette", "imagenette2", "fe2fc210e6bb7c5664d602c3cd71e612"),
    _imagenette("imagenette_320", "imagenette2-320", "3df6f0d01a2c9592104656642f5e78a3"),
    _imagenette("imagenette_160", "imagenette2-160", "e793b78cc4c9e9a4ccc0c1155377a412"),
)

# Helber and others: EuroSAT: A Novel Dataset and Deep Learning Benchmark for Land Use and Land
# Cover Classification, 2019. MD5 as in torchvision's list.
EUROSAT = PictureSet(
    name="eurosat",
    files=(PublishedFile("EuroSAT.zip", "md5:c8fa014336c82ac7804f0398fcb19387"),),
    mirrors=(
        "https://madm.dfki.de/files/sentinel/",
        "https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
        "c877bcd43f099cd0196738f714544e355477f3fd/",
    ),
    archives=("EuroSAT.zip",),
    list_pictures=partial(
        _list_folders,
        prefixes={"train": "2750/"},
        classes={name: name for name in _EUROSAT_CLASSES},
    ),
    parts=("train",),
)
