"""A node of the practice cluster from the inside: its disk, its mounts, its network, and process 1.

A node is a set of namespaces. Its disk is the upper layer of an overlay of `/` and outlives it; all else ends with process 1,
so that killing process 1 is power loss.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from pha4pgsql import lab_kernel, system
from pha4pgsql.lab_words import CLIENT, INSTALLED, LOCK_ADDRESS, NIC, ROOM, Node, Plan, first_files
from pha4pgsql.words import EnvironmentFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

OTHER_LIVES = (
    "/var/lib/pacemaker/cib", "/var/lib/pacemaker/pengine", "/var/lib/pacemaker/cores", "/var/lib/pacemaker/blackbox", "/var/lib/corosync",
    "/var/log/pacemaker", "/var/log/corosync", "/var/lib/pgsql/tmp", "/pgsql", INSTALLED,
)  # fmt: skip
"""Directories that a node has empty at its first boot, whatever the machine below has in them."""

SEED_PROGRAMS = "/usr/pgsql"
"""Where the walkthrough has PostgreSQL's programs."""
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
DISK_KINDS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "overlay"})
SYSTEM_PATHS = ("/usr", "/etc", "/var", "/opt", "/lib", "/bin", "/sbin", "/home", "/root", "/srv")


def environment(plan: Plan) -> dict[str, str]:
    """What a command on a node finds; nothing of the caller's environment goes in but its terminal."""
    path = f"{INSTALLED}/bin:{INSTALLED}/tools:{plan.bindir}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    kept = {name: os.environ[name] for name in ("TERM", "COLUMNS", "LINES") if name in os.environ}
    return {"PATH": path, "HOME": "/root", "USER": "root", "LANG": "C.UTF-8", "SHELL": "/bin/bash", **kept}


def live(plan: Plan, node: Node, disk: str, link: int, ready: int) -> None:
    """Be process 1 of the node until killed: `link` becomes readable when the network is there, `ready` hears "ok" or what went wrong."""
    try:
        lab_kernel.mount("none", "/", flags=lab_kernel.MS_REC | lab_kernel.MS_PRIVATE)
        mount_all(plan, disk, _bind)
        socket.sethostname(node.name)
        os.read(link, 1)
        configure_network(node)
        first_boot(plan, node)
        start_ssh(plan)
    except (OSError, EnvironmentFailure) as failure:
        os.write(ready, f"{node.name}: {failure}".encode())
        os._exit(1)
    os.write(ready, b"ok")
    os.close(ready)
    if node.member:
        start_cluster(environment(plan))
    reap()


def mount_all(plan: Plan, disk: str, share: Callable[[str, str], None]) -> None:
    """Build the node's file system and make it the root; nothing of the machine's own mounts stays in sight.

    `share` makes the lab's directory, its first argument, appear in the node's file system too.
    """
    root = f"{disk}/root"
    for lower in ("/", *_separate_file_systems()):
        _overlay(lower, disk, root)
    os.chdir(root)
    _mount_proper(root)
    os.makedirs(f"{root}{ROOM}", exist_ok=True)
    share(plan.room, f"{root}{ROOM}")
    for lower in _out_of_sight(plan):
        os.makedirs(f"{root}{lower}", exist_ok=True)
        _overlay(lower, disk, root)
    _pivot()


def _separate_file_systems() -> tuple[str, ...]:
    """Disks mounted below `/` are not in an overlay of it: each that holds a part of the system gets one of its own."""
    with open("/proc/self/mounts", encoding="utf-8") as stream:
        rows = [line.split()[1:3] for line in stream]
    return tuple(path for path, kind in rows if kind in DISK_KINDS and path.startswith(SYSTEM_PATHS) and os.path.isdir(path))


def _overlay(lower: str, disk: str, root: str) -> None:
    key = lower.strip("/").replace("/", "+") or "root"
    upper, work = f"{disk}/upper/{key}", f"{disk}/work/{key}"
    for folder in (upper, work, root):
        os.makedirs(folder, exist_ok=True)
    lab_kernel.mount("overlay", f"{root}{lower}", "overlay", options=f"lowerdir={lower},upperdir={upper},workdir={work}")


def _mount_proper(root: str) -> None:
    """Give the node its own proc (pacemakerd looks for its daemons there), sys, and what a boot has empty: run, tmp, dev."""
    lab_kernel.mount("proc", f"{root}/proc", "proc")
    lab_kernel.mount("sysfs", f"{root}/sys", "sysfs")
    lab_kernel.mount("tmpfs", f"{root}/run", "tmpfs", lab_kernel.MS_NOSUID, "mode=755")
    lab_kernel.mount("tmpfs", f"{root}/tmp", "tmpfs", lab_kernel.MS_NOSUID, "mode=1777")  # noqa: S108
    lab_kernel.mount("tmpfs", f"{root}/dev", "tmpfs", lab_kernel.MS_NOSUID, "mode=755")
    for name, (major, minor) in DEVICES.items():
        os.mknod(f"{root}/dev/{name}", 0o666 | stat.S_IFCHR, os.makedev(major, minor))
        os.chmod(f"{root}/dev/{name}", 0o666)  # noqa: S103
    for folder in ("dev/pts", "dev/shm", "run/lock", "run/postgresql"):
        os.mkdir(f"{root}/{folder}")
    lab_kernel.mount("devpts", f"{root}/dev/pts", "devpts", options="newinstance,ptmxmode=0666,mode=620")
    lab_kernel.mount("tmpfs", f"{root}/dev/shm", "tmpfs", lab_kernel.MS_NOSUID, "mode=1777,size=1g")  # noqa: S108
    for name, target in (("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(target, f"{root}/dev/{name}")
    with suppress(LookupError):
        shutil.chown(f"{root}/run/postgresql", "postgres", "postgres")


def _out_of_sight(plan: Plan) -> tuple[str, ...]:
    """What holds the checkout and PostgreSQL's programs, where the node's empty run, tmp or dev would hide them.

    The whole directory below /tmp, as programs find their libraries beside them.
    """
    hidden = [path.split("/")[1:3] for path in (checkout(), plan.bindir) if path.startswith(("/run/", "/tmp/", "/dev/"))]  # noqa: S108
    return tuple(dict.fromkeys("/" + "/".join(parts) for parts in hidden))


def checkout() -> str:
    """The directory that holds the library, the commands and the agents we run from."""
    return os.path.dirname(os.path.dirname(os.path.realpath(__file__)))


def _bind(source: str, target: str) -> None:
    lab_kernel.mount(source, target, flags=lab_kernel.MS_BIND)


def _pivot() -> None:
    """Make the current directory the root (pivot_root(2), "pivot_root(".", ".")": the old root lies above it and is taken away)."""
    done = system.run(["pivot_root", ".", "."], cwd=".")
    if not done.ok:
        raise EnvironmentFailure(f"pivot_root failed: {done.err.strip()}")
    lab_kernel.detach(".")
    os.chdir("/")


def configure_network(node: Node) -> None:
    further = f"addr add {LOCK_ADDRESS}/24 dev {NIC}\n" if node.name == CLIENT else ""
    batch = f"link set lo up\naddr add {node.address}/24 brd + dev {NIC}\n{further}link set {NIC} up\n"
    done = system.run(["ip", "-batch", "-"], text=batch)
    if not done.ok:
        raise EnvironmentFailure(f"the network cannot be set up: {done.err.strip()}")


def first_boot(plan: Plan, node: Node) -> None:
    """Fill a new disk: forget the machine's own cluster and databases, write what makes this node itself."""
    if os.path.exists(lab_kernel.FIRST_BOOT):
        return
    for folder in OTHER_LIVES:
        _empty(folder)
    for file in first_files(plan, node):
        _write(file.path, file.content, file.mode)
        shutil.chown(file.path, file.owner, file.group)
    if node.member:
        os.symlink(f"{checkout()}/tools/fence_lab", "/usr/sbin/fence_lab")
    if node.member or node.reader:
        os.symlink(os.path.dirname(plan.bindir), SEED_PROGRAMS)
    if plan.readers:
        _trust()
    _write(lab_kernel.FIRST_BOOT, f"{plan.name} {node.name}\n", 0o644)


def _trust() -> None:
    """One pair of keys for all nodes and their administrators, as ssh trust between the nodes is a prerequisite of the walkthrough."""
    for name, path in (("key", "/root/.ssh/id_ed25519"), ("key", "/etc/ssh/ssh_host_ed25519_key"), ("key.pub", "/root/.ssh/authorized_keys")):
        with open(f"{ROOM}/{name}", encoding="utf-8") as stream:
            content = stream.read()
        _write(path, content, 0o600)
        if name == "key.pub":
            _write("/root/.ssh/known_hosts", f"* {content}", 0o600)
    os.chmod("/root/.ssh", 0o700)


def start_ssh(plan: Plan) -> None:
    """Let the nodes be reached by ssh, where a lab has read servers."""
    if plan.readers:
        os.makedirs("/run/sshd", exist_ok=True)
        options = ("HostKey=/etc/ssh/ssh_host_ed25519_key", "UsePAM=no", "PermitRootLogin=prohibit-password", "PidFile=none")
        done = system.run(["/usr/sbin/sshd", *(word for option in options for word in ("-o", option))])
        if not done.ok:
            raise EnvironmentFailure(f"sshd did not start: {done.err.strip()}")


def _empty(folder: str) -> None:
    if not os.path.isdir(folder):
        return
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)


def _write(path: str, content: str, mode: int) -> None:
    """Not an atomic replacement: nobody else is awake, and /etc/hosts may be a mount of its own below."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(content)
    os.chmod(path, mode)


def start_cluster(env: Mapping[str, str]) -> None:
    """Start corosync (it returns when it is ready), then pacemakerd, without waiting for either.

    Their environment reaches the agents, as systemd's would: the standard path, and logs in files.
    """
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    child = os.fork()
    if child:
        return
    os.setsid()
    own = {"PATH": path, "LANG": env["LANG"], "PCMK_logfile": "/var/log/pacemaker/pacemaker.log", "PCMK_logfacility": "none"}
    with open("/var/log/boot.log", "ab") as log:
        began = time.monotonic()
        code = subprocess.call(["corosync"], env=own, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.write(f"corosync ended its start with {code} after {time.monotonic() - began:.1f} s\n".encode())
        log.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if code == 0:
        os.execvpe("pacemakerd", ["pacemakerd"], own)  # noqa: S606
    os._exit(1)


def reap() -> None:
    """Process 1 collects the orphans of its node."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        signal.sigwait({signal.SIGCHLD})
