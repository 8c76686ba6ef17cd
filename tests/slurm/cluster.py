"""A real SLURM on this machine, for as long as a test or a command takes: a controller and nodes of one core each.

By hand, with Debian's packages slurm-wlm and munge:

    python tests/slurm/cluster.py sinfo

``test_slurm.py`` says which settings a study needs here.
"""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from thaw.study.graph import processes_with

# Debian keeps the daemons where the PATH of most users does not lead.
DAEMONS = {
    name: shutil.which(name) or shutil.which(name, path="/usr/sbin") for name in ("munged", "slurmctld", "slurmd")
}
MISSING = [name for name, path in DAEMONS.items() if path is None] + ["sbatch"] * (shutil.which("sbatch") is None)

CONFIGURATION = """
ClusterName=thaw
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
MpiDefault=none
# No cgroups, which a container may not have; processes are not bound to cores by SLURM but by taskset, below.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
# Jobs start at once, and squeue, in place of the accounting that is not there, remembers them for an hour.
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
MinJobAge=3600
KillWait=2
"""


@contextmanager
def slurm(nodes: int = 2, cpus: int = 1, memory: int = 6000) -> Iterator[dict[str, str]]:
    """Start SLURM in a folder of its own; stop it, its jobs and all that they have started, at the end.

    Parameters
    ----------
    nodes : int
        Each keeps to one core of this machine, another one as long as there are.
    cpus, memory : int
        What each node says that it has; memory in megabytes.

    Yields
    ------
    dict
        Environment variables for commands that use it.
    """
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # a socket's path has to be short
    configuration = folder / "slurm.conf"
    # The plugin takes SLURM_CONF, with the like of it, from what it starts by srun.
    srun = folder / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={configuration} exec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    path = f"{srun.parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"SLURM_CONF": str(configuration), "PATH": path}
    ports = free_ports(1 + nodes)
    names = [f"node{number}" for number in range(nodes)]
    try:
        text = CONFIGURATION.format(host=socket.gethostname(), port=ports[0], user=getpass.getuser(), folder=folder)
        for name, port in zip(names, ports[1:]):
            text += f"NodeName={name} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={port} "
            text += f"CPUs={cpus} RealMemory={memory} State=UNKNOWN\n"
        text += f"PartitionName=all Nodes={','.join(names)} Default=YES MaxTime=INFINITE State=UP\n"
        configuration.write_text(text)
        for name in ("munge", "state"):
            (folder / name).mkdir(mode=0o755)
        key = folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)

        def start(log: str, *command: str) -> None:
            with open(folder / f"{log}.log", "wb") as file:
                subprocess.Popen(command, env=environment, stdout=file, stderr=file, cwd=folder, start_new_session=True)

        munge = [f"--{name}-file={folder}/munge/{name}" for name in ("key", "pid", "seed", "log")]
        start("munged", DAEMONS["munged"], "--foreground", "--force", f"--socket={folder}/munge/socket", *munge)
        wait_until((folder / "munge" / "socket").exists, folder)
        start("slurmctld", DAEMONS["slurmctld"], "-D")
        cores = sorted(os.sched_getaffinity(0))
        for number, name in enumerate(names):
            core = str(cores[number % len(cores)])
            start(name, "taskset", "--cpu-list", core, DAEMONS["slurmd"], "-D", "-N", name)
        wait_until(lambda: idle(environment) == nodes, folder)
        yield environment
    finally:
        stop(environment)
        shutil.rmtree(folder, ignore_errors=True)


def idle(environment: dict[str, str]) -> int:
    """How many nodes are ready."""
    shown = subprocess.run(["sinfo", "--noheader", "--Node", "--format=%T"], env=environment, capture_output=True)
    return shown.stdout.split().count(b"idle")


def wait_until(true, folder: Path, seconds: float = 30) -> None:
    """Look ten times a second; with what the daemons have written, if it takes too long."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError("\n".join(f"{path.name}:\n{path.read_text()}" for path in sorted(folder.glob("*.log"))))
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def stop(environment: dict[str, str]) -> None:
    """End the daemons and whatever runs in a job: all processes that were started with this configuration."""
    mark = {"SLURM_CONF": environment["SLURM_CONF"]}  # this process has it not
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for process in (left := processes_with(mark)):
            with suppress(psutil.NoSuchProcess):
                end(process)
        psutil.wait_procs(left, timeout=5)


if __name__ == "__main__":
    if MISSING:
        sys.exit(f"not here: {', '.join(MISSING)}. Debian has them in slurm-wlm and munge.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stop what runs then, too
    with slurm() as environment:
        sys.exit(subprocess.run(sys.argv[1:], env=environment).returncode)
