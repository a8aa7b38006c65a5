"""Published files: in which form a data root has one, whether it is the published one, and what is in it."""

import bz2
import gzip
import hashlib
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pooch

from vsml.tasks.data.download import download as download_file
from vsml.tasks.data.errors import DataError, MissingDataError

_READ_ERRORS = (EOFError, OSError, RuntimeError, ValueError, zlib.error, tarfile.TarError, zipfile.BadZipFile)
"""What packed files raise that are truncated, of another kind, encrypted or damaged."""


@dataclass(frozen=True)
class Form:
    """One form in which a published file may lie in a data root.

    Attributes:
        path: below the data root.
        checksum: "md5:..." or "sha256:..." of what is at path; empty if none was published, then its
            structure alone is checked.
        member: where path is an archive, the file's name in it.
        folder: whether path is a folder: an archive's content, unpacked.
    """

    path: str
    checksum: str = ""
    member: str = ""
    folder: bool = False


@dataclass(frozen=True)
class File:
    """A published file.

    Attributes:
        published: the form in which it is published.
        addresses: URLs of that form, tried in order.
        others: further forms, used where that one is not there.
    """

    published: Form
    addresses: tuple[str, ...]
    others: tuple[Form, ...] = ()


@dataclass(frozen=True)
class Copy:
    """A file that is there: its path, in the given form."""

    path: Path
    form: Form

    def __str__(self) -> str:
        return f"{self.path}, {self.form.member}" if self.form.member else str(self.path)


def find(file: File, root: Path, download: bool) -> Copy:
    """Return the copy of a file in a data root; where none of its forms is there, download it.

    Args:
        file: what is looked for.
        root: the data root.
        download: whether it may be downloaded.

    Raises:
        MissingDataError: it is not there and was not downloaded; names file, addresses and folder.
    """
    for form in (file.published, *file.others):
        path = root / form.path
        if path.is_dir() if form.folder else path.is_file():
            return Copy(path, form)
    path = root / file.published.path
    reason, failures = "nothing was downloaded", ""
    if download:
        try:
            download_file(path, file.published.checksum, file.addresses)
            return Copy(path, file.published)
        except OSError as error:
            reason, failures = "the download failed", f"\n  {error}"
    wanted = " or ".join(form.path for form in (file.published, *file.others))
    raise MissingDataError(
        f"{path} is missing and {reason}. Get {path.name} from {' or '.join(file.addresses)} into the folder "
        f"{path.parent}, or set data.root or VSML_DATA_DIR to a folder that has {wanted}.{failures}"
    )


def is_published(copy: Copy) -> bool:
    """Return whether a copy has a published checksum, and has it right."""
    algorithm, _, expected = copy.form.checksum.partition(":")
    return bool(expected) and pooch.file_hash(str(copy.path), alg=algorithm) == expected


def check_checksums(copies: Sequence[Copy]) -> None:
    """Check the copies of which a checksum is published; an archive once for all its members.

    Raises:
        DataError: one is wrong.
    """
    for path, checksum in dict.fromkeys((copy.path, copy.form.checksum) for copy in copies):
        algorithm, _, expected = checksum.partition(":")
        if expected and (got := pooch.file_hash(str(path), alg=algorithm)) != expected:
            raise wrong_checksum(str(path), algorithm, got, expected)


def wrong_checksum(where: str, algorithm: str, got: str, expected: str) -> DataError:
    """Return the error of a user's file that is not the published one."""
    return DataError(
        f"{where}: wrong checksum, got {algorithm} {got}, expected {expected}. Delete the file to have it "
        "downloaded again; if it is meant to differ, set data.verify: false."
    )


def fingerprint(copy: Copy) -> str:
    """Return what changes when a copy does, without reading it: size and time, of each file of a folder."""
    paths = sorted(copy.path.rglob("*")) if copy.form.folder else [copy.path]
    stats = ((path.relative_to(copy.path), path.stat()) for path in paths)
    listing = "\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)
    return hashlib.sha256(listing.encode(errors="surrogateescape")).hexdigest()


def read_all(copies: Sequence[Copy]) -> list[bytes]:
    """Return the unpacked content of each copy; each archive is gone through once.

    Raises:
        DataError: a file is truncated or damaged, or an archive lacks a member.
    """
    members: dict[tuple[Path, str], bytes] = {}
    for path in dict.fromkeys(copy.path for copy in copies if copy.form.member):
        wanted = {copy.form.member for copy in copies if copy.path == path}
        found = read_archive(path, wanted.__contains__)
        if absent := sorted(wanted - set(found)):
            raise DataError(f"{path}: got an archive without {', '.join(absent)}")
        members |= {(path, member): content for member, content in found.items()}
    return [_unpack(copy, members.get((copy.path, copy.form.member))) for copy in copies]


def read_archive(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Return the content of the files of a .zip or .tar.gz that are wanted, by name; nothing is extracted.

    Raises:
        DataError: it is not such an archive, or is damaged.
    """
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                return {name: archive.read(name) for name in archive.namelist() if wanted(name)}
        unpacked = BytesIO(gzip.decompress(path.read_bytes()))  # as a whole, or its checksum is not looked at
        with tarfile.open(fileobj=unpacked, mode="r:") as tar:
            files = {info.name: tar.extractfile(info) for info in tar if wanted(info.name)}
            return {name: file.read() for name, file in files.items() if file is not None}
    except _READ_ERRORS as error:
        raise DataError(f"{path}: truncated or damaged, or not a {path.suffix} archive: {error}") from error


def _unpack(copy: Copy, content: bytes | None) -> bytes:
    """Return a member, or without one the file itself, unpacked where it is packed."""
    suffix = Path(copy.form.member or copy.path).suffix
    unpack: Callable[[bytes], bytes] = {".gz": gzip.decompress, ".bz2": bz2.decompress}.get(suffix, bytes)
    try:
        return unpack(copy.path.read_bytes() if content is None else content)
    except _READ_ERRORS as error:
        raise DataError(f"{copy}: truncated or not a {suffix} file: {error}") from error
