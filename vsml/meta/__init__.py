"""The outer loop: what finds meta-parameters."""

from vsml.meta.antithetic import AntitheticEvolution
from vsml.meta.evolution import Evolution
from vsml.meta.gradient import BackPropagation
from vsml.meta.objective import group_units, meta_adam

__all__ = ["AntitheticEvolution", "BackPropagation", "Evolution", "group_units", "meta_adam"]
