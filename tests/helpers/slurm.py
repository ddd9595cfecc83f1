"""Start a Slurm of one node on this machine, for tests of runs on a cluster. It needs root, slurmctld and munged."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

# A job that was requeued waits for `cred_expire` and a second: two minutes, unless it is set, and 5 is the least.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={other_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdParameters=config_overrides
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


@contextlib.contextmanager
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
            ended = [command[0] for command, daemon in zip(commands, daemons, strict=True) if daemon.poll() is not None]
            if ended or time.monotonic() > until:
                said = " ".join(line for path in folder.glob("*.log") for line in path.read_text().splitlines()[-3:])
                raise RuntimeError(f"{ended[0]} ended: {said}" if ended else f"no node after {PATIENCE} s: {said}")
            time.sleep(0.2)
            ask = ["timeout", "10", "sinfo", "--noheader", "--format=%T"]
            ready = subprocess.run(ask, env=environment, capture_output=True, text=True, check=False).stdout
        yield {"SLURM_CONF": str(configuration)}
    finally:
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
        _kill_users(configuration)
        for daemon in daemons:
            daemon.wait(PATIENCE)


def _kill_users(configuration: Path) -> None:
    """Kill what runs with this configuration: a daemon that hangs, and the jobs, which outlive slurmd."""
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get("SLURM_CONF") == str(configuration):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def _free_ports() -> list[int]:
    with socket.socket() as one, socket.socket() as other:
        for opened in (one, other):
            opened.bind(("127.0.0.1", 0))
        return [one.getsockname()[1], other.getsockname()[1]]
