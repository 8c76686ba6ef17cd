"""What `thaw clean` shows and deletes, and what it leaves."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from thaw import errors
from thaw.__main__ import main
from thaw.disk import arrays, budget, locks, places
from thaw.study import clean


@pytest.fixture(autouse=True)
def full_cache(tmp_path, monkeypatch):
    """A cache with something of each kind."""
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path))
    for folder, name in ("photos", "tulips-224px"), ("activations/mobilenet-0123", "pooled"):
        with arrays.writing(places.cache(folder) / f"{name}.npy", {}, "uint8", (3000, 100)) as writer:
            writer.append(np.zeros((3000, 100)))
        del writer
    for name, phase, epochs, complete in (
        ("a", "head", 5, True),
        ("b", "finetune", 2, False),
        ("c", "finetune", 9, True),
    ):
        about = {
            "key": {"backbone": "mobilenet", "phases": [[phase, [], 0.1, 9, False]]},
            "progress": {"epochs": [{}] * epochs, "complete": complete},
        }
        np.savez(places.cache("checkpoints") / f"{name}.npz", about=json.dumps(about), weights=np.zeros(1000))
    (places.cache("checkpoints") / "d.npz").write_bytes(b"rubbish")
    (places.cache("looks") / "e.json").write_text("{}")
    (tmp_path / "of somebody else").write_text("stays")
    return tmp_path


def left(folder) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_the_table_says_what_is_there_in_words(capsys):
    assert main(["clean", "--yes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for what, where, size in (
        ("decoded photos", "photos/tulips-224px", "0.3 MB"),
        ("activations of mobilenet", "activations/mobilenet-0123", "0.3 MB"),
        ("trained heads of mobilenet", "checkpoints", "0.0 MB"),
        ("unfinished run of mobilenet, 2 epochs", "checkpoints/b", "0.0 MB"),
        ("unfinished run of mobilenet, 9 epochs", "checkpoints/c", "0.0 MB"),
    ):
        (line,) = (line for line in lines if f"{what} " in line and f" {where} " in line)
        assert size in line


@pytest.mark.parametrize("everything", [[], ["--all"]])
def test_unfinished_runs_stay_unless_they_are_asked_for(full_cache, capsys, everything):
    assert main(["clean", "--yes", *everything]) == 0
    assert left(full_cache) == {"of somebody else"} | ({"b.npz", "c.npz"} if not everything else set())
    assert ("Unfinished runs stay" in capsys.readouterr().out) == (not everything)


def test_nothing_is_deleted_unless_the_user_says_so(full_cache, monkeypatch):
    before = left(full_cache)
    monkeypatch.setattr("click.confirm", lambda question: False)
    assert main(["clean"]) == 0
    assert left(full_cache) == before


def test_nothing_is_deleted_while_a_study_uses_the_cache(full_cache, capsys):
    code = "from thaw.disk import budget\nwith budget.in_use(): print('mine', flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    study, before = subprocess.Popen([sys.executable, "-c", code], **pipes), left(full_cache)
    assert study.stdout.readline() == "mine\n"
    assert (full_cache / ".in-use.lock").stat().st_mode & 0o777 == 0o666, "or only its owner could clean the cache"
    assert main(["clean", "--yes", "--all"]) == 1
    assert "a study uses the cache. Nothing was deleted" in capsys.readouterr().err
    study.kill()  # and so its lock ends
    study.communicate()
    assert left(full_cache) == before
    assert main(["clean", "--yes", "--all"]) == 0
    assert left(full_cache) == {"of somebody else"}


def test_what_a_notebook_reads_stays(full_cache):
    reading = arrays.find(places.cache("photos") / "tulips-224px.npy", {})
    assert main(["clean", "--yes", "--all"]) == 0
    assert left(full_cache) == {"of somebody else", "tulips-224px.npy", "tulips-224px.json"}
    assert len(reading) == 3000


def test_what_killed_processes_left_and_locks_of_nothing_go(full_cache):
    (places.cache("photos") / ".part-0.npy").write_bytes(bytes(10))
    (places.cache("checkpoints") / ".a.npz.lock").touch()
    assert main(["clean", "--yes", "--all"]) == 0
    assert not [path for path in full_cache.glob("*/**/*") if path.is_file()]


def test_on_a_disk_without_locks_only_what_is_a_day_old_goes(full_cache, monkeypatch):
    def no_locks(*_, **__):
        raise NotImplementedError

    monkeypatch.setattr("filelock.FileLock.acquire", no_locks)
    os.utime(places.cache("checkpoints") / "a.npz", (0, 0))
    before = left(full_cache)
    assert clean.delete(clean.rows()) > 0
    assert left(full_cache) == before - {"a.npz"}


def test_an_empty_cache_is_said(full_cache, capsys):
    clean.delete(clean.rows())
    assert main(["clean"]) == 0
    assert "is empty" in capsys.readouterr().out


def test_a_command_of_a_study_shows_that_it_uses_the_cache(monkeypatch):
    used = []

    def load(*_):
        used.append(locks.is_used(locks.lock_of(places.cache() / budget.IN_USE)))
        raise errors.ThawError("enough")

    monkeypatch.setattr("thaw.__main__.Study.load", load)
    assert main(["check", "demo"]) == 1
    assert used == [True]
