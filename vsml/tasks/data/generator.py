"""Generator: a source of examples without a file, which every episode draws anew."""

from collections.abc import Callable

from flax import struct

from vsml.tasks.data.dataset import Dataset, takes_num_classes
from vsml.types import Array, Outputs


@takes_num_classes
@struct.dataclass
class Generator:
    """A source without a file: every episode draws its own small data set.

    Attributes:
        draw: (key, n, size) -> images float32 [n, H, W, Ch] and targets: of classes int32 [n] in 0..size-1,
            of values float32 [n, size]. Pure.
        name: what it was loaded as.
        outputs: classes, as many as it has by default, or values. `num_classes=C` is short for
            `outputs=Classes(C)`.
        image_shape: (H, W, Ch).
        pool_size: images drawn per episode, which then repeat; None draws a new one for every example.
        classes_alike: whether some of the classes can be left out (their labels mean nothing).
        scale: as of a `Dataset`, like the following.
        mean: of inputs.
        std: of inputs.
        y_mean: of targets that are values.
        y_std: of targets that are values.
    """

    draw: Callable[[Array, int, int], tuple[Array, Array]] = struct.field(pytree_node=False)
    name: str = struct.field(pytree_node=False)
    outputs: Outputs = struct.field(pytree_node=False)
    image_shape: tuple[int, ...] = struct.field(pytree_node=False, default=(28, 28, 1))
    pool_size: int | None = struct.field(pytree_node=False, default=None)
    classes_alike: bool = struct.field(pytree_node=False, default=False)
    scale: float = struct.field(pytree_node=False, default=1.0)
    mean: float = struct.field(pytree_node=False, default=0.0)
    std: float = struct.field(pytree_node=False, default=1.0)
    y_mean: tuple[float, ...] = struct.field(pytree_node=False, default=(0.0,))
    y_std: tuple[float, ...] = struct.field(pytree_node=False, default=(1.0,))

    @property
    def always_new(self) -> bool:
        """Whether no example comes twice in an episode."""
        return self.pool_size is None

    @property
    def num_classes(self) -> int:
        """How many outputs there are: C classes, or D values."""
        return self.outputs.size


Source = Dataset | Generator
"""Where the examples of a task come from."""
