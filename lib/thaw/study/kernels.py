"""Kernels that begin with everything imported: copies of one process, which has imported it once.

TensorFlow, and what else an experiment's notebook imports, takes seconds of the
processor and is the same for each experiment. So while a study runs on this
machine, one process (`main`) imports it and then waits. Whoever runs a notebook
(`Manager`) asks it for a copy of itself (``fork``), which becomes the kernel. A
copy has no network, photos or random numbers of another run: those are made
later.

Where nobody offers copies, a kernel starts by itself: in JupyterLab, on clusters,
with a GPU (of which a copy could make no use), and on other systems than Linux.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import json
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, cast

import nbformat
import psutil
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

OFFER = "THAW_KERNELS"  # the variable with the name of the socket at which copies are to be had
LAUNCHER = ["-m", "ipykernel_launcher"]  # begins a kernel's arguments
TO_IMPORT = 120  # seconds to wait for a copy: the imports may be under way, from a slow disk
TO_ASK = 5  # seconds that one may take to say what for


@contextlib.contextmanager
def offered(notebook: Path, environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """Have a process import what a notebook imports, and offer copies of itself as kernels.

    Parameters
    ----------
    notebook : Path
    environment : dict of str to str
        Of the process.

    Yields
    ------
    dict of str to str
        The variables by which `Manager` finds it; none where there are no copies.
    """
    name = f"thaw-{secrets.token_hex(16)}"
    # A fork has but one thread: a lock that another held would stay locked. So NumPy is to start none, as in the jobs.
    of_one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    process = None
    if sys.platform == "linux":  # after a fork, macOS' own libraries may not be used
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"\0{name}")  # no file, which a killed process would leave
            listener.listen(128)  # who asks before the imports are made waits for them
            of_main = [str(listener.fileno()), str(os.getpid()), str(notebook)]
            command = [sys.executable, "-m", "thaw.study.kernels", *of_main]
            process = subprocess.Popen(
                command,
                env=environment | of_one_thread,
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
    try:
        yield {OFFER: name} if process else {}
    finally:
        if process:
            process.kill()
            process.wait()


class Manager(AsyncKernelManager):
    """Jupyter's manager of a kernel, which asks for a copy where they are offered."""

    copied: Copy | None = None

    async def _async_pre_start_kernel(self, **options: Any) -> tuple[list[str], dict[str, Any]]:
        # Before the kernel's ports are chosen: while this waits, others might take them.
        if OFFER in os.environ:
            with contextlib.suppress(OSError):  # nobody is there (any more)
                self.copied = Copy()
        return await super()._async_pre_start_kernel(**options)

    async def _async_launch_kernel(self, kernel_cmd: list[str], **options: Any) -> None:
        if self.copied and kernel_cmd[:3] == [sys.executable, *LAUNCHER]:
            with contextlib.suppress(OSError, ValueError):
                self.copied.start(kernel_cmd[3:], options["env"])
                by = self.provisioner
                assert isinstance(by, LocalProvisioner)
                by.process = cast("subprocess.Popen", self.copied)
                by.pid = by.pgid = self.copied.pid
                return
        if self.copied:
            self.copied.wait()
        await super()._async_launch_kernel(kernel_cmd, **options)


class Copy:
    """A kernel that is a copy, with what Jupyter uses of a `subprocess.Popen`.

    The kernel ends when this process does.

    Raises
    ------
    OSError
        If there is none to be had.
    """

    stdin = stdout = stderr = None

    def __init__(self):
        self.pid, self.process = 0, None
        self.connection = socket.socket(socket.AF_UNIX)  # the kernel ends when it is closed, as by this process' end
        try:
            self.connection.settimeout(TO_IMPORT)
            self.connection.connect(f"\0{os.environ[OFFER]}")
            if not _is_own(self.connection):
                raise PermissionError(f"{os.environ[OFFER]} belongs to another user")
            if not self.connection.recv(1):
                raise ConnectionError("none is offered any more")
        except BaseException:
            self.connection.close()
            raise

    def start(self, arguments: list[str], environment: Mapping[str, str]) -> None:
        """Have the copy made.

        Parameters
        ----------
        arguments : list of str
            The kernel's.
        environment : mapping of str to str

        Raises
        ------
        OSError, ValueError
            If it cannot be made.
        """
        asked = {"arguments": arguments, "environment": dict(environment), "folder": str(Path.cwd())}
        socket.send_fds(self.connection, [b"\n"], [1, 2])  # what it prints goes where this process prints
        self.connection.sendall(json.dumps(asked).encode() + b"\n")
        with self.connection.makefile() as answer:
            self.pid = int(answer.readline())
        with contextlib.suppress(psutil.Error):  # it has ended
            self.process = psutil.Process(self.pid)

    def poll(self) -> int | None:
        """Give None while it runs, then 1: its exit code is not known."""
        with contextlib.suppress(psutil.Error):
            if self.process and self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE:
                return None
        return 1

    def wait(self) -> int | None:
        """Tidy up after its end."""
        self.connection.close()
        return self.poll()

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        with contextlib.suppress(psutil.Error):
            if self.process:
                self.process.send_signal(number)


def main() -> None:
    """Import what a notebook imports; then, until the process that has started this one ends, become kernels."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word
    descriptor, starter, notebook = sys.argv[1:]
    listener = socket.socket(fileno=int(descriptor))
    if sys.path[0] in ("", str(Path.cwd())):
        del sys.path[0]  # as ipykernel's launcher does
    # Read at import: matplotlib draws inline; ipykernel neither prints how to connect, nor looks whether its parent has
    # ended, as `_end_with` does that.
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    os.environ["JPY_PARENT_PID"] = "1"
    import ipykernel.kernelapp  # noqa: F401

    from thaw.records import record

    _import_as(Path(notebook))
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow and tensorflow.config.list_physical_devices("GPU"):
        return  # CUDA has begun with this process, and does not work in copies
    record.commit()  # of the code that is loaded now: it is asked for once, and copies know the answer
    record.versions()
    gc.freeze()  # the copies share this memory as long as nobody writes to it
    listener.settimeout(1)
    while os.getppid() == int(starter):
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        with contextlib.suppress(TimeoutError):
            connection, _ = listener.accept()
            with connection:
                _copy(listener, connection)


def _import_as(notebook: Path) -> None:
    """Import what a notebook imports. What fails will fail there again, and be shown."""
    for cell in nbformat.read(notebook, as_version=4).cells:
        with contextlib.suppress(Exception):
            for node in ast.parse(cell.source).body if cell.cell_type == "code" else ():
                if isinstance(node, ast.Import | ast.ImportFrom):
                    exec(compile(ast.Module([node], []), notebook.name, "exec"), {})


def _copy(listener: socket.socket, connection: socket.socket) -> None:
    """Fork: the copy becomes a kernel, and never returns."""
    if not _is_own(connection):
        return
    connection.settimeout(TO_ASK)
    descriptors: list[int] = []
    try:
        connection.sendall(b"\n")
        _, descriptors, *_ = socket.recv_fds(connection, 1, 2)
        with connection.makefile("rb") as request:
            asked = json.loads(request.readline())
        if pid := os.fork():
            connection.sendall(f"{pid}\n".encode())
        else:
            _become_kernel(listener, connection, descriptors, **asked)
    except (OSError, ValueError):  # who asked has ended, or no more processes may run
        pass
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _become_kernel(
    listener: socket.socket,
    connection: socket.socket,
    streams: list[int],
    arguments: list[str],
    environment: dict[str, str],
    folder: str,
) -> NoReturn:
    """Be what ``python -m ipykernel_launcher`` would be, in a session of its own."""
    from ipykernel import kernelapp

    try:
        os.setsid()
        for number, descriptor in enumerate(streams, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        listener.close()
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        connection.settimeout(None)
        threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
        sys.argv = [LAUNCHER[1], *arguments]
        kernelapp.launch_new_instance()
    except Exception:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(1)


def _end_with(connection: socket.socket) -> None:
    """End when nobody is at the other end."""
    with contextlib.suppress(OSError):
        connection.recv(1)
    os._exit(1)


def _is_own(connection: socket.socket) -> bool:
    """Whether the process at the other end is the same user's."""
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return user == os.getuid()


if __name__ == "__main__":
    main()
