"""What a run to be will come to, by the laws that are on file."""

from collections.abc import Iterable
from pathlib import Path

from vsml.laws.files import law_files, read_law
from vsml.laws.plan import TRUSTED, sizes_of
from vsml.laws.runs import what_matters
from vsml.laws.summary import best_law
from vsml.setup import Setup

_RESAMPLES = 200
"""Draws of runs: fewer than for a law that is printed, so that nobody waits for a dry run."""


def predicted_lines(setup: Setup, paths: Iterable[Path] | None = None) -> list[str]:
    """Return a line for each law that applies to a run; none where there is no such law.

    A file that cannot be read is told of, and is no reason to end a dry run.

    Args:
        setup: of the run.
        paths: files of laws; None: those of the user, and those that come with the library.
    """
    training, _ = what_matters(setup)
    found = []
    for path in law_files() if paths is None else paths:
        try:
            family = read_law(path)
        except (ValueError, OSError) as error:
            found.append(f"no prediction: {error}")
            continue
        sizes = sizes_of(training, family)
        if sizes is None:
            continue
        law = best_law(family, _RESAMPLES)
        prediction = law.predict(sizes)
        value, run = prediction.law.value, prediction.run
        beyond = float((sizes / family.points.x.max(axis=0)).max())
        where = f", {beyond:.3g} times beyond what was measured" if beyond > 1 else ""
        guess = ": a guess" if beyond > TRUSTED else ""
        found.append(
            f"predicted: loss on {family.loss} {value:.3f} nats, of one run {run.low:.3f} to {run.high:.3f} "
            f"(95 %), by the law {law.form.formula} of {path.name}{where}{guess}"
        )
    return found
