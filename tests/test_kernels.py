"""Kernels that are copies of one process: the same as others, each by itself, and gone with whoever asked for them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from conftest import ROOT, is_alive

from thaw import errors
from thaw.study import kernels
from thaw.study.execute import execute

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="copies are made on Linux alone"),
]


def notebook_of(folder: Path, *cells: str) -> Path:
    path = folder / "a.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, cells)]), path)
    return path


def printed(path: Path, **environment: str) -> list[str]:
    """What each cell of a notebook prints."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        execute(path, path.with_name("b.ipynb"), {}, "a", hours=1)
    executed = nbformat.read(path.with_name("b.ipynb"), as_version=4)
    return ["".join(output.text for output in cell.outputs) for cell in executed.cells]


def process_below(starter: int) -> psutil.Process:
    """The process that is copied, once it has its own command line."""

    def found() -> list[psutil.Process]:
        return [each for each in psutil.Process(starter).children() if "thaw.study.kernels" in each.cmdline()]

    assert until(found)
    (copied,) = found()
    return copied


def until(true, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(true())


WITNESS = "import sys, os\nprint('wave' in sys.modules, 'wave' in globals())", "import wave"
ITSELF = (
    "import os, sys, signal, pathlib",
    "print(sorted(set(os.environ.items()) - {('JPY_PARENT_PID', os.environ.get('JPY_PARENT_PID'))}))",
    "print(os.getcwd(), sys.path, sys.argv[0].endswith('ipykernel_launcher.py') or sys.argv[0])",
    "print(os.getpgid(0) == os.getsid(0) == os.getpid(), signal.getsignal(signal.SIGCHLD))",
    "print(sorted(os.readlink(f'/proc/self/fd/{i}').split(':')[0] for i in (1, 2)))",
    "__file__ = None; print(sorted(globals()))",
)


def test_a_kernel_has_what_its_notebook_imports_and_nothing_of_another(tmp_path):
    path = notebook_of(tmp_path, WITNESS[0], "import wave\nprint(hasattr(wave, 'changed'))\nwave.changed = True")
    assert printed(path) == ["False False\n", "False\n"]
    with kernels.offered(path, dict(os.environ)) as offer:
        for _ in range(2):
            assert printed(path, **offer) == ["True False\n", "False\n"]
    assert printed(path, **offer) == ["False False\n", "False\n"], "none is offered any more"


def test_a_copy_is_like_a_kernel_that_starts_by_itself(tmp_path, capfd):
    path = notebook_of(tmp_path, *ITSELF)
    with kernels.offered(path, os.environ | {"OF_THE_OTHER": "1"}) as offer:
        copied = printed(path, **offer, OF_THIS="1")
    alone = printed(path, OF_THIS="1")
    assert capfd.readouterr().out == ""
    changes = [(kernels.OFFER, offer[kernels.OFFER])]
    assert eval(copied[1]) == sorted(eval(alone[1]) + changes)
    assert [each.replace("ipykernel_launcher", "True") for each in copied[2:]] == alone[2:]


@pytest.mark.parametrize(
    "cell, said",
    [
        ("import none_such_module", "a: .*none_such_module"),
        (
            "import os\nos.write(2, b'OSError: [Errno 24] Too many open files\\n')\nos.abort()",
            "a: the notebook's kernel died: too many files are open at once. Allow",
        ),
    ],
)
def test_why_a_copy_fails_is_said(tmp_path, cell, said):
    path = notebook_of(tmp_path, cell)
    with kernels.offered(path, dict(os.environ)) as offer, pytest.raises(errors.ThawError, match=said):
        printed(path, **offer)


RUN = """
import sys
from pathlib import Path
from thaw.study.execute import execute
execute(Path(sys.argv[1]), Path(sys.argv[1]).with_name("b.ipynb"), {}, "a", hours=1)
"""
SLEEP = "import os, time, pathlib\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(600)"


def test_a_kernel_ends_when_who_asked_for_it_is_killed(tmp_path):
    path = notebook_of(tmp_path, SLEEP)
    with kernels.offered(path, dict(os.environ)) as offer:
        job = subprocess.Popen([sys.executable, "-c", RUN, path], env=os.environ | offer, cwd=tmp_path)
        assert until(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text(), 30)
        kernel = psutil.Process(int((tmp_path / "pid").read_text()))
        assert kernel.parent() == process_below(os.getpid())
        job.kill()
        job.wait()
        assert until(lambda: not kernel.is_running()), "and is no zombie"


def test_without_the_process_that_is_copied_kernels_start_by_themselves(tmp_path):
    path = notebook_of(tmp_path, *WITNESS)
    with kernels.offered(path, dict(os.environ)) as offer:
        process_below(os.getpid()).kill()
        assert printed(path, **offer)[0] == "False False\n"


OFFERING = """
import os, sys, time
from pathlib import Path
from thaw.study import kernels
with kernels.offered(Path(sys.argv[1]), dict(os.environ)):
    print("offered", flush=True)
    time.sleep(600)
"""


def test_the_process_that_is_copied_ends_with_who_started_it(tmp_path):
    path = notebook_of(tmp_path, "import wave")
    starter = subprocess.Popen([sys.executable, "-c", OFFERING, path], stdout=subprocess.PIPE, text=True)
    assert starter.stdout.readline() == "offered\n"
    copied = process_below(starter.pid)
    starter.kill()
    starter.wait()
    assert until(lambda: not is_alive(copied))


AS_ANOTHER = """
import os, socket
from thaw.study import kernels
os.setgid(65534); os.setuid(65534)
try:
    kernels.Copy()
except OSError as error:
    print(error)
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(chr(0) + os.environ[kernels.OFFER])
    print(connection.recv(1))
"""


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can be another user")
def test_neither_takes_the_other_for_its_own_if_it_is_another_users(tmp_path):
    with kernels.offered(notebook_of(tmp_path, "import wave"), dict(os.environ)) as offer:
        command = [sys.executable, "-c", AS_ANOTHER]
        done = subprocess.run(command, env=os.environ | offer, capture_output=True, text=True)
        assert done.stdout == f"{offer[kernels.OFFER]} belongs to another user\nb''\n", done.stderr


IN_NO_FOLDER = """
import os, time
from thaw.study import kernels
kernels.Path.cwd = lambda: "/none/such"
copy = kernels.Copy()
copy.start(["-f", "none"], os.environ)
while copy.poll() is None:
    time.sleep(0.1)
"""


def test_a_copy_that_cannot_start_says_why(tmp_path):
    with kernels.offered(notebook_of(tmp_path, "import wave"), dict(os.environ)) as offer:
        command = [sys.executable, "-c", IN_NO_FOLDER]
        done = subprocess.run(command, env=os.environ | offer, capture_output=True, text=True)
        assert "FileNotFoundError: [Errno 2] No such file or directory" in done.stderr, done


OF_AN_EXPERIMENT = """
import sys
print({"tensorflow", "keras", "thaw.training.phases", "thaw.report.figures"} - sys.modules.keys())
import os, pathlib
threads = pathlib.Path("/proc", str(os.getppid()), "task")
print(*sorted((path / "comm").read_text().strip() for path in threads.iterdir() if path.name != str(os.getppid())))
"""


def test_what_is_copied_has_tensorflow_and_no_threads_but_one_that_is_made_for_it(tmp_path):
    """The memory allocator of Arrow, which pandas loads, starts its own thread anew in a copy."""
    notebook = ROOT / "notebooks" / "experiment.ipynb"
    with kernels.offered(notebook, dict(os.environ)) as offer:
        assert printed(notebook_of(tmp_path, OF_AN_EXPERIMENT), **offer) == ["set()\njemalloc_bg_thd\n"]
