"""The word of `vsml rules` that reads a rule off a meta-trained learning algorithm.

    python -m vsml.rules distil digits --out found.rule
    python -m vsml.rules distil mnist14 --dataset mnist --resize 14 14

Nothing that starts JAX is imported before the command runs.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsml.launching.rule_options import check_out
from vsml.system.arguments import not_negative, positive
from vsml.system.files import atomic_write

if TYPE_CHECKING:
    import numpy as np

    from vsml.introspection.distilling import Fit
    from vsml.introspection.experiments import Probe

_EPISODES = 16
_LENGTH = 100
_TERMS = 6
_LEAST = 1e-30  # a probability, of which the logarithm is taken


def add_command(commands: Any) -> None:
    """Add the word to those of a parser.

    Args:
        commands: what `add_subparsers` returned.
    """
    parser = commands.add_parser(
        "distil", help="fit a rule to what a meta-trained VSML does to its weights", description=__doc__
    )
    parser.add_argument(
        "algorithm", metavar="ALGORITHM", help="one that comes with the library, a file, or a run's folder"
    )
    parser.add_argument("--dataset", default="digits", help="its training half is learned (default: digits)")
    parser.add_argument("--resize", nargs=2, type=positive, metavar=("H", "W"), help="size of images")
    parser.add_argument(
        "--episodes",
        type=positive,
        default=_EPISODES,
        help=f"an even number (default: {_EPISODES}); half of them are randomly projected, all have "
        "permuted labels, and twice as many others are for the scores",
    )
    parser.add_argument("--length", type=positive, default=_LENGTH, help="examples of an episode")
    parser.add_argument(
        "--most_terms", type=positive, default=_TERMS, help=f"terms of an equation (default: {_TERMS})"
    )
    parser.add_argument(
        "--weights", type=positive, metavar="TERMS", help="of the rule's weights (default: the fewest)"
    )
    parser.add_argument(
        "--biases", type=not_negative, metavar="TERMS", help="of its biases, 0: none (default: the fewest)"
    )
    parser.add_argument("--as_fitted", action="store_true", help="do not tune coefficients")
    parser.add_argument("--seed", type=not_negative, default=0, help="seed of all that is drawn")
    parser.add_argument(
        "--out", type=Path, metavar="NEW.rule", help="file to write the rule to; its name ends in .rule"
    )
    parser.add_argument("--force", action="store_true", help="write over a file that is there")


def distil(options: argparse.Namespace) -> int:
    """Fit, tune, compare with the teacher, and print the rule, or write it to a file."""
    from scipy.special import softmax

    from vsml.introspection.distilled import rule_text
    from vsml.introspection.distilling import Fit
    from vsml.introspection.distilling import distil as fitted
    from vsml.introspection.effective import effective_weights
    from vsml.introspection.living import Lesson, lived, tuned

    check_out(options.out, options.force)
    if options.episodes % 2:
        raise ValueError(f"--episodes: got {options.episodes}, expected an even number")
    for name in ("weights", "biases"):
        terms = getattr(options, name)
        if terms is not None and terms > options.most_terms:
            raise ValueError(f"--{name}: got {terms}, expected at most --most_terms, {options.most_terms}")
    probe = _probe(options, options.episodes, draw=0)
    effective = effective_weights(probe)
    found = fitted(effective, options.most_terms, seed=options.seed)
    print(found.table(), end="\n\n", flush=True)
    weights = _chosen(found.weights, options.weights)
    biases = None if options.biases == 0 else _chosen(found.biases, options.biases)

    asked = _probe(options, 2 * options.episodes, draw=1)
    inputs = _arrived(asked)
    lesson = Lesson(inputs, asked.labels, asked.learner.num_classes)
    own = Lesson.of(effective)

    def answers_of(weights: Fit, biases: Fit | None) -> "np.ndarray":
        return softmax(lived(weights, biases, lesson), axis=-1)

    print(f"{2 * options.episodes} other episodes: share of right answers; of the last fifth; loss in nats")
    _tell("teacher", asked.answers(), asked.labels)
    delta, _ = tuned(Fit((("s", "e"),), (-8.0,), 0.0, 0.0, ()), None, own)
    _tell(f"dw = {delta}, tuned", answers_of(delta, None), asked.labels)
    _tell(_equations(weights, biases), answers_of(weights, biases), asked.labels)
    if not options.as_fitted:
        weights, biases = tuned(weights, biases, own)
        _tell(f"{_equations(weights, biases)}, tuned", answers_of(weights, biases), asked.labels)
    told = (
        f"Distilled from {Path(options.algorithm).name} on {Path(options.dataset).name}: the equation of "
        f"{len(weights.terms)} terms explains {weights.share:.2f} of the variance of its changes of weights."
    )
    text = rule_text(weights, biases, told)
    if options.out is None:
        print(f"\n{text}", end="")
    else:
        atomic_write(options.out, text)
        print(f"wrote {options.out}", file=sys.stderr)
    return 0


def _chosen(fits: "tuple[Fit, ...]", terms: int | None) -> "Fit":
    """Return the equation of so many terms; None: the shortest good one."""
    from vsml.introspection.distilling import fewest

    return fewest(fits) if terms is None else fits[terms - 1]


def _equations(weights: "Fit", biases: "Fit | None") -> str:
    """Return equations as one line."""
    return f"dw = {weights}" if biases is None else f"dw = {weights}, db = {biases}"


def _probe(options: argparse.Namespace, episodes: int, draw: int) -> "Probe":
    """Return the learning algorithm and episodes, half of which are randomly projected."""
    import jax
    import jax.numpy as jnp

    from vsml.introspection.experiments import Probe
    from vsml.pretrained import load_learner
    from vsml.tasks import build_task, load

    source = load(options.dataset, "train")
    key = jax.random.fold_in(jax.random.key(options.seed), draw)
    episode_keys = jax.random.split(key, episodes)
    halves = []
    for projected in (False, True):
        task = build_task(
            source, options.length, resize=options.resize, permute_labels=True, rand_proj=projected
        )
        halves.append(jax.vmap(task.sample)(episode_keys[int(projected) :: 2]))
    joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *halves)
    loaded = load_learner(options.algorithm, input_shape=task.input_shape, num_classes=task.num_classes)
    return Probe(
        loaded.learner, loaded.params, joined, jax.random.split(jax.random.fold_in(key, 1), episodes)
    )


def _arrived(probe: "Probe") -> "np.ndarray":
    """Return what arrives at the input units of a learner in its episodes, [E, T, I]."""
    import jax
    import numpy as np

    from vsml.introspection.experiments import check_inspectable

    learner = check_inspectable(probe.learner)

    def of_episode(unit: Any) -> Any:
        x, key = unit
        state = learner.init_state(probe.params, key)
        return learner.arriving(probe.params, state, x[:, 0])[..., 0]

    return np.asarray(jax.lax.map(of_episode, (probe.episodes.x, probe.keys)))


def _tell(name: str, probabilities: "np.ndarray", labels: "np.ndarray") -> None:
    """Print how good answers [E, T, O] are."""
    import numpy as np

    last = -max(1, labels.shape[1] // 5)
    right = probabilities.argmax(-1) == labels
    of_labels = np.take_along_axis(probabilities, labels[..., None], -1)
    loss = -np.log(np.maximum(of_labels, _LEAST)).mean()
    print(f"  {right.mean():.3f}  {right[:, last:].mean():.3f}  {loss:.3f}  {name}", flush=True)
