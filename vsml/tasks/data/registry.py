"""Registry: the published data sets, with their files, checksums and decoders."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from vsml.tasks.data.decoders import (
    Examples,
    decode_cifar,
    decode_digits,
    decode_emnist,
    decode_idx,
    decode_omniglot,
    decode_svhn,
    decode_usps,
)
from vsml.tasks.data.files import Copy, File, Form

Decoder = Callable[[str, tuple[Copy, ...]], Examples]
"""(subset, copies of the subset's files) -> examples."""


@dataclass(frozen=True)
class Entry:
    """A published data set: its files, how to decode them, and what must come out.

    Attributes:
        files: by subset.
        decode: from copies of a subset's files to its examples.
        image_shape: (H, W, Ch).
        num_classes: by subset.
        mean: over all pixels, after scaling.
        std: over all pixels, after scaling.
        scale: what brings images to [0, 1].
        slow: whether decoding takes so long that its result is kept; that of archives always is.
        content: by subset, `decoders.content_checksum` of the published examples. Files that have it are
            the published ones, however they are packed.
    """

    files: Mapping[str, tuple[File, ...]]
    decode: Decoder
    image_shape: tuple[int, ...]
    num_classes: Mapping[str, int]
    mean: float
    std: float
    scale: float = 255.0
    slow: bool = False
    content: Mapping[str, str] = field(default_factory=dict)


def both(number: int) -> dict[str, int]:
    """Return the number for either subset."""
    return {"train": number, "test": number}


def _idx_entry(
    folder: str, mirrors: tuple[str, ...], md5: str, unpacked_md5: str, mean: float, std: float
) -> Entry:
    """Describe four idx files; checksums are of train images and labels, then test images and labels."""
    names = [f"{half}-{kind}-ubyte" for half in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    files = tuple(
        File(
            published=Form(f"{folder}/raw/{name}.gz", f"md5:{packed}"),
            addresses=tuple(f"{mirror}{name}.gz" for mirror in mirrors),
            others=(Form(f"{folder}/raw/{name}", "" if unpacked == "unknown" else f"md5:{unpacked}"),),
        )
        for name, packed, unpacked in zip(names, md5.split(), unpacked_md5.split(), strict=True)
    )
    halves = {"train": files[:2], "test": files[2:]}
    return Entry(halves, decode_idx, (28, 28, 1), both(10), mean, std)


def _emnist_entry(split: str, num_classes: int, first_label: int = 0) -> Entry:
    """Describe one split of EMNIST; all of them are in one archive, each file packed by itself."""

    def file(half: str, kind: str) -> File:
        name = f"emnist-{split}-{half}-{kind}-ubyte"
        return File(
            published=Form(
                "EMNIST/raw/gzip.zip", "md5:58c8d27c78d21e728a6bc7b3cc06412e", member=f"gzip/{name}.gz"
            ),
            addresses=("https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",),
            others=(Form(f"EMNIST/raw/{name}.gz"), Form(f"EMNIST/raw/{name}")),
        )

    halves = {half: (file(half, "images-idx3"), file(half, "labels-idx1")) for half in ("train", "test")}
    decode = partial(decode_emnist, first_label=first_label)
    return Entry(halves, decode, (28, 28, 1), both(num_classes), mean=0.1739, std=0.3319, slow=True)


def _cifar_file(name: str) -> File:
    return File(
        published=Form(
            "cifar-10-binary.tar.gz",
            "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            member=f"cifar-10-batches-bin/{name}",
        ),
        addresses=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
        others=(Form(f"cifar-10-batches-bin/{name}"),),
    )


def _svhn_file(name: str, md5: str) -> tuple[File]:
    address = f"http://ufldl.stanford.edu/housenumbers/{name}"
    return (File(Form(name, f"md5:{md5}"), (address,)),)


def _omniglot_file(name: str, md5: str) -> tuple[File]:
    address = f"https://github.com/brendenlake/omniglot/raw/master/python/{name}.zip"
    folder = Form(f"omniglot-py/{name}", folder=True)
    return (File(Form(f"omniglot-py/{name}.zip", f"md5:{md5}"), (address,), (folder,)),)


def _usps_file(name: str, md5: str, unpacked: str = "") -> tuple[File]:
    address = f"https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass/{name}"
    others = (Form(f"USPS/{name.removesuffix('.bz2')}", unpacked),)
    return (File(Form(f"USPS/{name}", f"md5:{md5}"), (address,), others),)


# Checksums are the publishers'; those of unpacked files and of content were taken from files that have them.
# Mean and std are those of the 2021 runs where they had the data set, the same for both halves.
REGISTRY: dict[str, Entry] = {
    "mnist": _idx_entry(
        "MNIST",
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        "f68b3c2dcbeaaa9fbdd348bbdeb94873 d53e105ee54ea40749a09fcbcd1e9432 "
        "9fb629c4189551a2d022fa330f9573f3 ec29112dd5afa0611ce80d1b7f02629c",
        "6bbc9ace898e44ae57da46a324031adb a25bea736e30d166cdddb491f175f624 "
        "2646ac647ad5339dbf082846283269ea 27ae3e4e09519cfbb04c329615203637",
        mean=0.1307,
        std=0.3081,
    ),
    "fashion_mnist": _idx_entry(
        "FashionMNIST",
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d 25c81989df183df01b3e8a0aad5dffbe "
        "bef4ecab320f06d8554ea6380940ec79 bb300cfdad3c16e7a12a480ee83cd310",
        "f4a8712d7a061bf5bd6d2ca38dc4d50a 9018921c3c673c538a1fc5bad174d6f9 "
        "8181f5470baa50b63fa0f6fddb340f0a 15d484375f8d13e6eb1aabb0c3f46965",
        mean=0.1307,
        std=0.3081,
    ),
    "kmnist": _idx_entry(
        "KMNIST",
        ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
        "bdb82020997e1d708af4cf47b453dcf7 e144d726b3acfaa3e44228e80efcd344 "
        "5c965bf0a639b31b8f53240b1b52f4d7 7320c461ea6c1c855c0b718fb2a4b134",
        "unknown 949e75301f8813e0dc5800dcc320fc52 "
        "bf305b8cd328700fbc17f5acbc2856d2 9f55f451c0988b028eccdf7d5cc265ab",
        mean=0.1918,
        std=0.3483,
    ),
    "emnist_byclass": _emnist_entry("byclass", 62),
    "emnist_bymerge": _emnist_entry("bymerge", 47),
    "emnist_balanced": _emnist_entry("balanced", 47),
    "emnist_letters": _emnist_entry("letters", 26, first_label=1),
    "emnist_digits": _emnist_entry("digits", 10),
    "emnist_mnist": _emnist_entry("mnist", 10),
    "cifar10": Entry(
        files={
            "train": tuple(_cifar_file(f"data_batch_{number}.bin") for number in range(1, 6)),
            "test": (_cifar_file("test_batch.bin"),),
        },
        decode=decode_cifar,
        image_shape=(32, 32, 3),
        num_classes=both(10),
        mean=0.4734,
        std=0.2516,
    ),
    "svhn": Entry(
        files={
            "train": _svhn_file("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
            "test": _svhn_file("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
        },
        decode=decode_svhn,
        image_shape=(32, 32, 3),
        num_classes=both(10),
        mean=0.4514,
        std=0.1993,
        slow=True,
    ),
    "omniglot": Entry(
        files={
            "train": _omniglot_file("images_background", "68d2efa1b9178cc56df9314c21c6e718"),
            "test": _omniglot_file("images_evaluation", "6b91aef0f799c5bb55b94e3f2daec811"),
        },
        decode=decode_omniglot,
        image_shape=(105, 105, 1),
        num_classes={"train": 964, "test": 659},
        mean=0.9221,
        std=0.2681,
        slow=True,
        # The zips differ between copies of the same drawings, and users have unpacked ones.
        content={
            "train": "cadc613c5ac83d558a1a1a0e01934a716a6f32de1252ee40dd28bf3d3dbea0b8",
            "test": "e77abada5e6bca1374c6ca207b9e066db466cbc742eca29363d4e3c550231b83",
        },
    ),
    "usps": Entry(
        files={
            "train": _usps_file("usps.bz2", "ec16c51db3855ca6c91edd34d0e9b197"),
            "test": _usps_file(
                "usps.t.bz2", "8ea070ee2aca1ac39742fdd1ef5ed118", "md5:74ff1967c8db4cc0e927683b811dfc4e"
            ),
        },
        decode=decode_usps,
        image_shape=(16, 16, 1),
        num_classes=both(10),
        # Over all pixels of the 2,007 test digits, after they became bytes and were divided by 255.
        mean=0.2613,
        std=0.3087,
    ),
    "digits": Entry(
        files={"train": (), "test": ()},
        decode=decode_digits,
        image_shape=(8, 8, 1),
        num_classes=both(10),
        # Over all pixels of the 1,300 digits for meta-training, divided by 16.
        mean=0.3054,
        std=0.3758,
        scale=16.0,
    ),
}
REGISTRY["emnist"] = REGISTRY["emnist_byclass"]
