"""Downloads by other libraries: in a process that can be ended, never long without a word, and never for ever."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import psutil

from thaw.errors import first_line

WORD = 10  # seconds between two lines on how far it is
SILENCE = 60  # seconds without a byte or any work, after which it is given up
# Whatever ends this process, even kill -9, closes the pipe to the one that downloads, and so ends that, too.
_ENDS_WITH_US = """import os, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
"""


def download(code: str, argument: str, what: str, folders: Iterable[Path], **environment: str) -> None:
    """Run code that downloads something, and say how far it is.

    Libraries retry for minutes on a network that swallows requests, and
    cannot be stopped from within their process.

    Parameters
    ----------
    code : str
        Python that downloads what `argument` (in `sys.argv`) names.
    argument : str
    what : str
        What is downloaded, in words.
    folders : iterable of Path
        Where it arrives.
    **environment
        Variables of the process that downloads.

    Raises
    ------
    ConnectionError
        If the code fails, with the last line that it said; or if nothing
        arrives for `SILENCE` seconds.
    """
    folders = list(folders)
    before = _size(folders)
    print(f"Downloading {what}.", flush=True)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        command = [sys.executable, "-c", _ENDS_WITH_US + code, argument]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said, env=os.environ | environment
        )
        seen, quiet = (0, 0.0), 0
        try:
            while quiet < SILENCE:  # counted by looks, not by a clock: it goes on while this process is suspended
                try:
                    status = process.wait(WORD)
                    break
                except subprocess.TimeoutExpired:
                    now = _size(folders) - before, _worked(process.pid)
                    quiet = quiet + WORD if now[0] == seen[0] and now[1] - seen[1] < WORD / 10 else 0
                    seen = now
                    print(f"Still downloading {what}: {now[0] / 1e6:,.0f} MB so far{_silence(quiet)}.", flush=True)
            else:
                raise ConnectionError(f"nothing has arrived for {SILENCE} seconds")
        finally:
            process.kill()
            process.communicate()
        if status:
            said.seek(0)
            raise ConnectionError(first_line((said.read().strip().splitlines() or ["no reason given"])[-1]))


def _silence(seconds: float) -> str:
    return f"; nothing for {seconds:.0f} seconds, and {SILENCE} are waited for" if seconds else ""


def _size(folders: Iterable[Path]) -> int:
    size = 0
    for where, _, files in (each for folder in folders for each in os.walk(folder)):  # it skips folders that vanish
        for name in files:
            with contextlib.suppress(OSError):  # renamed or deleted meanwhile
                size += Path(where, name).stat().st_size
    return size


def _worked(pid: int) -> float:
    """Seconds of a processor that a process has used: it may be unpacking what has arrived."""
    try:
        return sum(psutil.Process(pid).cpu_times()[:2])
    except psutil.Error:
        return 0.0
