"""Arrays on disk: what is read is what was written, or nothing. And the room that they may take."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from thaw.disk import arrays, budget, hashes, places
from thaw.errors import InvalidParameter

KEY = {"data": "some", "layer": "pooled"}


def write(path, values, key=KEY, pieces=1, **about):
    with arrays.writing(path, key, values.dtype, values.shape) as writer:
        writer.about |= about
        for piece in np.array_split(values, pieces):
            writer.append(piece)
    return arrays.find(path, key)


ARRAYS = st.tuples(
    st.sampled_from([np.uint8, np.float32, np.int64]), st.tuples(st.integers(1, 9), st.integers(1, 4))
).flatmap(lambda drawn: numpy_strategies.arrays(*drawn))


@given(values=ARRAYS, data=st.data())
def test_any_rows_in_any_order(tmp_path_factory, values, data):
    path = tmp_path_factory.mktemp("arrays") / "a.npy"
    found = write(path, values, pieces=data.draw(st.integers(1, len(values))))
    assert found.shape == values.shape
    assert len(found) == len(values)
    rows = np.array(data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1)))
    np.testing.assert_array_equal(found[rows], values[rows])
    a, b = sorted((data.draw(st.integers(0, len(values))), data.draw(st.integers(0, len(values)))))
    np.testing.assert_array_equal(found[a:b], values[a:b])


def test_bfloat16_keeps_its_bits(tmp_path):
    values = np.random.default_rng(0).normal(size=(5, 3)).astype(ml_dtypes.bfloat16)
    found = write(tmp_path / "a.npy", values)
    assert found.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found[:].view(np.uint16), values.view(np.uint16))


def test_notes_come_back(tmp_path):
    about = {"seconds": 1.5, "keys": [f"photo-{i}" for i in range(20_000)]}
    assert write(tmp_path / "a.npy", np.zeros((2, 2), np.float32), **about).about == about


def test_numpy_reads_the_file_by_itself(tmp_path):
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    write(tmp_path / "a.npy", values)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy").view(np.float32), values)


@pytest.mark.parametrize("harm", ["a bit", "the end", "everything", "the key", "the notes", "a list for notes"])
def test_a_damaged_or_foreign_array_is_said_and_not_used(tmp_path, harm):
    path, said = tmp_path / "a.npy", []
    values = np.random.default_rng(0).normal(size=(50, 40))
    write(path, values)
    content = bytearray(path.read_bytes())
    if harm == "a bit":
        content[content.index(values[20, 20].tobytes())] ^= 1
    elif harm == "the end":
        del content[-5000:]
    elif harm == "everything":
        content[:] = b"not at all"
    path.write_bytes(content)
    if harm == "the notes":
        arrays.beside(path).write_bytes(b"\xff{")
    elif harm == "a list for notes":
        arrays.beside(path).write_text("[1, 2]")
    key = KEY | {"data": "other"} if harm == "the key" else KEY
    assert arrays.find(path, key, said.append) is None
    assert len(said) == 1
    assert str(path) in said[0]
    assert "not used" in said[0]


def wrongly_believed(path: Path, look) -> list[int]:
    """Change every third byte of a file in turn; the positions at which what is then read is not what was written."""
    expected, wrong = look(), []
    content = path.read_bytes()
    for position in range(0, len(content), 3):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        if (found := look()) not in (None, expected):
            wrong.append((position, found))
    assert expected is not None
    return wrong


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_no_byte_of_an_array_or_its_notes_can_change_unnoticed(tmp_path, suffix):
    write(tmp_path / "a.npy", np.arange(6.0).reshape(3, 2), labels=[0, 1, 2], seconds=1.5)

    def look():
        found = arrays.find(tmp_path / "a.npy", KEY, log=lambda line: None)
        return found and (found[:].tobytes(), found.shape, found.dtype, found.about, found.sha256)

    assert wrongly_believed(tmp_path / f"a{suffix}", look) == []


def test_no_byte_of_notes_on_files_can_change_unnoticed(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"a photo")
    assert wrongly_believed(tmp_path / "looks.json", lambda: look_at(tmp_path / "photo.jpg")) == []


def look_at(photo: Path) -> list:
    return hashes.noted(
        [photo], lambda file: {"sha256": hashes.sha256(file), "width": 3}, photo.with_name("looks.json")
    )


def test_arrays_appear_whole_or_not_at_all(tmp_path):
    class Stopped(Exception):
        pass

    with pytest.raises(Stopped), arrays.writing(tmp_path / "a.npy", KEY, "float32", (4, 2)) as writer:
        writer.append(np.zeros((2, 2), np.float32))
        assert arrays.find(tmp_path / "a.npy", KEY) is None
        raise Stopped
    with pytest.raises(ValueError, match="2 of 4 rows are missing"):
        with arrays.writing(tmp_path / "a.npy", KEY, "float32", (4, 2)) as writer:
            writer.append(np.zeros((2, 2), np.float32))
    assert list(tmp_path.iterdir()) == []


def test_an_array_replaced_half_way_is_not_vouched_for_by_the_old_notes(tmp_path):
    write(tmp_path / "a.npy", np.zeros((4, 2), np.float32))
    with pytest.raises(ValueError, match="missing"), arrays.writing(tmp_path / "a.npy", KEY, "float32", (4, 2)):
        pass
    assert arrays.find(tmp_path / "a.npy", KEY) is None


def test_what_another_process_deletes_can_still_be_read(tmp_path):
    found = write(tmp_path / "a.npy", np.arange(100.0))
    for path in list(tmp_path.iterdir()):
        path.unlink()
    np.testing.assert_array_equal(found[:], np.arange(100.0))
    assert arrays.find(tmp_path / "a.npy", KEY) is None


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_others_may_read_what_the_umask_lets_them(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "a.npy", np.zeros(3))
    finally:
        os.umask(before)
    assert (tmp_path / "a.npy").stat().st_mode & 0o777 == 0o640


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """The folder of photos in a cache of its own."""
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path))
    return places.cache("photos")


def stems(folder) -> set[str]:
    return {path.stem for path in folder.glob("*.npy")}


def make_room(needed: float, limit: float, *keep: Path) -> bool:
    return budget.make_room(["photos"], needed, limit, keep)


def test_what_was_not_used_for_longest_makes_room(photos):
    for name in "abc":
        write(photos / f"{name}.npy", np.zeros((100, 250), np.float32))  # 100 kB each
    for age, name in enumerate("cab"):
        for suffix in (".npy", ".json"):
            os.utime(photos / f"{name}{suffix}", (1000 - age, 1000 - age))
    assert make_room(1e5, 4.2e5) and stems(photos) == set("abc"), "there was room"
    assert make_room(1e5, 3.2e5, photos / "b.npy")
    assert stems(photos) == {"b", "c"}, "the oldest was to be kept, the next oldest went"
    assert sorted(path.name for path in photos.glob("[!.]*")) == ["b.json", "b.npy", "c.json", "c.npy"]
    assert not make_room(5e5, 4e5)
    assert not make_room(3.5e5, 4e5, photos / "b.npy")
    assert stems(photos) == {"b", "c"}, "nothing went for what could not fit anyhow"


def test_an_array_that_is_used_again_keeps_its_notes(photos):
    """They are older than the array of another that was not used since."""
    for name in "ab":
        write(photos / f"{name}.npy", np.zeros((100, 250), np.float32))
    for name, age in ("a.json", 3), ("b.json", 2), ("b.npy", 1), ("a.npy", 0):
        os.utime(photos / name, (1000 - age, 1000 - age))
    assert make_room(1e5, 2.5e5)
    assert arrays.find(photos / "a.npy", KEY) is not None


def test_what_is_being_written_takes_room_and_stays(photos):
    with arrays.writing(photos / "b.npy", KEY, "float32", (100, 250)) as writer:
        assert not make_room(3.5e5, 4e5), "before anything is written"
        writer.append(np.zeros((100, 250), np.float32))
        assert not make_room(3.5e5, 4e5)
        assert make_room(2e5, 4e5)
    assert arrays.find(photos / "b.npy", KEY) is not None


READ = """
import sys
from pathlib import Path
from thaw.disk import arrays
found = arrays.find(Path(sys.argv[1]), {"data": "some", "layer": "pooled"})
print("reading", flush=True)
input()
"""


def test_what_another_process_reads_stays(photos):
    write(photos / "a.npy", np.zeros((100, 250), np.float32))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    reader = subprocess.Popen([sys.executable, "-c", READ, str(photos / "a.npy")], **pipes)
    assert reader.stdout.readline() == "reading\n"
    assert not make_room(1e5, 1.5e5)
    reader.communicate("\n")
    assert make_room(1e5, 1.5e5)
    assert stems(photos) == set()


TAKE = """
import sys, time
import numpy as np
from pathlib import Path
from thaw.disk import arrays, budget, places
path = places.cache("photos") / sys.argv[1]
print("ready", flush=True)
input()
for number in range(10):
    try:
        with budget.room():
            fits = budget.make_room(["photos"], 1e5, 2.5e5)
            writing = arrays.writing(path.with_name(f"{path.name}{number}.npy"), {}, "float32", (100, 250))
            writer = writing.__enter__() if fits else None
        if fits:
            time.sleep(0.01)
            writer.append(np.zeros((100, 250), np.float32))
            writing.__exit__(None, None, None)
            del writer, writing
    except FileNotFoundError:
        pass
print("done", flush=True)
"""


def test_a_budget_holds_however_many_processes_write_at_once(photos):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    all_ = [subprocess.Popen([sys.executable, "-c", TAKE, name], **pipes) for name in "abcd"]
    for process in all_:
        assert process.stdout.readline() == "ready\n"
    for process in all_:
        process.stdin.write("\n")
        process.stdin.flush()
    most = 0
    while any(process.poll() is None for process in all_):
        most = max(most, sum(each.size for each in budget.kept("photos")))
    assert all(process.returncode == 0 for process in all_)
    assert 1e5 < most <= 2.5e5
    assert stems(photos)


def test_what_another_process_deletes_meanwhile_does_no_harm(photos, monkeypatch):
    write(photos / "a.npy", np.arange(100.0))
    listed = os.walk

    def list_and_lose(folder):
        found = list(listed(folder))
        shutil.rmtree(folder)
        return found

    monkeypatch.setattr(os, "walk", list_and_lose)
    assert make_room(1, 1e6)


def test_the_budget_is_half_of_what_the_disk_could_give(photos, monkeypatch):
    monkeypatch.delenv("THAW_DISK_GB", raising=False)
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr(budget.shutil, "disk_usage", lambda folder: usage)
    assert budget.budget() == 500_000
    (photos / "a.npy").write_bytes(bytes(200_000))
    assert budget.budget() == 600_000, "what the cache holds could be given, too"
    monkeypatch.setenv("THAW_DISK_GB", "2.5")
    assert budget.budget() == budget.for_arrays() + budget.for_checkpoints() == 2.5e9


@pytest.mark.parametrize("wrong", ["abc", "8,5", "nan", "-3", "inf"])
def test_a_budget_that_is_no_number_of_gigabytes(monkeypatch, wrong):
    monkeypatch.setenv("THAW_DISK_GB", wrong)
    with pytest.raises(InvalidParameter, match=f"THAW_DISK_GB = '{wrong}'.*such as 8"):
        budget.budget()


def test_the_notes_are_json_that_names_what_the_array_was_made_from(tmp_path):
    write(tmp_path / "a.npy", np.zeros(3), seconds=2.0)
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["key"] == KEY
    assert content["about"] == {"seconds": 2.0}
    assert len(content["sha256"]) == 64
