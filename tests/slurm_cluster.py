"""A private Slurm for the tests: own ports, own munge, everything in one folder, nothing left."""

import contextlib
import os
import secrets
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PACKAGES = {"slurmctld": "slurmctld", "slurmd": "slurmd", "munged": "munge", "sbatch": "slurm-client"}

# Two nodes that are both this machine, with more CPUs than it may have, and GPUs that are /dev/null. Slurm's
# daemons differ by port and munge's by socket: another Slurm on the machine is not disturbed.
_CONFIGURATION = """
ClusterName=vsmltest
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/slurmd-%n
StateSaveLocation={folder}/state
SlurmctldPort={controller}
SlurmdParameters=config_overrides
InactiveLimit=0
KillWait=5
MinJobAge=300
MaxArraySize=1001
GresTypes=gpu
NodeName=DEFAULT CPUs=4 RealMemory=2000 Gres=gpu:2 State=UNKNOWN
NodeName=one NodeHostname=localhost NodeAddr=127.0.0.1 Port={one}
NodeName=two NodeHostname=localhost NodeAddr=127.0.0.1 Port={two}
PartitionName=main Nodes=one,two Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=one,two MaxTime=INFINITE State=UP PriorityTier=2
"""


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Run a Slurm in `folder`; yields the environment in which its commands talk to it.

    Raises:
        RuntimeError: the node did not come up; the message has the ends of the logs.
    """
    for name in ("state", "slurmd-one", "slurmd-two", "logs"):
        (folder / name).mkdir(parents=True)
    controller, one, two = _free_ports(3)
    (folder / "slurm.conf").write_text(
        _CONFIGURATION.format(folder=folder, controller=controller, one=one, two=two)
    )
    for number in range(2):
        os.mknod(folder / f"gpu{number}", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-1] Flags=nvidia_gpu_env\n")
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(128))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    environment["SLURM_CONF"] = str(folder / "slurm.conf")
    munge = [
        "munged",
        "--force",  # as root, and below a folder that only root may enter
        "--foreground",
        f"--socket={folder}/munge.socket",
        f"--key-file={key}",
        f"--pid-file={folder}/munge.pid",
        f"--seed-file={folder}/munge.seed",
        f"--log-file={folder}/logs/munge",
    ]
    daemons: list[subprocess.Popen] = []
    try:
        daemons.append(_start(folder, "munged", munge, environment))
        _wait_for((folder / "munge.socket").exists, folder)
        daemons.append(_start(folder, "slurmctld", ["slurmctld", "-D"], environment))
        for node in ("one", "two"):
            daemons.append(_start(folder, f"slurmd-{node}", ["slurmd", "-D", "-N", node], environment))
        _wait_for(lambda: "idle 2" in _ask(environment, "sinfo", "-h", "-o", "%T %D"), folder)
        try:
            yield environment
        finally:
            _ask(environment, "scancel", "--user=root")
            _wait_for(lambda: not _ask(environment, "squeue", "-h"), folder)
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(timeout=30)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:  # all open at once, so that they differ
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _start(folder: Path, name: str, command: list[str], environment: dict[str, str]) -> subprocess.Popen:
    with (folder / "logs" / f"{name}.out").open("wb") as log:
        return subprocess.Popen(
            ["env", f"PATH={environment['PATH']}:/usr/sbin", *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # an interrupt of the tests must not end it before its jobs
        )


def _ask(environment: dict[str, str], *command: str) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60).stdout


def _wait_for(condition: Callable[[], object], folder: Path, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            logs = (f"{path.name}:\n{path.read_text()[-2000:]}" for path in (folder / "logs").iterdir())
            raise RuntimeError(f"the private Slurm in {folder} does not come up or end:\n" + "\n".join(logs))
        time.sleep(0.1)
