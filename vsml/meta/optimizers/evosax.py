"""The outer loop by the evolution strategies of evosax, its distribution-based algorithms."""

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import psutil
from evosax.algorithms import distribution_based_algorithms
from evosax.core import fitness_shaping
from flax import struct

from vsml.learners import Learner
from vsml.meta.mapping import map_trials
from vsml.meta.objectives.base import MemberResult, Objective
from vsml.meta.objectives.episode import EpisodeLoss
from vsml.meta.optimizers.antithetic import ANTITHETIC
from vsml.meta.optimizers.base import judge_members, measurements, summarise
from vsml.meta.trials import Chunk, Results
from vsml.tasks import TaskDistribution
from vsml.types import Array, Params

PAIRED = frozenset({"Open_ES", "PGPE", "ARS", "GuidedES", "ASEBO"})
"""Algorithms that compare the two members of an antithetic pair: members i and i + n of 2n."""

UNSUPPORTED = {
    "PersistentES": "needs episodes in truncated parts, with states carried over",
    "NoiseReuseES": "needs episodes in truncated parts, with states carried over",
    "SV_CMA_ES": "keeps several means",
    "SV_Open_ES": "keeps several means",
    "RandomSearch": "needs a function that draws meta-parameters",
    "LES": "is loaded from a pickle, which is never safe",
    "CMAAnchoredLES": "is loaded from a pickle, which is never safe",
    "EvoTF_ES": "is loaded from a pickle, which is never safe",
}

SHAPING = {
    "identity": fitness_shaping.identity_fitness_shaping_fn,
    "centered_rank": fitness_shaping.centered_rank_fitness_shaping_fn,
    "standardize": fitness_shaping.standardize_fitness_shaping_fn,
    "normalize": fitness_shaping.normalize_fitness_shaping_fn,
}
"""What the option `fitness_shaping_fn` may name."""


@struct.dataclass
class EvolutionState:
    """State of the outer loop.

    Attributes:
        key: from which each generation's noise is drawn.
        algorithm: state of the evosax algorithm.
    """

    key: Array
    algorithm: Any


class Evolution:
    """An evolution strategy of evosax; a trial is two members that share what the objective draws.

    Every rank draws the whole population at once; `vsml.meta.optimizers.antithetic` does without, for plain
    antithetic pairs. The default here, Open_ES without fitness shaping, estimates the gradient of the loss
    smoothed by Gaussian noise of deviation sigma from n antithetic pairs (Salimans et al., 2017; Kirsch &
    Schmidhuber, 2021, section 4),

        g = mean over pairs of eps (L(theta + sigma eps) - L(theta - sigma eps)) / (2 sigma),

    and hands it to an optax optimizer. Where a loss is not finite, both members of its pair get the mean of
    the finite losses (so the pair says nothing) if the algorithm compares pairs; else it ranks last.

    Args:
        population_size: number of pairs n.
        params: meta-parameters, as a template.
        optimizer: the optax optimizer, for the algorithms that take one.
        noise_std: deviation sigma, a number or a schedule over generations; the initial deviation of
            algorithms that adapt it.
        algorithm: an evosax distribution-based algorithm by name.
        options: its own options by their evosax names: arguments of its constructor or of its parameters.
        objective: what is minimised; None: the loss of an episode.

    Raises:
        ValueError: for an unknown or unsuitable algorithm or option.
        MemoryError: if a generation would need more memory than there is.
    """

    trial_members = 2
    differentiates = False

    def __init__(
        self,
        population_size: int,
        params: Params,
        optimizer: optax.GradientTransformation,
        noise_std: float | Callable[[Any], Any] = 0.05,
        algorithm: str = "Open_ES",
        options: Mapping[str, Any] | None = None,
        objective: Objective | None = None,
    ):
        self.objective = EpisodeLoss() if objective is None else objective
        self.population_size = population_size
        self.paired = algorithm in PAIRED
        self._noise_changes = callable(noise_std)
        self._noise_std = noise_std if callable(noise_std) else optax.constant_schedule(noise_std)
        self._build(algorithm, dict(options or {}), params, optimizer)
        self._check_memory(algorithm, params)

    def _build(
        self,
        name: str,
        options: dict[str, Any],
        params: Params,
        optimizer: optax.GradientTransformation,
    ) -> None:
        """Build the evosax algorithm, and the parameters that it is called with."""
        kind = _kind_of(name)
        signature = set(inspect.signature(kind).parameters)
        # What is given here is no option: by these names, and by two more below.
        arguments = signature - {"population_size", "solution", "metrics_fn"}
        own_arguments = arguments - {"std_schedule", "optimizer"}
        given: dict[str, Any] = {
            "population_size": 2 * self.population_size,
            "solution": params,
            "metrics_fn": _no_metrics,
        }
        self._scheduled = "std_schedule" in arguments
        if self._scheduled:
            given["std_schedule"] = self._noise_std
        elif self._noise_changes:
            raise ValueError(
                f"optimizer.noise_std: got a schedule, expected a number: {name} adapts its deviation itself"
            )
        if "optimizer" in arguments:
            given["optimizer"] = optimizer
        options = _with_shaping(name, options)
        # Some options are arguments of the constructor, the others fields of the parameters.
        for key in own_arguments & options.keys():
            given[key] = options.pop(key)
        self._algorithm = kind(**given)
        defaults = self._algorithm.default_params
        fields = {field.name for field in dataclasses.fields(defaults)}
        unknown = sorted(options.keys() - fields)
        if unknown:
            expected = sorted(own_arguments | fields)
            raise ValueError(
                f"optimizer.algorithm_options: {name} has no option {', '.join(unknown)}; "
                f"expected any of {', '.join(expected)}"
            )
        if "std_init" in fields:
            options.setdefault("std_init", float(self._noise_std(0)))
        self._parameters = defaults.replace(**options)

    def _check_memory(self, name: str, params: Params) -> None:
        """Refuse what needs more memory than there is: algorithms of covariance matrices, mostly."""
        state = jax.eval_shape(self.init, jax.random.key(0), params)
        state, members = jax.eval_shape(self.ask, state)
        losses = jax.ShapeDtypeStruct((2 * self.population_size,), jnp.float32)
        needed = 0
        for step in (self._ask.lower(self, state), self._tell.lower(self, state, members, losses)):
            analysis = step.compile().memory_analysis()
            if analysis is not None:
                needed += analysis.temp_size_in_bytes
        available = psutil.virtual_memory().available
        if needed > available:
            size = sum(leaf.size for leaf in jax.tree.leaves(params))
            raise MemoryError(
                f"optimizer.algorithm: {name} needs {needed / 2**30:.1f} GiB for {size} meta-parameters "
                f"and {2 * self.population_size} members, and {available / 2**30:.1f} GiB are available; "
                "take a smaller population, back-propagation (configs/backprop.yaml) or, if this one has a "
                "covariance matrix, an algorithm without, such as Open_ES"
            )

    def init(self, key: Array, params: Params) -> EvolutionState:
        """Start from the given meta-parameters."""
        state = self._algorithm.init(key, params, self._parameters)
        # Types as `tell` returns them, not weak ones: else the second generation would compile anew.
        state = jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), state)
        return EvolutionState(key=key, algorithm=self._with_noise(state))

    def params(self, state: EvolutionState) -> Params:
        """Return the meta-parameters found so far: the mean of the search distribution."""
        return self._algorithm.get_mean(state.algorithm)

    def ask(self, state: EvolutionState) -> tuple[EvolutionState, Params]:
        """Draw the 2n members of a generation, the two of pair i at i and i + n; leaves [2n, ...]."""
        return self._ask(state)

    def evaluate(
        self,
        members: Params,
        chunk: Chunk,
        key: Array,
    ) -> tuple[Array, Array, Array]:
        """Return loss and score [chunk_size, 2], and no gradient."""
        group = chunk.group
        places = chunk.trials, chunk.options
        return _evaluate(self.objective, group.learner, members, group.tasks, *places, key)

    def tell(
        self,
        state: EvolutionState,
        members: Params,
        results: Results,
    ) -> tuple[EvolutionState, dict[str, Any]]:
        """Move the search distribution towards the members with the lower loss."""
        losses = finite_losses(results.loss, self.paired)
        state, measured = self._tell(state, members, losses.T.reshape(-1))
        return state, summarise(results) | measured

    @partial(jax.jit, static_argnames=("self",))
    def _ask(self, state: EvolutionState) -> tuple[EvolutionState, Params]:
        key = self._key(state, 0)
        members, algorithm = self._algorithm.ask(key, state.algorithm, self._parameters)
        return EvolutionState(key=state.key, algorithm=algorithm), members

    @partial(jax.jit, static_argnames=("self",))
    def _tell(
        self,
        state: EvolutionState,
        members: Params,
        losses: Array,
    ) -> tuple[EvolutionState, dict[str, Array]]:
        key = self._key(state, 1)
        algorithm, _ = self._algorithm.tell(
            key,
            members,
            losses,
            state.algorithm,
            self._parameters,
        )
        algorithm = self._with_noise(algorithm)
        return EvolutionState(key=state.key, algorithm=algorithm), measurements(algorithm)

    def _key(self, state: EvolutionState, purpose: int) -> Array:
        generation_key = jax.random.fold_in(state.key, state.algorithm.generation_counter)
        return jax.random.fold_in(generation_key, purpose)

    def _with_noise(self, algorithm: Any) -> Any:
        """Set the deviation of the generation to come: evosax evaluates schedules one generation late."""
        if not self._scheduled:
            return algorithm
        std = jnp.asarray(self._noise_std(algorithm.generation_counter), jnp.float32)
        return algorithm.replace(std=jnp.broadcast_to(std, jnp.shape(algorithm.std)))


def _kind_of(name: str) -> Any:
    """Return the class of an algorithm; raise ValueError where there is none, or it is unsuitable."""
    if name in distribution_based_algorithms and name not in UNSUPPORTED:
        return distribution_based_algorithms[name]
    reason = UNSUPPORTED.get(name, "evosax has no distribution-based algorithm of that name")
    usable = [ANTITHETIC, *sorted(distribution_based_algorithms.keys() - UNSUPPORTED.keys())]
    close = difflib.get_close_matches(name, usable, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise ValueError(f"optimizer.algorithm: {name}: {reason}{hint} (usable: {', '.join(usable)})")


def _with_shaping(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with the function that `fitness_shaping_fn` names in place of the name."""
    default = {"fitness_shaping_fn": "identity"} if name == "Open_ES" else {}
    shaped = {**default, **options}
    if "fitness_shaping_fn" in shaped:
        shaping = shaped["fitness_shaping_fn"]
        if shaping not in SHAPING:
            raise ValueError(
                f"optimizer.algorithm_options.fitness_shaping_fn: got {shaping!r}, "
                f"expected one of {', '.join(SHAPING)}"
            )
        shaped["fitness_shaping_fn"] = SHAPING[shaping]
    return shaped


def finite_losses(loss: np.ndarray, paired: bool) -> np.ndarray:
    """Replace losses that are not finite by finite ones; see `Evolution`.

    Args:
        loss: [n, 2].
        paired: the algorithm compares the members of a pair; else it ranks all.
    """
    finite = np.isfinite(loss)
    if finite.all():
        return loss
    if not finite.any():
        return np.zeros_like(loss)
    if paired:
        whole_pairs = finite.all(axis=1, keepdims=True)
        return np.where(whole_pairs, loss, loss[finite].mean())
    last = np.nextafter(loss[finite].max(), np.float32(np.inf))
    return np.where(finite, loss, last)


def _no_metrics(
    key: Any,
    population: Any,
    fitness: Any,
    state: Any,
    params: Any,
) -> dict[str, Any]:
    """Stand in for evosax's metrics, which are as large as the meta-parameters."""
    return {}


@partial(jax.jit, static_argnames=("objective", "learner"))
def _evaluate(
    objective: Objective,
    learner: Learner,
    members: Params,
    tasks: tuple[TaskDistribution, ...],
    trials: Array,
    options: Array,
    key: Array,
) -> tuple[Array, Array, Array]:
    """Evaluate pairs of a population; unlike `evaluate_chunk`, each with members of its own to be handed."""
    # The members of pair i are i and i + half.
    half = jax.tree.leaves(members)[0].shape[0] // 2

    def pairs_of(a: Array) -> Array:
        return jnp.stack([a[trials], a[half + trials]], axis=1)

    pairs = jax.tree.map(pairs_of, members)

    def evaluate(place: tuple[Array, Array, Params], shared: Any) -> MemberResult:
        trial, option, pair = place
        tasks, key = shared
        drawn = objective.draw(learner, tasks, option, key, trial)
        return judge_members(objective, learner, pair, drawn)

    results = map_trials(evaluate, (trials, options, pairs), (tasks, key))
    return results.loss, results.score, jnp.zeros(0)
