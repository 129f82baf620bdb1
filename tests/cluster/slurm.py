"""A real SLURM on this machine: four virtual nodes with fake GPUs, on loopback, in one folder.

Debian's packages, as root, without systemd or cgroups. Everything that it starts carries the
folder in its environment, and is found by that when it must end.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.packages import install

PACKAGES = ("slurm-wlm", "slurmctld", "slurmd", "slurm-client", "munge")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")
NODES = ("n0", "n1", "n2", "n3")
MARK, NODE_MARK = "EVALUATOR_TEST_SLURM", "EVALUATOR_TEST_NODE"
"""In the environment of all that belongs to a cluster, and of a node's own processes."""

CONFIGURATION = """
ClusterName=evaluator
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={folder}/task-prolog
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=100000
ReturnToService=2
KillWait=5
MessageTimeout=20
SlurmdTimeout=6
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
GresTypes=gpu
{nodes}
PartitionName=low Nodes=ALL Default=YES LLN=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace}
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""

TASK_PROLOG = """#!/bin/sh
# The GPUs are fake: nothing may take one for CUDA, also where there is a real one.
echo export CUDA_VISIBLE_DEVICES=
"""


class SlurmError(Exception):
    """The cluster did not do what a test needs; holds what its daemons said."""


def unavailable() -> str | None:
    """Why there can be no SLURM here, or None when there is one; installs it where it may."""
    if all(map(shutil.which, PROGRAMS)):
        return None if os.geteuid() == 0 else "SLURM is run as root here, and this is not root"
    if Path("/run/systemd/system").exists():
        return (
            f"expected Debian's packages {' '.join(PACKAGES)}; they are not installed by a test "
            "where systemd would start their services"
        )
    return install(*PACKAGES)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody uses, below those that the system gives out."""
    with ExitStack() as stack:
        sockets: list[socket.socket] = []
        for port in range(10000 + os.getpid() % 5000, 32000):
            if len(sockets) == count:
                break
            one = stack.enter_context(socket.socket())
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            sockets.append(one)
        return [one.getsockname()[1] for one in sockets]


def until(what: str, holds: Callable[[], object], *, seconds: float = 300) -> None:
    """Wait until something holds; raises SlurmError naming it when it does not."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise SlurmError(f"expected within {seconds:.0f} s that {what}")
        time.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Job:
    """A job, or one task of an array, as the controller has it."""

    id: str
    state: str
    node: str
    exit_status: int
    restarts: int
    began: str
    """Local time; sorts as text."""
    finished: str

    @property
    def ended(self) -> bool:
        """Whether it neither runs nor waits any more."""
        return self.state not in {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED"}


@dataclass
class Slurm:
    """The cluster: `start` it, submit with `run("sbatch", …)`, and always `stop` it."""

    folder: Path
    """A new folder that only root needs to enter; its path is short, for the socket's sake."""
    grace_seconds: int = 20
    """Between telling a preempted job and ending it."""
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> Mapping[str, str]:
        """For the commands that talk to this cluster, and so for what they submit."""
        outer = {name: value for name, value in os.environ.items() if name[:5] != "SLURM"}
        return {**outer, "SLURM_CONF": str(self.folder / "slurm.conf"), MARK: str(self.folder)}

    def start(self) -> None:
        """Write the configuration, start all daemons, wait until every node is idle."""
        controller_port, *ports = free_ports(1 + len(NODES))
        host = socket.gethostname().split(".")[0]
        nodes = [
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 "
            "RealMemory=1000 Gres=gpu:fake:2"
            for name, port in zip(NODES, ports, strict=True)
        ]
        text = CONFIGURATION.format(
            folder=self.folder, host=host, controller_port=controller_port, nodes="\n".join(nodes),
            grace=self.grace_seconds,
        )  # fmt: skip
        (self.folder / "slurm.conf").write_text(text)
        gres = "".join(f"Name=gpu Type=fake File=/dev/{file}\n" for file in ("null", "zero"))
        (self.folder / "gres.conf").write_text(gres)
        prolog = self.folder / "task-prolog"
        prolog.write_text(TASK_PROLOG)
        prolog.chmod(0o755)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        (self.folder / "state").mkdir()
        names = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        files = [f"--{option}={self.folder}/munge.{name}" for option, name in names.items()]
        self._begin("munged", "--foreground", "--force", f"--key-file={key}", *files)
        until("munged listens", (self.folder / "munge.socket").exists)
        self._begin("slurmctld", "-D", "-i")
        for name in NODES:
            self.start_node(name)
        until("all nodes are idle", lambda: set(self.node_states().values()) == {"idle"})

    def start_node(self, name: str) -> None:
        """Start the daemon of one node."""
        (self.folder / f"spool-{name}").mkdir(exist_ok=True)
        self._begin("slurmd", "-D", "-N", name, node=name)

    def lose_node(self, name: str) -> None:
        """End all that a node runs, at once and without a word, as a power cut would."""
        for pid in self._processes(name):
            _kill(pid)
        self.daemons.pop(f"slurmd-{name}").wait()

    def stop(self) -> None:
        """End everything that belongs to this cluster."""
        while left := list(self._processes()):
            for pid in left:
                _kill(pid)
            for daemon in self.daemons.values():
                daemon.wait()

    def run(self, *command: str, cwd: Path | None = None) -> str:
        """Run a command against this cluster; returns what it printed."""
        done = subprocess.run(
            command, env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        if done.returncode:
            raise SlurmError(f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def node_states(self) -> dict[str, str]:
        """Node → `idle`, `mixed`, `allocated`, `down`…; empty while the controller is not there."""
        try:
            lines = self.run("sinfo", "--noheader", "--Node", "--format=%N %t").splitlines()
        except SlurmError:
            return {}
        return dict(line.split() for line in lines)

    def jobs(self, job: str) -> list[Job]:
        """A job, or all tasks of an array."""
        lines = self.run("scontrol", "--oneliner", "show", "job", job).splitlines()
        records = [dict(f.partition("=")[::2] for f in line.split()) for line in lines if line]
        return [
            Job(
                record["JobId"], record["JobState"], record.get("NodeList", ""),
                int(record["ExitCode"].partition(":")[0]), int(record["Restarts"]),
                record["StartTime"], record["EndTime"],
            )
            for record in records
        ]  # fmt: skip

    def tell_tasks(self, job: str, number: signal.Signals) -> None:
        """Signal the tasks of a job's steps and nothing below them, as proctrack/cgroup does."""
        for pid, environment in self._environments():
            in_step = any(entry.startswith(b"SLURM_STEP_ID=") for entry in environment)
            own = {f"SLURM_JOB_ID={job}".encode(), f"SLURM_TASK_PID={pid}".encode()}
            if in_step and own <= environment:
                os.kill(pid, number)

    def until_ended(self, *jobs: str, seconds: float = 300) -> list[Job]:
        """Wait until jobs ended; returns them with the tasks of arrays."""
        found: list[Job] = []

        def ended() -> bool:
            found[:] = [one for job in jobs for one in self.jobs(job)]
            return all(one.ended for one in found)

        try:
            until(f"jobs {', '.join(jobs)} end", ended, seconds=seconds)
        except SlurmError as error:
            raise SlurmError(f"{error}; got {found}") from None
        return found

    def _begin(self, program: str, *arguments: str, node: str | None = None) -> None:
        """Start a daemon that ends with this process, also when this process is killed."""
        name = program if node is None else f"{program}-{node}"
        environment = {**self.environment, **({NODE_MARK: node} if node else {})}
        with (self.folder / f"{name}.out").open("wb") as output:
            self.daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig=TERM", program, *arguments],
                env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip

    def _processes(self, node: str | None = None) -> Iterator[int]:
        """Ids of the processes of this cluster, or of one of its nodes."""
        nodes = {f"{NODE_MARK}={node}".encode(), f"SLURMD_NODENAME={node}".encode()}
        for pid, environment in self._environments():
            if node is None or nodes & environment:
                yield pid

    def _environments(self) -> Iterator[tuple[int, set[bytes]]]:
        """Id and environment of each process of this cluster."""
        mark = f"{MARK}={self.folder}".encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                environment = set((entry / "environ").read_bytes().split(b"\0"))
            except OSError:
                continue
            if mark in environment:
                yield int(entry.name), environment


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
