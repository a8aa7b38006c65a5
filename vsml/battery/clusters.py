"""Clusters: examples of classes that are normal clouds around random centres, a simple task to disturb."""

import jax

from vsml.types import Array


def clusters(
    key: Array,
    steps: int,
    inputs: int,
    classes: int,
    noise: float,
) -> tuple[Array, Array]:
    """Draw examples of classes whose centres are drawn anew.

    Args:
        key: for all that is drawn.
        steps: T.
        inputs: I.
        classes: C, each as likely.
        noise: standard deviation around a centre, whose coordinates have deviation 1.

    Returns:
        Inputs [T, I] with mean square 1, and labels int32 [T].
    """
    centres_key, labels_key, noise_key = jax.random.split(key, 3)
    centres = jax.random.normal(centres_key, (classes, inputs))
    labels = jax.random.randint(labels_key, (steps,), 0, classes)
    around = noise * jax.random.normal(noise_key, (steps, inputs))
    return (centres[labels] + around) / (1 + noise**2) ** 0.5, labels
