"""Distilled rules: equations of `vsml.introspection.distilling` in the language of rules."""

import textwrap
from collections.abc import Iterator, Mapping

from vsml.introspection.distilling import FACTORS, Fit, Term

_MEMORY: Mapping[str, tuple[str, str]] = {
    "n": ("n : node                   # earlier examples of the class", "n <- n + y if t_on"),
    "m": ("m : node                   # earlier examples", "m <- m + 1 if t_on"),
    "g": ("g : node                   # squared errors so far", "g <- g + t * t if t_on"),
}
"""What counts need: a slot, and its store."""

_WIDTH = 110


def rule_text(
    weights: Fit,
    biases: Fit | None,
    about: str,
) -> str:
    """Write equations as a rule of one layer.

    An input node sends `tanh x`; an output node answers with the mean of what its edges make of it, plus its
    bias. So constants do not depend on the number of inputs.

    Args:
        weights: how a weight changes.
        biases: how the bias of an output changes; None: a rule without biases.
        about: what the comment at its top says.
    """
    constants, move = _sum("c", weights)
    shift = ""
    if biases is not None:
        more, shift = _sum("d", biases)
        constants += more
    code = f"{move} {shift}"
    lines = [f"# {line}" for line in textwrap.wrap(f"{about} Teach mode: error.", _WIDTH)]
    lines += [*constants, *_slots(code, has_bias=biases is not None)]
    if _uses(code, "y") or _uses(code, "n"):
        lines.append("y = t < 0                  # 1 where this output is the class")
    if _uses(code, "v"):
        lines += [f"move = {move}", "v <- move if t_on"]
        move = "move"
    answer = "mean(w * rev(s), incoming)"
    lines.append("s <- tanh(x) if x_on")
    lines.append(f"a <- {answer} + bias" if shift else f"a <- {answer}")
    lines.append(f"w <- w + {move} if t_on")
    if shift:
        lines.append(f"bias <- bias + {shift} if t_on")
    lines += [store for name, (_, store) in _MEMORY.items() if _uses(code, name)]
    return "\n".join([*lines, "out = a", ""])


def _slots(code: str, has_bias: bool) -> Iterator[str]:
    """Yield the declarations of the memory that some code needs."""
    yield "w : edge shared(owner) = 0"
    if _uses(code, "v"):
        yield "v : edge shared(owner) = 0 # the last change of w"
    yield "s : edge                   # what an input sends"
    yield "a : node"
    if has_bias:
        yield "bias : node"
    for name, (declaration, _) in _MEMORY.items():
        if _uses(code, name):
            yield declaration


def _uses(code: str, name: str) -> bool:
    """Return whether a name stands in some code."""
    for sign in "()+*/":
        code = code.replace(sign, " ")
    return name in code.split()


def _sum(
    letter: str,
    fit: Fit,
) -> tuple[list[str], str]:
    """Return the lines of constants that may be tuned, and the sum of terms."""
    constants = []
    parts = []
    for number, (term, coefficient) in enumerate(zip(fit.terms, fit.coefficients, strict=True), 1):
        constants.append(f"@{letter}{number} = {coefficient:.4g}")
        parts.append(_product(f"{letter}{number}", term))
    return constants, " + ".join(parts)


def _product(
    constant: str,
    term: Term,
) -> str:
    """Return a constant times a term; divisions come with their sign."""
    text = constant
    for factor in term:
        code = FACTORS[factor]
        text += f" {code}" if code.startswith("/") else f" * {code}"
    return text
