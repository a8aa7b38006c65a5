"""VSML from flat keywords: nested settings would hide what a test is about."""

from vsml.learners import Vsml
from vsml.learners.flat import nested
from vsml.learners.vsml import ConvConfig, VsmlConfig
from vsml.settings import deep_merge


def flat_vsml(input_shape, outputs, hidden=(), kind=Vsml, **settings):
    """Build VSML; hidden layers are numbers of units or sections, other names are of vsml.learners.flat."""
    return kind(input_shape, outputs, VsmlConfig.model_validate(nested({"hidden": hidden, **settings})))


def changed(learner, **settings):
    """Return the learner with other settings."""
    config = deep_merge(learner.config.model_dump(), nested(settings))
    return type(learner)(learner.input_shape, learner.outputs, VsmlConfig.model_validate(config))


def conv(channels, kernel_size=3, stride=1, axes=2):
    """Return the section of a convolution."""
    kind = {1: "conv1d", 2: "conv"}[axes]
    return ConvConfig(type=kind, out_channels=channels, kernel_size=kernel_size, stride=stride)
