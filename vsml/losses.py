"""Cross-entropy in nats, its derivative that is fed back to learners, and the bound on logits."""

import jax
import jax.numpy as jnp

from vsml.types import Array


def bound_logits(logits: Array, bound: float) -> Array:
    """Squash logits smoothly into (-bound, bound): `bound * tanh(logits / bound)`.

    Args:
        logits: any shape.
        bound: the bound; 0 leaves the logits as they are.
    """
    return bound * jnp.tanh(logits / bound) if bound > 0 else logits


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Return the cross-entropy of integer labels in nats, elementwise.

    Args:
        logits: [..., C].
        labels: int [...].

    Returns:
        [...], `-log softmax(logits)[label]`.
    """
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1)[..., 0]


def error_signal(logits: Array, labels: Array) -> Array:
    """Return `e = d loss / d logits` of the cross-entropy averaged over the inner batch.

    Args:
        logits: bounded logits [B, C].
        labels: int [B].

    Returns:
        [B, C], `(softmax(logits) - one_hot(labels)) / B`.
    """
    one_hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return (jax.nn.softmax(logits) - one_hot) / logits.shape[0]


def right_answers(logits: Array, labels: Array) -> Array:
    """Return whether the largest logit is that of the label; never where a logit is not finite.

    Args:
        logits: [..., C].
        labels: int [...].

    Returns:
        bool [...].
    """
    return (logits.argmax(-1) == labels) & jnp.isfinite(logits).all(-1)
