"""The files of runs.

A run has a `directory` with a lock, `metrics`, an `environment` and `checkpoint` files; `progress` shows it
on the terminal, `wandb` copies it to that service, and `reading` reads back what a run has left.
"""

from vsml.moved import old_names

__getattr__ = old_names(__name__)
