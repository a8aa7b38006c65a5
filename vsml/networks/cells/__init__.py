"""Cells: what is computed on an edge."""
