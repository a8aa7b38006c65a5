"""Submissions to other machines: a checked command, a copy of the code, and the way there by ssh.

Shared by slurm/schedule.py and ssh/schedule.py. A submission is a folder `runs/<time>-<name>/` with `code/`,
the scripts that run it, `logs/`, and the run itself, or a folder `<index>/` for each entry of an array.
"""

import datetime
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import Field, model_validator

from vsml.config.array import RangeError, parse_ranges
from vsml.config.files import read_section
from vsml.launching.bundle import (
    Bundle,
    Needed,
    SubmissionError,
    bundle,
    checkout_files,
    look_up,
    needed,
)
from vsml.launching.command_line import parse, read_all_configs
from vsml.runs.environment import GIT_STATE_NAME, git_state
from vsml.settings import Problem, Section, refuse

ROOT = Path(__file__).parents[2]
"""The checkout that this library runs from."""

SITE_FILE = Path("~/.config/vsml/site.yaml")

_PASSED_PREFIXES = ("VSML_", "WANDB_", "JAX_", "XLA_")
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", re.ASCII)
_CONNECT_TIMEOUT_S = 20


class Site(Section):
    """What is particular to a cluster or a machine: the keys of site.yaml; options override them."""

    host: str | None = Field(default=None, description="machine to submit to by ssh; null: this one")
    directory: str | None = Field(
        default=None,
        description="folder that gets runs/; null: the current one, or vsml in the home folder elsewhere. "
        "$NAME and ${NAME} are variables of the machine that has it",
    )
    ssh_config: str | None = Field(default=None, description="file for `ssh -F`")
    setup: tuple[str, ...] = Field(
        default=(),
        description="shell lines before the program, such as `module load cuda` or `. ~/env/bin/activate`",
    )
    environment: dict[str, str] = Field(
        default={},
        description="variables for the program, in which $NAME and ${NAME} are expanded where it runs",
    )
    mpirun: str = Field(default="mpirun", description="how ranks are started, with options if need be")
    sbatch: dict[str, str | int | bool] = Field(
        default={}, description="options of sbatch by long name, such as partition; true: without a value"
    )

    @model_validator(mode="after")
    def _check(self) -> "Site":
        refuse(_site_problems(self))
        return self


def _site_problems(site: Site) -> Iterator[Problem]:
    """Yield times that YAML took for numbers, and variables where nothing expands them."""
    time = site.sbatch.get("time")
    if isinstance(time, int):
        yield Problem("sbatch.time", time, "it in quotes, as YAML takes 12:00:00 for the number 43200")
    texts = {"mpirun": site.mpirun, "host": site.host}
    texts |= {f"sbatch.{name}": str(value) for name, value in site.sbatch.items()}
    for path, text in texts.items():
        if text is not None and _VARIABLE.search(text):
            expected = "no variables: only `directory`, `environment` and `setup` have them expanded"
            yield Problem(path, text, expected)


def load_site(path: str | Path | None = None, environ: Mapping[str, str] = os.environ) -> Site:
    """Read the settings of a site.

    Args:
        path: the file; by default what VSML_SITE names, else ~/.config/vsml/site.yaml, if that is there.
        environ: where VSML_SITE is looked up.

    Raises:
        ConfigError: the file is missing, or lists all mistakes in it.
    """
    named = path or environ.get("VSML_SITE")
    if named is None and not SITE_FILE.expanduser().exists():
        return Site()
    return read_section(Path(named or SITE_FILE).expanduser(), Site)


@dataclass(frozen=True)
class Checked:
    """A program whose configuration has been found in order.

    Attributes:
        name: for folders and jobs.
        is_launch: whether it runs launch.py; another program is taken as it is.
        entries: how many its array has; None without an array.
        bundle: the program as it runs in the copy of the code, and the files that go along.
        needs: files and folders that its configuration names.
    """

    name: str
    is_launch: bool = False
    entries: int | None = None
    bundle: Bundle = Bundle(())
    needs: tuple[Needed, ...] = ()


def split_program(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return what is before and after the first `--`.

    Raises:
        SubmissionError: there is nothing after it.
    """
    arguments = list(arguments)
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    program = arguments[len(own) + 1 :]
    if not program:
        raise SubmissionError(
            "expected the program after --, such as -- python launch.py --config_files configs/rand_proj.yaml"
        )
    return own, program


def _launch_position(program: Sequence[str]) -> int | None:
    return next((i for i, part in enumerate(program) if PurePosixPath(part).name == "launch.py"), None)


def check_program(program: Sequence[str]) -> Checked:
    """Check the configuration of a program that runs launch.py, every entry of its array included.

    Raises:
        ConfigError: lists all mistakes.
        SubmissionError: it names what the launcher names: the run's folder, the index.
        SystemExit: it has options that launch.py does not know.
    """
    position = _launch_position(program)
    if position is None:
        return Checked(name=PurePosixPath(program[0]).name, bundle=Bundle(tuple(program)))
    words = program[position + 1 :]
    if not words:
        raise SubmissionError(
            "launch.py without options prints its help: expected at least --config_files or --config"
        )
    options = parse(words)
    taken = [
        name
        for name, given in (
            ("--run_dir", options.run_dir),
            ("--array_index", options.array_index),
            ("--all", options.all or None),
            ("--dry_run", options.dry_run or None),
        )
        if given is not None
    ]
    if taken:
        raise SubmissionError(
            f"{', '.join(taken)}: got it after --, where expected nothing: the launcher sets it"
        )
    configs = read_all_configs(options)
    stem = Path(options.array or (options.config_files or ["run"])[0]).stem
    return Checked(
        name=configs[0].name if configs[0].name and not options.array else stem,
        is_launch=True,
        entries=len(configs) if options.array else None,
        bundle=bundle(program, position, options.config_files, options.array, ROOT),
        needs=tuple(needed(configs)),
    )


def look_up_files(checked: Checked, runs: Path | None, remote: "Remote | None", directory: str) -> None:
    """Check that data and meta-parameters that a program names will be there, before it is submitted.

    Args:
        checked: the program.
        runs: the folder `runs/` that it will see, where that is on this machine.
        remote: the machine that it runs on, where that is another one.
        directory: the folder there that has runs/.

    Raises:
        SubmissionError: a file or folder is not there, or not in the copy of the code; or the machine cannot
            be reached.
    """
    elsewhere = look_up(checked.needs, ROOT, runs)
    if remote is None or not elsewhere:
        return
    script = (
        'cd -- "$1" 2> /dev/null; shift; for path; do '
        'case $path in "~/"*) found=$HOME/${path#"~/"} ;; *) found=$path ;; esac; '
        '[ -e "$found" ] || printf "%s\\n" "$path"; done'
    )
    missing = remote.run(["sh", "-c", script, "sh", directory, *elsewhere]).stdout.splitlines()
    if missing:
        raise SubmissionError(
            f"{remote.host}: expected files or folders that are there: {', '.join(missing)}"
        )


def parse_indices(text: str, entries: int | None = None) -> tuple[int, ...]:
    """Return the numbers of "1-11", "1,3-5", "1-9:2" or "1-11%4", as sbatch writes them.

    Args:
        text: the argument of --array.
        entries: how many there are; None does not check that.

    Raises:
        SubmissionError: it is not of that form, names one twice, or one that is not there.
    """
    limit = "" if entries is None else f" from 1 to {entries}, as many as the array file has entries"
    expected = f"numbers or ranges{limit}, such as 1-11, 1,3-5 or 1-11%4"
    message = f"--array: got {text}, expected {expected}"
    at_once_removed = text.partition("%")[0]
    try:
        indices = parse_ranges(at_once_removed, entries)
    except RangeError as error:
        raise SubmissionError(message) from error
    if len(set(indices)) < len(indices):
        raise SubmissionError(message)
    return tuple(indices)


def with_run_dir(program: Sequence[str], run_dir: str | PurePosixPath, index: int | None = None) -> list[str]:
    """Return the program with the folder to start in or to go on in, and with its entry of the array.

    One that does not run launch.py, or resumes a run already, is returned as it is.
    """
    position = _launch_position(program)
    if position is None or "--resume" in program[position:]:
        return list(program)
    chosen = [] if index is None else ["--array_index", str(index)]
    return [*program, *chosen, "--run_dir", str(run_dir), "--continue"]


def submission_name(name: str, now: datetime.datetime | None = None) -> str:
    """Return the name of a submission's folder: time and name."""
    stamp = (now or datetime.datetime.now()).strftime("%Y-%m-%d_%H-%M-%S")
    return f"{stamp}-{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}"


def snapshot(
    destination: str | os.PathLike[str],
    program: Sequence[str] = (),
    runs: str | os.PathLike[str] | None = None,
    root: Path = ROOT,
    files: Bundle | None = None,
) -> None:
    """Copy the code as it is now, uncommitted changes included, so that later edits do not reach what waits.

    What git ignores (virtual environments, data) stays behind. `runs/...` means the same in the copy as
    beside it: the folder that has the submission.

    Args:
        destination: `runs/<submission>/code`, the folder to fill; made if need be.
        program: what will run in it, whose relative files have to be there.
        runs: the folder `runs/` that it will see, if that is on this machine.
        root: the checkout.
        files: those from outside of it that go along.

    Raises:
        SubmissionError: the library does not run from a git checkout, or the program names a file that is
            here but not in the copy.
    """
    destination = Path(destination)
    for name in checkout_files(root):
        target = destination / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, target)
    if files is not None:
        files.write(destination)
    (destination / GIT_STATE_NAME).write_text(json.dumps(git_state(root)) + "\n")
    (destination / "runs").symlink_to("../..")
    for word in program:
        name = word.rpartition("=")[2]
        if Path(name).is_absolute() and Path(name).resolve() == root / "launch.py":
            raise SubmissionError(f"got {name}, expected launch.py, which is the copy of it")
        if name.startswith("runs/"):
            if runs is not None and not (Path(runs).parent / name).exists():
                raise SubmissionError(f"{name}: expected a file or folder in {runs}")
            continue
        if name and Path(name).exists() and not (destination / name).exists():
            raise SubmissionError(
                f"{name} is here, but not in the copy of the code that the program runs in (git ignores it, "
                f"or it is not below {root}): expected a file of the checkout, or an absolute path"
            )


def passed_environment(
    environ: Mapping[str, str] = os.environ, names: Iterable[str] = (), elsewhere: bool = False
) -> dict[str, str]:
    """Return the variables of this process that a run elsewhere needs too.

    Args:
        environ: variables of this process.
        names: others than VSML_*, WANDB_*, JAX_* and XLA_*.
        elsewhere: for another machine: folders of this one (VSML_SITE, and what ends in _DIR) only where
            `names` has them.

    Raises:
        SubmissionError: one of `names` is not set.
    """
    names = tuple(names)
    missing = [name for name in names if name not in environ]
    if missing:
        raise SubmissionError(f"--env: {', '.join(missing)}: expected a variable that is set here")

    def wanted(name: str) -> bool:
        if name in names:
            return True
        if elsewhere and (name.endswith("_DIR") or name == "VSML_SITE"):
            return False
        return name.startswith(_PASSED_PREFIXES)

    return {name: value for name, value in sorted(environ.items()) if wanted(name)}


def run_environment(
    site: Site, environ: Mapping[str, str], names: Iterable[str] = (), elsewhere: bool = False
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the variables of a run: those of its site, and over them those of this process.

    Args:
        site: settings of the site.
        environ: variables of this process; `names` and `elsewhere` as in `passed_environment`.
        names: others to pass on.
        elsewhere: for another machine.

    Returns:
        Those that anybody may read, and those that look like secrets, such as WANDB_API_KEY.
    """
    of_site = {name: Expandable(value) for name, value in site.environment.items()}
    both = of_site | passed_environment(environ, names, elsewhere)
    secret = {name: value for name, value in both.items() if _SECRET.search(name)}
    return {name: value for name, value in both.items() if name not in secret}, secret


def exports_of(variables: Mapping[str, str]) -> str:
    """Return lines of a shell script that export variables, to any value; `Expandable` ones are expanded."""
    lines = []
    for name, value in variables.items():
        word = shell_word(value) if isinstance(value, Expandable) else shlex.quote(value)
        lines.append(f"export {name}={word}\n")
    return "".join(lines)


class Expandable(str):
    """A text of the site's file, in which $NAME and ${NAME} stand for variables of where the run is."""

    __slots__ = ()


def shell_word(text: str) -> str:
    """Return a word of a shell script in which $NAME and ${NAME} are expanded, and nothing else is.

    A variable that is not set where the script runs ends it, with a message.
    """
    if not _VARIABLE.search(text):
        return shlex.quote(text)
    parts = []
    end = 0
    for match in _VARIABLE.finditer(text):
        name = match[1] or match[2]
        parts.append(_literal(text[end : match.start()]))
        parts.append(f"${{{name}:?expected it to be set here, as the file of the site names it}}")
        end = match.end()
    parts.append(_literal(text[end:]))
    return f'"{"".join(parts)}"'


def _literal(text: str) -> str:
    """Return a text as it stands between double quotes."""
    return re.sub(r'([\\"`$])', r"\\\1", text)


def expanded_here(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return a text of the site's file with the variables of this machine.

    Raises:
        SubmissionError: one is not set.
    """
    names = [match[1] or match[2] for match in _VARIABLE.finditer(text)]
    missing = [name for name in names if name not in environ]
    if missing:
        raise SubmissionError(f"{text}: {', '.join(missing)} in the site's file is not set on this machine")
    return _VARIABLE.sub(lambda match: environ[match[1] or match[2]], text)


def expanded_there(text: str, remote: "Remote") -> str:
    """Return a text of the site's file with the variables that a login shell has on another machine.

    Raises:
        SubmissionError: one is not set there, or the machine cannot be reached.
    """
    if not _VARIABLE.search(text):
        return text
    done = remote.run(["bash", "--login", "-c", f"printf '%s\\n' {shell_word(text)}"])
    return done.stdout.splitlines()[-1]


@dataclass(frozen=True)
class Remote:
    """A machine reached by ssh, which has to work without a question.

    Attributes:
        host: as ssh takes it.
        ssh_config: file for `ssh -F`.
    """

    host: str
    ssh_config: str | None = None

    @property
    def ssh(self) -> list[str]:
        """The beginning of an ssh command, without the host."""
        config = ["-F", str(Path(expanded_here(self.ssh_config)).expanduser())] if self.ssh_config else []
        return ["ssh", *config, "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_TIMEOUT_S}"]

    def run(
        self, command: Sequence[str], *, input: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there; every argument arrives as it is.

        Args:
            command: program and arguments.
            input: for its stdin.
            check: raise if it fails.

        Raises:
            SubmissionError: the machine cannot be reached; or the command fails and `check` is set.
        """
        return self._call([*self.ssh, self.host, shlex.join(command)], input, check)

    def make_folder(self, folder: str) -> None:
        """Make a folder there, and those above it.

        Raises:
            SubmissionError: it is there already.
        """
        self.run(["mkdir", "-p", "--", str(PurePosixPath(folder).parent)])
        self.run(["mkdir", "--", folder])

    def copy_to(self, local: str | os.PathLike[str], folder: str) -> None:
        """Copy the content of a local folder into one there."""
        self._rsync([f"{Path(local)}/", f"{self.host}:{folder}/"])

    def copy_from(self, folder: str, local: str | os.PathLike[str], exclude: Sequence[str] = ()) -> None:
        """Copy the content of a folder there into a local one, without what `exclude` matches."""
        Path(local).mkdir(parents=True, exist_ok=True)
        self._rsync([*(f"--exclude={each}" for each in exclude), f"{self.host}:{folder}/", f"{Path(local)}/"])

    def _rsync(self, arguments: Sequence[str]) -> None:
        options = ["--archive", "--compress", "-s", "--rsh", shlex.join(self.ssh)]
        self._call(["rsync", *options, *arguments])

    def _call(
        self, command: Sequence[str], input: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        try:
            done = subprocess.run(command, input=input, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise SubmissionError(f"{command[0]} is not installed on this machine") from error
        unreachable = done.returncode == 255 and command[0] == "ssh"
        if done.returncode and (check or unreachable):
            what = "cannot be reached by ssh" if unreachable else f"{command[0]} failed ({done.returncode})"
            raise SubmissionError(f"{self.host}: {what}: {done.stderr.strip() or shlex.join(command)}")
        return done
