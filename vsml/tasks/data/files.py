"""Published files: in which form a data root has one, whether it is the published one, and what is in it."""

import bz2
import gzip
import hashlib
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

from vsml.system.extras import needed_for
from vsml.tasks.data.download import download as download_file
from vsml.tasks.data.errors import DataError, MissingDataError

MAX_BYTES = 1 << 30
"""Most that is taken of a file or an archive, unpacked; the largest published file has half of it."""

_READ_ERRORS = (
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What packed files raise that are truncated, of another kind, encrypted, forged or damaged."""


def _gunzip(packed: BytesIO) -> gzip.GzipFile:
    return gzip.GzipFile(fileobj=packed)


_OPEN: dict[str, Callable[[BytesIO], gzip.GzipFile | bz2.BZ2File]] = {".gz": _gunzip, ".bz2": bz2.BZ2File}
"""What unpacks a file, by the end of its name; others are not packed."""


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


def find_here(file: File, root: Path) -> Copy | None:
    """Return the copy of a file in a data root, in the first of its forms that is there; None for none."""
    for form in (file.published, *file.others):
        path = root / form.path
        is_there = path.is_dir() if form.folder else path.is_file()
        if is_there:
            return Copy(path, form)
    return None


def find(
    file: File,
    root: Path,
    download: bool,
) -> Copy:
    """Return the copy of a file in a data root; where none of its forms is there, download it.

    Args:
        file: what is looked for.
        root: the data root.
        download: whether it may be downloaded.

    Raises:
        MissingDataError: it is not there and was not downloaded; names file, addresses and folder.
    """
    there = find_here(file, root)
    if there is not None:
        return there
    path = root / file.published.path
    reason = "nothing was downloaded"
    failures = ""
    if download:
        try:
            download_file(path, file.published.checksum, file.addresses)
            return Copy(path, file.published)
        except OSError as error:
            reason = "the download failed"
            failures = f"\n  {error}"
    addresses = " or ".join(file.addresses)
    wanted = " or ".join(form.path for form in (file.published, *file.others))
    raise MissingDataError(
        f"{path} is missing and {reason}. Get {path.name} from {addresses} into the folder "
        f"{path.parent}, or set data.root or VSML_DATA_DIR to a folder that has {wanted}.{failures}"
    )


def is_published(copy: Copy) -> bool:
    """Return whether a copy has a published checksum, and has it right."""
    expected = copy.form.checksum
    if not expected:
        return False
    return _checksum_of(copy.path, expected) == expected


def _checksum_of(path: Path, expected: str) -> str:
    """Return the checksum of a file, "md5:..." or "sha256:..." as the expected one."""
    with needed_for("checksums of data sets"):
        import pooch

    algorithm, _, _ = expected.partition(":")
    return f"{algorithm}:{pooch.file_hash(str(path), alg=algorithm)}"


def check_checksums(copies: Sequence[Copy]) -> None:
    """Check the copies of which a checksum is published; an archive once for all its members.

    Raises:
        DataError: one is wrong.
    """
    expected_of = {copy.path: copy.form.checksum for copy in copies}
    for path, expected in expected_of.items():
        if not expected:
            continue
        got = _checksum_of(path, expected)
        if got != expected:
            algorithm, _, got_sum = got.partition(":")
            _, _, expected_sum = expected.partition(":")
            raise wrong_checksum(str(path), algorithm, got_sum, expected_sum)


def wrong_checksum(
    where: str,
    algorithm: str,
    got: str,
    expected: str,
) -> DataError:
    """Return the error of a user's file that is not the published one."""
    return DataError(
        f"{where}: wrong checksum, got {algorithm} {got}, expected {expected}. Delete the file to have it "
        "downloaded again; if it is meant to differ, set data.verify: false."
    )


def fingerprint(copy: Copy) -> str:
    """Return what changes when a copy does, without reading it: size and time, of each file of a folder."""
    paths = sorted(copy.path.rglob("*")) if copy.form.folder else [copy.path]
    lines = []
    for path in paths:
        name = path.relative_to(copy.path)
        stat = path.stat()
        lines.append(f"{name} {stat.st_size} {stat.st_mtime_ns}")
    listing = "\n".join(lines)
    return hashlib.sha256(listing.encode(errors="surrogateescape")).hexdigest()


def read_all(copies: Sequence[Copy]) -> list[bytes]:
    """Return the unpacked content of each copy; each archive is gone through once.

    Raises:
        DataError: a file is truncated or damaged, or an archive lacks a member.
    """
    archives = dict.fromkeys(copy.path for copy in copies if copy.form.member)
    contents = {path: _read_members(path, copies) for path in archives}
    unpacked = []
    for copy in copies:
        if copy.form.member:
            content = contents[copy.path][copy.form.member]
            unpacked.append(_unpack(copy, content))
        else:
            unpacked.append(_unpack(copy, None))
    return unpacked


def _read_members(path: Path, copies: Sequence[Copy]) -> dict[str, bytes]:
    """Return the content of those copies that are members of an archive, by name."""
    wanted = {copy.form.member for copy in copies if copy.path == path}
    found = read_archive(path, wanted.__contains__)
    absent = sorted(wanted - set(found))
    if absent:
        raise DataError(f"{path}: got an archive without {', '.join(absent)}")
    return found


def read_archive(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Return the content of the files of a .zip or .tar.gz that are wanted, by name; nothing is extracted.

    Raises:
        DataError: it is not such an archive, or is damaged.
    """
    read = _read_zip if path.suffix == ".zip" else _read_tar
    try:
        return read(path, wanted)
    except _READ_ERRORS as error:
        raise DataError(f"{path}: truncated or damaged, or not a {path.suffix} archive: {error}") from error


def _read_zip(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    contents = {}
    room = MAX_BYTES
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if not wanted(name):
                continue
            with archive.open(name) as file:
                contents[name] = _read_within(file, room)
            room -= len(contents[name])
    return contents


def _read_tar(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    # Unpacked as a whole: else the checksum at its end is not looked at.
    with gzip.open(path) as packed:
        unpacked = _read_within(packed, MAX_BYTES)
    contents = {}
    with tarfile.open(fileobj=BytesIO(unpacked), mode="r:") as archive:
        for info in archive:
            # A link is not followed: it may lead to nothing, or round in a circle.
            if not wanted(info.name) or not info.isreg():
                continue
            file = archive.extractfile(info)
            if file is not None:
                contents[info.name] = file.read()
    return contents


def _read_within(file: IO[bytes] | gzip.GzipFile | bz2.BZ2File, room: int) -> bytes:
    """Return what an open file has, which must not be more than fits."""
    content = file.read(room + 1)
    if len(content) > room:
        raise ValueError(f"it unpacks to more than {MAX_BYTES} bytes, expected at most as many")
    return content


def _unpack(copy: Copy, content: bytes | None) -> bytes:
    """Return a member, or without one the file itself, unpacked where it is packed."""
    name = Path(copy.form.member or copy.path)
    try:
        packed = copy.path.read_bytes() if content is None else content
        if name.suffix not in _OPEN:
            return packed
        with _OPEN[name.suffix](BytesIO(packed)) as file:
            return _read_within(file, MAX_BYTES)
    except _READ_ERRORS as error:
        raise DataError(f"{copy}: truncated or not a {name.suffix} file: {error}") from error
