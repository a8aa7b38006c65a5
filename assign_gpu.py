"""Give this rank its GPU, then become the program: its exit code and its signals are the program's own.

    GPU_COUNT=4 mpirun -n 4 python assign_gpu.py python launch.py --config_files configs/rand_proj.yaml
    CUDA_VISIBLE_DEVICES=0,2,3 mpirun -n 6 python assign_gpu.py --verbose python launch.py ...

Local rank r gets GPU r mod n; ranks that share one share its memory (see `vsml.system.devices.assign_gpu`).
For ranks that the launcher has not dealt GPUs to already. Exit codes of its own: 2 for mistakes in what it
was given, 126 and 127 for a program that cannot be run or is not there.
"""

import os
import sys
from collections.abc import Sequence

from vsml.system.devices import assign_gpu

USAGE = "usage: python assign_gpu.py [--verbose] PROGRAM [ARGUMENT ...]"


def main(arguments: Sequence[str]) -> int:
    """Replace this process by the program; return an exit code only where that fails."""
    verbose = list(arguments[:1]) == ["--verbose"]
    program = list(arguments[verbose:])
    if not program or program[0].startswith("-"):
        print(f"{USAGE}\nassign_gpu.py: expected a program, got {program[:1] or 'none'}", file=sys.stderr)
        return 2
    try:
        assigned = assign_gpu()
    except RuntimeError as error:
        print(f"assign_gpu.py: {error}", file=sys.stderr)
        return 2
    if verbose:
        shared = f", shared by {assigned.sharing}" if (assigned.sharing or 1) > 1 else ""
        print(f"local rank {assigned.rank}: GPU {assigned.gpu}{shared}", file=sys.stderr, flush=True)
    try:
        os.execvpe(program[0], program, os.environ | assigned.variables)
    except FileNotFoundError:
        print(f"assign_gpu.py: {program[0]}: no such program", file=sys.stderr)
        return 127
    except OSError as error:
        print(f"assign_gpu.py: {program[0]}: {error.strerror}", file=sys.stderr)
        return 126


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
