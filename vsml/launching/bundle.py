"""Files that a submission needs: those that go with the copy of the code, and those that are looked up."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from vsml.config.array import load_array
from vsml.config.schema import Config
from vsml.runs.checkpoint import PRETRAINED_PREFIX
from vsml.runs.wandb import is_wandb_path

FOLDER = "submitted"
"""Where files from outside of the checkout are in the copy of the code, under their whole paths."""


class SubmissionError(ValueError):
    """A command that cannot be submitted, or a machine that cannot be reached; the message says why."""


@dataclass(frozen=True)
class Bundle:
    """A program whose files are all in the copy of the code.

    Attributes:
        program: its words, with the paths that files have in the copy.
        copied: files that go along, by their path in the copy.
        texts: files that are written anew, likewise.
    """

    program: tuple[str, ...]
    copied: Mapping[str, Path] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)

    def write(self, code: Path) -> None:
        """Put the files into the copy of the code."""
        for name, source in self.copied.items():
            target = code / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
        for name, text in self.texts.items():
            target = code / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")


def checkout_files(root: Path) -> list[str]:
    """Return what the copy of a checkout has: files that are there and that git does not ignore.

    Raises:
        SubmissionError: it is no git checkout.
    """
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True)
    if listed.returncode:
        message = f"{root}: expected a git checkout to take the code from: {listed.stderr.strip()}"
        raise SubmissionError(message)
    names = filter(None, listed.stdout.split("\0"))
    return [name for name in names if (root / name).is_file()]  # else deleted, but not in the index yet


def bundle(
    program: Sequence[str], position: int, files: Sequence[str], array: str | None, root: Path
) -> Bundle:
    """Let a program find its configuration files in the copy of the code.

    Files of the checkout are there; others go along. An array file from outside of the checkout is written
    anew, with the places that its configuration files have in the copy.

    Args:
        program: words that run launch.py.
        position: of launch.py among them.
        files: of `--config_files`.
        array: of `--array`.
        root: the checkout.

    Raises:
        SubmissionError: an array file of the checkout names a file that is not in it.
    """
    there = set(checkout_files(root))
    copied: dict[str, Path] = {}
    texts: dict[str, str] = {}

    def place(path: str | Path) -> str:
        """Return where a file is in the copy, and let it go along where the checkout lacks it."""
        absolute = Path(os.path.normpath(Path(path).absolute()))
        if absolute.is_relative_to(root):
            name = absolute.relative_to(root).as_posix()
            if name in there:
                return name
        name = str(PurePosixPath(FOLDER, *absolute.parts[1:]))
        copied[name] = absolute
        return name

    moved = {name: place(name) for name in files}
    if array is not None:
        moved[array] = place(array)
        text = _array_in_copy(array, moved[array], place)
        if moved[array] in copied:
            del copied[moved[array]]
            texts[moved[array]] = text
    words = list(program)
    for number in range(position + 1, len(words)):
        option, equals, value = words[number].rpartition("=")
        if words[number] in moved:
            words[number] = moved[words[number]]
        elif option in ("--config_files", "--array") and value in moved:
            words[number] = f"{option}{equals}{moved[value]}"
    return Bundle(tuple(words), copied, texts)


def _array_in_copy(array: str, place_of_array: str, place: Callable[[str | Path], str]) -> str:
    """Return the text of an array file whose configuration files are named by their places in the copy."""
    settings = yaml.safe_load(Path(array).read_text(encoding="utf-8"))
    found: dict[str, str] = {}
    is_outside = place_of_array.startswith(f"{FOLDER}/")
    for entry in load_array(array):
        for name, path in zip(entry.named, entry.config_files, strict=True):
            in_copy = place(path)
            if in_copy.startswith(f"{FOLDER}/") and not is_outside:
                raise SubmissionError(
                    f"{entry.label}: {path} is not in the copy of the code, as git ignores it or it is not "
                    "in the checkout: expected a file of the checkout, or the array file beside it"
                )
            found[name] = os.path.relpath(in_copy, PurePosixPath(place_of_array).parent)
    for mapping in _entries(settings):
        if "config_files" in mapping:
            mapping["config_files"] = [found[name] for name in mapping["config_files"]]
    heading = f"# A copy of {Path(array).absolute()}, with the places of its files here.\n"
    return heading + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def _entries(settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the entries of an array file, those of all axes where it is a grid."""
    yield from settings.get("array") or ()
    for axis in settings.get("grid") or ():
        yield from axis


# What a run reads, beside its configuration.


@dataclass(frozen=True)
class Needed:
    """A file or folder that a configuration names.

    Attributes:
        setting: dotted path.
        path: as it is given.
    """

    setting: str
    path: str


def needed(configs: Iterable[Config]) -> list[Needed]:
    """Return the data and meta-parameters of users that runs read, each once.

    A folder of data sets that is not there yet is no fault, as downloads make it; so it counts only where it
    is relative. What wandb keeps and what comes with the library is left out.
    """
    found: dict[Needed, None] = {}
    for config in configs:
        for each in _needed(config):
            found[each] = None
    return list(found)


def _needed(config: Config) -> Iterator[Needed]:
    for spec in config.training_specs:
        if config.call == "train" and spec.dataset.endswith(".npz"):
            yield Needed("training.dataset", spec.dataset)
    for number, each in enumerate(config.evaluation_specs):
        if each.task.dataset.endswith(".npz") and not each.optional:
            yield Needed(f"evaluation.datasets.{number}", each.task.dataset)
    restored = {"checkpoint.restore": config.checkpoint.restore}
    for number, learner in enumerate(config.evaluation.learners):
        restored[f"evaluation.learners.{number}.restore"] = learner.restore
    for setting, path in restored.items():
        if path is None or path.startswith(PRETRAINED_PREFIX) or is_wandb_path(path):
            continue
        yield Needed(setting, path)
    root = config.data.root
    if root is not None and not _is_absolute(root):
        yield Needed("data.root", root)


def look_up(needs: Iterable[Needed], root: Path, runs: Path | None) -> list[str]:
    """Check what can be checked here, and return the paths that only the other machine can look up.

    Args:
        needs: files and folders.
        root: the checkout.
        runs: the folder `runs/` that the run will see, where that is on this machine; None: another machine.

    Raises:
        SubmissionError: lists what is not there, or is not in the copy of the code.
    """
    there = [PurePosixPath(name) for name in checkout_files(root)]
    folders = {str(parent) for name in there for parent in name.parents}
    in_copy = folders | {str(name) for name in there}
    mistakes = []
    elsewhere = []
    for need in needs:
        got = f"{need.setting}: got {need.path}"
        is_in_runs = PurePosixPath(need.path).parts[:1] == ("runs",)
        if runs is None and (_is_absolute(need.path) or is_in_runs):
            elsewhere.append(need.path)
        elif _is_absolute(need.path):
            if not Path(need.path).expanduser().exists():
                mistakes.append(f"{got}, expected a file or folder that is there")
        elif is_in_runs:
            if runs is not None and not (runs.parent / need.path).exists():
                mistakes.append(f"{got}, expected a file or folder in {runs}")
        elif os.path.normpath(need.path) not in in_copy:
            where = "is here, but not in" if Path(need.path).exists() else "is not in"
            mistakes.append(
                f"{got}, which {where} the copy of the code that the program runs in: expected an absolute "
                "path, or a file of the checkout that git does not ignore"
            )
    if mistakes:
        raise SubmissionError("\n  ".join(["files that the program needs:", *mistakes]))
    return elsewhere


def _is_absolute(path: str) -> bool:
    return path.startswith(("/", "~"))
