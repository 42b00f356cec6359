"""install.sh on three nodes over ssh, and cls_setup on the living cluster. In a bare lab: nothing of the machine is touched."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pha4pgsql.lab_up import bring_up
from pha4pgsql.lab_words import Plan
from pha4pgsql.paths import find_programs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pha4pgsql.lab import Lab
    from pha4pgsql.system import Completed

ROOT = Path(__file__).parents[2]
NODES = ("node1", "node2", "node3")
INSTALLED = "/opt/pha4pgsql"
AGENTS = "/usr/lib/ocf/resource.d/pha4pgsql"
SOURCE = "/srv/pha4pgsql"
CONFIG = {
    "writer_vip": "192.168.0.236",
    "reader_vip": "192.168.0.237",
    **{name: name for name in NODES},
    "pgsql_bindir": find_programs("", "/usr/bin/pg_ctl", ""),
    "pgsql_pgdata": "/pgsql/data",
    "pgsql_repuser": "replication",
    "pgsql_reppassword": "hu:sh",
}

pytestmark = [
    pytest.mark.timeout(300),  # three nodes, one after the other, on a busy machine
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
    pytest.mark.skipif(not shutil.which("sshd", path="/usr/sbin"), reason="no sshd here"),
    pytest.mark.skipif(not shutil.which("pcs", path="/usr/sbin:/usr/bin"), reason="pcs is not installed"),
]


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Three nodes where nothing is installed; node1 has a copy of the checkout and may enter the others by ssh."""
    nodes = bring_up(Plan(name=f"t-install-{os.getpid()}", size=3), say=print, bare=True)
    try:
        run(nodes, "sh", "-c", f"mkdir {SOURCE} && cd {ROOT} && cp -r agents bin tools templates pha4pgsql install.sh config.ini.sample {SOURCE}")
        write_config(nodes)
        run(nodes, "sh", "-c", "mkdir -p -m 700 /root/.ssh; ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519; "
            "echo 'StrictHostKeyChecking accept-new' > /root/.ssh/config")  # fmt: skip
        yield nodes
    finally:
        nodes.down()


def run(lab: Lab, *argv: str, node: str = "node1", text: str | None = None, code: int = 0) -> Completed:
    """Run a command on a node, which must end with this code."""
    done = lab.run(node, list(argv), text=text, timeout=120)
    assert done.code == code, f"{node}: {shlex.join(argv)}: {done.code}\n{done.out}\n{done.err}"
    return done


def write_config(lab: Lab, **changes: str) -> None:
    text = "".join(f"{key}={shlex.quote(value)}\n" for key, value in {**CONFIG, **changes}.items())
    run(lab, "tee", f"{SOURCE}/config.ini", text=text)


def install(lab: Lab, *options: str, node: str = "node1", code: int = 0) -> Completed:
    return run(lab, f"{SOURCE}/install.sh", *options, node=node, code=code)


def serve_ssh(lab: Lab, node: str) -> None:
    """Let root of node1 in."""
    key = run(lab, "cat", "/root/.ssh/id_ed25519.pub").out
    run(
        lab,
        "sh",
        "-c",
        "mkdir -p -m 700 /root/.ssh /run/sshd; cat > /root/.ssh/authorized_keys; ssh-keygen -A >/dev/null; /usr/sbin/sshd",
        node=node,
        text=key,
    )


def is_there(lab: Lab, node: str, path: str) -> bool:
    return lab.run(node, ["test", "-e", path]).ok


def untouched(lab: Lab) -> bool:
    return not [node for node in NODES for path in (INSTALLED, AGENTS, "/var/lib/pgsql/tmp") if is_there(lab, node, path)]


def test_from_nothing_to_a_configured_cluster(lab: Lab) -> None:
    """The whole way, with every stumble on it: each leaves nothing half done."""
    done = install(lab, code=111)
    assert {"node2:", "node3:"} <= set(done.err.split()), "all unreachable nodes at once"
    assert "HINT: try ssh root@node2" in done.err
    serve_ssh(lab, "node2")
    done = install(lab, code=111)
    assert "node3:" in done.err
    assert "node2:" not in done.err
    serve_ssh(lab, "node3")
    run(lab, "sh", "-c", "mkdir -p /pgsql/data; echo 9.6 > /pgsql/data/PG_VERSION", node="node3")
    done = install(lab, code=111)
    assert "9.6" in done.out
    assert "pgsql_pgdata" in done.out
    assert untouched(lab)
    run(lab, "rm", "-r", "/pgsql", node="node3")

    done = install(lab, "--check", code=1)
    assert all(f"{node}: would copy the programs" in done.out for node in NODES)
    assert untouched(lab), "--check changes nothing"
    install(lab)
    for node in NODES:
        assert run(lab, "stat", "-c", "%a %U", f"{INSTALLED}/config.ini", f"{INSTALLED}/config.pcs", node=node).out == "600 root\n600 root\n"
        assert run(lab, "stat", "-c", "%a %U", "/var/lib/pgsql/tmp", "/var/lib/pgsql/tmp/pgpass", node=node).out == "700 postgres\n600 postgres\n"
        assert run(lab, "cat", "/var/lib/pgsql/tmp/pgpass", node=node).out == "*:5432:*:replication:hu\\:sh\n"
        run(lab, f"{AGENTS}/pgsql", "meta-data", node=node)
        assert not run(lab, "sh", "-c", "ls -d /tmp/pha4pgsql.* 2>/dev/null || true", node=node).out
    assert install(lab).out == "".join(f"{node}: nothing to change\n" for node in NODES)
    assert install(lab, "--check").out == "".join(f"{node}: nothing to change\n" for node in NODES)

    _the_living_cluster(lab)
    assert "pcs resource delete" in install(lab, "--uninstall", code=1).err, "not while the cluster uses the agents"
    run(lab, "cibadmin", "--replace", "--scope=constraints", "--xml-text", "<constraints/>")
    run(lab, "cibadmin", "--replace", "--scope=resources", "--xml-text", "<resources/>")
    install(lab, "--uninstall")
    for node in NODES:
        assert not is_there(lab, node, AGENTS)
        assert not is_there(lab, node, f"{INSTALLED}/bin")
        assert is_there(lab, node, f"{INSTALLED}/config.ini")
        assert is_there(lab, node, "/var/lib/pgsql/tmp"), "promises are kept"


def _the_living_cluster(lab: Lab) -> None:
    """cls_setup twice, beside a fencing device and a permanent attribute that are not ours."""
    deadline = time.monotonic() + 30
    while not lab.run("node1", ["corosync-quorumtool", "-s"]).ok or 'online="true"' not in lab.run("node1", ["crm_mon", "-1", "--output-as=xml"]).out:
        assert time.monotonic() < deadline, "no quorum"
        time.sleep(0.1)
    run(lab, "cibadmin", "--create", "--scope=resources", "--xml-text", '<primitive id="dummy" class="ocf" provider="pacemaker" type="Dummy"/>')
    run(lab, "crm_attribute", "--node=node1", "--name=mine", "--update=1")
    done = run(lab, f"{INSTALLED}/bin/cls_setup", "node2")
    assert "add clone msPostgresql" in done.out
    assert run(lab, f"{INSTALLED}/bin/cls_setup", node="node3").out == "nothing to change\n"
    cib = run(lab, "cibadmin", "--query").out
    assert 'id="dummy"' in cib
    assert 'name="mine"' in cib
    assert 'name="pgsql_REPL_INFO" value="node2"' in cib
    assert "hu:sh" not in cib


def test_a_newcomers_mistakes(lab: Lab) -> None:
    """Each ends with a message, a hint, a code of its own, and nothing done."""
    write_config(lab, pgsql_bindir="/nowhere", pgsql_pgdba="nobody-here", vip_nic="eth9")
    done = install(lab, "--local", code=111)
    assert all(key in done.err for key in ("pgsql_pgctl", "pgsql_pgdba", "vip_nic", "HINT:")), "all at once"
    write_config(lab, pgsql_reppassword="", writer_vip="x")
    done = install(lab, "--local", code=100)
    assert all(key in done.err for key in ("pgsql_reppassword", "writer_vip", "HINT:"))
    write_config(lab, node1="a", node2="b", node3="c")
    assert "HINT: run install.sh on one of the nodes" in install(lab, code=100).err
    run(lab, "rm", f"{SOURCE}/config.ini")
    assert "config.ini.sample" in install(lab, code=100).err
    assert "HINT: " in install(lab, "--nonsense", code=100).err
    write_config(lab)
    run(lab, "chmod", "-R", "a+rX", SOURCE)
    assert "sudo" in run(lab, "setpriv", "--reuid=nobody", f"{SOURCE}/install.sh", "--check", code=111).err
    old = "#!/bin/sh\necho 'pg_ctl (PostgreSQL) 12.22'\n"
    run(lab, "sh", "-c", "mkdir -p /srv/old; cat > /srv/old/pg_ctl; chmod +x /srv/old/pg_ctl", text=old)
    write_config(lab, pgsql_bindir="/srv/old")
    assert "PostgreSQL 12" in install(lab, "--local", code=111).err
    assert untouched(lab)


def test_local_is_fast_and_heals(lab: Lab) -> None:
    """What is lost or changed comes back, and only that; a file that is not of this version goes."""
    install(lab, "--local")
    began = time.monotonic()
    assert install(lab, "--local").out == "nothing to change\n"
    assert time.monotonic() - began < 5, "0.1 s on an idle machine; the practice cluster runs it on every node"
    run(
        lab,
        "sh",
        "-c",
        f"rm {AGENTS}/pgsql; touch {INSTALLED}/pha4pgsql/older.py; chmod 644 /var/lib/pgsql/tmp/pgpass; echo x >> {INSTALLED}/bin/cls_start",
    )
    done = install(lab, "--local")
    assert len(done.out.splitlines()) == 3, done.out
    assert not is_there(lab, "node1", f"{INSTALLED}/pha4pgsql/older.py")
    assert install(lab, "--local").out == "nothing to change\n"
