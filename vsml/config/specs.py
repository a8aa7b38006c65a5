"""From the sections to kinds of tasks: mixtures resolved, names and inherited settings filled in."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Self

from vsml.config.preprocess import Pad, Preprocess, PreprocessMixture
from vsml.config.sections import DataConfig, EvaluationConfig, EvaluationTask, FewShot, TrainingConfig
from vsml.settings import Section, Split, deep_merge
from vsml.tasks.preprocess import name_parts


@dataclass(frozen=True)
class TaskSpec:
    """One kind of task, without splits; equal specs are the same kind of task.

    Attributes:
        dataset: name, or path of an .npz file.
        filter_classes: classes to keep; None keeps all.
        preprocess: every value set.
        few_shot: which few-shot episodes; None: ordinary ones.
        episode_length: steps per episode.
    """

    dataset: str
    filter_classes: tuple[int, ...] | None
    preprocess: Preprocess
    few_shot: FewShot | None
    episode_length: int

    def padded(self, pad: Pad) -> Self:
        """Return the same kind of task with the given keys of its padding."""
        changes = deep_merge(self.preprocess.model_dump(), {"pad": pad.model_dump()})
        return dataclasses.replace(self, preprocess=Preprocess.model_validate(changes))


@dataclass(frozen=True)
class EvaluationSpec:
    """One data set to evaluate on.

    Attributes:
        name: unique in a configuration.
        optional: leave it out where its files are missing.
        task: the kind of task.
    """

    name: str
    optional: bool
    task: TaskSpec


def training_specs(training: TrainingConfig, data: DataConfig) -> tuple[TaskSpec, ...]:
    """Return the training mixture, of which trial i (pair or episode) takes `specs[i % len(specs)]`.

    Its length is the least common period of all splits, cut to `training.population_size`.
    """
    parts = (training.dataset, data.filter_classes, data.preprocess, data.few_shot, training.episode_length)
    period = math.lcm(*_periods(parts))
    count = min(period, training.population_size)
    return tuple(_resolved_spec(*parts, trial=number) for number in range(count))


def evaluation_specs(evaluation: EvaluationConfig, data: DataConfig) -> tuple[EvaluationSpec, ...]:
    """Return what `evaluation.datasets` says, with names and inherited settings filled in."""
    length = evaluation.episode_length
    inherited = _resolved_spec("", data.filter_classes, data.preprocess, data.few_shot, length, trial=0)
    specs = []
    for entry in evaluation.datasets:
        task = EvaluationTask(dataset=entry) if isinstance(entry, str) else entry
        specs.append(_evaluation_spec(task, inherited))
    return tuple(specs)


def _evaluation_spec(entry: EvaluationTask, inherited: TaskSpec) -> EvaluationSpec:
    own_classes = "filter_classes" in entry.model_fields_set
    own_few_shot = "few_shot" in entry.model_fields_set
    values = inherited.preprocess.model_dump()
    changes = entry.preprocess.model_dump()  # only the keys that were given
    task = TaskSpec(
        entry.dataset,
        entry.filter_classes if own_classes else inherited.filter_classes,
        Preprocess.model_validate(deep_merge(values, changes)),
        entry.few_shot if own_few_shot else inherited.few_shot,
        entry.episode_length or inherited.episode_length,
    )
    name = entry.name or _automatic_name(entry, changes)
    return EvaluationSpec(name, entry.optional, task)


def _automatic_name(entry: EvaluationTask, changes: Mapping[str, Any]) -> str:
    """Name the data set and what was changed for it: digits+rand_proj, mnist@14x14, omniglot+5way1shot."""
    name = PurePath(entry.dataset).stem if entry.dataset.endswith(".npz") else entry.dataset
    name = name.rpartition(":")[2]  # package.module:Name
    front, end = name_parts(changes)
    name += front
    if "filter_classes" in entry.model_fields_set:
        name += "+classes_" + ("_".join(map(str, entry.filter_classes)) if entry.filter_classes else "all")
    name += end
    if "few_shot" in entry.model_fields_set:
        few_shot = entry.few_shot
        name += f"+{few_shot.ways}way{few_shot.shots}shot" if few_shot else "-few_shot"
        name += "+rotations" if few_shot and few_shot.rotations else ""
        name += "-teach_queries" if few_shot and not few_shot.teach_queries else ""
    return name + (f"+{entry.episode_length}steps" if entry.episode_length else "")


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, Split):
        return value.split
    if isinstance(value, Section):
        return (getattr(value, key) for key in type(value).model_fields)
    return value if isinstance(value, tuple) else ()


def _periods(value: Any) -> Iterator[int]:
    if isinstance(value, Split):
        yield value.repeat * len(value.split)
    for child in _children(value):
        yield from _periods(child)


def _resolve(value: Any, trial: int) -> Any:
    """Return `value` as plain mappings, tuples and scalars, with the options that `trial` takes."""
    if isinstance(value, Split):
        return _resolve(value.split[trial // value.repeat % len(value.split)], trial)
    if isinstance(value, Section):
        return {key: _resolve(getattr(value, key), trial) for key in type(value).model_fields}
    if isinstance(value, tuple):
        return tuple(_resolve(each, trial) for each in value)
    return value


def _resolved_spec(
    dataset: Any,
    filter_classes: Any,
    preprocess: PreprocessMixture,
    few_shot: FewShot | None,
    episode_length: Any,
    trial: int,
) -> TaskSpec:
    return TaskSpec(
        _resolve(dataset, trial),
        _resolve(filter_classes, trial),
        Preprocess.model_validate(_resolve(preprocess, trial)),
        few_shot,
        _resolve(episode_length, trial),
    )
