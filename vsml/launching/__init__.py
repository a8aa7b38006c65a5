"""The command line, and the submission of runs to other machines."""
