"""Published sets of IDX files: MNIST and the sets that took over its format."""

from __future__ import annotations

import gzip
import string
import zipfile
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.data.raw_images import memory_limit_error
from trainer.data.sources import idx
from trainer.data.sources.known_sets.published import ArraySet, Files, Parts, PublishedFile
from trainer.data.sources.source_data import LabelledImages

_DIGITS = tuple(string.digits)


def _read_four(files: Files, limit_bytes: float) -> Parts:
    """Read images and labels for training, then those for testing, in the names of MNIST."""
    paths = {name: files[f"{name}.gz"] for name in idx.NAMES}
    return {
        part: idx.read_split(paths, names, limit_bytes)
        for part, names in (("train", idx.TRAIN), ("test", idx.TEST))
    }


def _four_files(
    checksums: tuple[str, str, str, str],
    unpacked_sha256: tuple[str, str, str, str] | None = None,
) -> tuple[PublishedFile, ...]:
    """Return the files with MNIST's names, in the order of `idx.NAMES`."""
    unpacked = unpacked_sha256 or (None,) * 4
    return tuple(
        PublishedFile(f"{name}.gz", checksum, inside)
        for name, checksum, inside in zip(idx.NAMES, checksums, unpacked, strict=True)
    )


# Xiao, Rasul, Vollgraf: Fashion-MNIST, 2017. MD5 as in the publisher's README; SHA-256 computed
# from those files. Debian's package gzips them again.
FASHION_MNIST = ArraySet(
    name="fashion_mnist",
    class_names=(
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
    files=_four_files(
        (
            "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "md5:25c81989df183df01b3e8a0aad5dffbe",
            "md5:bef4ecab320f06d8554ea6380940ec79",
            "md5:bb300cfdad3c16e7a12a480ee83cd310",
        ),
        (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ),
    read=_read_four,
    package="dataset-fashion-mnist",
    package_folder=Path("/usr/share/datasets/fashion-mnist"),
)  # fmt: skip

# LeCun, Cortes, Burges: The MNIST database. MD5 as in torchvision's list; SHA-256 as many
# independent projects publish it.
MNIST = ArraySet(
    name="mnist",
    class_names=_DIGITS,
    files=_four_files(
        (
            "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "md5:d53e105ee54ea40749a09fcbcd1e9432",
            "md5:9fb629c4189551a2d022fa330f9573f3",
            "md5:ec29112dd5afa0611ce80d1b7f02629c",
        ),
        (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    read=_read_four,
)

# Clanuwat and others: Deep Learning for Classical Japanese Literature, 2018. SHA-256 as in
# TensorFlow Datasets' list; the names are torchvision's romanisation.
KMNIST = ArraySet(
    name="kmnist",
    class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    files=_four_files(
        (
            "sha256:51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "sha256:e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "sha256:edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "sha256:20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        )
    ),
    mirrors=("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    read=_read_four,
)

_QMNIST_FILES = {
    part: (f"qmnist-{part}-images-idx3-ubyte.gz", f"qmnist-{part}-labels-idx2-int.gz")
    for part in ("train", "test")
}


def _read_qmnist(files: Files, limit_bytes: float) -> Parts:
    """Read QMNIST, whose labels are rows of eight numbers; the first is the digit."""
    return {
        part: LabelledImages(
            images=idx.read_images(files[images], limit_bytes),
            labels=idx.read(files[labels], 2, value_type=">i4")[:, 0].astype(np.int64),
            images_file=str(files[images]),
            labels_file=str(files[labels]),
        )
        for part, (images, labels) in _QMNIST_FILES.items()
    }


# Yadav, Bottou: Cold Case: The Lost MNIST Digits, 2019. MD5 as in torchvision's list.
QMNIST = ArraySet(
    name="qmnist",
    class_names=_DIGITS,
    files=(
        PublishedFile(_QMNIST_FILES["train"][0], "md5:ed72d4157d28c017586c42bc6afe6370"),
        PublishedFile(_QMNIST_FILES["train"][1], "md5:0058f8dd561b90ffdd0f734c6a30e5e4"),
        PublishedFile(_QMNIST_FILES["test"][0], "md5:1394631089c404de565df7b7aeaf9412"),
        PublishedFile(_QMNIST_FILES["test"][1], "md5:5b5b05890a5e13444e108efe57b788aa"),
    ),
    mirrors=("https://raw.githubusercontent.com/facebookresearch/qmnist/master/",),
    read=_read_qmnist,
)

_EMNIST_ARCHIVE = "gzip.zip"
_UPPER_AND_LOWER = string.ascii_uppercase + string.ascii_lowercase
# The capitals that stand for both forms of a letter in the merged sets have no small letter there.
_MERGED = _DIGITS + tuple(string.ascii_uppercase) + tuple("abdefghnqrt")


def _read_emnist(files: Files, limit_bytes: float, variant: str, first_label: int) -> Parts:
    """Read one of the sets of EMNIST, whose images are stored with rows and columns exchanged."""
    archive = files[_EMNIST_ARCHIVE]
    parts = {}
    with zipfile.ZipFile(archive) as members:
        for part in ("train", "test"):
            start = f"gzip/emnist-{variant}-{part}"
            images = f"{start}-images-idx3-ubyte.gz"
            labels = f"{start}-labels-idx1-ubyte.gz"
            pixels = _read_member(members, images, 3, limit_bytes)
            parts[part] = LabelledImages(
                images=np.ascontiguousarray(pixels.transpose(0, 2, 1))[:, None],
                labels=_read_member(members, labels, 1).astype(np.int64) - first_label,
                images_file=f"{archive}: {images}",
                labels_file=f"{archive}: {labels}",
            )
    return parts


def _read_member(
    members: zipfile.ZipFile, name: str, dimensions: int, limit_bytes: float | None = None
) -> npt.NDArray[np.uint8]:
    """Read a gzipped IDX file in an archive; images must not be above the limit."""
    archive = Path(cast(str, members.filename))
    try:
        size_bytes = members.getinfo(name).file_size
    except KeyError as error:
        raise UserError(f"{archive}: has no file {name}") from error
    where, most_bytes = f"{archive}: {name}", size_bytes * idx.DEFLATE_LIMIT
    with members.open(name) as packed:
        stream = gzip.GzipFile(fileobj=packed)
        shape = idx.read_shape(stream, where, dimensions)
        announced = int(np.prod(shape))
        if limit_bytes is not None and announced > limit_bytes:
            raise memory_limit_error(archive, announced, limit_bytes, "are in an archive")
        return idx.read_values(stream, where, shape, most_bytes)


def _emnist(
    name: str, variant: str, class_names: tuple[str, ...], first_label: int = 0
) -> ArraySet:
    # Cohen and others: EMNIST: extending MNIST to handwritten letters, 2017. SHA-256 as in
    # TensorFlow Datasets' list.
    return ArraySet(
        name=name,
        class_names=class_names,
        files=(
            PublishedFile(
                _EMNIST_ARCHIVE,
                "sha256:fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e",
            ),
        ),
        mirrors=(
            "https://biometrics.nist.gov/cs_links/EMNIST/",
            "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST/",
        ),
        read=partial(_read_emnist, variant=variant, first_label=first_label),
        folder="emnist",
    )


EMNIST = (
    _emnist("emnist", "balanced", _MERGED),
    _emnist("emnist_letters", "letters", tuple(string.ascii_lowercase), first_label=1),
    _emnist("emnist_digits", "digits", _DIGITS),
    _emnist("emnist_bymerge", "bymerge", _MERGED),
    _emnist("emnist_byclass", "byclass", _DIGITS + tuple(_UPPER_AND_LOWER)),
)
