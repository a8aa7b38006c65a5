"""Downloads: resumed where they stopped, and given their name only once their checksum is right."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from vsml.system.extras import needed_for
from vsml.system.locks import take_turns

TIMEOUT_S = (10.0, 30.0)
"""How long a server may take to accept a connection, and then to send something."""

_BLOCK_BYTES = 1 << 20


def download(
    path: Path,
    checksum: str,
    addresses: Sequence[str],
) -> None:
    """Download a file from the first address that serves it.

    What has arrived is in `<path>.part`, which stays when the connection breaks; the next call asks the
    server only for the rest. Processes that share the folder take turns; later ones find the file there.

    Args:
        path: the file to make; its folder is made too.
        checksum: "md5:..." or "sha256:...", of the whole file.
        addresses: URLs, tried in order.

    Raises:
        OSError: the folder cannot be written, or no address gave the file; says why for each.
    """
    with needed_for("downloads"):
        from urllib3.exceptions import HTTPError  # comes with requests, which is slow to import

    failures = []
    with contextlib.ExitStack() as opened:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            opened.enter_context(take_turns(path.with_name(f".{path.name}.lock"), remove=True))
            part = opened.enter_context(open(path.with_name(f"{path.name}.part"), "ab"))
        except OSError as error:
            raise OSError(f"the folder {path.parent} cannot be written: {error}") from error
        for address in () if path.exists() else addresses:
            try:
                _fetch(address, part, checksum)
                os.replace(part.name, path)
                return
            except (OSError, HTTPError) as error:
                failures.append(f"{address}: {error}")
        if os.fstat(part.fileno()).st_size == 0:
            os.unlink(part.name)
    if failures:
        raise OSError("\n  ".join(failures))


def _fetch(address: str, part: BinaryIO, checksum: str) -> None:
    """Complete the part from an address, and check it; a wrong one is emptied."""
    resumed = os.fstat(part.fileno()).st_size > 0
    if resumed and not _fault(part, checksum):
        return
    _receive(address, part)
    fault = _fault(part, checksum)
    if fault and resumed:  # perhaps what an earlier try had left was damaged
        part.truncate(0)
        _receive(address, part)
        fault = _fault(part, checksum)
    if fault:
        part.truncate(0)
        raise OSError(fault)


def _fault(part: BinaryIO, checksum: str) -> str:
    """Return what is wrong with the checksum of a part, nothing if it is right."""
    with needed_for("downloads"):
        import pooch

    part.flush()
    algorithm, _, expected = checksum.partition(":")
    got = pooch.file_hash(part.name, alg=algorithm)
    return "" if got == expected else f"wrong checksum, got {algorithm} {got}, expected {expected}"


def _receive(address: str, part: BinaryIO) -> None:
    """Append the rest of a file, or all of it anew where the server does not continue."""
    with needed_for("downloads"):
        import pooch
        import requests  # slow to import, and seldom needed

    start = os.fstat(part.fileno()).st_size
    pooch.get_logger().info(f"downloading {address} to {part.name}" + (f" from byte {start}" * bool(start)))
    # Unencoded, and read below what would decode: the checksum is that of the bytes as they are stored.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(address, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        status = response.status_code
        continues = status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        anew = start > 0 and status in (206, 416) and not continues
        if not anew:
            response.raise_for_status()
            if not continues:
                part.truncate(0)
            for block in response.raw.stream(_BLOCK_BYTES, decode_content=False):
                part.write(block)
    if anew:
        part.truncate(0)
        _receive(address, part)
