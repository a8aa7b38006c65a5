"""Variable Shared Meta Learning: networks of LSTM synapses that learn by running forward.

To use learning algorithms: `vsml.load_learner`, or `vsml.VSMLClassifier` and `vsml.VSMLRegressor`. To make
them, from Python, without a configuration file: build tasks with `vsml.tasks`, a learner with
`vsml.learners`, an outer loop with `vsml.meta`, and iterate over `vsml.meta_train`. From the command line:
`vsml run`, which is `launch.py` in a checkout.
"""

import importlib
from typing import TYPE_CHECKING, Any

from vsml import moved

if TYPE_CHECKING:
    from vsml.meta.step import meta_train
    from vsml.pretrained import load_learner
    from vsml.sklearn import VSMLClassifier, VSMLRegressor

__version__ = "0.2.0"
"""The one place that says it: the package's metadata are made of it."""

__all__ = ["VSMLClassifier", "VSMLRegressor", "load_learner", "meta_train"]

_MODULES = {
    "VSMLClassifier": "vsml.sklearn",
    "VSMLRegressor": "vsml.sklearn",
    "load_learner": "vsml.pretrained",
    "meta_train": "vsml.meta.step",
}
"""Where what is offered at the door is."""

moved.install()


def __getattr__(name: str) -> Any:
    """Import on first use: what reads a configuration or assigns GPUs must not start JAX."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return what there is, and what is offered, for completion in a shell."""
    return sorted({*globals(), *__all__})
