"""Arrays on disk: what is read is what was written, or nothing."""

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from thaw.disk import arrays as store

KEY = {"data": "some", "layer": "pooled"}


def kept(path, values, key=KEY, pieces=1, **about):
    writer = store.Writer(path, key, tf.as_dtype(values.dtype), values.shape)
    try:
        for piece in np.array_split(values, pieces):
            writer.append(piece)
        return writer.finish(**about)
    finally:
        writer.discard()


ARRAYS = st.tuples(
    st.sampled_from([np.uint8, np.float32, np.int64]), st.tuples(st.integers(1, 9), st.integers(1, 4))
).flatmap(lambda drawn: arrays(*drawn))


@given(values=ARRAYS, data=st.data())
def test_any_rows_in_any_order(tmp_path_factory, values, data):
    path = tmp_path_factory.mktemp("store") / "a.h5"
    kept(path, values, pieces=data.draw(st.integers(1, len(values))))
    found = store.find(path, KEY)
    rows = np.array(data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1)))
    np.testing.assert_array_equal(found[rows], values[rows])
    a, b = sorted((data.draw(st.integers(0, len(values))), data.draw(st.integers(0, len(values)))))
    part = found.part(a, b)
    assert len(part) == b - a and part.shape == (b - a, *values.shape[1:])
    np.testing.assert_array_equal(part[:], values[a:b])


def test_bfloat16_keeps_its_bits(tmp_path):
    values = tf.cast(tf.random.normal((5, 3)), tf.bfloat16).numpy()
    found = kept(tmp_path / "a.h5", values)
    assert found.dtype == tf.bfloat16
    np.testing.assert_array_equal(found[:].view(np.uint16), values.view(np.uint16))


def test_what_is_noted_comes_back(tmp_path):
    about = {"seconds": 1.5, "keys": [f"photo-{i}" for i in range(20_000)]}
    kept(tmp_path / "a.h5", np.zeros((2, 2), np.float32), **about)
    assert store.find(tmp_path / "a.h5", KEY).about == about


@pytest.mark.parametrize("harm", ["a bit", "the end", "everything", "the key"])
def test_a_damaged_or_foreign_file_is_said_and_not_used(tmp_path, harm):
    path, said = tmp_path / "a.h5", []
    values = np.random.default_rng(0).normal(size=(50, 40))
    kept(path, values)
    content = bytearray(path.read_bytes())
    if harm == "a bit":
        at = content.index(values[20, 20].tobytes())
        content[at] ^= 1
    elif harm == "the end":
        del content[-5000:]
    elif harm == "everything":
        content[:] = b"not at all"
    path.write_bytes(content)
    key = KEY | {"data": "other"} if harm == "the key" else KEY
    assert store.find(path, key, said.append) is None
    assert len(said) == 1 and str(path) in said[0] and "not used" in said[0]


def test_files_appear_whole_or_not_at_all(tmp_path):
    writer = store.Writer(tmp_path / "a.h5", KEY, tf.float32, (4, 2))
    writer.append(np.zeros((2, 2), np.float32))
    assert store.find(tmp_path / "a.h5", KEY) is None
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_what_was_given_up_leaves_a_note_and_no_room(tmp_path):
    writer = store.Writer(tmp_path / "a.h5", KEY, tf.float32, (1000, 1000))
    writer.append(np.zeros((500, 1000), np.float32))
    writer.give_up(why="slow disk")
    assert store.find(tmp_path / "a.h5", KEY) is None
    assert store.note(tmp_path / "a.h5", KEY) == {"why": "slow disk"}
    assert (tmp_path / "a.h5").stat().st_size < 20_000


def test_the_longest_unused_makes_room(tmp_path):
    values = np.zeros((100, 250), np.float32)  # 100 kB each
    for name in "abc":
        kept(tmp_path / f"{name}.h5", values)
    for age, name in enumerate("cab"):
        os.utime(tmp_path / f"{name}.h5", (1000 - age, 1000 - age))
    assert store.make_room(tmp_path, 1e5, 4.2e5)
    assert len(list(tmp_path.iterdir())) == 3, "there was room"
    assert store.make_room(tmp_path, 1e5, 3.2e5, keep=[tmp_path / "b.h5"])
    assert {path.stem for path in tmp_path.iterdir()} == {"b", "c"}, "the oldest was in use, the next oldest went"
    assert not store.make_room(tmp_path, 5e5, 4e5)
    assert not store.make_room(tmp_path, 3.5e5, 4e5, keep=[tmp_path / "b.h5"])
    assert {path.stem for path in tmp_path.iterdir()} == {"b", "c"}, "nothing went for what could not fit anyhow"


def test_what_is_being_written_takes_room_until_its_process_is_gone(tmp_path):
    values = np.zeros((100, 250), np.float32)
    kept(tmp_path / "a.h5", values)
    writer = store.Writer(tmp_path / "b.h5", KEY, tf.float32, values.shape)
    writer.append(values[:50])
    writer.seconds_to_read(0, 50, cold=False)
    assert not store.make_room(tmp_path, 3.5e5, 4e5) and (tmp_path / "a.h5").exists()
    shutil.copy(writer.partial, tmp_path / ".part-0123.h5")  # nobody holds its lock
    assert store.make_room(tmp_path, 1e5, 4.2e5)
    assert {path.name for path in tmp_path.glob("*.h5")} == {"a.h5", writer.partial.name}
    writer.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_what_another_process_deletes_does_no_harm(tmp_path, monkeypatch):
    path, values, said = tmp_path / "a.h5", np.arange(100.0), []
    replace = os.replace

    def replace_and_lose(partial, target):
        replace(partial, target)
        target.unlink()

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_and_lose)
        np.testing.assert_array_equal(kept(path, values)[:], values)
    assert store.find(path, KEY, said.append) is None and store.note(path, KEY, said.append) is None and said == []
    kept(path, values)
    found, listed = store.find(path, KEY), Path.rglob

    def list_and_lose(folder, pattern):
        yield from (files := list(listed(folder, pattern)))
        [file.unlink() for file in files]

    monkeypatch.setattr(Path, "rglob", lambda *arguments: list(list_and_lose(*arguments)))
    assert store.make_room(tmp_path, 1, 1e6)
    np.testing.assert_array_equal(found[:], values, "what is open can still be read")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("harm", ["a group", "a number", "a list", "nothing"])
def test_contents_of_another_kind_are_as_good_as_none(tmp_path, harm):
    path, said = tmp_path / "a.h5", []
    kept(path, np.zeros(3))
    with h5py.File(path, "r+") as h5:
        del h5["about"]
        if harm == "a group":
            h5.create_group("about")
        elif harm != "nothing":
            h5["about"] = 7 if harm == "a number" else "[1, 2]"
    assert store.find(path, KEY, said.append) is None and store.note(path, KEY, said.append) is None
    assert len(said) == 2 and all("damaged" in line for line in said)


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_others_may_read_what_the_umask_lets_them(tmp_path):
    before = os.umask(0o027)
    try:
        kept(tmp_path / "a.h5", np.zeros(3))
    finally:
        os.umask(before)
    assert (tmp_path / "a.h5").stat().st_mode & 0o777 == 0o640
