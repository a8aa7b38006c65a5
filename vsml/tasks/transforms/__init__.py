"""Transforms: what is done to the examples of an episode, one file each, in the order of `TRANSFORMS`."""

import warnings
from collections.abc import Sequence

from vsml.registry import Registry
from vsml.tasks.transforms.base import Context, Transform
from vsml.tasks.transforms.label_permutation import PERMUTE_LABELS, permute_labels
from vsml.tasks.transforms.modulo import MODULO
from vsml.tasks.transforms.padding import PAD, check_pad, pad
from vsml.tasks.transforms.projection import RAND_PROJ, project
from vsml.tasks.transforms.ranging import RANGE
from vsml.tasks.transforms.relabelling import RELABEL
from vsml.tasks.transforms.resizing import RESIZE, resize
from vsml.tasks.transforms.rotation import rotate
from vsml.tasks.transforms.shuffling import SHUFFLE, shuffle
from vsml.tasks.transforms.standardising import NORMALIZE, standardise

# In the order in which they act.
_MEMBERS = (
    RESIZE,
    NORMALIZE,
    RANGE,
    PAD,
    SHUFFLE,
    RAND_PROJ,
    PERMUTE_LABELS,
    MODULO,
    RELABEL,
)

TRANSFORMS: Registry[Transform] = Registry(
    "transform", "vsml.transforms", {each.name: each for each in _MEMBERS}
)
"""Those of this library, in the order in which they act; others act after these."""


def output_shape(
    image_shape: Sequence[int], size: Sequence[int] | None = None, padded: Sequence[int] | None = None
) -> tuple[int, ...]:
    """Return the shape (H, W, Ch) of an image after resizing and padding: `preprocess.shape_after` now."""
    message = "output_shape is vsml.tasks.preprocess.shape_after now; the old name goes with version 0.3"
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    shape = tuple(image_shape)
    if size is not None:
        shape = RESIZE.shape(shape, size)
    if padded is not None:
        check_pad(shape, padded)
        shape = tuple(padded)
    return shape


__all__ = [
    "TRANSFORMS",
    "Context",
    "Transform",
    "check_pad",
    "output_shape",
    "pad",
    "permute_labels",
    "project",
    "resize",
    "rotate",
    "shuffle",
    "standardise",
]
