"""Variable Shared Meta Learning: networks of LSTM synapses that learn by running forward.

To use learning algorithms: `vsml.load_learner`, or `vsml.sklearn.VSMLClassifier`. To make them, from Python,
without a configuration file: build tasks with `vsml.tasks`, a learner with `vsml.learners`, an outer loop
with `vsml.meta`, and iterate over `vsml.calls.train.meta_train`. From the command line: `launch.py`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from vsml import moved

if TYPE_CHECKING:
    from vsml.pretrained import load_learner

__all__ = ["load_learner"]

moved.install()


def __getattr__(name: str) -> Any:
    """Import on first use: what reads a configuration or assigns GPUs must not start JAX."""
    if name == "load_learner":
        return importlib.import_module("vsml.pretrained").load_learner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
