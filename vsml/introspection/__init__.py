"""Experiments on learning algorithms, and their figures."""

from vsml.moved import old_names

__getattr__ = old_names(__name__)
