"""Calls: what a run does, one a file."""
