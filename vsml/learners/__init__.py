"""Learning algorithms, one a file. A new one is a file here and a line in `LEARNERS`."""

from collections.abc import Callable, Sequence

from vsml.learners.base import Learner, continue_episode, run_episode
from vsml.learners.continual_backprop import ContinualBackprop
from vsml.learners.ensemble import Ensemble
from vsml.learners.fast_weights import FastWeights
from vsml.learners.floor import Floor
from vsml.learners.fw_memory import FwMemory
from vsml.learners.hebbian import Hebbian
from vsml.learners.kernel_ridge import KernelRidge
from vsml.learners.least_squares import LeastSquares
from vsml.learners.meta_rnn import MetaRnn
from vsml.learners.naive_bayes import NaiveBayes
from vsml.learners.nearest_mean import NearestMean
from vsml.learners.neighbours import Neighbours
from vsml.learners.ngrams import Ngrams
from vsml.learners.rule import RuleLearner
from vsml.learners.sgd import Sgd
from vsml.learners.upgd import Upgd
from vsml.learners.vsml import Vsml, VsmlState
from vsml.registry import Registry, section_of
from vsml.settings import Section
from vsml.types import Outputs, as_outputs

LEARNERS: Registry[Callable[..., Learner]] = Registry(
    "learner",
    "vsml.learners",
    {
        "vsml": Vsml.from_config,
        "meta_rnn": MetaRnn,
        "hebbian": Hebbian,
        "fwp": FastWeights,
        "fw_memory": FwMemory,
        "sgd": Sgd,
        "rule": RuleLearner,
        "upgd": Upgd,
        "continual_backprop": ContinualBackprop,
        "neighbours": Neighbours,
        "kernel_ridge": KernelRidge,
        "least_squares": LeastSquares,
        "nearest_mean": NearestMean,
        "naive_bayes": NaiveBayes,
        "ngrams": Ngrams,
        "floor": Floor,
    },
)
"""What `model.type` may name, and what builds it from input_shape, outputs and config, a section.

`LEARNERS.resolve` also finds what installed packages name in the group `vsml.learners`, and
`package.module:Name`.
"""

__all__ = [
    "LEARNERS",
    "ContinualBackprop",
    "Ensemble",
    "FastWeights",
    "Floor",
    "FwMemory",
    "Hebbian",
    "KernelRidge",
    "Learner",
    "LeastSquares",
    "MetaRnn",
    "NaiveBayes",
    "NearestMean",
    "Neighbours",
    "Ngrams",
    "RuleLearner",
    "Sgd",
    "Upgd",
    "Vsml",
    "VsmlState",
    "continue_episode",
    "make_learner",
    "run_episode",
]


def config_type(name: str) -> type[Section]:
    """Return the section of a learner's settings: the type of the `config` that it is built with.

    Args:
        name: as `LEARNERS.resolve` takes it.

    Raises:
        ValueError: there is no such learner, or it is not built with a section.
    """
    return section_of(LEARNERS.resolve(name))


def make_learner(name: str, settings: Section, input_shape: Sequence[int], outputs: Outputs | int) -> Learner:
    """Build a learner.

    Args:
        name: as `LEARNERS.resolve` takes it: of this library, of an installed package, or
            `package.module:Name`.
        settings: its section of the configuration.
        input_shape: shape of one input.
        outputs: what it answers with; an int is a number of classes.

    Raises:
        ValueError: there is no such learner, or it refuses its settings, shapes or outputs.
    """
    return LEARNERS.resolve(name)(tuple(input_shape), as_outputs(outputs), settings)
