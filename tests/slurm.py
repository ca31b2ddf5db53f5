"""A whole SLURM on this machine for tests: munged, slurmctld and two slurmd, with configuration and ports of its own.

Nothing of the system's is touched. Two nodes are this one machine under two names. All processes, jobs included, carry
`SLURM_CONF` in their environment and are found and killed by it at the end; should the tests themselves be killed, a
watchdog that holds the other end of a pipe does it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "srun")
NODES = ("n1", "n2")
CPUS = 4  # of each node, whatever the machine has: jobs side by side are what is tested, not speed
PATIENCE = 60.0

CONFIG = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=2
JobRequeue=1
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

SWEEP = """
import os, signal, sys
from pathlib import Path
def sweep(mark):
    found = 0
    for process in Path('/proc').glob('[0-9]*'):
        try:
            if int(process.name) != os.getpid() and mark in (process / 'environ').read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
                found += 1
        except OSError:
            pass
    return found
"""
WATCHDOG = (
    SWEEP
    + """
import shutil, time
sys.stdin.read()  # ends when the tests end, however they do
while sweep(sys.argv[1].encode()):
    time.sleep(0.1)
shutil.rmtree(sys.argv[2], ignore_errors=True)
"""
)


def why_not() -> str:
    """Why there can be no SLURM here; empty if there can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"no {', '.join(missing)} here (Debian: apt-get install slurm-wlm munge)"
    return "" if os.geteuid() == 0 else "slurmd needs root"


@dataclass(frozen=True, slots=True)
class Slurm:
    """A running cluster."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=PATIENCE, env=os.environ | self.environment
        )
        return done.stdout

    def queue(self) -> dict[str, str]:
        """Jobs that have not ended, with their states."""
        rows = self.run("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
        return dict(row.split() for row in rows)

    def wait(self, seconds: float = 240.0) -> None:
        """Until no job is left."""
        wait_for(lambda: not self.queue(), seconds, lambda: self.run("scontrol", "show", "job"))


def wait_for(true: object, seconds: float, said: object = None) -> None:
    """Until something holds; then the test goes on at once."""
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        if time.monotonic() > end:
            raise AssertionError(said() if callable(said) else f"nothing happened in {seconds} s")
        time.sleep(0.05)


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    """A cluster for the tests of a module; `SLURM_CONF` points to it."""
    if reason := why_not():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # a socket's path must be short
    folder.chmod(0o755)
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    watchdog = subprocess.Popen(
        [sys.executable, "-c", WATCHDOG, f"SLURM_CONF={folder}/slurm.conf", str(folder)],
        stdin=subprocess.PIPE,
        env={"PATH": os.environ["PATH"]},
        start_new_session=True,
    )
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        _configure(folder)
        daemons += _start(folder)
        yield Slurm(folder)
    finally:
        assert watchdog.stdin is not None
        watchdog.stdin.close()
        watchdog.wait(PATIENCE)
        for daemon in daemons:
            daemon.wait(PATIENCE)
        del os.environ["SLURM_CONF"]
        if before is not None:
            os.environ["SLURM_CONF"] = before


def _configure(folder: Path) -> None:
    controller, *ports = _free_ports(1 + len(NODES))
    host = socket.gethostname().split(".")[0]
    nodes = [
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} State=UNKNOWN"
        for name, port in zip(NODES, ports, strict=True)
    ]
    text = CONFIG.format(host=host, controller=controller, folder=folder, nodes="\n".join(nodes))
    (folder / "slurm.conf").write_text(text)
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # loaded, and with linuxproc not used
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o400)
    for name in ("state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir()


def _start(folder: Path) -> list[subprocess.Popen[bytes]]:
    config = str(folder / "slurm.conf")
    munge = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    files = [f"--{option}={folder}/munge.{end}" for option, end in munge.items()]
    commands = [["munged", "--foreground", "--force", "--num-threads=2", *files]]
    commands += [["slurmctld", "-D", "-i", "-f", config]]
    commands += [["slurmd", "-D", "-f", config, "-N", node] for node in NODES]
    daemons = []
    for command in commands:
        with (folder / "daemons.log").open("ab") as log:
            daemons.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL))
        if command[0] == "munged":
            wait_for((folder / "munge.socket").exists, PATIENCE)

    def logs() -> str:
        return "\n".join(f"{path}:\n{path.read_text()[-2000:]}" for path in folder.glob("*.log"))

    def idle() -> bool:
        done = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--format=%t"], capture_output=True, text=True, timeout=30, check=False
        )
        return done.stdout.split() == ["idle"] * len(NODES)

    try:
        wait_for(idle, PATIENCE, logs)
    except BaseException:
        for daemon in daemons:
            daemon.send_signal(signal.SIGKILL)
        raise
    return daemons


def _free_ports(count: int) -> list[int]:
    holders = [socket.socket() for _ in range(count)]
    try:
        for holder in holders:
            holder.bind(("127.0.0.1", 0))
        return [holder.getsockname()[1] for holder in holders]
    finally:
        for holder in holders:
            holder.close()
