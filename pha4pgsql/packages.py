"""What is needed from the distribution, and how to get it: apt or dnf, without any service being started."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

from pha4pgsql import paths
from pha4pgsql.words import EnvironmentFailure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

POLICY = "/usr/sbin/policy-rc.d"
"""Debian asks this program before a package starts a service; exit code 101 forbids it (policy 9.3.3)."""


class Need(NamedTuple):
    """Something that has to be there, and the packages that bring it.

    Kinds: a program on the path, an agent below OCF_ROOT, a Python module of the distribution, one of Python's own library, a PostgreSQL server.
    """

    kind: str
    name: str
    debian: str
    redhat: str


NEEDS = (
    Need("program", "pacemakerd", "pacemaker", "pacemaker"),
    Need("program", "crm_mon", "pacemaker-cli-utils", "pacemaker-cli"),
    Need("program", "corosync", "corosync", "corosync"),
    Need("program", "pcs", "pcs", "pcs"),
    Need("agent", "resource.d/heartbeat/IPaddr2", "resource-agents", "resource-agents"),
    Need("program", "ip", "iproute2", "iproute"),
    Need("program", "ipvsadm", "ipvsadm", "ipvsadm"),
    Need("module", "psycopg2", "python3-psycopg2", "python3-psycopg2"),
    Need("module", "lxml", "python3-lxml", "python3-lxml"),
    Need("module", "jinja2", "python3-jinja2", "python3-jinja2"),
)
LAB = (Need("server", "postgres", "postgresql", "postgresql-server"),)
"""What the practice cluster needs beside that."""

KERNEL = (
    Need("program", "linux.uml", "user-mode-linux", "user-mode-linux"),
    Need("program", "insmod", "kmod", "kmod"),
    Need("program", "mkfs.ext4", "e2fsprogs", "e2fsprogs"),
)
"""What it needs where the machine's kernel has no IPVS: one that has."""

TESTS = (
    Need("library", "ensurepip", "python3-venv", "python3"),
    Need("program", "arping", "iputils-arping", "iputils"),
    Need("program", "pgrep", "procps", "procps-ng"),
    Need("program", "ssh", "openssh-client", "openssh-clients"),
    Need("program", "sshd", "openssh-server", "openssh-server"),
    Need("program", "xmllint", "libxml2-utils", "libxml2"),
    Need("program", "crm", "crmsh", "crmsh"),
)
"""What tests/run needs beside both."""

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def missing(ocf_root: str, needs: Sequence[Need] = NEEDS) -> list[str]:
    """Return the packages to install; asks the file system only, so a complete machine costs next to nothing."""
    return [name_of(need) for need in needs if not _is_there(need, ocf_root)]


def name_of(need: Need) -> str:
    """Return the name of the package on this distribution."""
    redhat = shutil.which("dnf", path=PATH) is not None and shutil.which("apt-get", path=PATH) is None
    return need.redhat if redhat else need.debian


def _is_there(need: Need, ocf_root: str) -> bool:
    if need.kind == "program":
        return shutil.which(need.name, path=PATH) is not None
    if need.kind == "agent":
        return os.path.exists(os.path.join(ocf_root, need.name))
    if need.kind == "library":
        return importlib.util.find_spec(need.name) is not None
    if need.kind == "server":
        return paths.find_programs("", paths.DEFAULT_PGCTL, "") != ""
    return paths.has_package(need.name)


def install(names: Sequence[str]) -> None:
    """Install packages of the distribution; their services stay stopped."""
    print(f"installing packages: {' '.join(names)}", flush=True)
    if shutil.which("apt-get", path=PATH):
        _apt(names)
    elif shutil.which("dnf", path=PATH):
        _dnf(names)
    else:
        raise EnvironmentFailure(f"neither apt-get nor dnf is here to install: {' '.join(names)}", "install them by hand, then run install.sh again")


def _apt(names: Sequence[str]) -> None:
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive", LC_ALL="C")
    quiet = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=120"]
    with services_stay_stopped():
        if subprocess.run([*quiet, "update"], env=environment, stdout=subprocess.DEVNULL, check=False).returncode:
            print("apt-get update failed; trying with the package lists that are here", file=sys.stderr)
        _call([*quiet, "install", "-y", "--no-install-recommends", *names], names, environment)


def _dnf(names: Sequence[str]) -> None:
    """Use the high availability repository where there is one (RHEL and its kin keep it switched off; Fedora has none)."""
    extra = ["--enablerepo=*igh*vailability*"] if not os.path.exists("/etc/fedora-release") else []
    _call(["dnf", "-y", "-q", *extra, "install", *names], names, dict(os.environ))


def _call(command: Sequence[str], names: Sequence[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace", check=False)
    if done.returncode:
        print(done.stdout[-4000:], file=sys.stderr)
        raise EnvironmentFailure(f"{command[0]} could not install: {' '.join(names)}", "see its messages above; is the package source reachable?")


@contextlib.contextmanager
def services_stay_stopped(policy: str = POLICY) -> Iterator[None]:
    """Forbid that a package starts its service, for as long as the block lasts; a policy that is there is respected."""
    if os.path.lexists(policy):
        yield
        return
    with open(policy, "w", encoding="ascii") as stream:
        stream.write("#!/bin/sh\nexit 101\n")
    os.chmod(policy, 0o755)  # noqa: S103 - a program
    try:
        yield
    finally:
        os.unlink(policy)
