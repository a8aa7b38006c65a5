"""The synapses of one dense layer in PyTorch: one LSTM cell for all, and the messages that they send.

The equations are those of `vsml.networks.cells.lstm`. Letters: I fan-in, O fan-out, M channels of a message,
N numbers of a state.
"""

from collections.abc import Mapping

import torch

GATE_OFFSET = 5.0
"""Added to the forget gate and taken from the input gate, so that a fresh synapse keeps its state."""


class Synapse(torch.nn.Module):
    """The meta-parameters of one synapse, shared by all of a layer.

    Attributes:
        forward_rows, backward_rows, hidden_rows: of the LSTM's kernel, [M, 4N], [M, 4N] and [N, 4N]; columns
            (i, g, f, o).
        bias: [4N].
        forward_kernel, backward_kernel: from h to the messages, [N, M].
        forward_bias, backward_bias: [M].
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take the tensors of a file, by their names there without `params/NUMBER/`.

        Raises:
            ValueError: one is missing, one is not expected, or shapes do not go together.
        """
        super().__init__()
        _check(tensors)
        message_size = tensors["forward_message/bias"].shape[0]
        kernel = tensors["lstm/kernel"]
        self.forward_rows = _parameter(kernel[:message_size])
        self.backward_rows = _parameter(kernel[message_size : 2 * message_size])
        self.hidden_rows = _parameter(kernel[2 * message_size :])
        self.bias = _parameter(tensors["lstm/bias"])
        self.forward_kernel = _parameter(tensors["forward_message/kernel"])
        self.forward_bias = _parameter(tensors["forward_message/bias"])
        self.backward_kernel = _parameter(tensors["backward_message/kernel"])
        self.backward_bias = _parameter(tensors["backward_message/bias"])

    @property
    def message_size(self) -> int:
        """M."""
        return self.forward_bias.shape[0]

    @property
    def state_size(self) -> int:
        """N."""
        return self.hidden_rows.shape[0]

    def visit(
        self,
        h: torch.Tensor,
        c: torch.Tensor,
        forward: torch.Tensor,
        backward: torch.Tensor,
        micro_ticks: int,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Let all synapses tick, with the messages that they receive held fixed.

        Args:
            h: hidden states [I, O, N].
            c: cell states [I, O, N].
            forward: message of each input unit, [I, M].
            backward: message of each output unit, [O, M].
            micro_ticks: how many ticks.

        Returns:
            The new h and c, and the message [O, M] that each output unit sends on.
        """
        # A message is the same for all synapses of its unit.
        from_input = forward @ self.forward_rows + self.bias
        from_output = backward @ self.backward_rows
        messages = from_input[:, None] + from_output[None]
        for _ in range(micro_ticks):
            h, c = self._tick(messages + h @ self.hidden_rows, c)
        # All is linear, so the mean of the messages is the message of the mean.
        sent = h.mean(0) @ self.forward_kernel + self.forward_bias
        return h, c, sent

    def _tick(
        self,
        gates: torch.Tensor,
        c: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the new h and c [I, O, N] from what the gates receive, [I, O, 4N], and c."""
        i, g, f, o = gates.chunk(4, dim=-1)
        keep = torch.sigmoid(f + GATE_OFFSET)
        write = torch.sigmoid(i - GATE_OFFSET)
        c = keep * c + write * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


def _parameter(tensor: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(tensor.clone())


def _check(tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse tensors that are not those of one synapse."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    kernel = shapes.get("forward_message/kernel", (0, 0))
    state_size, message_size = kernel
    expected = {
        "lstm/kernel": (2 * message_size + state_size, 4 * state_size),
        "lstm/bias": (4 * state_size,),
        "forward_message/kernel": kernel,
        "forward_message/bias": (message_size,),
        "backward_message/kernel": kernel,
        "backward_message/bias": (message_size,),
    }
    if shapes != expected:
        raise ValueError(f"synapse: got tensors {shapes}, expected {expected}")
