"""Downloads from a server on the loopback address: fresh, resumed, corrupted, absent."""

import hashlib
import http.server
import threading
import time

import numpy as np
import pytest

from vsml.tasks import MissingDataError
from vsml.tasks.data.download import download
from vsml.tasks.data.files import File, Form, find

CONTENT = np.random.default_rng(0).bytes(100_000)
HALF = len(CONTENT) // 2
ABSENT = "http://127.0.0.1:9"  # the discard port: connections are refused


def sha256(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves one content; what it was asked and how many bytes it sent is in `log`, [(Range, bytes)]."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.first_content = b""  # sent to the first request instead
        self.log = []
        self.knows_ranges = True
        self.range_shift = 0  # continues elsewhere than asked
        self.break_after = None  # closes the connection after so many bytes
        self.headers = {}
        self.may_answer = threading.Event()
        self.may_answer.set()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}/file"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers["Range"]
        content = server.content if server.log else server.first_content or server.content
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.knows_ranges else 0
        if start and start < len(content):
            start += server.range_shift
        rest = content[start:]
        server.log.append((asked, len(rest)))
        server.may_answer.wait()
        if start >= len(content):
            self.send_response(416)
        elif start:
            self.send_response(206)
            last = len(content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{last + 1}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(rest)))
        for name, value in server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(rest[: server.break_after])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.may_answer.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "root" / "file"


def part_of(path, content=None):
    """Return the name of a file's part, after writing it where content is given."""
    part = path.with_name(path.name + ".part")
    if content is not None:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
    return part


def listing(path):
    return sorted(entry.name for entry in path.parent.iterdir())


def test_a_file_is_fetched_whole_and_only_it_is_left(server, path):
    download(path, sha256(CONTENT), [server.address])
    assert path.read_bytes() == CONTENT
    assert listing(path) == ["file"]
    assert server.log == [(None, len(CONTENT))]


def test_what_a_data_root_lacks_is_put_into_it_once(server, path):
    file = File(Form("root/file", sha256(CONTENT)), (server.address,), others=(Form("root/other"),))
    with pytest.raises(MissingDataError, match="nothing was downloaded"):
        find(file, path.parents[1], download=False)
    for _ in range(2):
        assert find(file, path.parents[1], download=True).path == path
    assert path.read_bytes() == CONTENT
    assert len(server.log) == 1


def test_what_has_arrived_is_not_sent_again(server, path):
    part_of(path, CONTENT[:HALF])
    download(path, sha256(CONTENT), [server.address])
    assert path.read_bytes() == CONTENT
    assert listing(path) == ["file"]
    assert server.log == [(f"bytes={HALF}-", len(CONTENT) - HALF)]


def test_a_broken_connection_leaves_a_part_that_the_next_call_goes_on_with(server, path):
    server.break_after = 70_000
    with pytest.raises(OSError, match=server.address):
        download(path, sha256(CONTENT), [server.address])
    arrived = part_of(path).read_bytes()
    assert listing(path) == ["file.part"]
    assert 0 < len(arrived) < len(CONTENT)
    assert arrived == CONTENT[: len(arrived)]
    server.break_after = None
    download(path, sha256(CONTENT), [server.address])
    assert path.read_bytes() == CONTENT
    assert server.log[1:] == [(f"bytes={len(arrived)}-", len(CONTENT) - len(arrived))]


def test_one_mirror_goes_on_where_another_one_broke_off(server, path):
    part_of(path, CONTENT[:HALF])
    download(path, sha256(CONTENT), [ABSENT, server.address])
    assert path.read_bytes() == CONTENT
    assert server.log == [(f"bytes={HALF}-", len(CONTENT) - HALF)]


def test_a_server_without_ranges_sends_all_of_it_anew(server, path):
    server.knows_ranges = False
    part_of(path, CONTENT[:HALF])
    download(path, sha256(CONTENT), [server.address])
    assert path.read_bytes() == CONTENT
    assert server.log == [(f"bytes={HALF}-", len(CONTENT))]


@pytest.mark.parametrize("shift", [-10, 10])
def test_a_server_that_continues_elsewhere_is_asked_for_all_of_it(server, path, shift):
    server.range_shift = shift
    part_of(path, CONTENT[:HALF])
    download(path, sha256(CONTENT), [server.address])
    assert path.read_bytes() == CONTENT
    assert server.log[1:] == [(None, len(CONTENT))]


def test_a_part_that_is_complete_needs_no_server(path):
    part_of(path, CONTENT)
    download(path, sha256(CONTENT), [ABSENT])
    assert path.read_bytes() == CONTENT
    assert listing(path) == ["file"]


@pytest.mark.parametrize("part", [CONTENT + b"more", b"?" * HALF], ids=["too long", "damaged"])
def test_a_part_of_something_else_is_started_over(server, path, part):
    part_of(path, part)
    download(path, sha256(CONTENT), [server.address])
    assert path.read_bytes() == CONTENT
    assert server.log[1:] == [(None, len(CONTENT))]


@pytest.mark.parametrize("part", [None, CONTENT[:HALF]])
def test_corrupted_content_is_refused_and_nothing_is_left(server, path, part):
    server.content = CONTENT[:-1] + b"?"
    part_of(path, part)
    with pytest.raises(OSError, match="wrong checksum") as error:
        download(path, sha256(CONTENT), [server.address])
    for said in (server.address, sha256(server.content)[7:], sha256(CONTENT)[7:]):
        assert said in str(error.value)
    assert listing(path) == []


def test_the_first_mirror_that_serves_is_used(server, path):
    addresses = [ABSENT, f"http://127.0.0.1:{server.server_port}/file", "http://unused.invalid/file"]
    download(path, sha256(CONTENT), addresses)
    assert path.read_bytes() == CONTENT


def test_an_absent_host_is_named_and_keeps_what_has_arrived(path):
    with pytest.raises(OSError, match=ABSENT):
        download(path, sha256(CONTENT), [ABSENT])
    assert listing(path) == []
    part_of(path, CONTENT[:HALF])
    with pytest.raises(OSError, match=ABSENT):
        download(path, sha256(CONTENT), [ABSENT])
    assert part_of(path).read_bytes() == CONTENT[:HALF]


def test_an_error_of_the_server_is_told_and_not_kept(server, path):
    server.content = b""  # answers 416 even to the first request
    with pytest.raises(OSError, match="416"):
        download(path, sha256(CONTENT), [server.address])
    assert listing(path) == []


def test_bytes_are_kept_as_they_are_stored(server, path):
    server.headers = {"Content-Encoding": "gzip"}  # as some say of a file that is packed by itself
    download(path, sha256(CONTENT), [server.address])
    assert path.read_bytes() == CONTENT


def test_a_folder_that_cannot_be_made_is_named(path):
    path.parent.touch()
    with pytest.raises(OSError, match=f"the folder {path.parent} cannot be written"):
        download(path, sha256(CONTENT), [ABSENT])


@pytest.mark.parametrize("first", [b"", b"corrupted"])
def test_of_two_at_once_the_second_waits_and_only_goes_on_where_the_first_failed(server, path, first):
    server.first_content = first
    server.may_answer.clear()
    errors = []

    def run():
        try:
            download(path, sha256(CONTENT), [server.address])
        except OSError as error:
            errors.append(str(error))

    both = [threading.Thread(target=run) for _ in range(2)]
    for thread in both:
        thread.start()
    deadline = time.monotonic() + 10
    while not server.log and time.monotonic() < deadline:
        time.sleep(0.01)
    both[0].join(0.2)  # so that the other one comes to where it waits
    server.may_answer.set()
    for thread in both:
        thread.join()
    assert path.read_bytes() == CONTENT
    assert listing(path) == ["file"]
    assert len(errors) == bool(first)
    assert [sent for _, sent in server.log] == [len(first)] * bool(first) + [len(CONTENT)]
