"""The configuration: its schema, YAML files and command-line settings, arrays of runs, its reference."""

from vsml.moved import old_names

__getattr__ = old_names(__name__)
