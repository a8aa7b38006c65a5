"""USPS: digits of American postal codes (Hull, 1994)."""

from io import BytesIO

import numpy as np

from vsml.tasks.data.entry import Entry, Examples, both
from vsml.tasks.data.errors import DataError
from vsml.tasks.data.files import Copy, File, Form, read_all


def decode_usps(subset: str, copies: tuple[Copy, ...]) -> Examples:
    """Read libsvm text: labels 1..10 are the digits 0..9, and values -1..1 become bytes 0..255."""
    from sklearn.datasets import load_svmlight_file  # slow to import, and not needed for the others

    del subset
    (copy,) = copies
    (content,) = read_all(copies)
    try:
        values, labels = load_svmlight_file(BytesIO(content), n_features=256)
    except ValueError as error:
        raise DataError(f"{copy}: not libsvm text of 256 features: {error}") from error
    scaled = (values.toarray() + 1) * 127.5
    pixels = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    images = pixels.reshape(-1, 16, 16, 1)
    return Examples(images, labels.astype(np.int32) - 1)


def _file(name: str, md5: str, unpacked: str = "") -> tuple[File]:
    address = f"https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass/{name}"
    published = Form(f"USPS/{name}", f"md5:{md5}")
    other = Form(f"USPS/{name.removesuffix('.bz2')}", unpacked)
    return (File(published, (address,), (other,)),)


USPS = Entry(
    files={
        "train": _file("usps.bz2", "ec16c51db3855ca6c91edd34d0e9b197"),
        "test": _file(
            "usps.t.bz2",
            "8ea070ee2aca1ac39742fdd1ef5ed118",
            unpacked="md5:74ff1967c8db4cc0e927683b811dfc4e",
        ),
    },
    decode=decode_usps,
    image_shape=(16, 16, 1),
    num_classes=both(10),
    # Over all pixels of the 2,007 test digits, after they became bytes and were divided by 255.
    mean=0.2613,
    std=0.3087,
)
