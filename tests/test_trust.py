"""Whose files of the cache are loaded: ours or root's, as they were made, and nobody else's."""

import os
import re
import shutil
import stat
import warnings

import pytest

from slurm import schedule
from vsml.launching.submission import Site, SubmissionError, load_site
from vsml.networks.kernels import libraries, native
from vsml.system import cache, devices
from vsml.system.trust import UntrustedError, check_trusted, open_trusted, private_folder
from vsml.tasks import DataError, load

pytestmark = pytest.mark.skipif(os.name != "posix", reason="owners and modes are those of POSIX")

SOMEBODY = 12345

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def small_kernel(monkeypatch, tmp_path):
    """Let a kernel of one line be compiled, in a cache of its own; returns what builds it."""
    if not any(map(shutil.which, libraries._COMPILERS)):
        pytest.skip("no C++ compiler")
    source = tmp_path / "small.cpp"
    source.write_text('extern "C" int answer() { return 42; }')
    monkeypatch.setitem(native.SOURCES, "dense", source)
    monkeypatch.setenv("VSML_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    libraries._folder_of_process.cache_clear()
    yield lambda: native._build.__wrapped__(5, 0)
    libraries._folder_of_process.cache_clear()


def answer_of(library):
    return libraries._load(library).answer()


def overwrite(path, content):
    """Put another content into the very file, as copying over it does."""
    path.write_bytes(content)


def give_away(path):
    os.chown(path, SOMEBODY, SOMEBODY)


def replace_by_link(path):
    elsewhere = path.with_name("elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def replace_by_pipe(path):
    path.unlink()
    os.mkfifo(path)


PLANTED = {
    "cut": lambda path: overwrite(path, path.read_bytes()[:5000]),
    "emptied": lambda path: overwrite(path, b""),
    "of another machine": lambda path: overwrite(path, b"\x7fELF\x01" + bytes(5000)),
    "one byte altered": lambda path: overwrite(path, path.read_bytes()[:-1] + b"?"),
    "open to all": lambda path: path.chmod(0o777),
    "open to a group": lambda path: path.chmod(0o770),
    "a link": replace_by_link,
    "a pipe": replace_by_pipe,
    "without a checksum": lambda path: path.with_suffix(".sha256").unlink(),
    "with another's checksum": lambda path: path.with_suffix(".sha256").write_text("0" * 64),
    "its checksum open to all": lambda path: path.with_suffix(".sha256").chmod(0o666),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_kernel_that_is_not_as_it_was_compiled_is_compiled_anew(small_kernel, planted):
    library = small_kernel()
    PLANTED[planted](library)
    with pytest.warns(RuntimeWarning, match="compiling anew"):
        assert answer_of(small_kernel()) == 42
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert answer_of(small_kernel()) == 42  # as it should be again


@as_root
@pytest.mark.parametrize("suffix", [".so", ".sha256"])
def test_a_kernel_of_another_user_is_compiled_anew(small_kernel, suffix):
    library = small_kernel()
    give_away(library.with_suffix(suffix))
    with pytest.warns(RuntimeWarning, match=f"is owned by user {SOMEBODY}"):
        assert answer_of(small_kernel()) == 42
    assert library.stat().st_uid == 0


def test_a_kernel_is_not_taken_for_one_of_another_name(small_kernel):
    library = small_kernel()
    other = native._build.__wrapped__(6, 0)
    for suffix in (".so", ".sha256"):
        shutil.copy(other.with_suffix(suffix), library.with_suffix(suffix))
    with pytest.warns(RuntimeWarning, match="does not match its checksum"):
        small_kernel()


@as_root
def test_a_folder_of_another_user_is_left_alone_and_the_process_compiles_for_itself(small_kernel):
    library = small_kernel()
    give_away(library.parent)
    library.write_bytes(b"planted")
    with pytest.warns(RuntimeWarning, match="compiled for this process alone"):
        own = small_kernel()
    assert answer_of(own) == 42
    assert own.parent != library.parent and library.read_bytes() == b"planted"
    assert stat.S_IMODE(own.parent.stat().st_mode) == 0o700


def test_a_folder_open_to_all_is_closed_and_what_others_could_write_is_removed(tmp_path):
    folder = tmp_path / "kernels"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "ours").write_text("kept")
    (folder / "theirs").write_text("gone")
    (folder / "theirs").chmod(0o666)
    assert private_folder(folder) == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in folder.iterdir()] == ["ours"]


def test_folders_are_made_for_their_owner_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        folder = private_folder(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, folder.parent)} == {0o700}


def test_a_link_is_no_private_folder(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UntrustedError, match="link: got a link, expected a folder of this user"):
        private_folder(tmp_path / "link")


@pytest.mark.parametrize("look", [check_trusted, open_trusted])
def test_what_is_not_to_be_trusted_is_named(look, tmp_path):
    path = tmp_path / "file"
    path.touch(mode=0o600)
    path.chmod(0o646)
    with pytest.raises(UntrustedError, match="file: got mode 646, expected a file that only its owner"):
        look(path)
    with pytest.raises(UntrustedError, match="got a folder, expected a file"):
        look(tmp_path)


def test_what_xla_compiles_lies_in_a_folder_that_nobody_else_can_write(tmp_path):
    environ = {"VSML_CACHE_DIR": str(tmp_path)}
    own = tmp_path / "xla" / str(os.getuid())
    planted = own / cache.processor()
    planted.mkdir(parents=True)
    for folder in (own, planted):
        folder.chmod(0o777)
    (planted / "jit_step-cache").write_bytes(b"planted")
    (planted / "jit_step-cache").chmod(0o666)
    devices.prepare(environ)
    assert environ["JAX_COMPILATION_CACHE_DIR"] == str(planted)
    assert not list(planted.iterdir())
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (own, planted)} == {0o700}


@as_root
def test_where_another_user_has_made_the_folder_xla_keeps_nothing_and_it_is_said(tmp_path):
    environ = {"VSML_CACHE_DIR": str(tmp_path)}
    own = tmp_path / "xla" / "0"
    own.mkdir(parents=True)
    give_away(own)
    with pytest.warns(UserWarning, match=f"not kept for the next time: .*owned by user {SOMEBODY}"):
        devices.prepare(environ)
    assert "JAX_COMPILATION_CACHE_DIR" not in environ


def test_a_compiler_that_is_no_command_is_named(monkeypatch):
    monkeypatch.setenv("CXX", "g++ 'x")
    native._build.cache_clear()
    reason = native.missing.__wrapped__(9)
    assert 'CXX: got "g++ \'x", expected a command: No closing quotation' in reason


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """Let this user have no home folder: neither HOME nor an entry in the list of users."""
    import pwd

    def unknown(user):
        raise KeyError(f"getpwuid(): uid not found: {user}")

    for name in ("HOME", "XDG_CACHE_HOME", "VSML_CACHE_DIR", "VSML_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(cache.tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_a_home_folder_the_cache_lies_in_the_folder_of_temporary_files(homeless):
    folder = cache.cache_folder("kernels")
    assert folder == homeless / f"vsml-{os.getuid()}" / "kernels"
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert not (homeless / "~").exists()


def test_without_a_home_folder_a_path_below_it_is_refused_by_name(homeless, monkeypatch):
    with pytest.raises(OSError, match=r"~/x: this user \(\d+\) has no home folder, expected HOME to be set"):
        cache.expand_home("~/x")
    monkeypatch.setenv("VSML_CACHE_DIR", "~/x")
    with pytest.warns(UserWarning, match="not kept for the next time: .*no home folder"):
        devices.prepare({"VSML_CACHE_DIR": "~/x"})


def test_without_a_home_folder_data_sets_and_sites_are_refused_by_name(homeless):
    with pytest.raises(DataError, match=r"no folder for data sets: .*expected data.root or VSML_DATA_DIR"):
        load("mnist", "test", download=False)
    with pytest.raises(DataError, match=r"~/x\.npz: this user"):
        load("~/x.npz", "test")
    assert load_site(environ={}) == Site()
    with pytest.raises(SubmissionError, match=r"~/site\.yaml: this user"):
        load_site("~/site.yaml")


def test_without_a_home_folder_a_submission_is_refused_in_one_line(homeless, capsys):
    (homeless / "site.yaml").write_text("directory: ~/there")
    assert schedule.main(["--site=site.yaml", "--dry_run", "--", "python", "other.py"]) == 1
    assert re.fullmatch(r"error: ~/there: this user .*\n", capsys.readouterr().err)
