"""Published sets whose lists say what is in a picture: Flowers, Pets and Food-101."""

from __future__ import annotations

from trainer.data.sources.known_sets.picture_rows import list_rows, read_lines
from trainer.data.sources.known_sets.published import (
    Archives,
    Files,
    Listing,
    PictureSet,
    PublishedFile,
)

_FLOWERS = "102flowers.tgz"
# The names, which the publisher gives only on a page of pictures, as in TensorFlow Datasets' list.
_FLOWER_NAMES = (
    "pink primrose", "hard-leaved pocket orchid", "canterbury bells", "sweet pea",
    "english marigold", "tiger lily", "moon orchid", "bird of paradise", "monkshood",
    "globe thistle", "snapdragon", "colt's foot", "king protea", "spear thistle", "yellow iris",
    "globe-flower", "purple coneflower", "peruvian lily", "balloon flower",
    "giant white arum lily", "fire lily", "pincushion flower", "fritillary", "red ginger",
    "grape hyacinth", "corn poppy", "prince of wales feathers", "stemless gentian", "artichoke",
    "sweet william", "carnation", "garden phlox", "love in the mist", "mexican aster",
    "alpine sea holly", "ruby-lipped cattleya", "cape flower", "great masterwort", "siam tulip",
    "lenten rose", "barbeton daisy", "daffodil", "sword lily", "poinsettia", "bolero deep blue",
    "wallflower", "marigold", "buttercup", "oxeye daisy", "common dandelion", "petunia",
    "wild pansy", "primula", "sunflower", "pelargonium", "bishop of llandaff", "gaura",
    "geranium", "orange dahlia", "pink-yellow dahlia?", "cautleya spicata", "japanese anemone",
    "black-eyed susan", "silverbush", "californian poppy", "osteospermum", "spring crocus",
    "bearded iris", "windflower", "tree poppy", "gazania", "azalea", "water lily", "rose",
    "thorn apple", "morning glory", "passion flower", "lotus", "toad lily", "anthurium",
    "frangipani", "clematis", "hibiscus", "columbine", "desert-rose", "tree mallow", "magnolia",
    "cyclamen", "watercress", "canna lily", "hippeastrum", "bee balm", "ball moss", "foxglove",
    "bougainvillea", "camellia", "mallow", "mexican petunia", "bromelia", "blanket flower",
    "trumpet creeper", "blackberry lily",
)  # fmt: skip


def _list_flowers(files: Files, archives: Archives) -> Listing:
    """List the pictures by two MATLAB files, whose labels and numbers of pictures count from 1."""
    from scipy.io import loadmat

    # Numbers only: nothing in such a file is run.
    labels = loadmat(str(files["imagelabels.mat"]), variable_names=["labels"])["labels"].ravel()
    numbers = loadmat(str(files["setid.mat"]), variable_names=["trnid", "valid", "tstid"])
    return Listing(
        _FLOWER_NAMES,
        {
            part: list_rows(
                archives[_FLOWERS],
                [
                    (f"jpg/image_{number:05}.jpg", int(labels[number - 1]) - 1)
                    for number in numbers[key].ravel().tolist()
                ],
            )
            for part, key in (("train", "trnid"), ("validation", "valid"), ("test", "tstid"))
        },
    )


# Nilsback, Zisserman: Automated Flower Classification over a Large Number of Classes, 2008. SHA-256
# as in TensorFlow Datasets' list.
FLOWERS102 = PictureSet(
    name="flowers102",
    files=(
        PublishedFile(
            _FLOWERS, "sha256:2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246"
        ),
        PublishedFile(
            "imagelabels.mat",
            "sha256:4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
        ),
        PublishedFile(
            "setid.mat", "sha256:46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd"
        ),
    ),
    mirrors=("https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",),
    archives=(_FLOWERS,),
    list_pictures=_list_flowers,
    parts=("train", "validation", "test"),
)

_PETS = ("images.tar.gz", "annotations.tar.gz")


def _list_pets(_: Files, archives: Archives) -> Listing:
    """List the pictures by lines of a name, a class from 1, a species and a breed."""
    images, annotations = (archives[name] for name in _PETS)
    names: dict[int, str] = {}
    parts = {}
    for part, file in (("train", "trainval"), ("test", "test")):
        rows = []
        for line in read_lines(annotations, f"annotations/{file}.txt"):
            picture, label = line.split()[:2]
            # A picture is named after its breed and its number: great_pyrenees_12.
            names[int(label)] = picture.rpartition("_")[0].replace("_", " ")
            rows.append((f"images/{picture}.jpg", int(label) - 1))
        parts[part] = list_rows(images, rows)
    return Listing(tuple(names[label] for label in sorted(names)), parts)


# Parkhi, Vedaldi, Zisserman, Jawahar: Cats and Dogs, 2012. SHA-256 as in TensorFlow Datasets' list.
OXFORD_PETS = PictureSet(
    name="oxford_pets",
    files=(
        PublishedFile(
            _PETS[0], "sha256:67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d"
        ),
        PublishedFile(
            _PETS[1], "sha256:52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91"
        ),
    ),
    mirrors=(
        "https://thor.robots.ox.ac.uk/~vgg/data/pets/",
        "https://www.robots.ox.ac.uk/~vgg/data/pets/data/",
    ),
    archives=_PETS,
    list_pictures=_list_pets,
)

_FOOD = "food-101.tar.gz"


def _list_food(_: Files, archives: Archives) -> Listing:
    """List the pictures by lines of CLASS/PICTURE."""
    members = archives[_FOOD]
    class_names = read_lines(members, "food-101/meta/classes.txt")
    labels = {name: label for label, name in enumerate(class_names)}
    return Listing(
        tuple(class_names),
        {
            part: list_rows(
                members,
                [
                    (f"food-101/images/{line}.jpg", labels[line.partition("/")[0]])
                    for line in read_lines(members, f"food-101/meta/{part}.txt")
                ],
            )
            for part in ("train", "test")
        },
    )


# Bossard, Guillaumin, Van Gool: Food-101 - Mining Discriminative Components with Random Forests,
# 2014. SHA-256 as in TensorFlow Datasets' list.
FOOD101 = PictureSet(
    name="food101",
    files=(
        PublishedFile(
            _FOOD, "sha256:d97d15e438b7f4498f96086a4f7e2fa42a32f2712e87d3295441b2b6314053a4"
        ),
    ),
    mirrors=("http://data.vision.ee.ethz.ch/cvl/",),
    archives=(_FOOD,),
    list_pictures=_list_food,
)
