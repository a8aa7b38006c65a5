"""Start runs on machines that are reached by ssh, and watch, stop and fetch them.

    python ssh/schedule.py --host HOST -- python launch.py --config_files configs/rand_proj.yaml
    python ssh/schedule.py --host HOST --nodes=7 --ntasks-per-node=12 -- python launch.py ...
    python ssh/schedule.py --host HOST --array=1-5 --series -- python launch.py --array FILE
    python ssh/schedule.py status|attach|stop|resume|fetch [SUBMISSION] --host HOST

A GPU plays the part of a node. See docs/cluster.md.
"""

import argparse
import itertools
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # vsml, where it is not installed

from vsml.launching import submission
from vsml.launching.bundle import Bundle
from vsml.launching.submission import Checked, Remote, Site, SubmissionError
from vsml.system.arguments import ArgumentParser
from vsml.system.devices import SHARED_MEMORY

REMOTE_SCRIPT = Path(__file__).with_name("remote.sh")
NOT_FETCHED = ("/code", "/environment.sh", "/runs.tsv", "/queue-*.sh")

IDLE_GPU_MIB = 1000
"""Memory that may be in use on a free GPU: a desktop's, or what the driver keeps."""

GRACE_S = 120
"""Time to save after `stop`: a meta step and a checkpoint, by default."""

_LONGEST_POLL_S = 30.0


@dataclass(frozen=True)
class Queue:
    """Runs that one place takes one after the other, in one window of tmux.

    Attributes:
        number: from 1, over all hosts.
        host: the machine.
        gpus: its GPUs for these runs; none for the CPU.
        runs: indices in the array, or None for the one run where there is no array.
    """

    number: int
    host: str
    gpus: tuple[str, ...]
    runs: tuple[int | None, ...]

    @property
    def window(self) -> str:
        """Name of its window, from which `free_gpus` knows what is taken."""
        return f"gpu{','.join(self.gpus)}" if self.gpus else "cpu"


def label(run: int | None) -> str:
    """Return what a run's log and exit code are named by."""
    return "run" if run is None else str(run)


# ---- what goes where


def given_gpus(text: str) -> tuple[str, ...]:
    """Return the GPUs of `--gpus 0,2,3`, ids or UUIDs; none for `--gpus none`."""
    if text == "none":
        return ()
    gpus = tuple(part.strip() for part in text.split(","))
    if len(set(gpus)) < len(gpus) or not all(
        gpu.isdecimal() or gpu.startswith(("GPU-", "MIG-")) for gpu in gpus
    ):
        raise SubmissionError(f"--gpus: got {text}, expected different ids or UUIDs such as 0,2,3, or none")
    return gpus


def free_gpus(host: "Host") -> tuple[str, ...]:
    """Ask a host for the ids of its GPUs that no process computes on and no submission has taken.

    Raises:
        SubmissionError: it cannot be reached, or has no GPU.
    """
    done = host.call("gpus", check=False)
    if done.returncode:
        raise SubmissionError(
            f"{host.remote.host}: nvidia-smi found no GPU ({done.stderr.strip() or 'it failed'}); "
            "--gpus none runs on the CPU, --gpus 0,1 on those given"
        )
    told = [line.partition(" ")[::2] for line in done.stdout.splitlines()]
    devices = [value.split(", ") for kind, value in told if kind == "gpu"]
    taken = {value.strip() for kind, value in told if kind == "busy"}
    for kind, value in told:
        if kind == "window" and value.startswith("gpu"):
            taken.update(value.removeprefix("gpu").split(","))
    return tuple(
        index
        for index, uuid, used_mib in devices
        # Where memory is shared with the CPU nvidia-smi tells no number: then the processes alone decide.
        if not {index, uuid} & taken and not (used_mib.isdecimal() and int(used_mib) > IDLE_GPU_MIB)
    )


def deal(
    runs: Sequence[int | None],
    gpus: Mapping[str, tuple[str, ...]],
    nodes: int = 1,
    oversubscribe: int = 1,
    series: bool = False,
) -> list[Queue]:
    """Spread runs over the GPUs of all hosts.

    Args:
        runs: indices in the array, or None alone.
        gpus: those to use, by host; none stands for the CPU, which takes one run.
        nodes: GPUs that a run needs.
        oversubscribe: runs at once on the same GPUs.
        series: whether a place may have several runs, one after the other.

    Raises:
        SubmissionError: there are too few GPUs.
    """
    groups = [
        (host, there[start : start + nodes])
        for host, there in gpus.items()
        for start in (range(0, len(there) - nodes + 1, nodes) if there else [0])
    ]
    found = "; ".join(f"{host}: {', '.join(there) or 'the CPU'}" for host, there in gpus.items())
    if not groups:
        raise SubmissionError(f"--nodes: got {nodes} GPUs for a run, expected as many as are free ({found})")
    places = groups * oversubscribe
    if len(runs) > len(places) and not series:
        raise SubmissionError(
            f"--array: got {len(runs)} runs of {nodes} GPU(s) each, expected at most {len(places)}, as "
            f"there is room for ({found}); --series runs some after others, --oversubscribe K runs K at once "
            "on a GPU"
        )
    return [
        Queue(number + 1, host, there, tuple(runs[number :: len(places)]))
        for number, (host, there) in enumerate(places[: len(runs)])
    ]


def run_folder(name: str, run: int | None) -> str:
    """Return the folder of a run as seen from code/, named such that its last part names the run."""
    return f"../../{name}" if run is None else f"../../{name}/{run}"


def under_mpirun(program: Sequence[str], site: Site, ranks: int, gpus: bool) -> list[str]:
    """Return the command that runs a program with so many ranks, dealt to the GPUs if there are any."""
    if ranks == 1:
        return list(program)
    mpirun = shlex.split(site.mpirun)
    if len(mpirun) == 1:  # no options: Open MPI. Runs side by side must not be bound to the same cores.
        mpirun += ["--bind-to", "none", "--map-by", ":OVERSUBSCRIBE"]
    return [*mpirun, "-n", str(ranks), *(["python", "assign_gpu.py"] if gpus else []), *program]


def queue_script(
    queue: Queue, name: str, program: Sequence[str], setup: Sequence[str], variables: Mapping[str, str]
) -> str:
    """Return the script that does the runs of a queue, to be read and run by hand as well.

    Args:
        queue: the runs and where.
        name: of the submission.
        program: with mpirun, where that starts it.
        setup: shell lines of the site.
        variables: to export, beside those in environment.sh.
    """
    lines = [
        "#!/usr/bin/env bash",
        f"# window: {queue.window}",
        f"# of submission {name}; starts its runs, or goes on with them: bash {script_name(queue)}",
        'cd "$(dirname "${BASH_SOURCE[0]}")/code" || exit 1',
        *setup,
        ". ../environment.sh",
        *submission.exports_of(variables).splitlines(),
        ". ssh/job.sh # run INDEX PROGRAM: keeps log and exit code, passes signals on",
        *(
            shlex.join(["run", label(run), *submission.with_run_dir(program, run_folder(name, run), run)])
            for run in queue.runs
        ),
        'exit "$worst"',
    ]
    return "\n".join(lines) + "\n"


def script_name(queue: Queue) -> str:
    """Return the name of a queue's script."""
    return f"queue-{queue.number}.sh"


def device_variables(
    queue: Queue, ranks_per_gpu: int, oversubscribe: int, environment: Mapping[str, str]
) -> dict[str, str]:
    """Return what tells a run its devices, and its share of their memory where it is not alone on them."""
    if not queue.gpus:
        return {"JAX_PLATFORMS": "cpu"}
    variables = {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # CUDA's own order is by speed, that of nvidia-smi by place
        "CUDA_VISIBLE_DEVICES": ",".join(queue.gpus),
    }
    chosen = any(key.startswith(("XLA_CLIENT_", "XLA_PYTHON_CLIENT_")) for key in environment)
    if oversubscribe > 1 and not chosen:
        thousandths = int(1000 * SHARED_MEMORY) // (oversubscribe * ranks_per_gpu)
        variables["XLA_CLIENT_MEM_FRACTION"] = f"{thousandths / 1000:.3f}"
    return variables


# ---- what is done on a host


@dataclass(frozen=True)
class Host:
    """A machine and the folder on it that has runs/.

    Attributes:
        remote: the way there.
        folder: absolute, or from the home folder.
        setup: shell lines before everything.
    """

    remote: Remote
    folder: str
    setup: tuple[str, ...] = ()

    def call(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of remote.sh there."""
        setup = "\n".join(["{", ":", *self.setup, "} < /dev/null > /dev/null"])
        script = f"{setup}\n{REMOTE_SCRIPT.read_text()}"
        return self.remote.run(["bash", "-s", "--", self.folder, *command], input=script, check=check)

    def submissions(self) -> list[str]:
        """Names of what was sent there, the oldest first."""
        return self.call("submissions").stdout.split()

    def status(self, names: Sequence[str]) -> list[list[str]]:
        """For each run of those that are there: name, index, state, where, last line of its log."""
        return [line.split("\t") for line in self.call("status", *names).stdout.splitlines()]


def send(
    hosts: Sequence[Host],
    name: str,
    record: Mapping[str, Any],
    environment: str,
    queues: Sequence[Queue],
    scripts: Mapping[int, str],
    files: Bundle,
) -> None:
    """Copy a submission to its hosts, and start it once all have it.

    Args:
        hosts: those that have a queue.
        name: of the submission.
        record: for submission.json, the program among it.
        environment: text of environment.sh.
        queues: of all hosts.
        scripts: text of theirs, by number.
        files: the program as it runs in the copy of the code, and what goes along with that.
    """
    with tempfile.TemporaryDirectory() as temporary:
        common = Path(temporary) / "common"
        submission.snapshot(common / "code", files.program, files=files)
        (common / "submission.json").write_text(json.dumps(record, indent=2) + "\n")
        for number, host in enumerate(hosts):
            own = Path(temporary) / str(number)
            here = [queue for queue in queues if queue.host == host.remote.host]
            stage(own, here, scripts, environment)
            host.remote.make_folder(f"{host.folder}/runs/{name}")
            for part in (common, own):
                host.remote.copy_to(part, f"{host.folder}/runs/{name}")
    for host in hosts:
        host.call("start", name)


def stage(folder: Path, queues: Sequence[Queue], scripts: Mapping[int, str], environment: str) -> None:
    """Write what one host gets beside the code."""
    (folder / "logs").mkdir(parents=True)
    for queue in queues:
        (folder / script_name(queue)).write_text(scripts[queue.number])
    lines = [
        f"{label(run)}\t{'.' if run is None else run}\t{queue.host} {queue.window}\n"
        for queue in queues
        for run in queue.runs
    ]
    (folder / "runs.tsv").write_text("".join(lines))
    secret = folder / "environment.sh"
    secret.touch(mode=0o600)  # it may have a key, so nobody else may read it at any time
    secret.write_text(environment)


# ---- the commands


def launch(options: argparse.Namespace, program: list[str]) -> int:
    """Send a program to the hosts and start it there; the exit code, with --fetch that of the worst run."""
    checked = submission.check_program(program)
    runs = chosen_runs(options.array, checked)
    site, hosts = places(options)
    gpus = gpus_to_use(options, hosts, len(runs))
    queues = deal(runs, gpus, options.nodes, options.oversubscribe, options.series)
    name = submission.submission_name(options.name or checked.name)
    public, secrets = submission.run_environment(site, os.environ, options.env, elsewhere=True)
    exported = public | secrets
    if options.array is not None:
        exported.setdefault("WANDB_RUN_GROUP", name)
    ranks = options.nodes * options.ntasks_per_node
    scripts = {
        queue.number: queue_script(
            queue,
            name,
            under_mpirun(checked.bundle.program, site, ranks, bool(queue.gpus)),
            site.setup,
            device_variables(queue, options.ntasks_per_node, options.oversubscribe, exported),
        )
        for queue in queues
    }
    if options.dry_run:
        submission.look_up_files(checked, None, None, "")
        print(f"environment.sh: {', '.join(exported) or 'empty'}")
        for queue in queues:
            print(
                f"\n{queue.host}:{hosts[0].folder}/runs/{name}/{script_name(queue)}\n{scripts[queue.number]}"
            )
        return 0
    used = [host for host in hosts if any(queue.host == host.remote.host for queue in queues)]
    record = {"command": sys.argv, "program": program, "hosts": [host.remote.host for host in used]}
    for host in used:
        submission.look_up_files(checked, None, host.remote, host.folder)
    send(used, name, record, submission.exports_of(exported), queues, scripts, checked.bundle)
    for queue in queues:
        labels = ", then ".join(label(run) for run in queue.runs)
        print(f"{queue.host} {queue.window}: {labels}")
    print(f"submission {name}")
    for command in ("status", "stop", "fetch"):
        print(f"{command + ':':8}{shlex.join(again(command, name, used, options))}")
    for host in used:
        print(f"{'attach:':8}{shlex.join(attach_command(host, name))}")
    if not options.fetch:
        return 0
    wait(used, name)
    fetch(used, name)
    return show(used, [name])


def gpus_to_use(options: argparse.Namespace, hosts: Sequence[Host], runs: int) -> dict[str, tuple[str, ...]]:
    """Return the GPUs that the options give, or those that are free, by host; none stands for the CPU."""
    names = [host.remote.host for host in hosts]
    if options.gpus is not None:
        return dict.fromkeys(names, given_gpus(options.gpus))
    if options.dry_run:
        needed = options.nodes * (1 if options.series else -(-runs // options.oversubscribe))
        print(f"GPUs: as if {needed} were free on {names[0]}; a dry run asks no machine")
        return {names[0]: tuple(map(str, range(needed)))}
    free = {host.remote.host: gpus for host in hosts if (gpus := free_gpus(host))}
    if not free:
        raise SubmissionError(f"{', '.join(names)}: no GPU is free; --gpus 0,1 takes those given anyway")
    return free


def chosen_runs(array: str | None, checked: Checked) -> tuple[int | None, ...]:
    """Return the entries that are to run, or None alone where there is no array.

    Raises:
        SubmissionError: option and program do not fit together.
    """
    if array is None and checked.entries is None:
        return (None,)
    if checked.entries is None:
        raise SubmissionError(f"--array: got {array}, but the program after -- has no --array FILE")
    if array is None:
        raise SubmissionError(
            f"the program has an array of {checked.entries} entries: expected --array=1-{checked.entries} "
            "before --, or a part of it"
        )
    if "%" in array:
        raise SubmissionError(
            f"--array: got {array}, expected no %: --oversubscribe and --series set that here"
        )
    return submission.parse_indices(array, checked.entries)


def places(options: argparse.Namespace) -> tuple[Site, list[Host]]:
    """Return the site's settings, and the hosts that options or settings name."""
    site = submission.load_site(options.site)
    names = options.host or ([site.host] if site.host else [])
    if not names:
        raise SubmissionError("--host: expected a machine, as option or as `host` of the site's file")
    if len(set(names)) < len(names):
        raise SubmissionError(f"--host: got {', '.join(names)}, expected each machine once")
    folder = (options.directory or site.directory or "vsml").removeprefix("~/")
    if folder.startswith("~"):
        raise SubmissionError(f"--directory: got {folder}, expected it absolute or from the home folder")
    config = options.ssh_config or site.ssh_config
    hosts = []
    for name in names:
        remote = Remote(name, config)
        # A dry run asks no machine.
        is_dry = getattr(options, "dry_run", False)
        there = folder if is_dry else submission.expanded_there(folder, remote)
        hosts.append(Host(remote, str(PurePosixPath(there)), site.setup))
    return site, hosts


def again(command: str, name: str, hosts: Sequence[Host], options: argparse.Namespace) -> list[str]:
    """Return the command line of a sub-command for a submission."""
    line = ["python", "ssh/schedule.py", command, name]
    for host in hosts:
        line += ["--host", host.remote.host]
    for option in ("ssh_config", "site", "directory"):
        if getattr(options, option):
            line += [f"--{option}", getattr(options, option)]
    return line


def attach_command(host: Host, name: str) -> list[str]:
    """Return the command that shows the windows of a submission."""
    tmux = shlex.join(["tmux", "-L", "vsml", "attach-session", "-t", "=" + name.replace(".", "_")])
    return [*host.remote.ssh, "-t", host.remote.host, tmux]


def wait(hosts: Sequence[Host], name: str) -> None:
    """Return once nothing of a submission runs any more."""
    pause_s, left, unreachable = 0.5, list(hosts), False
    while left:
        time.sleep(pause_s)
        pause_s = min(1.5 * pause_s, _LONGEST_POLL_S)
        try:
            left = [host for host in left if host.call("liveness", name).stdout.strip() != "ended"]
            unreachable = False
        except SubmissionError as error:  # a network that is away for a while
            if not unreachable:
                print(f"{error}; still waiting", file=sys.stderr)
            unreachable = True


def fetch(hosts: Sequence[Host], name: str) -> None:
    """Copy runs and logs of a submission to ./runs/, without code and environment."""
    local = Path("runs") / name
    for host in hosts:
        host.remote.copy_from(f"{host.folder}/runs/{name}", local, exclude=NOT_FETCHED)
    print(f"fetched to {local}")


def show(hosts: Sequence[Host], names: Sequence[str]) -> int:
    """Print the state of runs; the exit code is the largest of theirs, 1 for one that was lost."""
    worst = 0
    rows = [row for host in hosts for row in host.status(names)]
    for name in names:
        print(name)
        for _, index, state, where, last in (row for row in rows if row[0] == name):
            print(f"  {index:>4}  {state:<12}  {where}  {last}")
            code = int(state[8:-1]) if state.startswith("failed (") else int(state == "lost")
            worst = max(worst, code)
    return worst


def manage(options: argparse.Namespace) -> int:
    """Do a sub-command: status, attach, stop, resume or fetch."""
    _, hosts = places(options)
    there = {host.remote.host: host.submissions() for host in hosts}
    names = sorted({name for each in there.values() for name in each})
    if options.submission:
        name = PurePosixPath(options.submission).name
        if name not in names:
            raise SubmissionError(f"got {name}, expected one of: {', '.join(names) or 'none is there'}")
        names = [name]
    elif not names:
        raise SubmissionError(f"nothing was submitted to {', '.join(there)}:{hosts[0].folder}/runs")
    if options.command == "status":
        show(hosts, names)
        return 0
    name = names[-1]
    hosts = [host for host in hosts if name in there[host.remote.host]]
    if options.command == "attach":
        line = attach_command(hosts[0], name)
        os.execvp(line[0], line)
    if options.command == "fetch":
        fetch(hosts, name)
    for host in hosts:
        if options.command == "stop":
            print(host.call("stop", name, str(options.grace)).stdout, end="")
        if options.command == "resume":
            host.call("start", name)
    show(hosts, [name])
    return 0


# ---- the command line


def add_place_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where."""
    parser.add_argument("--host", action="append", help="machine, as ssh takes it; may be repeated")
    parser.add_argument("--ssh_config", metavar="FILE", help="for ssh -F")
    parser.add_argument("--site", metavar="FILE", help="settings of the machines, see docs/cluster.md")
    parser.add_argument("--directory", metavar="DIR", help="folder there that gets runs/ (default: vsml)")


def parse_launch(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse what is before `--`."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_place_options(parser)
    parser.add_argument("--nodes", type=positive, default=1, metavar="N", help="GPUs of a run (default: 1)")
    parser.add_argument("--ntasks-per-node", type=positive, default=1, metavar="M", help="ranks on each GPU")
    parser.add_argument("--array", metavar="1-11", help="entries of the program's array to run")
    parser.add_argument("--gpus", metavar="0,2,3", help="GPUs to use (default: the free ones); none: the CPU")
    parser.add_argument("--oversubscribe", type=positive, default=1, metavar="K", help="runs at once per GPU")
    parser.add_argument("--series", action="store_true", help="more runs than GPUs: one after the other")
    parser.add_argument("--name", help="of the submission")
    parser.add_argument(
        "--env", nargs="+", action="extend", default=[], metavar="NAME", help="to pass on too"
    )
    parser.add_argument("--fetch", action="store_true", help="wait to the end, and fetch the results")
    parser.add_argument("--dry_run", action="store_true", help="print the scripts, and stop")
    return parser.parse_args(arguments)


def parse_command(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a sub-command."""
    parser = ArgumentParser(prog=f"schedule.py {arguments[0]}")
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("submission", nargs="?", help="its name (default: the latest; status: all)")
    add_place_options(parser)
    if arguments[0] == "stop":
        parser.add_argument(
            "--grace", type=positive, default=GRACE_S, metavar="S", help="seconds to save before it is killed"
        )
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    """Return a whole number from 1."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


COMMANDS = ("status", "attach", "stop", "resume", "fetch")


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says; the exit code is 2 for mistakes, and hosts that cannot be reached."""
    try:
        if arguments and arguments[0] in COMMANDS:
            return manage(parse_command(arguments))
        options = parse_launch(list(itertools.takewhile(lambda argument: argument != "--", arguments)))
        return launch(options, submission.split_program(arguments)[1])
    except (ValueError, OSError) as error:  # SubmissionError, ConfigError; a folder that cannot be written
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
