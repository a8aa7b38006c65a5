"""One half of a data set on the device, and what must hold of every one."""

import numpy as np
from flax import struct

from vsml.tasks.data.errors import DataError
from vsml.types import Array

SUBSETS = ("train", "test")


@struct.dataclass
class Dataset:
    """One half of a data set, as it is stored; `(images / scale - mean) / std` is standardised.

    Attributes:
        images: uint8 (float32 for a float npz) [n, H, W, Ch].
        labels: int32 [n], in 0..num_classes-1.
        name: what it was loaded as.
        num_classes: how many classes there are, whether or not each has an example here.
        scale: what brings images to [0, 1]: 255 for bytes, 16 for digits, 1 for floats.
        mean: mean over all pixels after scaling.
        std: standard deviation over all pixels after scaling.
    """

    images: Array
    labels: Array
    name: str = struct.field(pytree_node=False)
    num_classes: int = struct.field(pytree_node=False)
    scale: float = struct.field(pytree_node=False, default=255.0)
    mean: float = struct.field(pytree_node=False, default=0.0)
    std: float = struct.field(pytree_node=False, default=1.0)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, Ch)."""
        return tuple(self.images.shape[1:])


def check_examples(images: np.ndarray, labels: np.ndarray, num_classes: int, where: str) -> None:
    """Check that there is one label for every image, at least one of them, and each a class.

    Args:
        images: [n, ...].
        labels: whole numbers [n].
        num_classes: labels must be in 0..num_classes-1.
        where: what the error begins with.

    Raises:
        DataError: something else was found.
    """
    if len(images) != len(labels) or not len(labels):
        raise DataError(f"{where}: got {len(images)} images and {len(labels)} labels, expected one for one")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise DataError(f"{where}: got labels {labels.min()}..{labels.max()}, expected 0..{num_classes - 1}")
