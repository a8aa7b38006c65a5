"""Runs: their directory, metrics, checkpoints, progress on the terminal, and wandb."""

from vsml.moved import old_names

__getattr__ = old_names(__name__)
