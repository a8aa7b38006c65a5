"""The cost of a step, the bound that a machine sets, and the time on a number of ranks."""

from vsml.moved import old_names

__getattr__ = old_names(__name__)
