"""The 2D sets of MedMNIST v2, at 28 x 28 pixels; of chestmnist an image may have several labels.

Yang and others: MedMNIST v2, a large-scale lightweight benchmark for 2D and 3D biomedical image
classification, 2023. MD5 and class names as in version 3.0.2 of the package medmnist.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.data.raw_images import memory_limit_error
from trainer.data.sources.known_sets.published import ArraySet, Files, Parts, PublishedFile
from trainer.data.sources.npy import to_labels
from trainer.data.sources.source_data import LabelledImages

_PARTS = {"train": "train", "validation": "val", "test": "test"}

_ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver",
    "lung-left", "lung-right", "pancreas", "spleen",
)  # fmt: skip


def _read(files: Files, limit_bytes: float) -> Parts:
    (path,) = files.values()
    parts = {}
    with zipfile.ZipFile(path) as members:
        sizes_bytes = {member.filename: member.file_size for member in members.infolist()}
    with np.load(path, allow_pickle=False) as arrays:
        for part, name in _PARTS.items():
            lacking = [key for key in (f"{name}_images", f"{name}_labels") if key not in arrays]
            if lacking:
                raise UserError(f"{path}: has no array {lacking[0]}")
            size_bytes = sizes_bytes[f"{name}_images.npy"]
            if size_bytes > limit_bytes:
                raise memory_limit_error(path, size_bytes, limit_bytes, "are compressed")
            parts[part] = _part(path, arrays[f"{name}_images"], arrays[f"{name}_labels"], name)
    return parts


def _part(
    path: Path, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer], name: str
) -> LabelledImages:
    """Convert (n, height, width) or (n, height, width, 3), and labels (n, 1) or 0 and 1 (n, k)."""
    with_channels = images[..., None] if images.ndim == 3 else images
    return LabelledImages(
        images=np.ascontiguousarray(with_channels.transpose(0, 3, 1, 2)),
        labels=_labels(labels, f"{path}: {name}_labels"),
        images_file=f"{path}: {name}_images",
        labels_file=f"{path}: {name}_labels",
    )


def _labels(labels: npt.NDArray[np.integer], where: str) -> npt.NDArray[np.integer]:
    return (
        labels[:, 0].astype(np.int64)
        if labels.shape[1] == 1
        else to_labels(labels, where, several=True)
    )


def _set(name: str, md5: str, *class_names: str) -> ArraySet:
    return ArraySet(
        name=name,
        class_names=class_names,
        files=(PublishedFile(f"{name}.npz", f"md5:{md5}"),),
        mirrors=("https://zenodo.org/records/10519652/files/",),
        read=_read,
        folder="medmnist",
    )


MEDMNIST = (
    _set(
        "pathmnist", "a8b06965200029087d5bd730944a56c1",
        "adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle",
        "normal colon mucosa", "cancer-associated stroma", "colorectal adenocarcinoma epithelium",
    ),
    _set(
        "dermamnist", "0744692d530f8e62ec473284d019b0c7",
        "actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma",
        "benign keratosis-like lesions", "dermatofibroma", "melanoma", "melanocytic nevi",
        "vascular lesions",
    ),
    _set(
        "octmnist", "c68d92d5b585d8d81f7112f81e2d0842",
        "choroidal neovascularization", "diabetic macular edema", "drusen", "normal",
    ),
    # The findings of the reports; an image without any has no label.
    _set(
        "chestmnist", "02c8a6516a18b556561a56cbdd36c4a8",
        "atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia",
        "pneumothorax", "consolidation", "edema", "emphysema", "fibrosis", "pleural", "hernia",
    ),
    _set("pneumoniamnist", "28209eda62fecd6e6a2d98b1501bb15f", "normal", "pneumonia"),
    # Five degrees of one disease: learnt as classes, without their order.
    _set("retinamnist", "bd4c0672f1bba3e3a89f0e4e876791e4", *"01234"),
    _set("breastmnist", "750601b1f35ba3300ea97c75c52ff8f6", "malignant", "normal, benign"),
    _set(
        "bloodmnist", "7053d0359d879ad8a5505303e11de1dc",
        "basophil", "eosinophil", "erythroblast",
        "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)", "lymphocyte",
        "monocyte", "neutrophil", "platelet",
    ),
    _set(
        "tissuemnist", "ebe78ee8b05294063de985d821c1c34b",
        "Collecting Duct, Connecting Tubule", "Distal Convoluted Tubule",
        "Glomerular endothelial cells", "Interstitial endothelial cells", "Leukocytes",
        "Podocytes", "Proximal Tubule Segments", "Thick Ascending Limb",
    ),
    _set("organamnist", "68e3f8846a6bd62f0c9bf841c0d9eacc", *_ORGANS),
    _set("organcmnist", "b9ceb9546e10131b32923c5bbeaea2b1", *_ORGANS),
    _set("organsmnist", "9ab87b696fb54e2a387ebe992d6ed5f1", *_ORGANS),
)  # fmt: skip
