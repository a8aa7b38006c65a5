"""Modulo: classes share labels, so that one label means another class in each group of them."""

from typing import Annotated

from pydantic import Field

from vsml.settings import Int
from vsml.tasks.transforms.base import Context, Transform
from vsml.types import Array, Classes, Outputs


def _act(x: Array, y: Array, classes: int, context: Context) -> tuple[Array, Array]:
    del context
    return x, y % classes


def _outputs(outputs: Outputs, classes: int, source: str) -> Outputs:
    if not isinstance(outputs, Classes) or outputs.size < classes:
        raise ValueError(f"preprocess.modulo: got {classes}, expected null or at most {source}")
    return Classes(classes)


def _words(classes: int) -> str:
    return f"labels modulo {classes}"


def _name_part(classes: int | None) -> str:
    return f"+modulo{classes or 0}"


MODULO = Transform(
    name="modulo",
    setting=Annotated[Int, Field(ge=2)] | None,
    default=None,
    description="so many labels are left: class c is called c modulo this number; null: each has its own",
    act=_act,
    outputs=_outputs,
    words=_words,
    name_part=_name_part,
    classes_only=True,
)
