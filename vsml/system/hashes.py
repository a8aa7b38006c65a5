"""Hashes as people see them."""

SHOWN_DIGITS = 12
"""Digits of a hash that are printed, and that names of files and cells have."""
