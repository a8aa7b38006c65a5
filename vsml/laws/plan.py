"""Plans: what to run for so much time, by laws that were measured; and what a run to be will come to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from vsml.laws.bootstrap import Prediction
from vsml.laws.runs import Family, flat
from vsml.laws.summary import Summary
from vsml.laws.variables import setting, without

STEPS = "meta_steps"
"""What time is spent on."""

TRUSTED = 10.0
"""By what factor a law may be asked beyond the largest run before a plan says that it is a guess."""


@dataclass(frozen=True, eq=False)
class Option:
    """One way to spend the time.

    Attributes:
        settings: by dotted path, on top of those that the runs of the law share.
        steps: meta-steps.
        seconds: that they take.
        flops: that they take, counted.
        prediction: of the loss.
        beyond: meta-steps by those of the longest run that was measured.
        family: whose law it is.
    """

    settings: Mapping[str, Any]
    steps: int
    seconds: float
    flops: float
    prediction: Prediction
    beyond: float
    family: Family


def flops_per_s(family: Family) -> float | None:
    """Return the counted operations a second of the runs, in the median; None where not measured."""
    is_known = np.isfinite(family.step_s)
    if not is_known.any():
        return None
    return float(np.median(family.step_flops[is_known] / family.step_s[is_known]))


def options(summary: Summary, seconds: float, rate: float | None = None) -> list[Option]:
    """Return how a time can be spent within a law, the least loss first.

    Sizes other than meta-steps are those that were measured: their cost is known, and nothing is between
    whole numbers.

    Args:
        summary: of a law in which meta-steps are a variable.
        seconds: that there are, on one core or device such as the runs were on.
        rate: counted operations a second; None: as in the runs.

    Raises:
        ValueError: the law is not about meta-steps, the rate is not known, or not one step fits in.
    """
    family = summary.family
    names = family.points.names
    if STEPS not in names:
        raise ValueError(f"plan: got a law of {', '.join(names)}, expected one of {STEPS}")
    rate = rate or flops_per_s(family)
    if rate is None:
        raise ValueError("plan: the runs are too short to say how fast they were; expected --flops_per_s")
    found = []
    for sizes in _measured_sizes(family):
        step_flops = _step_flops(family, sizes)
        steps = int(seconds * rate / step_flops)
        if steps >= 1:
            found.append(_option(summary, sizes, steps, step_flops, rate))
    if not found:
        raise ValueError(f"plan: got {seconds:.3g} s, expected at least one meta-step's time")
    return sorted(found, key=lambda option: option.prediction.law.value)


def _measured_sizes(family: Family) -> list[dict[str, float]]:
    """Return the combinations of measured sizes other than meta-steps."""
    others = [number for number, name in enumerate(family.points.names) if name != STEPS]
    axes = [np.unique(family.points.x[:, number]).tolist() for number in others]
    names = [family.points.names[number] for number in others]
    return [dict(zip(names, values, strict=True)) for values in product(*axes)]


def _is_at(family: Family, sizes: Mapping[str, float]) -> np.ndarray:
    """Return which points are at some sizes, [n]."""
    chosen = np.ones(len(family.points), bool)
    for name, value in sizes.items():
        chosen &= family.points.x[:, family.points.names.index(name)] == value
    return chosen


def _step_flops(family: Family, sizes: Mapping[str, float]) -> float:
    """Return the operations of a meta-step at some sizes; of all, where no run had just these."""
    chosen = _is_at(family, sizes)
    return float(np.median(family.step_flops[chosen] if chosen.any() else family.step_flops))


def _option(
    summary: Summary,
    sizes: Mapping[str, float],
    steps: int,
    step_flops: float,
    rate: float,
) -> Option:
    family = summary.family
    at = {**sizes, STEPS: float(steps)}
    x = np.array([at[name] for name in family.points.names])
    longest = family.points.x[:, family.points.names.index(STEPS)].max()
    settings: dict[str, Any] = {}
    for variable in family.variables:
        value = at[variable.name]
        settings[variable.setting] = int(value) if value == int(value) else value
    return Option(
        settings=settings,
        steps=steps,
        seconds=steps * step_flops / rate,
        flops=steps * step_flops,
        prediction=summary.law.predict(x),
        beyond=float(steps / longest),
        family=family,
    )


def configuration(option: Option) -> dict[str, Any]:
    """Return the whole configuration of an option: what the runs shared, and its own settings."""
    shared: dict[str, Any] = dict(option.family.training)
    restore = shared.pop("restore", None)
    if restore is not None:
        shared["checkpoint"] = {"restore": restore}
    if option.family.evaluation:
        shared["evaluation"] = dict(option.family.evaluation)
    return _with_settings(shared, option)


def contradictions(option: Option, summaries: Mapping[Path, Summary]) -> list[str]:
    """Return a line for each other law that applies to an option and says something else of it.

    It does where what is predicted lies outside of its 95 % interval.

    Args:
        option: the option.
        summaries: laws, by their files.
    """
    training = _with_settings(option.family.training, option)
    told = option.prediction.law.value
    found = []
    for file, summary in summaries.items():
        family = summary.family
        sizes = None if family is option.family else sizes_of(training, family)
        if sizes is None or family.loss != option.family.loss:
            continue
        other = summary.law.predict(sizes).law
        if not other.low <= told <= other.high:
            found.append(
                f"another law says otherwise of these settings: {other.value:.3f} ({other.low:.3f} to "
                f"{other.high:.3f}), by {summary.law.form.formula} of {file.name}"
            )
    return found


def _with_settings(shared: Mapping[str, Any], option: Option) -> dict[str, Any]:
    """Return settings with those of an option on top."""
    whole = dict(shared)
    for path, value in option.settings.items():
        whole = _with(whole, path.split("."), value)
    return whole


def _with(settings: Mapping[str, Any], keys: Sequence[str], value: Any) -> dict[str, Any]:
    key, *rest = keys
    return {**settings, key: _with(settings.get(key, {}), rest, value) if rest else value}


def sizes_of(training: Mapping[str, Any], family: Family) -> np.ndarray | None:
    """Return the sizes [V] of a run to be in a law; None where the law does not apply to it.

    It applies where all settings that the runs of the law shared are the same, and its sizes are set and not
    counted or measured.

    Args:
        training: settings that meta-training depends on, as `what_matters` returns them.
        family: the runs of the law.
    """
    if not all(variable.is_set for variable in family.variables):
        return None
    shared = training
    for variable in family.variables:
        shared = without(shared, variable.setting)
    asked = dict(flat(shared))
    if any(path not in asked or asked[path] != value for path, value in flat(family.training)):
        return None
    sizes = [setting(training, variable.setting) for variable in family.variables]
    if not all(isinstance(size, int | float) and size > 0 for size in sizes):
        return None
    return np.array(sizes, float)
