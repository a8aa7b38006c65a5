"""Range: inputs stretched from [0, 1] to a range of their own, whatever the data set's mean."""

from typing import Annotated

from pydantic import AfterValidator, Field

from vsml.settings import Float
from vsml.tasks.transforms.base import Context, Transform
from vsml.types import Array


def _check(ends: tuple[float, float]) -> tuple[float, float]:
    """Return the ends of a range.

    Raises:
        ValueError: the first is not below the second.
    """
    least, most = ends
    if not least < most:
        raise ValueError(f"two numbers, the first below the second; got {list(ends)}")
    return ends


Ends = Annotated[Annotated[tuple[Float, Float], Field(min_length=2, max_length=2)], AfterValidator(_check)]


def _act(x: Array, y: Array, ends: tuple[float, float], context: Context) -> tuple[Array, Array]:
    del context
    least, most = ends
    return least + (most - least) * x, y


def _words(ends: tuple[float, float]) -> str:
    least, most = ends
    return f"in [{least:g}, {most:g}]"


def _name_part(ends: tuple[float, float] | None) -> str:
    if ends is None:
        return "-range"
    return f"+range{ends[0]:g}..{ends[1]:g}"


RANGE = Transform(
    name="range",
    setting=Ends | None,
    default=None,
    description="the two numbers that inputs of 0 and 1 become, such as [-1, 1]; null leaves them; not "
    "together with normalize",
    act=_act,
    words=_words,
    name_part=_name_part,
    excludes=("normalize",),
)
