"""The part of test_ipvs.py that runs where the kernel has IPVS: prints, as JSON, for each case what went wrong, and what was measured.

    /usr/bin/python3 -IS tests/live/ipvs_guest.py

Every case finds an empty table and knows what ipvsadm, the witness, has to say: to be run on a node of the lab only, whose table it empties.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))))

from pha4pgsql import ipvs, system
from pha4pgsql.ipvs import Ipvs, IpvsRefusal
from pha4pgsql.lvs_words import (
    AddServer,
    AddService,
    Daemon,
    DeleteServer,
    DeleteService,
    Edit,
    Method,
    RealServer,
    Role,
    Service,
    SetServer,
    SetService,
    Timeouts,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

V4 = Service("192.168.0.237", 5432)
V6 = Service("2001:db8::237", 5432, ipv6=True)
SERVER = RealServer("192.168.0.232", 5432)
OTHER = RealServer("192.168.0.233", 5432)
MANY = tuple(RealServer(f"10.1.{number >> 8}.{number & 255}", 5432, 10) for number in range(1, 1001))
NIC = "eth0"


class Form(NamedTuple):
    """One table as we write it and as ipvsadm writes it."""

    service: Service
    servers: tuple[RealServer, ...]
    rules: tuple[str, ...]


FORMS = {
    "plain": Form(
        V4,
        (SERVER, OTHER._replace(weight=0)),
        (
            "-A -t 192.168.0.237:5432 -s rr",
            "-a -t 192.168.0.237:5432 -r 192.168.0.232:5432 -g -w 1",
            "-a -t 192.168.0.237:5432 -r 192.168.0.233:5432 -g -w 0",
        ),
    ),
    "persistent": Form(
        V4._replace(scheduler="wlc", flags=1, persistence=300),
        (SERVER._replace(weight=65535),),
        ("-A -t 192.168.0.237:5432 -s wlc -p 300", "-a -t 192.168.0.237:5432 -r 192.168.0.232:5432 -g -w 65535"),
    ),
    "persistent networks": Form(
        V4._replace(scheduler="wrr", flags=1, persistence=60, prefix=24), (), ("-A -t 192.168.0.237:5432 -s wrr -p 60 -M 255.255.255.0",)
    ),
    "flags of a scheduler": Form(V4._replace(scheduler="sh", flags=8 | 16), (), ("-A -t 192.168.0.237:5432 -s sh -b sh-fallback,sh-port",)),
    "methods": Form(
        V4._replace(port=80),
        (
            SERVER._replace(port=81, method=Method.MASQUERADE),
            OTHER._replace(port=80, method=Method.TUNNEL),
            RealServer("2001:db8::4", 80, method=Method.TUNNEL),
            RealServer("127.0.0.1", 80),
        ),
        (
            "-A -t 192.168.0.237:80 -s rr",
            "-a -t 192.168.0.237:80 -r 192.168.0.232:81 -m -w 1",
            "-a -t 192.168.0.237:80 -r 192.168.0.233:80 -i -w 1 --tun-type ipip",
            "-a -t 192.168.0.237:80 -r [2001:db8::4]:80 -i -w 1 --tun-type ipip",
            "-a -t 192.168.0.237:80 -r 127.0.0.1:80 -g -w 1",
        ),
    ),
    "IPv6": Form(
        V6._replace(flags=1, persistence=30, prefix=64),
        (RealServer("2001:db8::2", 5432, 3), RealServer("2001:db8::3", 5432, 0)),
        (
            "-A -t [2001:db8::237]:5432 -s rr -p 30 -M 64",
            "-a -t [2001:db8::237]:5432 -r [2001:db8::2]:5432 -g -w 3",
            "-a -t [2001:db8::237]:5432 -r [2001:db8::3]:5432 -g -w 0",
        ),
    ),
    "fwmark": Form(
        Service(fwmark=2147483647, flags=1, persistence=20),
        (SERVER._replace(port=0),),
        ("-A -f 2147483647 -s rr -p 20", "-a -f 2147483647 -r 192.168.0.232:0 -g -w 1"),
    ),
    "fwmark, IPv6": Form(
        Service(fwmark=7, ipv6=True),
        (RealServer("2001:db8::2", 0, 2),),
        ("-A -f 7 -6 -s rr", "-a -f 7 -6 -r [2001:db8::2]:0 -g -w 2"),
    ),
}  # fmt: skip


def admin(*words: str) -> str:
    """Run ipvsadm, which must succeed."""
    done = system.run(["ipvsadm", *words])
    assert done.ok, f"ipvsadm {' '.join(words)}: {done.err or done.out}"
    return done.out


def shown() -> tuple[str, ...]:
    """The table as ipvsadm shows it."""
    return tuple(sorted(line.strip() for line in admin("-S", "-n").splitlines()))


def additions(form: Form) -> list[Edit]:
    return [AddService(form.service), *(AddServer(form.service, server) for server in form.servers)]


def written(table: Ipvs, name: str) -> None:
    """What we write, ipvsadm shows, and we read ourselves."""
    form = FORMS[name]
    table.apply(additions(form))
    assert shown() == tuple(sorted(form.rules)), shown()
    same(table, form)


def read(table: Ipvs, name: str) -> None:
    """What ipvsadm writes, we read."""
    form = FORMS[name]
    for rule in form.rules:
        admin(*rule.split())
    same(table, form)


def same(table: Ipvs, form: Form) -> None:
    assert table.services() == (form.service,), table.services()
    found = table.servers(form.service)
    assert {entry.server for entry in found} == set(form.servers), found
    assert len(found) == len(form.servers)


def thresholds(table: Ipvs) -> None:
    """Both ways; -S leaves them out, -L --thresholds shows them."""
    table.apply([AddService(V4), AddServer(V4, SERVER._replace(upper=100, lower=50))])
    assert "192.168.0.232:5432           100        50" in admin("-L", "-n", "--thresholds")
    admin("-e", "-t", "192.168.0.237:5432", "-r", "192.168.0.232:5432", "-g", "-w", "1", "-x", "9", "-y", "8")
    assert table.servers(V4)[0].server == SERVER._replace(upper=9, lower=8)


def changed(table: Ipvs) -> None:
    """Settings of services and servers are replaced in their place; what is deleted is gone."""
    table.apply([AddService(V4), AddServer(V4, SERVER), AddServer(V4, OTHER)])
    other = V4._replace(scheduler="wlc", flags=1, persistence=5)
    table.apply([SetService(other), SetServer(V4, SERVER._replace(weight=7)), DeleteServer(V4, OTHER)])
    assert shown() == ("-A -t 192.168.0.237:5432 -s wlc -p 5", "-a -t 192.168.0.237:5432 -r 192.168.0.232:5432 -g -w 7")
    table.apply([SetService(V4)])
    assert table.services() == (V4,)
    table.apply([DeleteService(V4)])
    assert shown() == ()
    assert table.services() == ()


def many_services(table: Ipvs) -> None:
    """Services of IPv4, IPv6 and marks side by side, each with servers of its own; those of UDP are not ours."""
    for form in (FORMS["plain"], FORMS["IPv6"], FORMS["fwmark"], FORMS["fwmark, IPv6"]):
        table.apply(additions(form))
    admin("-A", "-u", "192.168.0.237:5432", "-s", "rr")
    admin("-a", "-u", "192.168.0.237:5432", "-r", "10.0.0.9:5432")
    assert {service.key for service in table.services()} == {FORMS[name].service.key for name in ("plain", "IPv6", "fwmark", "fwmark, IPv6")}
    assert [len(table.servers(FORMS[name].service)) for name in ("plain", "IPv6", "fwmark", "fwmark, IPv6")] == [2, 2, 1, 1]


def refusal(call: Callable[[], object]) -> IpvsRefusal:
    """What the kernel says to it."""
    try:
        call()
    except IpvsRefusal as found:
        return found
    raise AssertionError("nothing was refused")


def refused(table: Ipvs, kind: type[IpvsRefusal], subject: Service | RealServer, *edits: Edit) -> None:
    """The edits end with this refusal, about this object."""
    found = refusal(lambda: table.apply(edits))
    assert type(found) is kind, found
    assert found.subject == subject
    assert found.total == len(edits)
    assert str(subject) in found.message


def refusals_about_services(table: Ipvs) -> None:
    refused(table, ipvs.NoSuchService, V4, SetService(V4))
    refused(table, ipvs.NoSuchService, V4, DeleteService(V4))
    unknown = V4._replace(scheduler="nonesuch")
    refused(table, ipvs.NoSuchScheduler, unknown, AddService(unknown))
    refused(table, IpvsRefusal, V6._replace(prefix=129), AddService(V6._replace(prefix=129)))
    table.apply([AddService(V4)])
    refused(table, ipvs.ServiceExists, V4, AddService(V4))
    refused(table, ipvs.NoSuchScheduler, unknown, SetService(unknown))
    assert table.services() == (V4,)


def refusals_about_servers(table: Ipvs) -> None:
    refused(table, ipvs.NoSuchService, SERVER, AddServer(V4, SERVER))
    table.apply([AddService(V4)])
    refused(table, ipvs.NoSuchServer, SERVER, SetServer(V4, SERVER))
    refused(table, ipvs.NoSuchServer, SERVER, DeleteServer(V4, SERVER))
    table.apply([AddServer(V4, SERVER)])
    refused(table, ipvs.ServerExists, SERVER, AddServer(V4, SERVER))
    nowhere = SERVER._replace(address="224.0.0.1")
    refused(table, IpvsRefusal, nowhere, AddServer(V4, nowhere))
    crossed = SERVER._replace(upper=1, lower=2)
    refused(table, IpvsRefusal, crossed, SetServer(V4, crossed))
    assert [entry.server for entry in table.servers(V4)] == [SERVER]


def missing_is_not_empty(table: Ipvs) -> None:
    """A service that is not there has no list; one without servers has an empty one."""
    found = refusal(lambda: table.servers(V4))
    assert (type(found), found.subject) == (ipvs.NoSuchService, V4)
    table.apply([AddService(V4)])
    assert table.servers(V4) == ()


def all_are_tried(table: Ipvs) -> None:
    """One edit of 250 that is refused is named, and keeps none of the others from being made, in whatever datagram they travel."""
    wishes = [AddServer(V4, server) for server in MANY[:248]]
    edits: list[Edit] = [AddService(V4), *wishes[:120], SetServer(V4, OTHER), *wishes[120:], DeleteServer(V4, SERVER)]
    found = refusal(lambda: table.apply(edits))
    assert (type(found), found.subject, found.total) == (ipvs.NoSuchServer, OTHER, 2)
    assert {entry.server for entry in table.servers(V4)} == set(MANY[:248])


def all_refused(table: Ipvs) -> None:
    """A thousand refusals fit into the socket, too, and the line can be used afterwards."""
    found = refusal(lambda: table.apply([SetServer(V4, server) for server in MANY]))
    assert (type(found), found.subject, found.total) == (ipvs.NoSuchService, MANY[0], 1000)
    assert table.services() == ()


def not_permitted(table: Ipvs) -> None:
    """Another user hears a name, not a number."""
    child = os.fork()
    if child == 0:
        os.setgid(65534)
        os.setuid(65534)
        code = 1
        try:
            with Ipvs() as line:
                line.services()
        except ipvs.NotPermitted:
            code = 0
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert table.services() == ()


def timeouts(table: Ipvs) -> None:
    before = table.timeouts()
    table.set_timeouts(Timeouts(tcp=1000, tcp_fin=70))
    assert table.timeouts() == before._replace(tcp=1000, tcp_fin=70)
    assert admin("-L", "--timeout").strip().endswith(f"1000 70 {before.udp}")
    admin("--set", *map(str, before))
    assert table.timeouts() == before


def daemons(table: Ipvs) -> None:
    """Both roles at once, as ipvsadm sees them, and the other way round."""
    master, backup = Daemon(Role.MASTER, NIC, 7), Daemon(Role.BACKUP, NIC, 7)
    table.start_daemon(master)
    assert table.daemons() == (master,)
    table.start_daemon(backup)
    seen = admin("-L", "--daemon")
    assert f"master sync daemon (mcast={NIC}, syncid=7" in seen
    assert f"backup sync daemon (mcast={NIC}, syncid=7" in seen
    table.stop_daemon(Role.MASTER)
    assert table.daemons() == (backup,)
    table.stop_daemon(Role.BACKUP)
    admin("--start-daemon", "master", "--mcast-interface", NIC, "--syncid", "255")
    assert table.daemons() == (Daemon(Role.MASTER, NIC, 255),)


def stopped_at_once(table: Ipvs) -> None:
    """A daemon that was started a moment ago ends without a word of the kernel: no failure, and no wait for an answer."""
    for role in Role:
        for _ in range(20):
            table.start_daemon(Daemon(role, NIC, 1))
            table.stop_daemon(role)
            assert table.daemons() == ()


def refusals_about_daemons(table: Ipvs) -> None:
    nowhere, wish = Daemon(Role.MASTER, "nonesuch", 1), Daemon(Role.MASTER, NIC, 1)
    assert type(refusal(lambda: table.start_daemon(nowhere))) is ipvs.NoSuchInterface
    found = refusal(lambda: table.stop_daemon(Role.BACKUP))
    assert (type(found), found.subject) == (ipvs.NoSuchDaemon, Role.BACKUP)
    table.start_daemon(wish)
    found = refusal(lambda: table.start_daemon(wish))
    assert (type(found), found.subject) == (ipvs.DaemonExists, wish)


def thousand(table: Ipvs) -> dict[str, float]:
    """What a look without change takes at its best, since other things run on this machine too, and what a thousand changes take."""
    table.apply([AddService(V4), *(AddServer(V4, server) for server in MANY)])
    looks = []
    for _ in range(10):
        start = time.perf_counter()
        wish = {server.key: server for server in MANY}
        edits = [SetServer(V4, wish[entry.server.key]) for entry in table.servers(V4) if entry.server != wish[entry.server.key]]
        table.apply(edits)
        looks.append(time.perf_counter() - start)
        assert not edits
    start = time.perf_counter()
    table.apply([SetServer(V4, server._replace(weight=20)) for server in MANY])
    changes = time.perf_counter() - start
    assert {entry.server for entry in table.servers(V4)} == {server._replace(weight=20) for server in MANY}
    rules = shown()
    assert len(rules) == 1001
    assert sum(rule.endswith("-w 20") for rule in rules) == 1000
    return {"look": min(looks), "changes": changes}


def _with_form(check: Callable[[Ipvs, str], None], name: str) -> Callable[[Ipvs], None]:
    return lambda table: check(table, name)


CASES: dict[str, Callable[[Ipvs], dict[str, float] | None]] = {
    f"{check.__name__}: {name}": _with_form(check, name) for check in (written, read) for name in FORMS
}
CASES |= {
    case.__name__.replace("_", " "): case
    for case in (
        thresholds, changed, many_services, refusals_about_services, refusals_about_servers, missing_is_not_empty, all_are_tried, all_refused,
        not_permitted, timeouts, daemons, stopped_at_once, refusals_about_daemons, thousand,
    )
}  # fmt: skip


def main(names: Sequence[str]) -> None:
    """Run the cases of these names, or all of them."""
    results: dict[str, dict[str, object]] = {}
    for name in names or CASES:
        with Ipvs() as table:
            for daemon in table.daemons():
                table.stop_daemon(daemon.role)
            admin("-C")
            try:
                results[name] = {"problem": "", "figures": CASES[name](table) or {}}
            except Exception:  # noqa: BLE001 - a case that fails must not end the others
                results[name] = {"problem": traceback.format_exc(), "figures": {}}
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1:])
