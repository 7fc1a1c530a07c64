"""A real SLURM on one machine, as two nodes; nothing is installed and nothing is left behind.

Debian's packages are downloaded and unpacked into a folder, so no other process finds ``srun`` on
its PATH (submitit would take it for a cluster), and the daemons run from there without systemd.
Node names are loopback addresses, which need no entry in /etc/hosts.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
NODES = ("127.0.0.1", "127.0.0.2")
_ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE")

# cred_expire: a requeued job waits this long before it starts again, 120 s by default.
_SLURM_CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/munge.sock,cred_expire=5
CredType=cred/munge
PluginDir={plugins}
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdSpoolDir={folder}/spool/%n
StateSaveLocation={folder}/state
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
JobRequeue=1
KillWait=5
MinJobAge=600
FirstJobId={first_job}
NodeName={nodes[0]} NodeHostname={host} NodeAddr={nodes[0]} Port={ports[1]} {size}
NodeName={nodes[1]} NodeHostname={host} NodeAddr={nodes[1]} Port={ports[2]} {size}
PartitionName=debug Nodes={nodes[0]},{nodes[1]} Default=YES MaxTime=INFINITE State=UP
"""


class Unavailable(Exception):
    """SLURM cannot be brought up here; the message says what is missing."""


class SingleHostSlurm:
    """Two nodes on this machine.

    Args:
        folder: for packages, settings, state and logs; its path must be short enough for a socket.
        first_job: its id.
    """

    def __init__(self, folder: Path, first_job: int = 1) -> None:
        self.folder = folder
        self.first_job = first_job
        self.root = folder / "root"
        self._daemons: list[subprocess.Popen] = []

    # ---- up and down ----------------------------------------------------------------------

    def up(self) -> None:
        """Fetch, configure, start; returns when both nodes are idle.

        Raises:
            Unavailable: no packages, or a daemon does not start.
        """
        try:
            self._fetch()
            self._configure()
            self._start()
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", "") or ""
            raise Unavailable(f"{error}\n{said}") from error

    def down(self) -> None:
        """Cancel all jobs and stop the daemons; returns when they are gone."""

        def no_jobs() -> bool:
            # again and again: a job that is being requeued is not cancelled
            self.call("scancel", "--user", _user(), check=False)
            return not self.call("squeue", "--noheader", check=False)

        try:
            if len(self._daemons) == 4:
                self.wait(no_jobs, 40, "the jobs to end")
        finally:
            for daemon in reversed(self._daemons):
                daemon.send_signal(signal.SIGTERM)
                try:
                    daemon.wait(10)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()
            self._daemons.clear()

    def _fetch(self) -> None:
        if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
            raise Unavailable("apt-get is missing; SLURM comes from Debian's packages")
        archives = self.folder / "packages"
        (archives / "partial").mkdir(parents=True)
        fetch = [
            "apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "--download-only",
            "--reinstall", "-o", f"Dir::Cache::archives={archives}", *PACKAGES,
        ]  # fmt: skip
        try:
            _run(fetch)
        except subprocess.CalledProcessError:
            _run(["apt-get", "update", "--quiet"])  # a fresh container has no lists
            _run(fetch)
        for package in archives.glob("*.deb"):
            _run(["dpkg", "-x", str(package), str(self.root)])

    def _configure(self) -> None:
        for name in ("munge", "state", *(f"spool/{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True, mode=0o755)
        key = self.folder / "munge" / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        text = _SLURM_CONF.format(
            host=socket.gethostname().partition(".")[0],
            user=_user(),
            folder=self.folder,
            plugins=self._libraries / "slurm-wlm",
            ports=_free_ports(3),
            nodes=NODES,
            first_job=self.first_job,
            size="CPUs=64 RealMemory=200000 State=UNKNOWN",
        )
        (self.folder / "slurm.conf").write_text(text)

    def _start(self) -> None:
        munge = self.folder / "munge"
        sbin = self.root / "usr" / "sbin"
        self._daemon(
            sbin / "munged", "--foreground", "--force", f"--socket={munge}/munge.sock",
            f"--key-file={munge}/munge.key", f"--log-file={munge}/munged.log",
            f"--pid-file={munge}/munged.pid", f"--seed-file={munge}/munged.seed",
        )  # fmt: skip
        self.wait((munge / "munge.sock").exists, 10, "munged")
        for node in NODES:
            self._daemon(sbin / "slurmd-wlm", "-D", "-N", node, "-d", sbin / "slurmstepd-wlm")
        self._daemon(sbin / "slurmctld-wlm", "-D")

        def idle() -> bool:
            shown = self.call("sinfo", "-h", "-N", "-t", "idle", "-o", "%N", check=False)
            return set(shown.split()) == set(NODES)

        self.wait(idle, 30, "the nodes")

    def _daemon(self, *command: str | Path) -> None:
        with open(self.folder / "daemons.log", "ab") as log:
            self._daemons.append(
                subprocess.Popen(
                    [str(word) for word in command],
                    env=self.environment(dict(os.environ)),
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )
            )  # fmt: skip

    # ---- use ------------------------------------------------------------------------------

    @property
    def _libraries(self) -> Path:
        (libraries,) = (self.root / "usr" / "lib").glob("*-linux-gnu")
        return libraries

    def environment(self, base: dict[str, str]) -> dict[str, str]:
        """``base`` with this SLURM's commands and no others."""
        return {
            **base,
            "PATH": f"{self.root / 'usr' / 'bin'}{os.pathsep}{base.get('PATH', os.defpath)}",
            "LD_LIBRARY_PATH": f"{self._libraries}{os.pathsep}{self._libraries / 'slurm-wlm'}",
            "SLURM_CONF": str(self.folder / "slurm.conf"),
        }

    def call(self, *command: str, check: bool = True) -> str:
        """Run a SLURM command; returns what it prints."""
        done = _run(
            [str(self.root / "usr" / "bin" / command[0]), *command[1:]],
            env=self.environment(dict(os.environ)), check=check,
        )  # fmt: skip
        return done.stdout

    def job(self, job_id: str) -> dict[str, str]:
        """What ``scontrol show job`` says: ``JobState``, ``Restarts``, ``ExitCode``, ..."""
        words = self.call("scontrol", "show", "job", "-o", job_id, check=False).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def ended(self, *job_ids: str) -> bool:
        """Whether the jobs have ended and left their nodes."""
        return all(self.job(job_id).get("JobState") in _ENDED for job_id in job_ids)

    def wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Poll until ``condition()``.

        Raises:
            Unavailable: it took longer, or a daemon has ended.
        """
        end = time.monotonic() + seconds
        while not condition():
            dead = [each.args[0] for each in self._daemons if each.poll() is not None]
            if dead or time.monotonic() > end:
                raise Unavailable(f"waited for {what}; ended: {dead}\n{self.logs()}")
            time.sleep(0.1)

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        paths = [*sorted(self.folder.glob("*.log")), *self.folder.glob("munge/*.log")]
        return "\n".join(f"--- {path.name}\n{path.read_text()[-1500:]}" for path in paths)


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _run(command: list[str], env: dict[str, str] | None = None, check: bool = True):
    return subprocess.run(
        command, env=env, check=check, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=180,
    )  # fmt: skip
