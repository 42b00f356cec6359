"""install.sh's parts that need no other machine: what is copied, when a module counts as compiled, what the other nodes are asked."""

from __future__ import annotations

import contextlib
import io
import os
import pwd
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pha4pgsql import config, install, packages, remote
from pha4pgsql.words import ConfigurationError, EnvironmentFailure

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]


def test_what_is_installed(tmp_path: Path) -> None:
    """Programs may be run by everybody, modules only read; nothing hidden, nothing half written, nothing that Python makes."""
    for name in (
        "bin/cls_x",
        "bin/.hidden",
        "agents/pgsql",
        "pha4pgsql/x.py",
        "pha4pgsql/x.py~",
        "pha4pgsql/__pycache__/x.pyc",
        "tests/t.py",
        "install.sh",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert install.files(str(tmp_path)) == {"install.sh": 0o755, "agents/pgsql": 0o755, "bin/cls_x": 0o755, "pha4pgsql/x.py": 0o644}


def test_a_module_is_compiled_once(tmp_path: Path) -> None:
    """Agents start with what is compiled; a changed module is compiled again."""
    module = tmp_path / "pha4pgsql" / "x.py"
    module.parent.mkdir()
    for text in ("A = 1\n", "A = 22\n"):
        module.write_text(text)
        changes = list(install._compiled(str(tmp_path), str(tmp_path)))
        assert len(changes) == 1
        changes[0].do()
        assert list(install._compiled(str(tmp_path), str(tmp_path))) == []


def test_a_compiled_module_is_taken_along(tmp_path: Path) -> None:
    """Copying keeps the time of change, so what the source has compiled stays valid: the practice cluster installs on many nodes."""
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "pha4pgsql").mkdir(parents=True)
    (source / "pha4pgsql" / "x.py").write_text("A = 1\n")
    for change in install._compiled(str(source), str(source)):
        change.do()
    for change in install._tree(str(source), str(target)):
        change.do()
    assert install._is_compiled(str(target / "pha4pgsql" / "x.py")) is False
    for change in install._compiled(str(source), str(target)):
        change.do()
    assert install._is_compiled(str(target / "pha4pgsql" / "x.py"))
    assert list(install._tree(str(source), str(target))) == []


def test_services_stay_stopped_while_packages_come(tmp_path: Path) -> None:
    """On a machine without a policy packages would start Corosync and PostgreSQL; one that is there is the administrator's."""
    policy = tmp_path / "policy-rc.d"
    with contextlib.suppress(KeyboardInterrupt), packages.services_stay_stopped(str(policy)):
        assert os.access(policy, os.X_OK)
        raise KeyboardInterrupt
    assert not policy.exists()
    policy.write_text("mine")
    with packages.services_stay_stopped(str(policy)):
        assert policy.read_text() == "mine"
    assert policy.read_text() == "mine"


def test_only_what_is_missing_is_installed(tmp_path: Path) -> None:
    """Nothing is asked of a package manager when all is there."""
    (tmp_path / "resource.d").mkdir()
    (tmp_path / "resource.d" / "here").touch()
    needs = [
        packages.Need("program", "sh", "dash", "dash"),
        packages.Need("agent", "resource.d/here", "agents", "agents"),
        packages.Need("program", "no-such-program", "one", "one"),
        packages.Need("agent", "resource.d/gone", "two", "two"),
        packages.Need("module", "no_such_module", "three", "three"),
    ]
    assert packages.missing(str(tmp_path), needs) == ["one", "two", "three"]


# ---------------------------------------------------------------- other nodes


class Nodes:
    """A twin of ssh: remembers what was run where, and answers 255 for nodes that are down."""

    def __init__(self, *down: str) -> None:
        self.down = down
        self.ran: list[tuple[str, str]] = []

    def __call__(self, node: str, command: Sequence[str], data: bytes = b"") -> remote.Answer:
        self.ran.append((node, command[0]))
        if node in self.down:
            return remote.Answer(255, f"ssh: connect to host {node} port 22: No route to host\n")
        return remote.Answer(0, f"/tmp/pha4pgsql.{node}\n" if data else "")


def test_all_unreachable_nodes_are_named_at_once() -> None:
    """One round of repairs, not one per node."""
    nodes = Nodes("node2", "node4")
    with pytest.raises(EnvironmentFailure) as caught:
        remote.reach(nodes, ["node2", "node3", "node4"])
    assert "node2: ssh: connect" in caught.value.message
    assert "node4: ssh: connect" in caught.value.message
    assert "node3" not in caught.value.message
    assert "ssh root@node2" in caught.value.hint


def test_the_tree_goes_to_every_node_and_leaves_again() -> None:
    """Unpacked aside, removed in the end."""
    nodes = Nodes()
    places = list(remote.stage(nodes, ["node2", "node3"], b"tar"))
    assert places == [remote.Stage("node2", "/tmp/pha4pgsql.node2"), remote.Stage("node3", "/tmp/pha4pgsql.node3")]
    remote.remove(nodes, places)
    assert nodes.ran == [("node2", "sh"), ("node3", "sh"), ("node2", "rm"), ("node3", "rm")]


def test_the_archive_holds_what_is_needed_and_hides_the_password(tmp_path: Path) -> None:
    """config.ini comes from where it was read, readable by root alone."""
    (tmp_path / "my.ini").write_text("secret")
    with tarfile.open(fileobj=io.BytesIO(remote.pack(str(ROOT), install.files(str(ROOT)), str(tmp_path / "my.ini")))) as archive:
        modes = {member.name: (member.mode, member.uid) for member in archive}
        content = archive.extractfile("config.ini")
        assert content is not None
        assert content.read() == b"secret"
    assert modes["config.ini"] == (0o600, 0)
    assert modes["install.sh"] == modes["agents/pgsql"] == (0o755, 0)
    assert {"pha4pgsql/install.py", "templates/muti.pcs.j2", "bin/cls_setup"} <= set(modes)


def test_which_node_this_machine_is() -> None:
    """By name or by an address of its own: the host name need not be the cluster's name of the node."""
    assert remote.this_node(["203.0.113.1", "127.0.0.1"]) == "127.0.0.1"
    with pytest.raises(ConfigurationError) as caught:
        remote.this_node(["203.0.113.1", "203.0.113.2"])
    assert "--local" in caught.value.hint


# ---------------------------------------------------------------- what no installer can give


def programs(folder: Path, version: str) -> Path:
    """A directory that looks like PostgreSQL's."""
    folder.mkdir()
    for name in ("pg_ctl", "postgres", "pg_controldata", "pg_basebackup", "psql"):
        (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        (folder / name).chmod(0o755)
    return folder


def settings(tmp_path: Path, bindir: Path, **changes: str) -> config.Config:
    keys = {
        "writer_vip": "203.0.113.1",
        "reader_vip": "203.0.113.2",
        "node1": "a",
        "node2": "b",
        "pgsql_bindir": str(bindir),
        "pgsql_pgdata": str(tmp_path / "data"),
        "pgsql_reppassword": "x",
        "pgsql_pgdba": "root",
        **changes,
    }
    return config.parse("".join(f"{key}={value}\n" for key, value in keys.items()))


def found(tmp_path: Path, bindir: Path, **changes: str) -> list[str]:
    """The keys that this machine does not fit."""
    return [problem.partition(":")[0] for problem in install.environment_problems(settings(tmp_path, bindir, **changes))]


def test_a_machine_that_fits(tmp_path: Path) -> None:
    """PostgreSQL 13 or newer; a data directory that is not there yet is made later."""
    assert found(tmp_path, programs(tmp_path / "bin", "13.0")) == []


def test_a_machine_that_does_not_fit(tmp_path: Path) -> None:
    """Each fault under the key to look at, all at once."""
    assert found(tmp_path, programs(tmp_path / "old", "12.22")) == ["pgsql_pgctl"]
    assert found(tmp_path, tmp_path / "nowhere", pgsql_pgdba="nobody-here", vip_nic="eth99") == ["pgsql_pgdba", "pgsql_pgctl", "vip_nic"]
    partial = programs(tmp_path / "partial", "16.1")
    (partial / "pg_controldata").unlink()
    assert found(tmp_path, partial) == ["pgsql_bindir"]


@pytest.mark.parametrize(
    ("content", "keys"), [({}, []), ({"PG_VERSION": "16\n"}, []), ({"PG_VERSION": "15\n"}, ["pgsql_pgdata"]), ({"x": ""}, ["pgsql_pgdata"])]
)
def test_the_data_directory_is_of_this_postgresql(tmp_path: Path, content: dict[str, str], keys: list[str]) -> None:
    """Empty is fine, another major version or something else is not."""
    bindir = programs(tmp_path / "bin", "16.1")
    (tmp_path / "data").mkdir()
    for name, text in content.items():
        (tmp_path / "data" / name).write_text(text)
    assert found(tmp_path, bindir, pgsql_pgdba=pwd.getpwuid(os.geteuid()).pw_name) == keys
