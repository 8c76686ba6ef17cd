"""Kernels that begin with everything imported: copies of one process, which has imported it once.

TensorFlow, and what else an experiment's notebook imports, takes seconds of the
processor and is the same for each experiment. So while a study runs on this
machine, one process (`main`) imports it and then waits. Whoever runs a notebook
(`Manager`) asks it for a copy of itself (``fork``), which becomes the kernel. It
has no network, photos or random numbers of another run: those are made later.

Where nobody offers copies, as in JupyterLab, on clusters and on other systems
than Linux, a kernel starts by itself.
"""

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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import nbformat
import psutil
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

OFFER = "THAW_KERNELS"  # the variable with the name of the socket at which copies are to be had
LAUNCHER = ["-m", "ipykernel_launcher"]  # begins a kernel's arguments
PATIENCE = 120  # seconds to wait for a copy: the imports may be under way, from a slow disk


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
        The variables by which `Manager` finds it; none on other systems than Linux.
    """
    if sys.platform != "linux":  # after a fork, macOS' own libraries may not be used
        yield {}
        return
    name = f"thaw-{secrets.token_hex(16)}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")  # no file, which a killed process would leave
        listener.listen(128)  # who asks before the imports are made waits for them
        of_main = [str(listener.fileno()), str(os.getpid()), str(notebook)]
        command = [sys.executable, "-m", "thaw.study.kernels", *of_main]
        of_one_core = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # read by NumPy; Snakemake's jobs have it
        process = subprocess.Popen(command, env=environment | of_one_core, pass_fds=[listener.fileno()])
    try:
        yield {OFFER: name}
    finally:
        process.kill()
        process.wait()


class Manager(AsyncKernelManager):
    """Jupyter's manager of a kernel, which asks for a copy where they are offered."""

    async def _async_launch_kernel(self, kernel_cmd: list[str], **options: Any) -> None:
        if OFFER in os.environ and kernel_cmd[1:3] == LAUNCHER:
            with contextlib.suppress(OSError, ValueError):  # nobody is there (any more)
                process, by = Copy(kernel_cmd[3:], options["env"]), self.provisioner
                assert isinstance(by, LocalProvisioner)
                by.process = cast("subprocess.Popen", process)
                by.pid = by.pgid = process.pid
                return
        await super()._async_launch_kernel(kernel_cmd, **options)


class Copy:
    """A kernel that is a copy, with what Jupyter uses of a `subprocess.Popen`. It ends when this process does.

    Parameters
    ----------
    arguments : list of str
        The kernel's.
    environment : mapping of str to str

    Raises
    ------
    OSError, ValueError
        If there is none to be had.
    """

    stdin = stdout = stderr = None

    def __init__(self, arguments: list[str], environment: Mapping[str, str]):
        self.connection = socket.socket(socket.AF_UNIX)  # the kernel ends when it is closed, as by this process' end
        try:
            self.connection.settimeout(PATIENCE)
            self.connection.connect(f"\0{os.environ[OFFER]}")
            if not _is_own(self.connection):
                raise PermissionError(f"{os.environ[OFFER]} belongs to another user")
            asked = {"arguments": arguments, "environment": dict(environment), "folder": str(Path.cwd())}
            socket.send_fds(self.connection, [b"\n"], [1, 2])  # what it prints goes where this process prints
            self.connection.sendall(json.dumps(asked).encode() + b"\n")
            with self.connection.makefile() as answer:
                self.pid = int(answer.readline())
        except BaseException:
            self.connection.close()
            raise
        self.process = None
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
        if self.process and self.poll() is None:
            with contextlib.suppress(psutil.Error):
                self.process.send_signal(number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def main() -> None:
    """Import what a notebook imports; then, until the process that has started this one ends, become kernels."""
    descriptor, starter, notebook = sys.argv[1:]
    listener = socket.socket(fileno=int(descriptor))
    del sys.path[0]  # the folder that this was started in, which is no kernel's
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word
    # What the imports read: a kernel draws inline, and is a program's, whose end it need not look for by itself.
    os.environ |= {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "JPY_PARENT_PID": "1"}
    _import_as(Path(notebook))
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
    """Import what a notebook imports, and what a kernel needs. What fails will fail there again, and be shown."""
    from ipykernel import kernelapp  # noqa: F401

    for cell in nbformat.read(notebook, as_version=4).cells:
        with contextlib.suppress(Exception):
            for node in ast.parse(cell.source).body if cell.cell_type == "code" else ():
                if isinstance(node, ast.Import | ast.ImportFrom):
                    exec(compile(ast.Module([node], []), notebook.name, "exec"), {})


def _copy(listener: socket.socket, connection: socket.socket) -> None:
    """Fork: the copy becomes a kernel, and never returns."""
    connection.settimeout(PATIENCE)
    try:
        _, descriptors, *_ = socket.recv_fds(connection, 1, 2)
        with connection.makefile("rb") as request:
            asked = json.loads(request.readline())
        if not _is_own(connection):
            return
        pid = os.fork()
    except (OSError, ValueError):  # who asked has ended, or no more processes may run
        return
    if pid:
        with contextlib.suppress(OSError):
            connection.sendall(f"{pid}\n".encode())
        for descriptor in descriptors:
            os.close(descriptor)
        return
    try:
        listener.close()
        _become_kernel(connection, descriptors, **asked)
    finally:
        os._exit(1)


def _become_kernel(
    connection: socket.socket, streams: list[int], arguments: list[str], environment: dict[str, str], folder: str
) -> None:
    """Be what ``python -m ipykernel_launcher`` would be, in a session of its own."""
    from ipykernel import kernelapp

    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, descriptor in enumerate([os.open(os.devnull, os.O_RDONLY), *streams]):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    connection.settimeout(None)
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    sys.argv = [LAUNCHER[1], *arguments]
    kernelapp.launch_new_instance()


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
