"""Children of rules: one mutation after the other."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vsml.search.genome import Genome
from vsml.search.mutation import MUTATIONS, mutate_genomes
from vsml.search.settings import Drawing, Mutations
from vsml.types import Array


def offspring(
    drawing: Drawing,
    mutations: Mutations,
    parents: Genome,
    others: Genome,
    counts: np.ndarray,
    key: Array,
) -> tuple[Genome, list[list[str]]]:
    """Return a child of each parent, and the names of its mutations.

    Args:
        drawing: how new expressions are drawn.
        mutations: weights of the changes.
        parents: with a leading axis [n].
        others: rules that crossover takes slots from, [n].
        counts: mutations of each child, int [n].
        key: of all that is drawn.
    """
    children = parents
    names: list[list[str]] = [[] for _ in counts]
    for turn in range(int(counts.max(initial=0))):
        changed, numbers = mutate_genomes(drawing, mutations, children, others, jax.random.fold_in(key, turn))
        goes_on = counts > turn
        children = _where(goes_on, changed, children)
        chosen = np.asarray(numbers)
        for place in np.flatnonzero(goes_on).tolist():
            names[place].append(list(MUTATIONS)[chosen[place]])
    return children, names


def _where(condition: np.ndarray, new: Genome, old: Genome) -> Genome:
    """Return genomes [n], the new ones where a condition [n] holds."""

    def chosen(one: Any, other: Any) -> Array:
        shape = (len(condition), *(1,) * (one.ndim - 1))
        return jnp.where(condition.reshape(shape), one, other)

    return jax.tree.map(chosen, new, old)
