"""Lives of equations: what a layer answers whose weights follow distilled equations, and their constants.

The rule that `vsml.introspection.distilled` writes computes the same, node by node and tick by tick. Here it
is a few products of arrays, fast enough to tune constants by the gradient through whole episodes.
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

from vsml.introspection.distilling import Fit, Term, fading, values_of
from vsml.introspection.effective import Effective
from vsml.losses import cross_entropy, error_signal, label_signal
from vsml.types import Array, Classes


@dataclass(frozen=True)
class Lesson:
    """Episodes to learn.

    Attributes:
        x: what arrives at input units, [E, T, I].
        y: labels [E, T].
        classes: how many there are, O.
    """

    x: np.ndarray
    y: np.ndarray
    classes: int

    @classmethod
    def of(cls, effective: Effective) -> "Lesson":
        """Return the episodes in which effective weights were measured."""
        return cls(effective.inputs, effective.labels.argmax(-1), effective.labels.shape[-1])


@dataclass(frozen=True)
class Equation:
    """How weights and biases change.

    Attributes:
        weights: terms of the change of a weight.
        biases: terms of the change of a bias; none: there are no biases.
    """

    weights: tuple[Term, ...]
    biases: tuple[Term, ...]

    @classmethod
    def of(cls, weights: Fit, biases: Fit | None) -> "Equation":
        """Return the equation of two fits."""
        return cls(weights.terms, () if biases is None else biases.terms)

    def answers(self, constants: Array, x_TxI: Array, y_T: Array, classes: int) -> Array:
        """Return the logits [T, O] of a layer that begins with weights 0 and learns after each answer.

        Args:
            constants: of the terms of weights, then of those of biases.
            x_TxI: inputs.
            y_T: labels.
            classes: O.
        """
        outputs = Classes(classes)
        of_weights = constants[: len(self.weights)]
        of_biases = constants[len(self.weights) :]

        def step(held: dict[str, Array], example: tuple[Array, Array]) -> tuple[dict[str, Array], Array]:
            x_I, label = example
            sent_Ix1 = jnp.tanh(x_I)[:, None]
            logits_O = (held["w"] * sent_Ix1).mean(0) + held["b"]
            error_O = error_signal(outputs, logits_O[None], label[None])[0]
            label_O = label_signal(outputs, label[None])[0]
            told = {"e": error_O, "y": label_O, "b": held["b"]}
            told |= fading(held["n"], held["m"], held["g"])
            signals = {name: value[None] for name, value in told.items()}
            signals |= {"s": sent_Ix1, "|s|": jnp.abs(sent_Ix1), "w": held["w"], "v": held["v"]}
            move = _total(of_weights, self.weights, signals, held["w"])
            shift = _total(of_biases, self.biases, told, held["b"])
            after = {
                "w": held["w"] + move,
                "v": move,
                "b": held["b"] + shift,
                "n": held["n"] + label_O,
                "m": held["m"] + 1,
                "g": held["g"] + error_O**2,
            }
            return after, logits_O

        of_synapses = jnp.zeros((x_TxI.shape[1], classes))
        of_outputs = jnp.zeros(classes)
        start = {"w": of_synapses, "v": of_synapses} | dict.fromkeys("bnmg", of_outputs)
        _, logits_TxO = jax.lax.scan(step, start, (x_TxI, y_T))
        return logits_TxO


def _total(constants: Array, terms: tuple[Term, ...], signals: dict[str, Array], like: Array) -> Array:
    """Return a sum of terms, of the shape of what it changes."""
    total = jnp.zeros_like(like)
    for constant, term in zip(constants, terms, strict=True):
        total = total + constant * values_of(term, signals)
    return total


def lived(weights: Fit, biases: Fit | None, lesson: Lesson) -> np.ndarray:
    """Return the logits [E, T, O] with which a layer answers that learns by these equations."""
    constants = jnp.asarray(_coefficients(weights, biases), jnp.float32)
    equation = Equation.of(weights, biases)
    return np.asarray(_answers(equation, constants, lesson.x, lesson.y, lesson.classes))


def _coefficients(weights: Fit, biases: Fit | None) -> np.ndarray:
    """Return the coefficients of both, in one row."""
    of_biases = () if biases is None else biases.coefficients
    return np.array([*weights.coefficients, *of_biases])


@partial(jax.jit, static_argnames=("equation", "classes"))
def _answers(equation: Equation, constants: Array, x: Array, y: Array, classes: int) -> Array:
    return jax.vmap(lambda x, y: equation.answers(constants, x, y, classes))(x, y)


def tuned(
    weights: Fit,
    biases: Fit | None,
    lesson: Lesson,
    rounds: int = 50,
) -> tuple[Fit, Fit | None]:
    """Tune coefficients by the gradient through episodes (L-BFGS), from those that were fitted.

    What is lowered is the mean cross-entropy of all answers.

    Args:
        weights: the equation of weights; no coefficient is 0.
        biases: that of biases, if there are any.
        lesson: the episodes.
        rounds: of the optimizer, at most.

    Returns:
        The equations with other coefficients. What they explain is as it was.
    """
    equation = Equation.of(weights, biases)
    start = _coefficients(weights, biases)

    @jax.jit
    @jax.value_and_grad
    def loss(factors: Array) -> Array:
        logits = _answers(equation, factors * start, lesson.x, lesson.y, lesson.classes)
        return cross_entropy(logits, jnp.asarray(lesson.y)).mean()

    def objective(factors: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = loss(jnp.asarray(factors, jnp.float32))
        return float(value), np.asarray(slope, np.float64)

    # Coefficients are of different sizes: their factors are what is searched for.
    ones = np.ones_like(start)
    found = minimize(objective, ones, jac=True, method="L-BFGS-B", options={"maxiter": rounds})
    best = tuple(map(float, found.x * start))
    count = len(weights.terms)
    better = replace(weights, coefficients=best[:count])
    return better, None if biases is None else replace(biases, coefficients=best[count:])
