"""Runs as points of laws: their sizes, what they cost, and the losses that they came to."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vsml.cost.steps import meta_step_cost, trial_costs
from vsml.laws.points import Points
from vsml.laws.variables import Variable, setting, without
from vsml.runs.directory import open_run
from vsml.runs.metrics import is_number, read_metrics
from vsml.runs.reading import is_meta_trained, read_evaluation
from vsml.setup import Setup

META_TRAINING = "meta-training"
"""What a loss over the episodes of meta-training goes by, beside those on data sets."""

_LAST_SHARE = 0.1
"""Share of the lines of metrics, the last ones, that the loss of meta-training is a mean over."""

_OF_TRAINING = ("call", "training", "data", "optimizer", "model")
"""Sections that a law holds for: with other settings there, it is another law."""

_OF_EVALUATION = ("datasets", "episode_length", "count", "batch_size", "seed", "subset")
"""Settings that a loss on a data set depends on."""

_NO_MATTER = (
    "training.time_limit_s",
    "training.chunk_size",
    "training.callbacks",
    "data.root",
    "data.verify",
    "model.vsml.kernel",
)
"""Settings that change nothing in what is found."""


@dataclass(frozen=True, eq=False)
class RunPoint:
    """What a run says about laws.

    Attributes:
        run: its folder.
        training: settings that meta-training depends on, as a configuration is written.
        evaluation: settings that losses on data sets depend on.
        seed: of the run.
        sizes: by the names of variables; those that it does not have are missing.
        losses: by the names of data sets, and META_TRAINING (nats).
        step_flops: counted operations of a meta-step.
        step_s: measured seconds of a meta-step, compiling left out; None where too few lines say so.
    """

    run: str
    training: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    seed: int
    sizes: Mapping[str, float]
    losses: Mapping[str, float]
    step_flops: float
    step_s: float | None


def read_points(
    folders: Iterable[str | Path],
    read_setup: Callable[[Path], Setup],
    on_the_way: bool = False,
) -> list[RunPoint]:
    """Read the folders of runs.

    Args:
        folders: of runs that are complete.
        read_setup: reads a config.yaml; rooms above this one know what may be in it.
        on_the_way: whether evaluations in the course of a run are points, too. They are only where the rate
            of learning does not change over meta-steps: else a run of that length would have done better.

    Raises:
        ValueError: a folder is of no run of `call: train`, is not complete, or is damaged.
        OSError: one cannot be read.
    """
    costs: dict[str, float] = {}
    found = []
    for folder in folders:
        found += _read_run(Path(folder), read_setup, on_the_way, costs)
    return found


def _read_run(
    folder: Path,
    read_setup: Callable[[Path], Setup],
    on_the_way: bool,
    costs: dict[str, float],
) -> list[RunPoint]:
    """Return the points of a run; `costs` has those of a meta-step that were counted already."""
    run = open_run(folder)
    setup = read_setup(run.config)
    config = setup.config
    if config.call != "train":
        raise ValueError(f"{folder}: got a run of call: {config.call}, expected call: train")
    if not run.complete.exists():
        raise ValueError(f"{folder}: expected a run that is complete; `--resume {folder}` goes on with it")
    lines = read_metrics(run.metrics)
    if not lines:
        raise ValueError(f"{run.metrics}: got no line, expected the metrics of a run")
    training, evaluation = what_matters(setup)
    key = json.dumps(without(training, "training.iterations"), sort_keys=True)
    if key not in costs:
        costs[key] = step_flops(setup)
    last = lines[-1]
    losses = {META_TRAINING: _recent_loss(lines)}
    rows = read_evaluation(run) if (folder / "evaluation.json").exists() else []
    for row in rows:
        loss = row.get("loss")
        if is_meta_trained(row) and is_number(loss):
            losses[row["dataset"]] = float(loss)
    step_s = _step_s(lines)
    point = RunPoint(
        run=str(folder),
        training=training,
        evaluation=evaluation,
        seed=config.seed,
        sizes=_sizes(training, int(last["step"]), last, costs[key], step_s),
        losses=losses,
        step_flops=costs[key],
        step_s=step_s,
    )
    if not on_the_way:
        return [point]
    return [*_points_on_the_way(point, lines, costs[key]), point]


def _points_on_the_way(point: RunPoint, lines: Sequence[Mapping[str, Any]], flops: float) -> list[RunPoint]:
    """Return the evaluations in the course of a run, but for the one at its end."""
    found = []
    for line in lines[:-1]:
        losses = {}
        for key, value in line.items():
            parts = key.split("/")
            if len(parts) == 3 and parts[0] == "eval" and parts[2] == "loss" and is_number(value):
                losses[parts[1]] = float(value)
        if losses:
            training = _with_iterations(point.training, int(line["step"]))
            sizes = _sizes(training, int(line["step"]), line, flops, point.step_s)
            found.append(
                RunPoint(
                    run=point.run,
                    training=training,
                    evaluation=point.evaluation,
                    seed=point.seed,
                    sizes=sizes,
                    losses=losses,
                    step_flops=flops,
                    step_s=point.step_s,
                )
            )
    return found


def _with_iterations(training: Mapping[str, Any], step: int) -> dict[str, Any]:
    return {**training, "training": {**training["training"], "iterations": step}}


def what_matters(setup: Setup) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings that meta-training depends on, and those that its evaluation does."""
    written = setup.config.model_dump(mode="json", by_alias=True)
    training: dict[str, Any] = {name: written[name] for name in _OF_TRAINING}
    training["restore"] = written["checkpoint"]["restore"]
    for path in _NO_MATTER:
        training = without(training, path)
    # Of learners that are not used there are sections, too.
    model = training["model"]
    chosen = model["type"]
    training["model"] = {"type": chosen, chosen: model.get(chosen, model.get("options"))}
    evaluation = {name: written["evaluation"][name] for name in _OF_EVALUATION}
    return training, evaluation


def step_flops(setup: Setup) -> float:
    """Return the counted operations of a meta-step: a tanh and the like counts as one."""
    cost = meta_step_cost(trial_costs(setup))
    return float(cost.flops + cost.transcendentals)


def _sizes(
    training: Mapping[str, Any],
    step: int,
    line: Mapping[str, Any],
    flops: float,
    step_s: float | None,
) -> dict[str, float]:
    """Return sizes by the names of variables."""
    found: dict[str, Any] = {
        "meta_steps": step,
        "tasks": setting(training, "data.num_tasks"),
        "state_size": setting(training, "model.vsml.synapse.state_size"),
        "episode_length": setting(training, "training.episode_length"),
        "population": setting(training, "training.population_size"),
        "examples": line.get("examples"),
        "flops": step * flops,
        "seconds": None if step_s is None else step * step_s,
    }
    return {name: float(value) for name, value in found.items() if is_number(value)}


def _recent_loss(lines: Sequence[Mapping[str, Any]]) -> float:
    """Return the loss of meta-training over the last meta-steps."""
    losses = [line["meta_loss"] for line in lines if is_number(line.get("meta_loss"))]
    if not losses:
        return float("nan")
    last = max(1, round(_LAST_SHARE * len(losses)))
    return float(np.mean(losses[-last:]))


def _step_s(lines: Sequence[Mapping[str, Any]]) -> float | None:
    """Return measured seconds a meta-step, from the first line on: what is before it has compiling in it."""
    first, last = lines[0], lines[-1]
    steps = last["step"] - first["step"]
    if steps <= 0 or not (is_number(first.get("wall_s")) and is_number(last.get("wall_s"))):
        return None
    return (last["wall_s"] - first["wall_s"]) / steps


@dataclass(frozen=True, eq=False)
class Family:
    """Runs that differ in the sizes of a law and in their seeds alone.

    Attributes:
        variables: of the law.
        loss: which loss it is of.
        training: the settings that they share.
        evaluation: likewise.
        points: sizes and losses.
        step_flops: counted operations of a meta-step, [n], of each point.
        step_s: measured seconds of it, [n]; not a number where they are not known.
    """

    variables: tuple[Variable, ...]
    loss: str
    training: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    points: Points
    step_flops: np.ndarray
    step_s: np.ndarray


def families(
    points: Sequence[RunPoint], variables: Sequence[Variable], loss: str | None = None
) -> list[Family]:
    """Put runs together that differ in the sizes of a law and in their seeds alone.

    Args:
        points: of runs.
        variables: of the law.
        loss: a data set, or META_TRAINING; None: the first data set that all were evaluated on.

    Raises:
        ValueError: no run has all of the sizes, or the loss is not there.
    """
    variables = tuple(variables)
    names = tuple(variable.name for variable in variables)
    usable = [point for point in points if all(name in point.sizes for name in names)]
    if not usable:
        raise ValueError(f"runs: got none that has {' and '.join(names)}, expected some")
    loss = loss or _common_loss(usable)
    groups: dict[str, list[RunPoint]] = {}
    for point in usable:
        if loss not in point.losses:
            raise ValueError(f"{point.run}: got losses of {', '.join(point.losses)}, expected one of {loss}")
        shared = _shared(point, variables, loss)
        groups.setdefault(json.dumps(shared, sort_keys=True), []).append(point)
    found = []
    for key, members in groups.items():
        training, evaluation = json.loads(key)
        sizes = [[point.sizes[name] for name in names] for point in members]
        of_points = Points(
            names,
            np.array(sizes, float),
            np.array([point.losses[loss] for point in members], float),
            np.array([point.run for point in members]),
        )
        step_s = [np.nan if point.step_s is None else point.step_s for point in members]
        flops = np.array([point.step_flops for point in members])
        found.append(Family(variables, loss, training, evaluation, of_points, flops, np.array(step_s)))
    return found


def _common_loss(points: Sequence[RunPoint]) -> str:
    """Return the first data set that all runs were evaluated on; META_TRAINING where there is none."""
    for name in points[0].losses:
        if name != META_TRAINING and all(name in point.losses for point in points):
            return name
    return META_TRAINING


def _shared(point: RunPoint, variables: Sequence[Variable], loss: str) -> list[Mapping[str, Any]]:
    """Return the settings of a run without those that make its sizes."""
    training = point.training
    for variable in variables:
        training = without(training, variable.setting)
    return [training, {} if loss == META_TRAINING else point.evaluation]


def differing(found: Sequence[Family]) -> list[str]:
    """Return for each family the settings that tell it from the others, as `a.b=value, ...`."""
    each_flat = [dict(flat(family.training)) for family in found]
    paths = sorted({path for one in each_flat for path in one})
    told_apart = [path for path in paths if len({json.dumps(one.get(path)) for one in each_flat}) > 1]
    lines = []
    for one in each_flat:
        lines.append(", ".join(f"{path}={json.dumps(one.get(path))}" for path in told_apart))
    return lines


def flat(settings: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, Any]]:
    """Yield dotted paths and values."""
    for key, value in settings.items():
        path = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{path}.")
        else:
            yield path, value
