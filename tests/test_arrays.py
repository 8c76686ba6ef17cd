"""Arrays on disk: what is read is what was written, or nothing. And the room that they may take."""

import json
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from thaw.disk import arrays, budget
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


def stems(folder) -> set[str]:
    return {path.stem for path in folder.glob("*.npy")}


def test_what_was_not_used_for_longest_makes_room(tmp_path):
    for name in "abc":
        write(tmp_path / f"{name}.npy", np.zeros((100, 250), np.float32))  # 100 kB each
    for age, name in enumerate("cab"):
        os.utime(tmp_path / f"{name}.npy", (1000 - age, 1000 - age))
    assert budget.make_room(tmp_path, 1e5, 4.2e5) and stems(tmp_path) == set("abc"), "there was room"
    assert budget.make_room(tmp_path, 1e5, 3.2e5, keep=[tmp_path / "b.npy"])
    assert stems(tmp_path) == {"b", "c"}, "the oldest was in use, the next oldest went"
    assert not budget.make_room(tmp_path, 5e5, 4e5)
    assert not budget.make_room(tmp_path, 3.5e5, 4e5, keep=[tmp_path / "b.npy"])
    assert stems(tmp_path) == {"b", "c"}, "nothing went for what could not fit anyhow"


def test_what_is_being_written_takes_room_and_stays(tmp_path):
    with arrays.writing(tmp_path / "b.npy", KEY, "float32", (100, 250)) as writer:
        writer.append(np.zeros((100, 250), np.float32))
        writer._file.flush()
        assert not budget.make_room(tmp_path, 3.5e5, 4e5)
        assert budget.make_room(tmp_path, 2e5, 4e5)
    assert arrays.find(tmp_path / "b.npy", KEY) is not None


def test_what_another_process_deletes_meanwhile_does_no_harm(tmp_path, monkeypatch):
    write(tmp_path / "a.npy", np.arange(100.0))
    listed = Path.rglob

    def list_and_lose(folder, pattern):
        files = list(listed(folder, pattern))
        for file in files:
            file.unlink()
        return files

    monkeypatch.setattr(Path, "rglob", list_and_lose)
    assert budget.make_room(tmp_path, 1, 1e6)


def test_the_budget_is_half_of_what_the_disk_could_give(tmp_path, monkeypatch):
    monkeypatch.delenv("THAW_DISK_GB", raising=False)
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr(budget.shutil, "disk_usage", lambda folder: usage)
    assert budget.budget(tmp_path) == 500_000
    (tmp_path / "a.npy").write_bytes(bytes(200_000))
    assert budget.budget(tmp_path) == 600_000, "what the cache holds could be given, too"
    monkeypatch.setenv("THAW_DISK_GB", "2.5")
    assert budget.budget(tmp_path) == 2.5e9


@pytest.mark.parametrize("wrong", ["abc", "8,5", "nan", "-3", "inf"])
def test_a_budget_that_is_no_number_of_gigabytes(tmp_path, monkeypatch, wrong):
    monkeypatch.setenv("THAW_DISK_GB", wrong)
    with pytest.raises(InvalidParameter, match=f"THAW_DISK_GB = '{wrong}'.*such as 8"):
        budget.budget(tmp_path)


def test_the_notes_are_json_that_names_what_the_array_was_made_from(tmp_path):
    write(tmp_path / "a.npy", np.zeros(3), seconds=2.0)
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["key"] == KEY
    assert content["about"] == {"seconds": 2.0}
    assert len(content["sha256"]) == 64
