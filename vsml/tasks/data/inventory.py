"""Which files of a data set are there, and which are missing; nothing is read or downloaded."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vsml.tasks.data.dataset import SUBSETS
from vsml.tasks.data.entry import Entry
from vsml.tasks.data.files import find_here
from vsml.tasks.data.sources import data_folder, is_npz, look_up


@dataclass(frozen=True)
class Half:
    """One half of a data set, as far as it can be known without reading it.

    Attributes:
        name: of the data set.
        subset: "train" or "test".
        there: the files or folders that it will be read from; none where it needs no file.
        missing: the files that are not there.
        can_be_downloaded: whether missing ones have an address.
    """

    name: str
    subset: str
    there: tuple[Path, ...] = ()
    missing: tuple[Path, ...] = ()
    can_be_downloaded: bool = False

    @property
    def needs_files(self) -> bool:
        """Whether it is read from files."""
        return bool(self.there or self.missing)

    def describe(self) -> str:
        """Say in a few words whether it is there."""
        if not self.needs_files:
            return "needs no file"
        if not self.missing:
            folders = sorted({str(path.parent) for path in self.there})
            return f"there, in {' and '.join(folders)}"
        return f"missing: {', '.join(map(str, self.missing))}"


def look(name: str, subset: str, root: str | Path | None = None) -> Half:
    """Return which files of one half of a data set are there.

    Args:
        name: as for `vsml.tasks.load`.
        subset: "train" or "test".
        root: data root, as for `load`.

    Raises:
        ValueError: unknown name or subset.
    """
    if is_npz(name, subset):
        path = Path(name).expanduser()
        if path.is_file():
            return Half(name, subset, there=(path,))
        return Half(name, subset, missing=(path.absolute(),))
    origin = look_up(name)
    if not isinstance(origin, Entry):  # it is drawn, or code of a user's own
        return Half(name, subset)
    folder = data_folder(root)
    there: list[Path] = []
    missing: list[Path] = []
    for file in origin.files[subset]:
        copy = find_here(file, folder)
        if copy is None:
            missing.append(folder / file.published.path)
        else:
            there.append(copy.path)
    can_be_downloaded = all(file.addresses for file in origin.files[subset])
    return Half(name, subset, _once(there), _once(missing), can_be_downloaded)


def _once(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Return paths without those that come again, as an archive does for each of its members."""
    return tuple(dict.fromkeys(paths))


def look_at_all(names: Iterable[str], root: str | Path | None = None) -> list[Half]:
    """Return both halves of each data set, in order."""
    return [look(name, subset, root) for name in names for subset in SUBSETS]
