"""Distilling: an equation for what a step does to the weights of a trained synapse.

The changes of effective weights (`vsml.introspection.effective`) are fitted by sums of few terms. A term is a
product of factors that a local rule can compute: what a synapse hears, the error, the label, the weight,
and counts. Orthogonal matching pursuit (scikit-learn) adds one term after the other. What they explain is
measured on episodes that were left out.

Changes and terms are taken less their mean over outputs, as softmax does not see what outputs have in common.

In shapes: E episodes of T examples, I input units, O outputs; R rows, each of a synapse at an example and of
those that share its input.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import orthogonal_mp_gram
from sklearn.model_selection import GroupKFold

from vsml.introspection.effective import Effective, centred

FACTORS: dict[str, str] = {
    "s": "rev(s)",
    "|s|": "abs(rev(s))",
    "e": "t",
    "y": "y",
    "w": "w",
    "v": "v",
    "b": "bias",
    "/ sqrt(1 + n)": "/ sqrt(1 + n)",
    "/ (1 + n)": "/ (1 + n)",
    "/ sqrt(1 + m)": "/ sqrt(1 + m)",
    "/ (1 + m)": "/ (1 + m)",
    "/ sqrt(1 + g)": "/ sqrt(1 + g)",
}
"""Factors of terms, and how a rule writes them.

`s = tanh x` is what arrives, `e` the error, `y` whether this is the class, `w` the weight, `v` its last
change, `b` the bias of the output; `n` counts earlier examples of the class, `m` all earlier ones, and `g`
adds up squared errors.
"""

Term = tuple[str, ...]
"""Factors, which are multiplied."""

_RATES = ("/ sqrt(1 + n)", "/ (1 + n)", "/ sqrt(1 + m)", "/ (1 + m)", "/ sqrt(1 + g)")
_FADING: tuple[Term, ...] = ((), *((rate,) for rate in _RATES))

WEIGHT_TERMS: tuple[Term, ...] = (
    *((*heard, told, *rate) for heard in (("s",), ("|s|",), ()) for told in ("e", "y") for rate in _FADING),
    *(("w", *others) for others in ((), ("e",), ("y",), ("s",), ("|s|",), ("s", "e"), ("s", "y"))),
    ("w", "/ (1 + m)"),
    ("v",),
)
"""Terms that a change of a weight may have."""

BIAS_TERMS: tuple[Term, ...] = (
    *((told, *rate) for told in ("e", "y") for rate in _FADING),
    *(("b", *others) for others in ((), ("e",), ("y",), ("/ (1 + m)",))),
)
"""Terms that a change of the bias of an output may have."""

FOLDS = 4
"""Parts of the episodes, each of which is left out once."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A sum of so many terms.

    Attributes:
        terms: in the order in which they were added.
        coefficients: of the terms, fitted to all episodes.
        share: of the variance of changes, on episodes that were left out; the mean over folds.
        spread: standard error of that mean.
        quarters: the shares in the first to the last quarter of the episodes' examples.
    """

    terms: tuple[Term, ...]
    coefficients: tuple[float, ...]
    share: float
    spread: float
    quarters: tuple[float, ...]

    def __str__(self) -> str:
        """Return the equation."""
        parts = [f"{c:+.3g} {written(term)}" for c, term in zip(self.coefficients, self.terms, strict=True)]
        return " ".join(parts)


def written(term: Term) -> str:
    """Return a term as a person writes it, such as `s e / (1 + n)`."""
    return " ".join(term)


@dataclass(frozen=True, eq=False)
class Distilled:
    """Equations for the changes of weights and of biases.

    Attributes:
        weights: for 1, 2, ... terms.
        biases: likewise, of the mean bias of an output's synapses.
        share: of the variance of logits that effective weights explain at all.
    """

    weights: tuple[Fit, ...]
    biases: tuple[Fit, ...]
    share: float

    def table(self) -> str:
        """Return both paths as text."""
        lines = [f"effective weights explain {self.share:.3f} of the logits"]
        for name, fits in (("dw", self.weights), ("db", self.biases)):
            for fit in fits:
                quarters = " ".join(f"{share:.2f}" for share in fit.quarters)
                told = f"{len(fit.terms)} terms: {fit.share:.3f} ± {fit.spread:.3f} ({quarters})"
                lines.append(f"{told}  {name} = {fit}")
        return "\n".join(lines)


def distil(
    effective: Effective,
    most_terms: int = 6,
    rows: int = 20_000,
    seed: int = 0,
) -> Distilled:
    """Fit equations to what a learner does to its effective weights.

    Args:
        effective: its weights through `FOLDS` or more episodes, in which something changes.
        most_terms: of an equation.
        rows: so many synapses at examples are drawn, each with all that share its input.
        seed: of that draw.

    Raises:
        ValueError: there are too few episodes, or weights do not change.
    """
    episodes = len(effective.inputs)
    if episodes < FOLDS:
        raise ValueError(f"got {episodes} episodes, expected {FOLDS} or more")
    weights = _path(_weight_problem(effective, rows, seed), WEIGHT_TERMS, most_terms)
    biases = _path(_bias_problem(effective), BIAS_TERMS, most_terms)
    return Distilled(weights, biases, effective.share())


def fewest(fits: Sequence[Fit], enough: float = 0.9) -> Fit:
    """Return the shortest equation that explains `enough` of what the best one explains.

    Raises:
        ValueError: none of them explains anything on episodes that were left out.
    """
    best = max(fit.share for fit in fits)
    if best <= 0:
        raise ValueError(
            f"fits: got shares of at most {best:.3f}, expected one above 0: nothing is explained"
        )
    return next(fit for fit in fits if fit.share >= enough * best)


def values_of(term: Term, signals: Mapping[str, Any]) -> Any:
    """Return a term, from values of its factors: arrays of NumPy or of JAX."""
    product: Any = 1.0
    for factor in term:
        product = product * signals[factor]
    return product


def fading(n: Any, m: Any, g: Any) -> dict[str, Any]:
    """Return the factors that fall through an episode, from what they count; see `FACTORS`."""
    return {
        "/ sqrt(1 + n)": (1 + n) ** -0.5,
        "/ (1 + n)": 1 / (1 + n),
        "/ sqrt(1 + m)": (1 + m) ** -0.5,
        "/ (1 + m)": 1 / (1 + m),
        "/ sqrt(1 + g)": (1 + g) ** -0.5,
    }


def _fading_of(effective: Effective) -> dict[str, np.ndarray]:
    """Return the factors that fall through episodes, [E, T, O]."""
    labels = effective.labels
    squares = effective.errors**2
    steps = np.arange(labels.shape[1])[None, :, None]
    return fading(
        n=labels.cumsum(1) - labels,
        m=np.broadcast_to(steps, labels.shape),
        g=squares.cumsum(1) - squares,
    )


@dataclass(frozen=True, eq=False)
class _Problem:
    """A regression.

    Attributes:
        target: changes [R, O].
        signals: values of factors, [R, O] or [R, 1].
        episode: of each row, [R].
        time: of each row, as a share of the episode, [R].
    """

    target: np.ndarray
    signals: dict[str, np.ndarray]
    episode: np.ndarray
    time: np.ndarray


def _weight_problem(
    effective: Effective,
    rows: int,
    seed: int,
) -> _Problem:
    """Return the regression of changes of weights, of synapses at examples that are drawn."""
    E, T, I = effective.inputs.shape  # noqa: E741
    random = np.random.default_rng(seed)
    episode = random.integers(E, size=rows)
    time = random.integers(T, size=rows)
    unit = random.integers(I, size=rows)
    weights = effective.weights
    before = weights[episode, time, unit]
    earlier = weights[episode, np.maximum(time - 1, 0), unit]
    sent = np.tanh(effective.inputs[episode, time, unit])[:, None]
    signals = {name: values[episode, time] for name, values in _fading_of(effective).items()}
    signals |= {
        "s": sent,
        "|s|": np.abs(sent),
        "e": effective.errors[episode, time],
        "y": effective.labels[episode, time],
        "w": before,
        "v": before - earlier,
    }
    change = weights[episode, time + 1, unit] - before
    return _Problem(change, signals, episode, time / T)


def _bias_problem(effective: Effective) -> _Problem:
    """Return the regression of changes of the outputs' mean biases, at all examples."""
    E, T, O = effective.labels.shape  # noqa: E741
    biases = effective.biases.mean(2)

    def flat(values: np.ndarray) -> np.ndarray:
        return values.reshape(E * T, O)

    signals = {name: flat(values) for name, values in _fading_of(effective).items()}
    signals |= {"e": flat(effective.errors), "y": flat(effective.labels), "b": flat(biases[:, :-1])}
    episode, time = np.divmod(np.arange(E * T), T)
    return _Problem(flat(biases[:, 1:] - biases[:, :-1]), signals, episode, time / T)


def _path(
    problem: _Problem,
    terms: Sequence[Term],
    most_terms: int,
) -> tuple[Fit, ...]:
    """Return fits of 1, 2, ... terms."""
    target = centred(problem.target).astype(np.float64)
    if not np.square(target).sum() > 0:
        raise ValueError("weights: got no change in any episode, expected a learner that learns")
    columns = []
    for term in terms:
        values = np.broadcast_to(values_of(term, problem.signals), target.shape)
        columns.append(centred(values.astype(np.float64)))
    design_RxOxK = np.stack(columns, axis=-1)
    count = min(most_terms, len(terms))

    def pursued(rows: np.ndarray) -> np.ndarray:
        """Return coefficients [K, count] of terms, fitted to some rows."""
        design = design_RxOxK[rows].reshape(-1, len(terms))
        return _pursued(design, target[rows].ravel(), count)

    folds = []
    quarters = []
    splitter = GroupKFold(n_splits=FOLDS)
    for fitted, left_out in splitter.split(target, groups=problem.episode):
        missing = target[left_out][..., None] - design_RxOxK[left_out] @ pursued(fitted)
        squares = np.square(missing).sum(1)
        energy = np.square(target[left_out]).sum(1)
        folds.append(1 - squares.sum(0) / energy.sum())
        quarter = (4 * problem.time[left_out]).astype(int)
        parts = [quarter == number for number in range(4)]
        quarters.append([1 - squares[part].sum(0) / energy[part].sum() for part in parts])
    shares = np.array(folds)
    of_quarters = np.array(quarters).mean(0)
    coefficients = pursued(np.arange(len(target)))
    fits = []
    known: list[int] = []
    for number in range(count):
        column = coefficients[:, number]
        # Terms stay once they are in, so new ones come last.
        known += [int(place) for place in np.flatnonzero(column) if place not in known]
        fits.append(
            Fit(
                terms=tuple(terms[place] for place in known),
                coefficients=tuple(float(column[place]) for place in known),
                share=float(shares[:, number].mean()),
                spread=float(shares[:, number].std(ddof=1) / FOLDS**0.5),
                quarters=tuple(map(float, of_quarters[:, number])),
            )
        )
    return tuple(fits)


def _pursued(
    design: np.ndarray,
    target: np.ndarray,
    count: int,
) -> np.ndarray:
    """Return coefficients [K, count] by orthogonal matching pursuit, for 1 to `count` terms."""
    # It adds the term that fits best what is left, which presumes that all are of one size.
    sizes = np.linalg.norm(design, axis=0)
    sizes = np.where(sizes > 0, sizes, 1)
    scaled = design / sizes
    with warnings.catch_warnings():
        # It ends early once nothing is left to explain, and warns of it.
        warnings.simplefilter("ignore", RuntimeWarning)
        path = orthogonal_mp_gram(
            scaled.T @ scaled,
            scaled.T @ target,
            n_nonzero_coefs=count,
            return_path=True,
        )
    path = np.asarray(path).reshape(design.shape[1], -1) / sizes[:, None]
    missing = count - path.shape[1]
    return np.pad(path, ((0, 0), (0, missing)), mode="edge")
