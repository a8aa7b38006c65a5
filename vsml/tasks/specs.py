"""Kinds of tasks: what is known of one before its data are loaded."""

from collections.abc import Sequence
from typing import Any, Protocol

from vsml.tasks.data.sources import describe_source, shape_and_outputs
from vsml.tasks.preprocess import describe as describe_preprocessing
from vsml.tasks.preprocess import outputs_after, read_settings, shape_after
from vsml.types import Classes, Outputs, Values


class Settings(Protocol):
    """A section of settings."""

    def model_dump(self) -> dict[str, Any]:
        """Return the settings as plain mappings, tuples and scalars."""
        ...


class FewShotSettings(Protocol):
    """What few-shot episodes a kind of task has."""

    @property
    def ways(self) -> int:
        """N, classes of an episode."""
        ...

    @property
    def shots(self) -> int:
        """K, labelled examples of each."""
        ...

    @property
    def rotations(self) -> bool:
        """Whether classes are drawn out of four times as many, by turning images."""
        ...

    @property
    def teach_queries(self) -> bool:
        """Whether a learner is told the labels of queries."""
        ...

    @property
    def classes_at_once(self) -> int | None:
        """How many classes of the support come before the next ones do."""
        ...


class Spec(Protocol):
    """A kind of task, as a configuration says it (`vsml.config.specs.TaskSpec`)."""

    @property
    def dataset(self) -> str:
        """Name of the data set, as for `load`."""
        ...

    @property
    def filter_classes(self) -> Sequence[int] | None:
        """Classes to keep; None keeps all."""
        ...

    @property
    def preprocess(self) -> Settings:
        """Settings of the transforms by name."""
        ...

    @property
    def few_shot(self) -> FewShotSettings | None:
        """Which few-shot episodes; None: ordinary ones."""
        ...


def task_shapes(spec: Spec, subset: str) -> tuple[tuple[int, ...], Outputs]:
    """Return the input shape and the outputs that a task's learner is built for.

    Args:
        spec: the kind of task; of published data sets nothing is read.
        subset: "train" or "test", whose examples are drawn.

    Raises:
        ValueError: the data set or a transform is unknown, or a transform does not fit its inputs or outputs.
    """
    preprocessing = read_settings(spec.preprocess.model_dump())
    image_shape, outputs = shape_and_outputs(spec.dataset, subset)
    if isinstance(outputs, Values):
        _check_values(spec)
        source = f"the {outputs.size} values of {spec.dataset}"
    else:
        source = f"the {outputs.size} classes of {spec.dataset}"
    if spec.filter_classes is not None:
        largest = max(spec.filter_classes)
        if largest >= outputs.size:
            got = f"filter_classes: got {list(spec.filter_classes)}"
            raise ValueError(f"{got}, expected classes within 0..{outputs.size - 1} of {spec.dataset}")
        outputs = Classes(len(spec.filter_classes))
        source = f"the {outputs.size} classes of {spec.dataset}"
    if spec.few_shot is not None:
        outputs = Classes(spec.few_shot.ways)
        source = f"the {outputs.size} of few_shot.ways"
    shape = shape_after(image_shape, preprocessing)
    return shape, outputs_after(outputs, preprocessing, source)


def _check_values(spec: Spec) -> None:
    """Raise a ValueError where a kind of task asks for classes that there are not."""
    values = f"the targets of {spec.dataset} are values"
    if spec.filter_classes is not None:
        raise ValueError(f"filter_classes: got {list(spec.filter_classes)}, expected null: {values}")
    if spec.few_shot is not None:
        raise ValueError(f"few_shot: got {spec.few_shot.ways} ways, expected null: {values}")


def describe(spec: Spec) -> str:
    """Return in words what examples a kind of task has and what is done with them."""
    parts = [spec.dataset, *describe_source(spec.dataset)]
    if spec.filter_classes is not None:
        parts.append(f"classes {list(spec.filter_classes)}")
    if spec.few_shot is not None:
        parts.append(_describe_few_shot(spec.few_shot))
    preprocessing = read_settings(spec.preprocess.model_dump())
    return ", ".join([*parts, *describe_preprocessing(preprocessing)])


def _describe_few_shot(few_shot: FewShotSettings) -> str:
    words = f"{few_shot.ways}-way {few_shot.shots}-shot episodes"
    if few_shot.rotations:
        words += " of rotated classes"
    if few_shot.classes_at_once is not None:
        words += f", {few_shot.classes_at_once} class(es) at once"
    if not few_shot.teach_queries:
        words += ", queries not taught"
    return words
