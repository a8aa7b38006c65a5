"""Rational functions close to tanh: coefficients of the smallest maximal error, for `kernels/activations.py`.

    python tools/tanh.py [--above 2] [--below 2] [--bounds 4 4.5 5 5.5 6]

Of x P(x^2) / Q(x^2) on [0, bound], with P and Q of the degrees given, it prints for each bound the largest
error below the bound, that above it (where x is clamped), and the coefficients, scaled so that the highest of
Q is 1. By differential correction: the best change of P and Q is a linear program, solved until nothing gets
better. Needs scipy.
"""

import argparse

import numpy as np
from scipy.optimize import linprog

POINTS = 1500
MOST_ROUNDS = 40
IMPROVEMENT = 1e-6
"""What a round has to take from the error, as a share of it."""


def fit(above: int, below: int, bound: float) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the largest error and the coefficients of P and of Q, that of the lowest power first.

    Args:
        above: degree of P.
        below: degree of Q.
        bound: where x is clamped.
    """
    x = bound * np.linspace(0, 1, POINTS) ** 1.3
    square = (x / bound) ** 2
    powers_P = x[:, None] * square[:, None] ** np.arange(above + 1)
    powers_Q = square[:, None] ** np.arange(below + 1)
    want = np.tanh(x)[:, None]

    error, best = 1.0, None
    Q_now = np.ones_like(x)
    for _ in range(MOST_ROUNDS):
        # Minimise z where |want Q - P| - error Q <= z Q_now, and Q(0) = 1.
        over = [-powers_P, (want - error) * powers_Q, -Q_now[:, None]]
        under = [powers_P, (-want - error) * powers_Q, -Q_now[:, None]]
        rows = np.vstack([np.hstack(over), np.hstack(under)])
        numbers = rows.shape[1]
        at_zero = np.zeros((1, numbers))
        at_zero[0, above + 1] = 1
        objective = np.zeros(numbers)
        objective[-1] = 1
        found = linprog(objective, rows, np.zeros(len(rows)), at_zero, [1], bounds=(None, None))
        if found.status:
            break
        P, Q = np.split(found.x[:-1], [above + 1])
        Q_found = powers_Q @ Q
        if Q_found.min() <= 0:
            break
        found_error = abs(want[:, 0] - powers_P @ P / Q_found).max()
        if best is not None and found_error > error * (1 - IMPROVEMENT):
            break
        error, best, Q_now = found_error, (P, Q), Q_found
    if best is None:
        raise RuntimeError(f"nothing found for degrees {above} and {below} up to {bound}")
    P, Q = best
    P, Q = P / bound ** (2 * np.arange(above + 1)), Q / bound ** (2 * np.arange(below + 1))
    return error, P / Q[-1], Q / Q[-1]


def main() -> None:
    """Print a line for each bound."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--above", type=int, default=2, help="degree of P, in x^2")
    parser.add_argument("--below", type=int, default=2, help="degree of Q, in x^2")
    parser.add_argument(
        "--bounds", type=float, nargs="+", default=[4, 4.5, 5, 5.5, 6], help="where x is clamped"
    )
    options = parser.parse_args()
    for bound in options.bounds:
        error, P, Q = fit(options.above, options.below, bound)
        last = bound * np.polyval(P[::-1], bound**2) / np.polyval(Q[::-1], bound**2)
        print(f"{bound}: error {error:.2e}, clamped {abs(1 - last):.2e}")
        print(f"    P {', '.join(f'{number:.9g}' for number in P)}")
        print(f"    Q {', '.join(f'{number:.9g}' for number in Q)}")


if __name__ == "__main__":
    main()
