"""The way from nothing to a healthy practice cluster, in steps that say what they do and how long it took."""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pha4pgsql import lab_health, lab_kernel, lab_postgres, lab_uml, system
from pha4pgsql.config import parse
from pha4pgsql.lab import Lab, create
from pha4pgsql.lab_node import checkout
from pha4pgsql.lab_words import CLIENT, PGDATA, ROOM, Node, Plan, checked
from pha4pgsql.words import ClusterRefusal, ConfigurationError, EnvironmentFailure

if TYPE_CHECKING:
    from collections.abc import Callable

    from pha4pgsql.system import Completed

PROGRAMS = {
    "ip": "iproute2", "unshare": "util-linux", "setsid": "util-linux", "pivot_root": "util-linux", "setpriv": "util-linux", "tar": "tar",
    "corosync": "corosync", "pacemakerd": "pacemaker", "cibadmin": "pacemaker-cli-utils", "crm_mon": "pacemaker-cli-utils", "pcs": "pcs",
}  # fmt: skip
SERVER_PROGRAMS = ("postgres", "initdb", "pg_ctl", "psql", "pg_controldata", "pg_basebackup", "pg_rewind")
FILES = {"/usr/lib/ocf/resource.d/heartbeat/IPaddr2": "resource-agents", "/usr/lib/python3/dist-packages/psycopg2/__init__.py": "python3-psycopg2"}
MEMBERS_DEADLINE = 90.0
KERNEL = {
    lab_uml.KERNEL: "user-mode-linux", lab_uml.MODULES: "user-mode-linux", "mkfs.ext4": "e2fsprogs", "insmod": "kmod", "/dev/net/tun": "",
}  # fmt: skip
"""What a node with a kernel of its own needs, and the package that has it."""
CLONE = f"{ROOM}/pgdata.tar"
UNPACK = f"mkdir /pgsql/new && tar -C /pgsql/new -xpf {CLONE} && mv /pgsql/new/data {PGDATA} && rmdir /pgsql/new"
"""It appears as a whole: install.sh looks at it meanwhile."""


def bring_up(plan: Plan, *, say: Callable[[str], None], bare: bool = False, timeout: float = 300.0) -> Lab:
    """Build the lab; with `bare` only its nodes, with Corosync and Pacemaker started.

    When the nodes cannot be built they are taken away again. From `cls_setup` on they stay whatever happens, to be looked at.
    """
    check_machine(checked(plan), bare=bare)
    step = _stopwatch(say)
    step(f"lab {plan.name}: switching on {', '.join(node.name for node in plan.nodes)}")
    lab = create(plan)
    try:
        lab.boot(*(node.name for node in plan.nodes))
        if bare:
            step("the nodes are on; Corosync and Pacemaker are starting")
            return lab
        _furnish(lab, plan, step)
    except BaseException:
        lab.down()
        raise
    _set_up(lab, plan, step)
    step("waiting for one primary, all others streaming, and both virtual addresses")
    lab_health.wait(lab, timeout=timeout)
    step("healthy")
    say(how_to_play(plan))
    return lab


def _stopwatch(say: Callable[[str], None]) -> Callable[[str], None]:
    began = time.monotonic()
    return lambda text: say(f"[{time.monotonic() - began:5.1f} s] {text}")


# ---------------------------------------------------------------- before anything is touched


def check_machine(plan: Plan, *, bare: bool = False) -> None:
    """Refuse at once, with everything that is missing: rights, programs, kernel, PostgreSQL."""
    if os.geteuid() != 0:
        raise EnvironmentFailure("not root, expected to be run as root: namespaces and mounts need it", "sudo cls_lab up")
    lacking = {program: package for program, package in PROGRAMS.items() if not shutil.which(program, path=_path())}
    lacking.update({path: package for path, package in FILES.items() if not bare and not os.path.exists(path)})
    lacking.update(_lacking_for_ipvs(plan))
    lacking.update({"sshd": "openssh-server"} if plan.readers and not shutil.which("sshd", path=_path()) else {})
    if plan.disk and not (os.path.isabs(plan.disk) and os.path.isdir(plan.disk)):
        raise ConfigurationError(f"--disk is {plan.disk}, expected the absolute path of a directory", f"mkdir {plan.disk}")
    if lacking:
        packages = " ".join(sorted(set(lacking.values()) - {""}))
        raise EnvironmentFailure(f"missing on this machine: {', '.join(lacking)}", f"apt-get install {packages}, or ./install.sh --demo")
    _check_kernel()
    if not bare:
        _check_postgresql(plan)
        _check_settings(plan)


def _lacking_for_ipvs(plan: Plan) -> dict[str, str]:
    if plan.ipvs == "host" and not _own_kernel_has_ipvs():
        raise EnvironmentFailure("--ipvs is host, but this kernel has no IPVS", "modprobe ip_vs, or --ipvs uml")
    if plan.ipvs != "uml":
        return {}
    return {name: package for name, package in KERNEL.items() if not (os.path.exists(name) if "/" in name else shutil.which(name, path=_path()))}


def ipvs_here() -> str:
    """Who has IPVS on this machine: its own kernel, or the one that its package user-mode-linux brings."""
    return "host" if _own_kernel_has_ipvs() else "uml"


def _own_kernel_has_ipvs() -> bool:
    from pha4pgsql import ipvs

    try:
        ipvs.Ipvs().close()
    except EnvironmentFailure:
        return False
    return True


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"


def _check_kernel() -> None:
    """Try the namespaces and mounts of a node in a child; what it cannot do is said by name."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, _trial().encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as stream:
        problem = stream.read()
    os.waitpid(child, 0)
    if problem:
        raise EnvironmentFailure(f"this kernel or container does not allow what a node needs: {problem}",
                                 "run it as root of a machine or of a privileged container, with overlay and veth")  # fmt: skip


def _trial() -> str:
    try:
        lab_kernel.unshare(lab_kernel.NODE_NAMESPACES & ~lab_kernel.CLONE_NEWPID)
        lab_kernel.setns(os.pidfd_open(os.getpid()), lab_kernel.CLONE_NEWUTS)
        lab_kernel.mount("none", "/", flags=lab_kernel.MS_REC | lab_kernel.MS_PRIVATE)
        lab_kernel.mount("tmpfs", "/mnt", "tmpfs")
        for folder in ("upper", "work", "root"):
            os.mkdir(f"/mnt/{folder}")
        lab_kernel.mount("overlay", "/mnt/root", "overlay", options="lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work")
    except OSError as failure:
        return str(failure)
    done = system.run(["ip", "-batch", "-"], text="link add hub type bridge\nlink add one type veth peer name two\n")
    return done.err.strip()


def _check_postgresql(plan: Plan) -> None:
    if not os.path.isabs(plan.bindir):
        raise ConfigurationError(f"--pg is {plan.bindir}, expected an absolute path")
    lacking = [program for program in SERVER_PROGRAMS if not os.access(f"{plan.bindir}/{program}", os.X_OK)]
    if lacking:
        raise ConfigurationError(
            f"--pg is {plan.bindir}, which has no {', '.join(lacking)}", "ls -d /usr/lib/postgresql/*/bin; apt-get install postgresql"
        )


def _check_settings(plan: Plan) -> None:
    """A wrong --set or --template is told now and not by install.sh on every node."""
    config = parse(lab_postgres.config_ini(plan), "the lab's config.ini")
    folder = f"{checkout()}/templates"
    if not os.path.exists(f"{folder}/{config.pcs_template}"):
        names = " ".join(sorted(name.partition(".")[0] for name in os.listdir(folder) if name.endswith(".j2")))
        raise ConfigurationError(f"--template is {plan.template}, expected one of: {names}")


# ---------------------------------------------------------------- the nodes get their software and data


def _furnish(lab: Lab, plan: Plan, step: Callable[[str], None]) -> None:
    """Three things at once: the checkout is installed everywhere, PostgreSQL is initialised and cloned, the members find each other."""
    step("installing this checkout on every node; initialising PostgreSQL on node1; waiting for the membership")

    def install(node: Node) -> None:
        _write(lab, node.name, lab_postgres.CONFIG_INI, lab_postgres.config_ini(plan))
        done = lab.run(node.name, [f"{checkout()}/install.sh", "--local", "--config", lab_postgres.CONFIG_INI], timeout=120)
        _must(done, f"install.sh on {node.name}")
        step(f"installed on {node.name}")

    def members() -> None:
        lab_health.wait_for_members(lab, timeout=MEMBERS_DEADLINE)
        step(f"{len(plan.members)} nodes are online with quorum")

    servers = [node for node in plan.nodes if node.member or node.reader]
    with ThreadPoolExecutor(len(servers) + 2) as pool:
        tasks = [pool.submit(_databases, lab, plan, step), pool.submit(members), *(pool.submit(install, node) for node in servers)]
    for task in tasks:
        task.result()


def _databases(lab: Lab, plan: Plan, step: Callable[[str], None]) -> None:
    """Make one with initdb on the first node, and a copy of it, made while it is shut down, on the others: a base backup without a server."""
    first, *others = (node.name for node in plan.members)
    for node in (node for node in plan.nodes if node.member or node.reader):
        _must(lab.run(node.name, ["install", "-d", "-o", "postgres", "-g", "postgres", "-m", "700", "/pgsql", "/var/log/postgresql"]), "install -d")
    made = "/pgsql/made/data"  # moved when it is whole: install.sh looks at the directory meanwhile
    initdb = [f"{plan.bindir}/initdb", "-D", made, "-U", "postgres", "-E", "UTF8", "--locale=C", "-A", "trust", "--no-sync"]
    _must(lab.run(first, initdb, user="postgres", timeout=60), f"initdb on {first}")
    with_more = ["tee", "-a", f"{made}/postgresql.conf"]
    _must(lab.run(first, with_more, user="postgres", text=lab_postgres.postgresql_conf(plan)), f"postgresql.conf on {first}")
    _must(lab.run(first, ["tee", f"{made}/pg_hba.conf"], user="postgres", text=lab_postgres.pg_hba_conf()), f"pg_hba.conf on {first}")
    single = [f"{plan.bindir}/postgres", "--single", "-j", "-D", made, "-c", "logging_collector=off", "postgres"]
    statements = lab_postgres.first_statements(plan).replace("\n", "\n\n")
    said = _must(lab.run(first, single, user="postgres", text=statements, timeout=60), f"the first roles on {first}")
    if "ERROR" in said.err:
        raise EnvironmentFailure(f"the first roles on {first}: {said.err.strip()}")
    _must(lab.run(first, ["sh", "-c", f"mv {made} {PGDATA} && rmdir /pgsql/made"]), f"mv on {first}")
    step(f"PostgreSQL is initialised on {first}")
    if others:
        _must(lab.run(first, ["tar", "-C", "/pgsql", "-cf", CLONE, "data"], timeout=60), f"tar on {first}")
        with ThreadPoolExecutor(len(others)) as pool:
            copies = list(pool.map(lambda name: lab.run(name, ["sh", "-c", UNPACK], timeout=60), others))
        for done in copies:
            _must(done, "tar on another node")
        os.unlink(f"{lab.room}/pgdata.tar")
        step(f"copied to {', '.join(others)}")


def _set_up(lab: Lab, plan: Plan, step: Callable[[str], None]) -> None:
    """The fence agent first, so that cls_setup sees it; then what an operator does."""
    first = plan.members[0].name
    if plan.fencing:
        push = ["cibadmin", "--modify", "--allow-create", "--xml-text", fencing_xml(plan)]
        _must(lab.run(first, push), f"cibadmin on {first}")
        step("fencing is configured (fence_lab)")
    if lab_postgres.has_lock(plan):
        _must(lab.run(CLIENT, ["sh", "-c", lab_postgres.lock_server(plan)], timeout=60), f"the lock's server on {CLIENT}")
        step(f"the server of the distributed lock runs on {CLIENT}")
    kept = f"the nodes are still there: cls_lab logs{named(plan)} {first}; cls_lab down{named(plan)}"
    primary = [first] if any(node.uml for node in plan.members) else []  # a kernel in a process may answer too late for the first election
    _must(lab.run(first, ["cls_setup", *primary], timeout=120), f"cls_setup on {first}", kept)
    step("cls_setup is through")
    slow = plan.ipvs == "uml"
    if plan.without_ipvs and lab_postgres.has_lvs(plan):
        _must(lab.run(first, ["cibadmin", "--modify", "--allow-create", "--xml-text", directors_xml(plan)]), f"cibadmin on {first}", kept)
    _must(lab.run(first, ["cls_start", *(["--timeout", "200"] if slow else [])], timeout=420), f"cls_start on {first}", kept)
    step("cls_start is through")
    for node in plan.nodes:
        if node.reader and lab_postgres.has_lvs(plan):
            add = ["cls_reader", "--config", lab_postgres.CONFIG_INI, "add", "--yes", node.name]
            _must(lab.run(first, add, timeout=300), f"cls_reader add {node.name} on {first}", kept)
            step(f"{node.name} is a read server")


def fencing_xml(plan: Plan) -> str:
    """The fencing device. Fenced means off: a node comes back when somebody boots it, so no two nodes shoot each other in turns.

    Nodes that nobody has seen yet are not shot (`startup-fencing`): after a power loss of all, one boots later than the others.
    """
    names = " ".join(node.name for node in plan.members)
    properties = {"stonith-enabled": "true", "stonith-action": "off", "startup-fencing": "false"}
    pairs = "".join(f'<nvpair id="cib-bootstrap-options-{name}" name="{name}" value="{value}"/>' for name, value in properties.items())
    return (
        f'<configuration><crm_config><cluster_property_set id="cib-bootstrap-options">{pairs}</cluster_property_set></crm_config><resources>'
        '<primitive id="fence-lab" class="stonith" type="fence_lab"><instance_attributes id="fence-lab-instance_attributes">'
        f'<nvpair id="fence-lab-pcmk_host_list" name="pcmk_host_list" value="{names}"/></instance_attributes>'
        '<operations><op id="fence-lab-monitor" name="monitor" interval="60s" timeout="20s"/></operations></primitive>'
        "</resources></configuration>"
    )


def directors_xml(plan: Plan) -> str:
    """Where only some nodes have IPVS, the director is looked for on no other."""
    lvsdr = lab_postgres.settings(plan).get("lvsdr_resource", "lvsdr")
    rules = "".join(f'<rsc_location id="no-ipvs-{n.name}" rsc="{lvsdr}" node="{n.name}" score="-INFINITY"/>' for n in plan.without_ipvs)
    return f"<configuration><constraints>{rules}</constraints></configuration>"


def _write(lab: Lab, node: str, path: str, content: str) -> None:
    _must(lab.run(node, ["install", "-m", "600", "/dev/stdin", path], text=content), f"writing {path} on {node}")


def _must(done: Completed, what: str, hint: str = "") -> Completed:
    if not done.ok:
        said = "\n".join(part.strip() for part in (done.out, done.err) if part.strip())
        raise ClusterRefusal(f"{what} ended with {done.code}:\n{said}", hint)
    return done


def named(plan: Plan) -> str:
    """The option that says which lab, where it takes one."""
    return "" if plan.name == "lab" else f" --name {plan.name}"


def how_to_play(plan: Plan) -> str:
    """What can be typed now."""
    name = named(plan)
    psql = f'cls_lab run{name} {CLIENT} -- psql "host={Lab.writer_vip} dbname=postgres user=postgres"'
    rows = (
        (f"cls_lab run{name} node1 -- cls_status", "what the cluster looks like"),
        (psql, "talk to the primary"),
        (f"cls_lab kill-postgres{name} node1", "kill its PostgreSQL: another node takes over"),
        (f"cls_lab crash{name} node1", "power loss; `boot` switches it on again"),
        (f"cls_lab cut{name} node1", "take its link away; `heal` gives it back (a fenced node wants `boot` too)"),
        (f"cls_lab wait{name}", "wait until the cluster is healthy again"),
        (f"cls_lab down{name}", "end it all"),
    )
    return "Now play:\n" + "\n".join(f"  {command}\n      {meaning}" for command, meaning in rows)
