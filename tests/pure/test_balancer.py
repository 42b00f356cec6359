"""The actions of lvsdr with a kernel in memory and a real resident process; the CIB, scripts and names as the resident reads them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from pha4pgsql import balancer, evidence, lvs_validation, pool, questions, resident, script
from pha4pgsql.lvs_words import (
    AddServer,
    AddService,
    Configuration,
    Daemon,
    DeleteServer,
    DeleteService,
    Edit,
    Entry,
    Health,
    Memory,
    Peer,
    Post,
    RealServer,
    Role,
    Service,
    SetServer,
    SetService,
    Unknown,
)
from pha4pgsql.parameters import LVSDR, LVSDR_REALSVR
from pha4pgsql.settings import Code, Context
from pha4pgsql.words import EnvironmentFailure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType


SERVICE = Service("127.0.0.9", 1, scheduler="rr")


class Table:
    """A kernel's IPVS in memory of this process, or in a file that processes share. The same interface as `ipvs.Ipvs`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> Table:
        return self

    def __enter__(self) -> Table:  # noqa: PYI034
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def _read(self) -> tuple[dict[tuple[str, int, int, bool], tuple[Service, dict[str, RealServer]]], list[Daemon]]:
        if not self.path.exists():
            return {}, []
        kept = json.loads(self.path.read_text())
        services = [(Service(*one), [RealServer(row[0], row[1], row[2]) for row in rows]) for one, rows in kept["services"]]
        return {one.key: (one, {row.address: row for row in rows}) for one, rows in services}, [
            Daemon(Role(row[0]), *row[1:]) for row in kept["daemons"]
        ]

    def _write(self, services: dict[tuple[str, int, int, bool], tuple[Service, dict[str, RealServer]]], daemons: list[Daemon]) -> None:
        rows = [(one, [row[:3] for row in servers.values()]) for one, servers in services.values()]
        whole = json.dumps({"services": rows, "daemons": [(one.role.value, one.interface, one.sync_id) for one in daemons]})
        part = self.path.with_suffix(f".{os.getpid()}")
        part.write_text(whole)
        part.replace(self.path)

    def services(self) -> tuple[Service, ...]:
        return tuple(one for one, _ in self._read()[0].values())

    def servers(self, service: Service) -> tuple[Entry, ...]:
        return tuple(Entry(row) for row in self._read()[0][service.key][1].values())

    def apply(self, edits: Sequence[Edit]) -> None:
        services, daemons = self._read()
        for edit in edits:
            there = services.get(edit.service.key)
            if isinstance(edit, AddService):
                assert there is None
                services[edit.service.key] = (edit.service, {})
            elif there is None:
                raise EnvironmentFailure(f"no service for {edit}")
            elif isinstance(edit, SetService):
                services[edit.service.key] = (edit.service, there[1])
            elif isinstance(edit, DeleteService):
                del services[edit.service.key]
            else:
                self._serve(there[1], edit)
        self._write(services, daemons)

    @staticmethod
    def _serve(servers: dict[str, RealServer], edit: AddServer | SetServer | DeleteServer) -> None:
        assert (edit.server.address in servers) is not isinstance(edit, AddServer), f"{edit} in {servers}"
        if isinstance(edit, DeleteServer):
            del servers[edit.server.address]
        else:
            servers[edit.server.address] = edit.server

    def daemons(self) -> tuple[Daemon, ...]:
        return tuple(self._read()[1])

    def start_daemon(self, wish: Daemon) -> None:
        services, daemons = self._read()
        self._write(services, [*daemons, wish])

    def stop_daemon(self, role: Role) -> None:
        services, daemons = self._read()
        self._write(services, [one for one in daemons if one.role is not role])


class Server:
    """Something that answers as a postmaster does, at an address of lo."""

    def __init__(self, address: str, port: int = 0, *, answer: bytes = b"N") -> None:
        self.line = socket.create_server((address, port))
        self.port = self.line.getsockname()[1]
        self.answer, self.taken = answer, list[socket.socket]()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                one, _ = self.line.accept()
            except OSError:
                return
            self.taken.append(one)
            one.recv(8)
            one.send(self.answer)

    def die(self) -> None:
        """As if killed."""
        self.line.shutdown(socket.SHUT_RDWR)
        self.line.close()
        for one in self.taken:
            one.close()


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    resident.end(str(tmp_path / "lvsdr"), time.monotonic() + 5)


def director(room: Path, call: dict[str, str], *, probe: bool = False, **more: str) -> balancer.Director:
    """A call of the agent with these parameters."""
    parameters = {"vip": "127.0.0.9", "realserver_dependent_attribute_name": "-", "check_interval": "100ms", **call, **more}
    environment = {
        f"OCF_RESKEY_{name}": value for name, value in {"vip": "127.0.0.9", "realserver_dependent_attribute_name": "-", **parameters}.items()
    }
    settings, problems = lvs_validation.read(LVSDR, environment)
    assert problems == ()
    context = Context("start", "lvsdr", "node1", 20.0, time.monotonic(), is_probe=probe, in_cluster=True)
    return balancer.Director(settings, context, kernel=Table(room / "table"), room=str(room))  # type: ignore[arg-type]


def weights(room: Path) -> dict[str, int] | None:
    """The table as it stands; None without service."""
    table = Table(room / "table")
    services = table.services()
    return {entry.server.address: entry.server.weight for entry in table.servers(services[0])} if services else None


def until(room: Path, wish: dict[str, int] | None, seconds: float = 10.0) -> None:
    """Wait until the table is as it should be."""
    deadline = time.monotonic() + seconds
    while weights(room) != wish:
        assert time.monotonic() < deadline, f"{weights(room)}, expected {wish}\n{(room / 'lvsdr.log').read_text()}"
        time.sleep(0.02)


def test_the_life_of_a_director(room: Path) -> None:
    """Start fills; a server that dies leaves and comes back; the monitor is 0; stop leaves nothing, and 7 follows."""
    one = Server("127.0.0.1")
    two = Server("127.0.0.2", one.port)
    call = {"port": str(one.port), "weight_of_realservers": "127.0.0.1,3 127.0.0.2 127.0.0.3"}
    assert director(room, call, probe=True).monitor() == Code.NOT_RUNNING
    assert director(room, call).start() == Code.SUCCESS
    assert weights(room) == {"127.0.0.1": 3, "127.0.0.2": 1}
    assert director(room, call).start() == Code.SUCCESS
    assert director(room, call).monitor() == Code.SUCCESS
    two.die()
    until(room, {"127.0.0.1": 3})
    two = Server("127.0.0.2", one.port)
    until(room, {"127.0.0.1": 3, "127.0.0.2": 1})
    assert director(room, call).stop() == Code.SUCCESS
    assert director(room, call).stop() == Code.SUCCESS
    assert weights(room) is None
    assert director(room, call, probe=True).monitor() == Code.NOT_RUNNING
    assert director(room, call).reload() == Code.NOT_RUNNING
    one.die()
    two.die()


def test_changed_parameters_are_taken_over_in_place(room: Path) -> None:
    """By a reload, by a monitor; also the port, whose old service goes when the new one is filled."""
    one = Server("127.0.0.1")
    call = {"port": str(one.port), "weight_of_realservers": "127.0.0.1"}
    director(room, call).start()
    assert director(room, call, default_weight="5").reload() == Code.SUCCESS
    assert weights(room) == {"127.0.0.1": 5}
    assert director(room, call, default_weight="7").monitor() == Code.SUCCESS
    assert weights(room) == {"127.0.0.1": 7}
    assert director(room, call, virtual_service_options="-s wrr -p 60").reload() == Code.SUCCESS
    assert [(one.scheduler, one.persistence) for one in Table(room / "table").services()] == [("wrr", 60)]
    other = Server("127.0.0.1")
    assert director(room, call, port=str(other.port)).reload() == Code.SUCCESS
    assert [one.port for one in Table(room / "table").services()] == [other.port]
    assert weights(room) == {"127.0.0.1": 1}
    director(room, call).stop()
    assert weights(room) is None


def test_a_resident_that_is_gone_or_hangs_is_replaced(room: Path) -> None:
    """The table is kept, and so is what a monitor answers; without the service it is 7."""
    one = Server("127.0.0.1")
    call = {"port": str(one.port), "weight_of_realservers": "127.0.0.1"}
    director(room, call).start()
    first = (room / "lvsdr.pid").read_text()
    os.kill(int(first), 9)
    while resident.lives(str(room / "lvsdr")):
        time.sleep(0.01)
    assert director(room, call).monitor() == Code.SUCCESS
    assert (room / "lvsdr.pid").read_text() != first
    (room / "lvsdr.beat").write_text("1\n")
    os.kill(int((room / "lvsdr.pid").read_text()), 19)
    (room / "lvsdr.beat").write_text("1\n")
    second = (room / "lvsdr.pid").read_text()
    assert director(room, call).monitor() == Code.SUCCESS
    assert (room / "lvsdr.pid").read_text() != second
    assert weights(room) == {"127.0.0.1": 1}
    resident.end(str(room / "lvsdr"), time.monotonic() + 5)
    (room / "table").unlink()
    assert director(room, call).monitor() == Code.NOT_RUNNING


def test_a_leftover_is_cleared_by_a_probe(room: Path) -> None:
    """And not by anybody else; another service stays."""
    table = Table(room / "table")
    mine, other = Service("127.0.0.9", 5432), Service("127.0.0.8", 80)
    table.apply([AddService(mine), AddService(other)])
    assert director(room, {"port": "5432"}).monitor() == Code.NOT_RUNNING
    assert len(table.services()) == 2
    assert director(room, {"port": "5432"}, probe=True).monitor() == Code.NOT_RUNNING
    assert table.services() == (other,)


def test_a_start_changes_a_table_that_is_right_by_nothing(room: Path) -> None:
    """What another life left is taken over, server by server."""
    one = Server("127.0.0.1")
    service = Service("127.0.0.9", one.port)
    Table(room / "table").apply(
        [AddService(service), AddServer(service, RealServer("127.0.0.1", one.port)), AddServer(service, RealServer("127.0.0.7", 1))]
    )
    director(room, {"port": str(one.port), "weight_of_realservers": "127.0.0.1 127.0.0.7"}).start()
    assert weights(room) == {"127.0.0.1": 1}


@pytest.mark.parametrize(
    "line", ["sleep 60 | cat", "sh -c 'sleep 60 & wait'", "yes", "echo ERROR: no such thing", "sh -c 'exit 1'", "/nowhere/tool", "printf '<xml/>'"]
)
def test_no_script_can_do_harm(room: Path, line: str) -> None:
    """It hangs, prints rubbish or fails: the pool stays, the log names it, the monitor is 0, and nothing of it lives on."""
    one = Server("127.0.0.1")
    call = {"port": str(one.port), "script_timeout": "500ms"}
    director(room, call, realserver_get_real_servers_script="echo 127.0.0.1").start()
    assert weights(room) == {"127.0.0.1": 1}
    assert director(room, call, realserver_get_real_servers_script=line).reload() == Code.SUCCESS
    deadline = time.monotonic() + 5
    while "list script" not in (room / "lvsdr.log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert director(room, call, realserver_get_real_servers_script=line).monitor() == Code.SUCCESS
    assert weights(room) == {"127.0.0.1": 1}


def test_the_sync_daemon_comes_and_goes_with_the_director(room: Path) -> None:
    """The backup daemon gives way, and returns if the node is a real server that wants it."""
    (room / "realsvr.backup").write_text("eth0 3\n")
    table = Table(room / "table")
    table.start_daemon(Daemon(Role.BACKUP, "eth0", 3))
    call = {"port": "1"}
    director(room, call).start()
    assert table.daemons() == ()
    director(room, call).stop()
    assert table.daemons() == (Daemon(Role.BACKUP, "eth0", 3),)


def test_every_call_writes_the_heartbeat_file(room: Path, tmp_path: Path) -> None:
    """Under both names; one that cannot be written is a word, no failure."""
    for name in ("heartbeat_file", "heatbeat_file"):
        path = tmp_path / name
        settings, _ = lvs_validation.read(LVSDR, {f"OCF_RESKEY_{name}": str(path), "OCF_RESKEY_vip": "1.1.1.1", "OCF_RESKEY_port": "1"})
        assert lvs_validation.arrive(settings) == ""
        assert abs(int(path.read_text()) - time.time()) < 5
    settings, _ = lvs_validation.read(LVSDR, {"OCF_RESKEY_heartbeat_file": f"{room}/no/such"})
    assert "no such" in lvs_validation.arrive(settings)


def test_all_that_is_wrong_is_said_at_once() -> None:
    """For both agents."""
    _, problems = lvs_validation.read(LVSDR, {"OCF_RESKEY_vip": "x", "OCF_RESKEY_weight_of_realservers": "a,b c,d", "OCF_RESKEY_port": "many"})
    assert [problem.code for problem in problems] == [Code.CONFIGURED] * 4
    _, problems = lvs_validation.read(LVSDR_REALSVR, {"OCF_RESKEY_nic_lo": "eth0:1", "OCF_RESKEY_sync_daemon": "true"})
    assert len(problems) == 3


# -- the parts


def evidence_of(probes: evidence.Probes, address: str, health: Health, seconds: float = 5.0) -> float:
    """Go on until a server looks like this; returns how long it took."""
    bell, begun = questions.Bell(), time.monotonic()
    while (known := probes.evidence.get(address)) is None or known.health is not health:
        assert time.monotonic() - begun < seconds, known
        probes.step(time.monotonic())
        probes.wait(0.5, bell.read, time.monotonic())
    return time.monotonic() - begun


def test_evidence_is_direct() -> None:
    """Answers, refuses, and dies while nobody asks: the kept connection tells before the next try is due."""
    server = Server("127.0.0.1")
    probes = evidence.Probes(server.port, interval=30.0, timeout=1.0)
    probes.aim(["127.0.0.1", "127.0.0.2"])
    evidence_of(probes, "127.0.0.1", Health.ALIVE)
    evidence_of(probes, "127.0.0.2", Health.DEAD)
    server.die()
    assert evidence_of(probes, "127.0.0.1", Health.DEAD) < 1.0
    probes.close()


def test_silence_is_not_death_at_once() -> None:
    """A server that takes connections is silent first, then dead."""
    line = socket.create_server(("127.0.0.1", 0))
    probes = evidence.Probes(line.getsockname()[1], interval=0.05, timeout=0.1)
    probes.aim(["127.0.0.1"])
    assert evidence_of(probes, "127.0.0.1", Health.SILENT) >= 0.1
    assert evidence_of(probes, "127.0.0.1", Health.DEAD) >= 0.2
    probes.close()
    line.close()


def test_commands_are_split_as_a_shell_would() -> None:
    """The walkthrough's own line; a shell only where nothing else can read it."""
    line = '/opt/pha4pgsql/tools/get_active_slaves /usr/pgsql/bin/psql "host=192.168.0.236 port=5432 dbname=postgres"'
    assert script.command(line)[1:] == ["/usr/pgsql/bin/psql", "host=192.168.0.236 port=5432 dbname=postgres"]
    assert script.command("psql $OPTIONS -h", "n1") == ["/bin/sh", "-c", "psql $OPTIONS -h n1"]


def test_a_script_is_killed_with_its_children(tmp_path: Path) -> None:
    """Whatever it started."""
    pids = tmp_path / "pid"
    assert isinstance(script.Runner().run(["/bin/sh", "-c", f"sleep 60 & echo $! > {pids}; wait"], 0.5), Unknown)
    deadline = time.monotonic() + 5
    while subprocess.run(["kill", "-0", pids.read_text().strip()], capture_output=True, check=False).returncode == 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)


CIB = """<cib><configuration>
 <nodes><node id="1" uname="node1"/><node id="2" uname="node2"/><node id="3" uname="node3"/></nodes>
 <resources>
  <clone id="msPostgresql"><meta_attributes id="m"><nvpair id="p" name="promotable" value="true"/></meta_attributes>
   <primitive id="pgsql" class="ocf" provider="pha4pgsql" type="pgsql"/></clone>
  <clone id="real-clone"><primitive id="real" class="ocf" provider="pha4pgsql" type="lvsdr-realsvr"/></clone>
 </resources></configuration>
 <status>{}</status></cib>"""
STATE = """<node_state id="{0}" uname="node{0}" in_ccm="true" crmd="online" join="member">
 <transient_attributes id="{0}"><instance_attributes id="s{0}"><nvpair id="n{0}" name="pgsql-status" value="{1}"/></instance_attributes>
 </transient_attributes>
 <lrm id="{0}"><lrm_resources><lrm_resource id="pgsql">{2}</lrm_resource>
 <lrm_resource id="real"><lrm_rsc_op operation="start" rc-code="{3}" call-id="1"/></lrm_resource></lrm_resources></lrm></node_state>"""
START, PROMOTE, PROMOTING = (
    f'<lrm_rsc_op operation="{operation}" rc-code="{code}" call-id="{call}"/>'
    for operation, code, call in (("start", 0, 5), ("promote", 0, 6), ("promote", 193, -1))
)


def test_the_view_tells_primary_standby_and_who_is_being_promoted() -> None:
    """Attributes, roles and the dependent resource by one look at the CIB."""
    states = STATE.format(1, "PRI", START + PROMOTE, 7) + STATE.format(2, "HS:sync", START + PROMOTING, 0) + STATE.format(3, "HS:async", START, 0)
    configuration = Configuration(SERVICE, 1, resource="real-clone", attribute="pgsql-status")
    view = pool.view_of(ET.fromstring(CIB.format(states)), configuration)  # noqa: S314
    assert view.replicated
    assert [(one.name, one.candidate, one.value, one.post) for one in view.peers] == [
        ("node1", False, "PRI", Post.PRIMARY), ("node2", True, "HS:sync", Post.PRIMARY), ("node3", True, "HS:async", Post.STANDBY),
    ]  # fmt: skip
    tag = '<instance_attributes id="t"><nvpair id="u" name="pgsql-noloadbalance" value="true"/></instance_attributes>'
    tagged = ET.fromstring(CIB.format(states).replace('uname="node3"/></nodes>', f'uname="node3">{tag}</node></nodes>'))  # noqa: S314
    assert [one.name for one in pool.view_of(tagged, configuration).peers if one.excused] == ["node3"]
    lost = pool.view_of(ET.fromstring(CIB.format(states)), configuration._replace(resource="other"))  # noqa: S314
    assert lost.missing == "other"
    assert Peer("x").candidate


def test_memory_outlives_the_process(tmp_path: Path) -> None:
    """What is damaged is nothing."""
    files = pool.Files(str(tmp_path), "lvsdr")
    assert pool.read_memory(files) == Memory()
    kept = Memory(hosts=("node2", "node3"), primary="node1")
    pool.write_memory(files, kept)
    assert pool.read_memory(files) == kept
    Path(files.memory).write_text("{", encoding="utf-8")
    assert pool.read_memory(files) == Memory()
