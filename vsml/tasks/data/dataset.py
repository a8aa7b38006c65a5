"""One half of a data set on the device, and what must hold of every one."""

import functools
from typing import Any, TypeVar

import numpy as np
from flax import struct

from vsml.tasks.data.errors import DataError
from vsml.types import Array, Classes, Outputs, Values

SUBSETS = ("train", "test")

_LABELS_SHOWN = 10

AnyClass = TypeVar("AnyClass", bound=type[Any])


def takes_num_classes(kind: AnyClass) -> AnyClass:
    """Let a class be made with `num_classes=C` or a number too, short for `outputs=Classes(C)`."""
    make = kind.__init__

    @functools.wraps(make)
    def make_with_classes(
        self: Any,
        *args: Any,
        num_classes: int | None = None,
        **kwargs: Any,
    ) -> None:
        if num_classes is not None:
            kwargs["outputs"] = Classes(num_classes)
        make(self, *args, **kwargs)
        if isinstance(self.outputs, int):
            object.__setattr__(self, "outputs", Classes(self.outputs))

    kind.__init__ = make_with_classes
    return kind


@takes_num_classes
@struct.dataclass
class Dataset:
    """One half of a data set, as it is stored; `(images / scale - mean) / std` is standardised.

    Attributes:
        images: uint8 (float32 for a float npz) [n, H, W, Ch].
        labels: targets: of classes int32 [n], in 0..C-1; of values float32 [n, D].
        name: what it was loaded as.
        outputs: classes, whether or not each has an example here, or values. `num_classes=C` is short for
            `outputs=Classes(C)`.
        scale: what brings images to [0, 1]: 255 for bytes, 16 for digits, 1 for floats.
        mean: mean over all pixels after scaling.
        std: standard deviation over all pixels after scaling.
        y_mean: means of targets that are values, D numbers, or one for all.
        y_std: their standard deviations.
        column_mean: means of the columns of a table, images [n, 1, columns, 1], after scaling; None where all
            inputs share `mean` and `std`.
        column_std: their standard deviations.
        class_labels: what the classes 0..C-1 are called where they come from; None: just that.
    """

    images: Array
    labels: Array
    name: str = struct.field(pytree_node=False)
    outputs: Outputs = struct.field(pytree_node=False)
    scale: float = struct.field(pytree_node=False, default=255.0)
    mean: float = struct.field(pytree_node=False, default=0.0)
    std: float = struct.field(pytree_node=False, default=1.0)
    y_mean: tuple[float, ...] = struct.field(pytree_node=False, default=(0.0,))
    y_std: tuple[float, ...] = struct.field(pytree_node=False, default=(1.0,))
    column_mean: tuple[float, ...] | None = struct.field(pytree_node=False, default=None)
    column_std: tuple[float, ...] | None = struct.field(pytree_node=False, default=None)
    class_labels: tuple[int, ...] | None = struct.field(pytree_node=False, default=None)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, Ch)."""
        return tuple(self.images.shape[1:])

    @property
    def num_classes(self) -> int:
        """How many outputs there are: C classes, or D values."""
        return self.outputs.size


def describe(data: Dataset) -> list[str]:
    """Return in words what was decided about a data set on reading it, one text for each thing."""
    words = []
    labels = data.class_labels
    if labels is not None and labels != tuple(range(len(labels))):
        shown = ", ".join(map(str, labels[:_LABELS_SHOWN]))
        if len(labels) > _LABELS_SHOWN:
            shown += f", ..., {labels[-1]}"
        words.append(f"labels {shown} are the classes 0..{len(labels) - 1}")
    if data.column_std is not None:
        words.append("each column standardised by itself")
    return words


def check_examples(
    images: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    where: str,
) -> None:
    """Check that there is one label for every image, at least one of them, and each a class.

    Args:
        images: [n, ...].
        labels: whole numbers [n].
        num_classes: labels must be in 0..num_classes-1.
        where: what the error begins with.

    Raises:
        DataError: something else was found.
    """
    check_number(images, labels, where)
    least, most = labels.min(), labels.max()
    if least < 0 or most >= num_classes:
        raise DataError(f"{where}: got labels {least}..{most}, expected 0..{num_classes - 1}")


def check_number(
    images: np.ndarray,
    targets: np.ndarray,
    where: str,
) -> None:
    """Raise a DataError where there is not one target for every image, or nothing at all."""
    count = len(targets)
    if len(images) != count or count == 0:
        raise DataError(f"{where}: got {len(images)} images and {count} labels, expected one for one")


def check_dataset(data: Dataset, where: str) -> None:
    """Check a data set that was not made by this library.

    Args:
        data: one half.
        where: what the error begins with.

    Raises:
        DataError: its arrays do not fit each other or its outputs.
    """
    images = np.asarray(data.images)
    targets = np.asarray(data.labels)
    if images.ndim != 4 or images.dtype not in (np.uint8, np.float32):
        raise DataError(
            f"{where}: got images {images.dtype} of shape {images.shape}, expected uint8 or float32 "
            "[n, H, W, Ch]"
        )
    if isinstance(data.outputs, Values):
        check_number(images, targets, where)
        expected_shape = (len(images), data.outputs.size)
        if targets.dtype != np.float32 or targets.shape != expected_shape:
            got = f"labels {targets.dtype} of shape {targets.shape}"
            raise DataError(f"{where}: got {got}, expected float32 {list(expected_shape)}, as outputs say")
        if not np.isfinite(targets).all():
            raise DataError(f"{where}: got labels that are not finite")
        return
    if targets.dtype != np.int32 or targets.ndim != 1:
        got = f"labels {targets.dtype} of shape {targets.shape}"
        raise DataError(f"{where}: got {got}, expected int32 [n], as outputs are classes")
    check_examples(images, targets, data.outputs.size, where)
