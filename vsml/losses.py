"""Losses in nats or squared units, their derivatives that are fed back to learners, the bound on logits."""

import jax
import jax.numpy as jnp

from vsml.types import Array, Outputs, Values


def bound_logits(
    logits: Array,
    bound: float,
) -> Array:
    """Squash logits smoothly into (-bound, bound): `bound * tanh(logits / bound)`.

    Args:
        logits: any shape.
        bound: the bound; 0 leaves the logits as they are.
    """
    return bound * jnp.tanh(logits / bound) if bound > 0 else logits


def bound_answers(
    outputs: Outputs,
    answers: Array,
    bound: float,
) -> Array:
    """Return answers as they are judged: logits bounded, values as they are; see `bound_logits`."""
    return answers if isinstance(outputs, Values) else bound_logits(answers, bound)


def cross_entropy(
    logits: Array,
    labels: Array,
) -> Array:
    """Return the cross-entropy of integer labels in nats, elementwise.

    Args:
        logits: [..., C].
        labels: int [...].

    Returns:
        [...], `-log softmax(logits)[label]`.
    """
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1)[..., 0]


def squared_error(
    answers: Array,
    targets: Array,
) -> Array:
    """Return half the squared error, `sum_d (answer_d - target_d)^2 / 2`, elementwise.

    Args:
        answers: [..., D].
        targets: [..., D].

    Returns:
        [...].
    """
    return jnp.square(answers - targets).sum(-1) / 2


def loss(
    outputs: Outputs,
    answers: Array,
    y: Array,
) -> Array:
    """Return the loss of answers, elementwise: cross-entropy of classes, half the squared error of values.

    Args:
        outputs: what the answers are.
        answers: bounded logits [..., C], or values [..., D].
        y: the targets: labels int [...], or values [..., D].

    Returns:
        [...].
    """
    if isinstance(outputs, Values):
        return squared_error(answers, y)
    return cross_entropy(answers, y)


def error_signal(
    outputs: Outputs,
    answers: Array,
    y: Array,
    taught: Array | None = None,
) -> Array:
    """Return `e = d loss / d answers` of the loss averaged over the inner batch; 0 where nobody is taught.

    Args:
        outputs: what the answers are.
        answers: bounded logits [B, C], or values [B, D].
        y: labels int [B], or values [B, D].
        taught: which elements are told their target, [B]; None: all.

    Returns:
        `(softmax(logits) - one_hot(labels)) / B`, or `(values - targets) / B`, times taught.
    """
    y = known_targets(y, taught)
    if isinstance(outputs, Values):
        difference = answers - y
    else:
        one_hot = jax.nn.one_hot(y, answers.shape[-1], dtype=answers.dtype)
        difference = jax.nn.softmax(answers) - one_hot
    error = difference / answers.shape[0]
    return error if taught is None else taught[:, None] * error


def label_signal(
    outputs: Outputs,
    y: Array,
    taught: Array | None = None,
) -> Array:
    """Return what is fed as the label: labels as one-hot [B, C], or targets [B, D]; 0 where not taught.

    Args:
        outputs: what the targets are of.
        y: labels int [B], or values [B, D].
        taught: which elements are told their target, [B]; None: all.
    """
    y = known_targets(y, taught)
    label = y if isinstance(outputs, Values) else jax.nn.one_hot(y, outputs.size)
    return label if taught is None else taught[:, None] * label


def known_targets(
    y: Array,
    taught: Array | None,
) -> Array:
    """Return targets y [B] or [B, D] with 0 where nobody is taught, where they may be anything, NaN included.

    Args:
        y: the targets.
        taught: which elements are told their target, [B]; None: all.
    """
    if taught is None:
        return y
    is_taught = (taught > 0).reshape(-1, *[1] * (y.ndim - 1))
    return jnp.where(is_taught, y, jnp.zeros_like(y))


def right_answers(
    logits: Array,
    labels: Array,
) -> Array:
    """Return whether the largest logit is that of the label; never where a logit is not finite.

    Args:
        logits: [..., C].
        labels: int [...].

    Returns:
        bool [...].
    """
    return (logits.argmax(-1) == labels) & jnp.isfinite(logits).all(-1)
