"""Forms of laws: what a loss may depend on, and how.

A law is a sum of positive terms, each a positive coefficient times a function of the sizes and of a few
numbers that it is not linear in, its *shape*:

    power        E + A x^-a             shape (a)
    two_powers   E + A n^-a + B d^-b    shape (a, b); Hoffmann et al. 2022, arXiv 2203.15556, equation 2
    saturating   E + A (x + x_0)^-a     shape (a, log x_0); flat below x_0
    broken       E + A x^-a (1 + (x / x_0)^(1/f))^(-c f)
                                        shape (a, c, log x_0); a below x_0, a + c above it: Caballero et al.
                                        2023, arXiv 2210.14891, with one break and a fixed f
    constant     E                      nothing is gained

Terms are handled as logarithms, so that no size is too large. An exponent may be negative: then more is
worse.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

BREAK_WIDTH = 0.25
"""The f of a broken law: its exponent changes within about a factor of exp(4 f) = e around x_0."""

EXPONENTS = np.concatenate([-np.geomspace(1.0, 0.03, 7), np.geomspace(0.02, 3.5, 29)])
"""Exponents that a search starts from."""

Terms = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Form:
    """What a law looks like before its numbers are known.

    Attributes:
        name: of the form.
        formula: as a reader writes it.
        variables: how many sizes it depends on.
        coefficients: names of what it is linear in.
        shape: names of what it is not linear in.
        exponents: which of the shape are exponents, each with the number of the size that it belongs to.
        terms: takes shapes [..., Q] and logarithms of sizes [n, V]; returns logarithms of the terms
            [..., K, n] without their coefficients, and the derivatives of those by the shape [..., K, Q, n].
        starts: takes logarithms of sizes [n, V]; returns shapes [g, Q] that a search starts from.
    """

    name: str
    formula: str
    variables: int
    coefficients: tuple[str, ...]
    shape: tuple[str, ...]
    exponents: tuple[tuple[str, int], ...]
    terms: Callable[[np.ndarray, np.ndarray], Terms]
    starts: Callable[[np.ndarray], np.ndarray]

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of all numbers of a law: coefficients, then its shape."""
        return self.coefficients + self.shape


def _no_terms(shape: np.ndarray, log_x: np.ndarray, count: int) -> Terms:
    """Return terms [..., K, n] of 1, and derivatives [..., K, Q, n] of 0."""
    lead, sizes = shape.shape[:-1], len(log_x)
    return np.zeros((*lead, count, sizes)), np.zeros((*lead, count, shape.shape[-1], sizes))


def _constant_terms(shape: np.ndarray, log_x: np.ndarray) -> Terms:
    return _no_terms(shape, log_x, 1)


def _power_terms(shape: np.ndarray, log_x: np.ndarray) -> Terms:
    terms, slopes = _no_terms(shape, log_x, 2)
    terms[..., 1, :] = -shape[..., 0, None] * log_x[:, 0]
    slopes[..., 1, 0, :] = -log_x[:, 0]
    return terms, slopes


def _two_power_terms(shape: np.ndarray, log_x: np.ndarray) -> Terms:
    terms, slopes = _no_terms(shape, log_x, 3)
    for number in range(2):
        terms[..., number + 1, :] = -shape[..., number, None] * log_x[:, number]
        slopes[..., number + 1, number, :] = -log_x[:, number]
    return terms, slopes


def _saturating_terms(shape: np.ndarray, log_x: np.ndarray) -> Terms:
    terms, slopes = _no_terms(shape, log_x, 2)
    exponent, offset = shape[..., 0, None], shape[..., 1, None]
    log_sum = np.logaddexp(log_x[:, 0], offset)
    terms[..., 1, :] = -exponent * log_sum
    slopes[..., 1, 0, :] = -log_sum
    slopes[..., 1, 1, :] = -exponent * np.exp(offset - log_sum)
    return terms, slopes


def _broken_terms(shape: np.ndarray, log_x: np.ndarray) -> Terms:
    terms, slopes = _no_terms(shape, log_x, 2)
    exponent, change, place = shape[..., 0, None], shape[..., 1, None], shape[..., 2, None]
    beyond = (log_x[:, 0] - place) / BREAK_WIDTH
    bend = BREAK_WIDTH * np.logaddexp(0.0, beyond)
    terms[..., 1, :] = -exponent * log_x[:, 0] - change * bend
    slopes[..., 1, 0, :] = -log_x[:, 0]
    slopes[..., 1, 1, :] = -bend
    slopes[..., 1, 2, :] = change * np.exp(beyond - np.logaddexp(0.0, beyond))
    return terms, slopes


def _products(*axes: np.ndarray) -> np.ndarray:
    """Return all combinations [g, Q], the first axis slowest."""
    grids = np.meshgrid(*axes, indexing="ij")
    return np.stack([grid.ravel() for grid in grids], axis=-1)


def _inner(log_x: np.ndarray, count: int) -> np.ndarray:
    """Return places from the smallest to the largest size of the first variable."""
    return np.linspace(log_x[:, 0].min(), log_x[:, 0].max(), count)


CONSTANT = Form("constant", "E", 1, ("E",), (), (), _constant_terms, starts=lambda log_x: np.zeros((1, 0)))
POWER = Form(
    "power",
    "E + A x^-a",
    1,
    ("E", "A"),
    ("a",),
    (("a", 0),),
    _power_terms,
    starts=lambda log_x: EXPONENTS[:, None],
)
TWO_POWERS = Form(
    "two_powers",
    "E + A n^-a + B d^-b",
    2,
    ("E", "A", "B"),
    ("a", "b"),
    (("a", 0), ("b", 1)),
    _two_power_terms,
    starts=lambda log_x: _products(EXPONENTS[::2], EXPONENTS[::2]),
)
SATURATING = Form(
    "saturating",
    "E + A (x + x_0)^-a",
    1,
    ("E", "A"),
    ("a", "log x_0"),
    (("a", 0),),
    _saturating_terms,
    starts=lambda log_x: _products(EXPONENTS, _inner(log_x, 6)),
)
BROKEN = Form(
    "broken",
    "E + A x^-a (1 + (x/x_0)^4)^(-c/4)",
    1,
    ("E", "A"),
    ("a", "c", "log x_0"),
    (("a", 0),),
    _broken_terms,
    starts=lambda log_x: _products(EXPONENTS[::2], np.array([-1.0, -0.3, 0.3, 1.0]), _inner(log_x, 7)[1:-1]),
)

FORMS = {form.name: form for form in (CONSTANT, POWER, TWO_POWERS, SATURATING, BROKEN)}
"""Forms by name."""

ALTERNATIVES = {"power": (CONSTANT, SATURATING, BROKEN)}
"""What a form is held against: another law may tell the same points as well, or better."""
