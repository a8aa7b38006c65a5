"""The ways in: the command line, and the submission of runs to other machines.

`command_line` makes configurations of options; `submission` has what slurm/schedule.py and
ssh/schedule.py share.
"""
