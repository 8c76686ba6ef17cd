"""Downloads that fail, that take long, and that a network swallows."""

import os
import shutil
import subprocess
import sys
import time

import psutil
import pytest

from thaw.disk import downloads

ARRIVES = """
import pathlib, sys, time
for number in range(8):
    pathlib.Path(sys.argv[1], str(number)).write_bytes(bytes(10**6))
    time.sleep(0.25)
"""


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(downloads, "WORD", 0.5)
    monkeypatch.setattr(downloads, "SILENCE", 1.5)


def test_what_arrives_is_waited_for_with_a_word_now_and_then(tmp_path, capsys):
    downloads.download(ARRIVES, str(tmp_path), "eight files", [tmp_path])
    first, *others = capsys.readouterr().out.splitlines()
    assert first == "Downloading eight files."
    assert others and all(line.startswith("Still downloading eight files: ") for line in others)
    assert len(list(tmp_path.iterdir())) == 8


def test_silence_is_said_and_ends_it(tmp_path, capsys):
    began = time.monotonic()
    with pytest.raises(ConnectionError, match="nothing has arrived for 1.5 seconds"):
        downloads.download("import time; time.sleep(60)", "", "nothing", [tmp_path])
    assert time.monotonic() - began < 20
    assert "Still downloading nothing: 0 MB so far; nothing for" in capsys.readouterr().out


def test_the_reason_is_the_library_s_own(tmp_path):
    with pytest.raises(ConnectionError, match="OSError: no route to host"):
        downloads.download("raise OSError('no route to host')", "", "nothing", [tmp_path / "not there"])


def test_it_ends_with_the_process_that_wants_it_however_that_ends(tmp_path):
    code = "from thaw.disk import downloads; downloads.download('import time; time.sleep(60)', '', 'nothing', [])"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "Downloading nothing.\n"
    while not (started := psutil.Process(process.pid).children()):
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert psutil.wait_procs(started, timeout=20)[1] == []


def test_a_folder_that_vanishes_while_it_is_looked_at_ends_no_download(tmp_path, monkeypatch):
    """As TFDS renames what it unpacks."""

    def listed(folder, _list=os.scandir):
        if str(folder).endswith("incomplete"):
            shutil.rmtree(folder)
        return _list(folder)

    (tmp_path / "incomplete").mkdir()
    (tmp_path / "complete").write_bytes(bytes(1000))
    monkeypatch.setattr(os, "scandir", listed)
    assert downloads._size([tmp_path]) == 1000
