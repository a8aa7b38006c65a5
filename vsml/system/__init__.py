"""The machine that a run works on.

`devices` and `comm` are processors and ranks, `signals` what tells a run to stop; `files` writes files
as a whole or not at all, `locks` keeps processes apart, and `cache` has what can be made anew.
"""
