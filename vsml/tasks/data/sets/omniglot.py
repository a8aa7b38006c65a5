"""Omniglot: drawings of the characters of fifty alphabets (Lake et al., 2015)."""

import struct
import warnings
import zlib
from io import BytesIO

import numpy as np

from vsml.system.extras import needed_for
from vsml.tasks.data.entry import Entry, Examples
from vsml.tasks.data.errors import DataError
from vsml.tasks.data.files import Copy, File, Form, read_archive

_DRAWING = (105, 105)
"""Height and width."""

_PNG_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""What Pillow raises for images that are damaged or forged."""

_NOT_A_DRAWING = "."
"""What the names of files begin with that macOS puts beside others, such as `._0001_01.png`."""

Place = tuple[str, ...]
"""(alphabet, character, name of the drawing)."""


def decode_omniglot(subset: str, copies: tuple[Copy, ...]) -> Examples:
    """Read drawings, `<alphabet>/<character>/<drawing>.png`; each character is a class.

    Classes are numbered in the order of alphabet and character, drawings ordered by name. Ink is 0.
    """
    del subset
    (copy,) = copies
    drawings = sorted(_read_drawings(copy).items())
    characters = {_class_name(place) for place, _ in drawings}
    names = tuple(sorted(characters))
    number = {name: label for label, name in enumerate(names)}
    images = np.empty((len(drawings), *_DRAWING, 1), np.uint8)
    labels = np.empty(len(drawings), np.int32)
    for i, (place, content) in enumerate(drawings):
        where = f"{copy}, {'/'.join(place)}"
        images[i, ..., 0] = _decode_png(content, where)
        labels[i] = number[_class_name(place)]
    return Examples(images, labels, names)


def _class_name(place: Place) -> str:
    """Return what a character is called."""
    alphabet, character, _ = place
    return f"{alphabet}/{character}"


def _read_drawings(copy: Copy) -> dict[Place, bytes]:
    """Return the content of the files `<alphabet>/<character>/<drawing>.png` by these three names."""
    drawings: dict[Place, bytes] = {}
    if copy.form.folder:
        for path in copy.path.glob("*/*/*.png"):
            if path.name.startswith(_NOT_A_DRAWING):
                continue
            place = path.relative_to(copy.path).parts
            drawings[place] = path.read_bytes()
        return drawings
    top = copy.path.stem

    def is_drawing(name: str) -> bool:
        parts = name.split("/")
        is_hidden = parts[-1].startswith(_NOT_A_DRAWING)
        return len(parts) == 4 and parts[0] == top and name.endswith(".png") and not is_hidden

    for name, content in read_archive(copy.path, is_drawing).items():
        _, *place_parts = name.split("/")
        drawings[tuple(place_parts)] = content
    return drawings


def _decode_png(content: bytes, where: str) -> np.ndarray:
    """Return the pixels of a drawing [H, W]."""
    with needed_for("drawings of Omniglot"):
        from PIL import Image  # slow to import, and not needed for the others

    try:
        with warnings.catch_warnings():
            # Of large images, which are refused below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(content), formats=["PNG"])
        with image:
            shape = (image.height, image.width)
            if shape == _DRAWING:
                return np.asarray(image.convert("L"))
    except (Image.DecompressionBombError, *_PNG_ERRORS) as error:
        raise DataError(f"{where}: truncated or not a PNG image: {error}") from error
    height, width = shape
    expected = "x".join(map(str, _DRAWING))
    raise DataError(f"{where}: got an image of {height}x{width}, expected all of them {expected}")


def _file(name: str, md5: str) -> tuple[File]:
    address = f"https://github.com/brendenlake/omniglot/raw/master/python/{name}.zip"
    published = Form(f"omniglot-py/{name}.zip", f"md5:{md5}")
    folder = Form(f"omniglot-py/{name}", folder=True)
    return (File(published, (address,), (folder,)),)


OMNIGLOT = Entry(
    files={
        "train": _file("images_background", "68d2efa1b9178cc56df9314c21c6e718"),
        "test": _file("images_evaluation", "6b91aef0f799c5bb55b94e3f2daec811"),
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
)
