"""A synapse of an episodic memory that knows how to learn: the label is stored beside back-propagation.

What arrives is in `vsml.networks.episodic`. One cell keeps the label of the example in its slot: its input
gate opens while the slot is written (channel 4 of the forward message). What it writes is 3 times the label
(channel 1 of the backward message), so that it holds tanh(3) y. It is sent in channel 1 alone, which is read
by the softmax over slots: with a gain of G answers are G times the label of the nearest examples,

    y = G sum_s softmax_s(-b d_s / d) label_s,

the soft nearest-neighbour classifier. The cells that do back-propagation (`vsml.networks.written`) are sent
in channel 0 alone, which is read by the smooth kernel: gradient descent on a sum of kernels. All other cells
send nothing at first.

With a ridge the label is sent in channel 5, too, which is read by the weights of kernel ridge regression. So
a gain of G adds G times what that regression answers from the labels in the memory.
"""

import math

from vsml.networks.episodic import NEAREST, NEW, RIDGE
from vsml.networks.written import cells_of
from vsml.types import Params

_OPENED = 15.0  # what a written slot adds to the input gate
_SHUT = -5.0  # beside what every input gate is lower by
_LABEL = 3.0
_KEEP = 10.0
_SENT = 5.0  # the output gate is open


def label_cell(state_size: int) -> int:
    """Return the number of the cell that keeps the label: the one before those of back-propagation."""
    return state_size - cells_of("tanh") - 1


def remembering(
    synapse: Params,
    has_ridge: bool = False,
) -> Params:
    """Return a synapse that keeps the label of the example in its slot.

    Args:
        synapse: meta-parameters with back-propagation in their last cells, `back_propagating` of tanh.
        has_ridge: whether the label is read by kernel ridge regression, too.
    """
    N, M = synapse["forward_message"]["kernel"].shape
    cell = label_cell(N)
    i, g, f, o = range(4)
    kernel = synapse["lstm"]["kernel"].reshape(2 * M + N, 4, N)
    bias = synapse["lstm"]["bias"].reshape(4, N)
    label = M + 1  # channel 1 of the backward message

    kernel = kernel.at[:, :, cell].set(0.0)
    kernel = kernel.at[label, g, cell].set(_LABEL)
    kernel = kernel.at[NEW, i, cell].set(_OPENED)
    bias = bias.at[i, cell].set(_SHUT)
    bias = bias.at[g, cell].set(0.0)
    bias = bias.at[f, cell].set(_KEEP)
    bias = bias.at[o, cell].set(_SENT)

    sent = synapse["forward_message"]["kernel"]
    others = N - cells_of("tanh")
    sent = sent.at[:others].set(0.0)
    for channel in (NEAREST, RIDGE) if has_ridge else (NEAREST,):
        sent = sent.at[:, channel].set(0.0)
        sent = sent.at[cell, channel].set(1 / held_label())

    remembers = dict(synapse)
    remembers["lstm"] = {"kernel": kernel.reshape(-1, 4 * N), "bias": bias.reshape(-1)}
    remembers["forward_message"] = {**synapse["forward_message"], "kernel": sent}
    return remembers


def held_label() -> float:
    """Return what the cell answers when it was written with a label of 1."""
    opened = _sigmoid(_OPENED + _SHUT - 5.0)
    held = opened * math.tanh(_LABEL)
    return _sigmoid(_SENT) * math.tanh(held)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))
