"""Transform: a step from examples to inputs, as one object that says all there is to know of it."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import TypeAdapter

from vsml.types import Array, Outputs

Shape = tuple[int, ...]
"""Of an image: (H, W, Ch)."""


@dataclass(frozen=True)
class Context:
    """What a transform may want to know of the episode whose examples it is given.

    Attributes:
        key: of its own draws, the same for all examples of the episode.
        outputs: what targets are: classes or values, padded classes not counted.
        mean: of all inputs of the data set, after scaling to [0, 1].
        std: their standard deviation.
        y_mean: of the targets of the data set where they are values, D numbers.
        y_std: their standard deviations.
        episode_length: T.
        batch_size: B.
    """

    key: Array
    outputs: Outputs
    mean: float
    std: float
    y_mean: tuple[float, ...]
    y_std: tuple[float, ...]
    episode_length: int
    batch_size: int


Act = Callable[[Array, Array, Any, Context], tuple[Array, Array]]
"""(x [T * B, H, W, Ch], y [T * B] or [T * B, D], setting, context) -> the new x and y; pure."""


def _same(before: Any, setting: Any) -> Any:
    """Return what was there before."""
    del setting
    return before


def _same_outputs(outputs: Outputs, setting: Any, source: str) -> Outputs:
    """Return the outputs that were there before."""
    del setting, source
    return outputs


def _no_numbers(shape: Shape, setting: Any) -> int:
    """Return 0."""
    del shape, setting
    return 0


def _no_words(setting: Any) -> str:
    """Return nothing."""
    del setting
    return ""


@dataclass(frozen=True, eq=False)
class Transform:
    """A transform of all examples of an episode, and of its setting.

    Each is made once; it is equal to itself alone.

    Attributes:
        name: the key below `data.preprocess`, and the keyword of `build_task`.
        setting: the type of its setting, for pydantic: a type of `vsml.settings`, or a section.
        default: the setting where none is given.
        description: what it does, for the reference of the configuration.
        act: transforms examples; they come in the order in which they are shown, the batch of the first step
            first.
        off: a setting with which nothing is done, besides null and false.
        shape: (shape, setting) -> the shape of an image after it; raises ValueError where it does not fit.
        outputs: (outputs, setting, source) -> the outputs after it; raises ValueError where they do not fit.
            `source` says in words what has the outputs before it: "the 10 classes of digits".
        words: setting -> what `--dry_run` says of it; no words: nothing.
        name_part: setting -> its part of an evaluation task's automatic name; None: +name or -name. A part
            that starts with @ stands right behind the data set.
        drawn: whether it draws something from `context.key`, anew for every episode.
        purpose: what that key is folded with; None: a number that is made from the name.
        excludes: names of transforms that cannot be on together with it.
        classes_only: whether it is about the numbers of classes, and refused where targets are values.
        few_shot: whether it can be on in few-shot episodes.
        working_numbers: (shape, setting) -> how many numbers it holds beside the examples.
    """

    name: str
    setting: Any
    default: Any
    description: str
    act: Act
    off: Any = None
    shape: Callable[[Shape, Any], Shape] = _same
    outputs: Callable[[Outputs, Any, str], Outputs] = _same_outputs
    words: Callable[[Any], str] = _no_words
    name_part: Callable[[Any], str] | None = None
    drawn: bool = False
    purpose: int | None = None
    excludes: tuple[str, ...] = ()
    classes_only: bool = False
    few_shot: bool = True
    working_numbers: Callable[[Shape, Any], int] = _no_numbers

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.setting)

    def read(self, setting: Any) -> Any:
        """Return a plain setting as one of the declared type.

        Raises:
            pydantic.ValidationError: it is none.
        """
        return self._adapter.validate_python(setting)

    def is_on(self, setting: Any) -> bool:
        """Return whether anything is done with a setting of the declared type."""
        return setting is not None and setting is not False and setting != self.off

    @property
    def number(self) -> int:
        """What the key of its draws is folded with: no two transforms share one."""
        if self.purpose is not None:
            return self.purpose
        return zlib.crc32(self.name.encode())
