"""Start a Slurm of one node on this machine, for tests of runs on a cluster. It needs root, slurmctld and munged."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={other_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=2
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
JobRequeue=1
KillWait=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000
PartitionName=main Nodes={host} Default=YES
"""
AVAILABLE = os.getuid() == 0 and all(map(shutil.which, ("slurmctld", "slurmd", "munged", "sbatch", "squeue")))
PATIENCE = 60  # seconds until the node has to be ready


@contextmanager
def running_slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Slurm with its files in `folder`, on ports of its own; gives the environment variables of its users.

    Raises:
        RuntimeError: it does not start here, with what its programs say. A container may not allow it.
    """
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir(parents=True)
    key, socket_file = folder / "munge" / "key", folder / "munge.socket"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    places = {name: f"--{name}-file={folder}/munge/{name}" for name in ("key", "pid", "log", "seed")}
    (port, other_port), host = _free_ports(), socket.gethostname().split(".")[0]
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(folder=folder, host=host, port=port, other_port=other_port, cpus=os.cpu_count())
    )
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    commands = (
        ["munged", "--foreground", "--force", f"--socket={socket_file}", *places.values()],
        ["slurmctld", "-D"],
        ["slurmd", "-D"],
    )
    daemons = []
    try:
        for command in commands:
            with (folder / f"{command[0]}.log").open("w") as log:
                daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        ready, until = "", time.monotonic() + PATIENCE
        while "idle" not in ready:
            if time.monotonic() > until or any(daemon.poll() is not None for daemon in daemons):
                raise RuntimeError("\n".join(path.read_text() for path in folder.glob("*.log")))
            time.sleep(0.2)
            ask = ["timeout", "10", "sinfo", "--noheader", "--format=%T"]
            ready = subprocess.run(ask, env=environment, capture_output=True, text=True, check=False).stdout
        yield {"SLURM_CONF": str(configuration)}
    finally:
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                daemon.kill()


def _free_ports() -> list[int]:
    with socket.socket() as one, socket.socket() as other:
        for opened in (one, other):
            opened.bind(("127.0.0.1", 0))
        return [one.getsockname()[1], other.getsockname()[1]]
