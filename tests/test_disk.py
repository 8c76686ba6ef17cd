"""Files that appear whole or not at all, and locks that end with their process."""

import errno
import os
import shutil
import subprocess
import sys

import filelock
import pytest

from thaw.disk import atomic, budget, locks, places
from thaw.errors import OutputNotWritable

WRITE = """
import os, sys
from pathlib import Path
from thaw.disk import atomic
with atomic.partial(Path(sys.argv[1])) as unfinished:
    unfinished.write_text("half")
    print(unfinished, flush=True)
    if input() == "die":
        os._exit(9)
    unfinished.write_text("whole")
"""
NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc"]  # where every process has other numbers
HOST = ["unshare", "--uts", "sh", "-c", 'hostname another && exec "$0" "$@"']


def writer(path, *before: str) -> subprocess.Popen:
    """A process that has written half of a file, and waits for a line."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*before, sys.executable, "-c", WRITE, str(path)], **pipes)
    assert ".part-" in process.stdout.readline()
    return process


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["new.csv", "old.csv"])
def test_a_file_that_fails_half_way_leaves_nothing(tmp_path, name):
    def half(path):
        path.write_text("half")
        raise RuntimeError("power cut")

    (tmp_path / "old.csv").write_text("old")
    with pytest.raises(RuntimeError):
        atomic.write_atomic(tmp_path / name, half)
    assert names(tmp_path) == ["old.csv"]
    assert (tmp_path / "old.csv").read_text() == "old"


def test_a_file_is_written_beside_its_place_with_its_suffixes(tmp_path):
    path = tmp_path / "folder" / "a.weights.h5"
    with atomic.partial(path) as unfinished:
        assert unfinished.parent == path.parent
        assert unfinished.name.endswith(".weights.h5")
        unfinished.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert names(path.parent) == ["a.weights.h5"]


def test_what_a_killed_process_was_writing_goes_with_the_next_file(tmp_path):
    process = writer(tmp_path / "a.csv")
    process.communicate("die\n")
    assert process.returncode == 9
    assert names(tmp_path)
    assert not (tmp_path / "a.csv").exists()
    atomic.write_atomic(tmp_path / "b.csv", lambda path: path.write_text("whole"))
    assert names(tmp_path) == ["b.csv"]


@pytest.mark.parametrize("before", [[], NAMESPACE, HOST], ids=["this machine", "another container", "another host"])
def test_what_another_process_is_writing_stays(tmp_path, before):
    """Also for a process of another machine or container of the same name."""
    if before and (not shutil.which("unshare") or subprocess.run([*before, "true"], capture_output=True).returncode):
        pytest.skip("needs namespaces of its own, which takes root")
    process = writer(tmp_path / "a.csv", *before)
    atomic.write_atomic(tmp_path / "b.csv", lambda path: path.write_text("whole"))
    process.communicate("go on\n")
    assert process.returncode == 0
    assert names(tmp_path) == ["a.csv", "b.csv"]
    assert (tmp_path / "a.csv").read_text() == "whole"


def no_locks(*_, **__):
    raise OSError(errno.ENOLCK, "No locks available")


def test_where_the_disk_has_no_locks_age_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
    for name in (".part-0.csv", ".part-1.csv"):
        (tmp_path / name).touch()
    os.utime(tmp_path / ".part-0.csv", (0, 0))
    atomic.write_atomic(tmp_path / "a.csv", lambda path: path.write_text("whole"))
    assert names(tmp_path) == [".part-1.csv", "a.csv"]
    with locks.locked([tmp_path / "a.csv"]):
        pass


def test_a_lock_left_without_a_file_goes_unless_its_file_may_be_about_to_appear(tmp_path):
    for name in (".part-0.lock", ".part-1.lock"):
        (tmp_path / name).touch()
    with locks.hold(tmp_path / ".part-1.lock"):
        atomic.remove_abandoned(tmp_path)
        assert names(tmp_path) == [".part-1.lock"]
    atomic.remove_abandoned(tmp_path)
    assert names(tmp_path) == []


def test_a_lock_ends_with_its_process_however_it_ends(tmp_path):
    code = (
        "import sys; from pathlib import Path; from thaw.disk.locks import locked\n"
        "with locked([Path(sys.argv[1])]): print('mine', flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a")], **pipes)
    process.stdout.readline()
    with pytest.raises(locks.Taken), locks.locked([tmp_path / "a"], locks.give_up):
        pass
    said = []

    def kill():
        said.append("waiting")
        process.kill()
        process.wait()

    with locks.locked([tmp_path / "a", tmp_path / "b"], kill):
        assert said == ["waiting"]


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputNotWritable, match="cannot be written to.*Give another"):
        atomic.check_writable(tmp_path / "file" / "below")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputNotWritable):
        atomic.check_writable(tmp_path)


@pytest.mark.parametrize(
    "name, words",
    [("file", "File exists"), ("/proc/thaw", "No such file"), ("a\nb", "line end"), ("a\udcff", "character")],
)
def test_a_cache_that_cannot_be_a_folder_is_refused(tmp_path, monkeypatch, name, words):
    (tmp_path / "file").touch()
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path / name))
    with (
        pytest.raises(OutputNotWritable, match=f"{words}.*Set THAW_CACHE_DIR to another folder") as caught,
        budget.in_use(),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_a_cache_that_can_only_be_read_is_refused(monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputNotWritable, match="cannot be written to.*Set THAW_CACHE_DIR"), budget.in_use():
        pass


def test_a_relative_cache_is_the_same_wherever_a_command_runs(tmp_path, monkeypatch):
    (tmp_path / "params" / "profiles").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv("THAW_CACHE_DIR", "cache")
    for folder in (tmp_path, tmp_path / "notebooks"):
        monkeypatch.chdir(folder)
        assert places.cache("photos") == tmp_path / "cache" / "photos"
