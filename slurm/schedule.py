"""Submit a program to Slurm: checked configuration, copy of the code, and a job script one can read.

    python slurm/schedule.py --time 4:00:00 --gpus=1 -- python launch.py --config_files configs/rand_proj.yaml
    python slurm/schedule.py --array=1-11 --nodes=128 --time 04:00:00 \\
        -- python launch.py --array configs/array/datasets.yaml

Before `--` stand the options of this program and any options of sbatch, after it the program.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the checkout that is copied is the one that checks the configuration

from vsml.launching.bundle import Bundle  # noqa: E402
from vsml.launching.submission import (  # noqa: E402
    Checked,
    Expandable,
    Remote,
    Site,
    SubmissionError,
    check_program,
    expanded_here,
    expanded_there,
    exports_of,
    load_site,
    look_up_files,
    parse_indices,
    run_environment,
    snapshot,
    split_program,
    submission_name,
    with_run_dir,
)
from vsml.system.arguments import ArgumentParser, spelt_otherwise  # noqa: E402

_LONG = {
    "-a": "array",
    "-d": "dependency",
    "-D": "chdir",
    "-e": "error",
    "-J": "job-name",
    "-o": "output",
    "-t": "time",
}
_REFUSED = {
    "chdir": "the job runs in the copy of the code",
    "wrap": "the program stands after --",
    "signal": "use --signal_ahead",
    "parsable": "it is given anyway",
    "test-only": "--dry_run prints script and commands",
    "kill-on-invalid-dep": "it is given where a job depends on another",
}
_RUN_DIR = "@run_dir@"

_EARLY_S = 60
"""How much earlier than asked for Slurm may send a signal."""


@dataclass(frozen=True)
class Submission:
    """All that is decided before anything is written.

    Attributes:
        folder: where it goes, on the machine that submits.
        script: text of its job.sh.
        commands: sbatch with its arguments, one for each job; `JOBID` stands for the id of the job before.
        record: for submission.json.
        files: the program as it runs in the copy of the code, and what goes along with that.
    """

    folder: PurePosixPath
    script: str
    commands: tuple[tuple[str, ...], ...]
    record: dict
    files: Bundle


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str | None]]:
    """Return the options of this program, and those for sbatch by long name (None: without a value).

    Args:
        arguments: what stands before `--`.

    Raises:
        SubmissionError: one is not an option, or one that sbatch must not get.
    """
    parser = ArgumentParser(
        prog="slurm/schedule.py",
        usage="python slurm/schedule.py [OPTIONS] [ANY OPTIONS OF SBATCH] -- PROGRAM",
        description="Submit a program to Slurm.",
    )
    parser.add_argument("--name", help="of the folder and the job (default: from the program)")
    parser.add_argument(
        "--chain", type=int, default=1, metavar="N", help="N jobs, each goes on where the last was"
    )
    parser.add_argument("--after", metavar="JOBID", help="start only if this job has ended with code 0")
    parser.add_argument(
        "--signal_ahead",
        type=int,
        default=120,
        metavar="SECONDS",
        help="stop so long ahead of the time limit",
    )
    parser.add_argument(
        "--env", nargs="+", action="extend", default=[], metavar="NAME", help="more variables to pass on"
    )
    parser.add_argument("--host", help="submit on this machine, by ssh and rsync")
    parser.add_argument("--ssh_config", metavar="FILE", help="for ssh -F")
    parser.add_argument("--site", metavar="FILE", help="settings of the cluster, see docs/cluster.md")
    parser.add_argument(
        "--dry_run", action="store_true", help="print the job script and the commands, and stop"
    )
    options, rest = parser.parse_known_args(list(arguments))
    for word in rest:  # else sbatch would get --dry-run, and the job would be submitted
        meant = spelt_otherwise(word.partition("=")[0], parser.option_names())
        if meant is not None:
            parser.error(f"{word}: no such option; did you mean {meant!r}?")
    for name, value in (("--chain", options.chain), ("--signal_ahead", options.signal_ahead)):
        if value < 1:
            parser.error(f"{name}: got {value}, expected 1 or more")
    return options, _sbatch_options(rest)


def _sbatch_options(arguments: Sequence[str]) -> dict[str, str | None]:
    """Return options as sbatch takes them: --opt=value, --opt value, --opt, -o value, -ovalue."""
    found: dict[str, str | None] = {}
    last = None
    for argument in arguments:
        match = re.fullmatch(r"--([a-z][\w-]*)(?:=(.*))?|(-[A-Za-z])(.+)?", argument, re.DOTALL)
        if match:
            name = match[1] or _LONG.get(match[3], match[3])
            value = match[2] if match[1] else match[4]
            found[name] = value
            last = name if value is None else None
        elif last is not None:
            found[last], last = argument, None
        else:
            raise SubmissionError(f"got {argument!r}, expected an option; the program stands after --")
    for name in found.keys() & _REFUSED.keys():
        raise SubmissionError(f"--{name}: not to be given: {_REFUSED[name]}")
    return found


def check_options(
    options: argparse.Namespace, asked: Mapping[str, str | None], checked: Checked, site: Site
) -> dict[str, str | None]:
    """Return the options of sbatch, those of the site below those asked for.

    Args:
        options: of this program.
        asked: for sbatch, on the command line.
        checked: the program, whose array the indices must fit.
        site: settings of the cluster.

    Raises:
        SubmissionError: --array does not fit the program.
    """
    sbatch: dict[str, str | None] = {
        "job-name": options.name or checked.name,
        "output": None,  # below the submission's folder
        "open-mode": "append",
        "signal": f"B:USR1@{options.signal_ahead}",
        "requeue": None,
    }
    for name, value in site.sbatch.items():
        if name in _REFUSED:
            raise SubmissionError(f"sbatch.{name} in the site's file: not to be given: {_REFUSED[name]}")
        if value is not False:
            sbatch[name] = None if value is True else str(value)
    sbatch |= asked
    if "no-requeue" in sbatch:
        del sbatch["requeue"]
    limit = sbatch.get("time")
    limit_s = _seconds(limit) if limit else None
    if limit_s is not None and limit_s <= options.signal_ahead + _EARLY_S:
        raise SubmissionError(
            f"--time={limit}: got {limit_s} s, expected more than {options.signal_ahead + _EARLY_S} s: the "
            f"run is told to stop --signal_ahead={options.signal_ahead} s ahead, by Slurm's clock of minutes"
        )
    indices = sbatch.get("array")
    if indices is not None and checked.is_launch and checked.entries is None:
        raise SubmissionError(f"--array={indices}: expected launch.py with an --array file as well")
    if indices is not None and checked.entries is not None:
        parse_indices(indices, checked.entries)
    elif checked.entries is not None:
        raise SubmissionError(
            f"the array file has {checked.entries} entries: expected --array=1-{checked.entries} before --"
        )
    return sbatch


def _seconds(limit: str) -> int | None:
    """Return a time limit such as 30, MM:SS, HH:MM:SS or D-HH:MM in seconds; None for anything else."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", limit)
    if not match:
        return None
    days, *numbers = (None if group is None else int(group) for group in match.groups())
    first, second, third = numbers
    if days is not None or third is not None:
        hours, minutes, seconds = first or 0, second or 0, third or 0
    else:
        hours, minutes, seconds = 0, first or 0, second or 0
    return (((days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def plan(
    options: argparse.Namespace,
    sbatch: Mapping[str, str | None],
    program: Sequence[str],
    checked: Checked,
    site: Site,
    variables: Mapping[str, str],
    directory: PurePosixPath,
) -> Submission:
    """Decide on everything else; nothing is written.

    Args:
        options: of this program.
        sbatch: what `check_options` returned.
        program: with its arguments.
        checked: what is known of it.
        site: settings of the cluster.
        variables: for the program, none of them a secret.
        directory: folder that gets runs/, on the machine that submits.
    """
    folder = directory / "runs" / submission_name(options.name or checked.name)
    array = "array" in sbatch
    sbatch = {**sbatch, "output": sbatch["output"] or f"{folder}/logs/{'%A_%a' if array else '%j'}.log"}
    dependency = sbatch.pop("dependency", None)  # not in the script, which may be submitted again
    waits = [dependency] if dependency else []
    waits += [f"afterok:{options.after}"] if options.after else []
    commands = []
    for _ in range(options.chain):
        depends = [f"--dependency={','.join(waits)}", "--kill-on-invalid-dep=yes"] if waits else []
        commands.append(("sbatch", "--parsable", *depends, f"{folder}/job.sh"))
        # After task i comes task i; Slurm has that only for tasks that ended with code 0.
        waits = ["aftercorr:JOBID" if array else "afterany:JOBID"]
    variables = {**variables, "MPIRUN": site.mpirun}
    if options.chain > 1 or "no-requeue" in sbatch:
        variables["VSML_REQUEUE"] = "no"  # the next job of the chain goes on
    if array:
        variables.setdefault("WANDB_RUN_GROUP", folder.name)
    script = _job_script(folder, sbatch, variables, site.setup, checked.bundle.program, checked)
    record = {"program": list(program), "sbatch": sbatch, "chain": options.chain}
    return Submission(folder, script, tuple(commands), record, checked.bundle)


def _job_script(
    folder: PurePosixPath,
    sbatch: Mapping[str, str | None],
    variables: Mapping[str, str],
    setup: Sequence[str],
    program: Sequence[str],
    checked: Checked,
) -> str:
    words = with_run_dir(program, _RUN_DIR)
    run = " ".join('"$run_dir"' if word == _RUN_DIR else shlex.quote(word) for word in words)
    run_dir = shlex.quote(str(folder))
    if "array" in sbatch and checked.is_launch:
        run += ' --array_index "$SLURM_ARRAY_TASK_ID"'
        run_dir += '/"$SLURM_ARRAY_TASK_ID"'
    lines = [
        "#!/usr/bin/env bash",
        *(f"#SBATCH {_option(name, value)}" for name, value in sbatch.items()),
        "",
        "# To submit it again, which goes on where the run is:",
        f"#   sbatch {shlex.quote(f'{folder}/job.sh')}",
        "",
        *exports_of(variables).splitlines(),
        *setup,
        f"cd {shlex.quote(f'{folder}/code')} || exit 1",
        *([f"run_dir={run_dir}"] if _RUN_DIR in words else []),
        f"exec bash slurm/job.sh {run}",
    ]
    return "\n".join(lines) + "\n"


def _option(name: str, value: str | None) -> str:
    if name.startswith("-"):
        return name if value is None else f"{name} {shlex.quote(value)}"
    return f"--{name}" if value is None else f"--{name}={shlex.quote(value)}"


def submit(submission: Submission, remote: Remote | None, secrets: Mapping[str, str]) -> list[str]:
    """Write the folder, on this machine or another, and submit its jobs.

    Args:
        submission: what `plan` decided.
        remote: the machine that submits; None for this one.
        secrets: variables that jobs get from sbatch, and no file.

    Returns:
        The ids of the jobs.

    Raises:
        SubmissionError: the program needs a file that is not in the copy; sbatch refuses.
        OSError: the folder cannot be written.
    """
    folder = submission.folder
    with tempfile.TemporaryDirectory() as temporary:
        built = Path(temporary) / "built"
        runs = None if remote else folder.parent
        snapshot(built / "code", submission.files.program, runs, files=submission.files)
        (built / "logs").mkdir()
        (built / "job.sh").write_text(submission.script)
        (built / "job.sh").chmod(0o755)
        if remote is None:
            shutil.copytree(built, folder, symlinks=True)
        else:
            remote.make_folder(str(folder))
            remote.copy_to(built, str(folder))
    jobs: list[str] = []
    for command in submission.commands:
        arguments = [part.replace("JOBID", jobs[-1] if jobs else "") for part in command]
        try:
            jobs.append(_sbatch(arguments, remote, secrets))
        except SubmissionError as error:
            raise SubmissionError(
                f"{error}\nsubmitted before that: {', '.join(jobs) or 'nothing'}"
            ) from error
    text = json.dumps(submission.record | {"jobs": jobs}, indent=2) + "\n"
    try:
        if remote is None:
            Path(folder, "submission.json").write_text(text)
        else:
            remote.run(["tee", str(folder / "submission.json")], input=text)
    except (OSError, SubmissionError) as error:
        raise SubmissionError(f"submitted: {', '.join(jobs)}; but not written down: {error}") from error
    return jobs


def _sbatch(command: Sequence[str], remote: Remote | None, secrets: Mapping[str, str]) -> str:
    """Run sbatch and return the id of the job."""
    if remote is not None:  # by a login shell, as for a user, that reads the secrets from its input
        exports = exports_of(secrets)
        done = remote.run(
            ["bash", "--login", "-s", "--", *command], input=f'{exports}exec "$@"\n', check=False
        )
    else:
        try:
            of_site = {name: value for name, value in secrets.items() if isinstance(value, Expandable)}
            expanded = {name: expanded_here(value) for name, value in of_site.items()}
            environment = os.environ | dict(secrets) | expanded
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
        except FileNotFoundError as error:
            raise SubmissionError("there is no sbatch on this machine: expected Slurm, or --host") from error
    if done.returncode:
        raise SubmissionError(f"{shlex.join(command)} failed ({done.returncode}): {done.stderr.strip()}")
    said = done.stdout.strip().splitlines()
    if not said:
        raise SubmissionError(f"{shlex.join(command)}: expected the id of a job, got nothing")
    return said[-1].partition(";")[0]  # an id, or id;cluster


def _directory(site: Site, remote: Remote | None, dry_run: bool) -> PurePosixPath:
    """Return the folder that gets runs/, absolute, except in a dry run for another machine."""
    if remote is None:
        return PurePosixPath(Path(expanded_here(site.directory or ".")).expanduser().absolute())
    name = (site.directory or "vsml").removeprefix("~/")  # relative to the home folder there
    if dry_run:
        return PurePosixPath(name)
    name = expanded_there(name, remote)
    made = remote.run(["sh", "-c", 'mkdir -p -- "$1" && cd -- "$1" && pwd', "sh", name])
    return PurePosixPath(made.stdout.strip().splitlines()[-1])


def _tell(submission: Submission, remote: Remote | None, jobs: Sequence[str]) -> None:
    there = f"{shlex.join([*remote.ssh, remote.host])} " if remote else ""
    folder = submission.folder
    lines = [
        ("submitted", ", ".join(jobs)),
        ("folder", f"{remote.host}:{folder}" if remote else str(folder)),
        ("watch", f"{there}squeue --jobs={','.join(jobs)}"),
        ("log", f"{there}tail -F {shlex.quote(str(folder))}/logs/*"),
        ("save and stop", f"{there}scancel --signal=TERM --batch JOB"),
        ("cancel", f"{there}scancel {' '.join(jobs)}"),
    ]
    for title, text in lines:
        print(f"{title + ':':15}{text}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Submit what the command line says; return the exit code: 2 for mistakes in what the user gave."""
    try:
        own, program = split_program(sys.argv[1:] if arguments is None else arguments)
        options, asked = parse(own)
        site = load_site(options.site)
        checked = check_program(program)
        host = options.host or site.host
        public, secrets = run_environment(site, os.environ, options.env, elsewhere=host is not None)
        job_options = check_options(options, asked, checked, site)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    remote = Remote(host, options.ssh_config or site.ssh_config) if host else None
    try:
        directory = _directory(site, remote, options.dry_run)
        runs = None if remote else Path(directory, "runs")
        look_up_files(checked, runs, None if options.dry_run else remote, str(directory))
        submission = plan(options, job_options, program, checked, site, public, directory)
        if options.dry_run:
            print(submission.script)
            print(*map(shlex.join, submission.commands), sep="\n")
            return 0
        jobs = submit(submission, remote, secrets)
    except (SubmissionError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _tell(submission, remote, jobs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
