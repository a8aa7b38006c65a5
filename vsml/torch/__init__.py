"""The shipped dense synapse in PyTorch, for those who cannot use JAX.

    from vsml.torch import load_twin

    twin = load_twin("mnist14", input_shape=(14, 14), num_classes=10)
    state, logits = twin.run(twin.start(), images, labels)

Nothing here imports JAX. What the twin computes is said in `vsml.learners.vsml`; a test compares the two.
"""

try:
    from vsml.torch.twin import Twin, TwinState, load_twin
except ImportError as error:
    if error.name != "torch":
        raise
    message = "vsml.torch: PyTorch is not installed; install it with: pip install 'vsml[torch]'"
    raise ImportError(message, name="torch") from error

__all__ = ["Twin", "TwinState", "load_twin"]
