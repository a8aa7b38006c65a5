"""Figures, tables and the page about runs.

`plots` draws figures, `text_plots` the same curves as text; `tables` renders all tables, and has the
columns of accuracies; `page` makes one HTML page about runs, with a `ranking`, `panels` of curves and small
figures (`sparks`). Numbers come in, files go out.
"""
