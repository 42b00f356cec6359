"""The kernel's IPVS table: read it, change it, and hear by name what the kernel refuses.

    with Ipvs() as ipvs:
        ipvs.apply([AddService(service), AddServer(service, server)])

Raw generic netlink: a message takes microseconds where a fork of ipvsadm takes milliseconds, and every edit has an answer of its own.
The table is that of the network namespace in which the line was opened.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from pha4pgsql import ipvs_codec, netlink, system
from pha4pgsql.ipvs_codec import Command
from pha4pgsql.lvs_words import AddServer, AddService, DeleteServer, DeleteService, Service, SetServer, SetService, Timeouts
from pha4pgsql.netlink_line import Line
from pha4pgsql.words import EnvironmentFailure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from pha4pgsql.lvs_words import Daemon, Edit, Entry, Role
    from pha4pgsql.netlink import Answer

_BATCH = 100
"""Edits in one datagram. Their answers wait in the socket's buffer, at 768 bytes each of 212,992 if nobody changed that."""
_DEADLINE = 10.0
"""Seconds for the module's loading."""


class NoIpvs(EnvironmentFailure):
    """The kernel has no IPVS, or none that can be loaded from here."""

    def __init__(self, seen: str) -> None:
        hint = "modprobe ip_vs (a kernel with CONFIG_IP_VS); in a container or namespace the machine that carries it has to load the module"
        super().__init__(f"this kernel has no IPVS: {seen}", hint)


class IpvsRefusal(EnvironmentFailure):
    """The kernel says no. `number` is its errno, `subject` the object that it concerns, `total` how many edits of one call it refused."""

    meaning: ClassVar[str] = ""
    advice: ClassVar[str] = ""

    def __init__(self, doing: str, subject: object, answer: Answer, total: int = 1) -> None:
        self.number = answer.number
        self.subject = subject
        self.total = total
        seen = self.meaning or f"{os.strerror(answer.number).lower()} (errno {errno.errorcode.get(answer.number, answer.number)})"
        said = f", in its words: {answer.explanation}" if answer.explanation else ""
        more = f" (the first of {total} refusals)" if total > 1 else ""
        super().__init__(f"the kernel's IPVS refuses to {doing}: {seen}{said}{more}", self.advice)


class NoSuchService(IpvsRefusal):
    """ESRCH, also for its real servers."""

    meaning = "there is no such virtual service"


class ServiceExists(IpvsRefusal):
    """EEXIST."""

    meaning = "there is such a virtual service already"


class NoSuchScheduler(IpvsRefusal):
    """ENOENT for a service."""

    meaning = "the scheduler is not known and cannot be loaded"
    advice = "modprobe the module ip_vs_NAME of the scheduler (rr wrr lc wlc sh dh mh ...)"


class NoSuchServer(IpvsRefusal):
    """ENOENT for a real server."""

    meaning = "the virtual service has no such real server"


class ServerExists(IpvsRefusal):
    """EEXIST."""

    meaning = "the virtual service has such a real server already"


class NoSuchDaemon(IpvsRefusal):
    """ESRCH."""

    meaning = "no daemon of this role runs"


class DaemonExists(IpvsRefusal):
    """EEXIST."""

    meaning = "a daemon of this role runs already"


class NoSuchInterface(IpvsRefusal):
    """ENODEV."""

    meaning = "there is no such interface"
    advice = "see `ip link`"


class NotPermitted(IpvsRefusal):
    """EPERM."""

    meaning = "this process may not"
    advice = "run it as root; a container needs CAP_NET_ADMIN of the machine"


class _Matter(NamedTuple):
    """What a request is about. The same errno means one thing for a service and another for a real server."""

    doing: str
    subject: object
    meanings: dict[int, type[IpvsRefusal]]

    def refusal(self, answer: Answer, total: int = 1) -> IpvsRefusal:
        kind = NotPermitted if answer.number in (errno.EPERM, errno.EACCES) else self.meanings.get(answer.number, IpvsRefusal)
        return kind(self.doing, self.subject, answer, total)


_OF_SERVICES: dict[int, type[IpvsRefusal]] = {errno.ESRCH: NoSuchService, errno.EEXIST: ServiceExists, errno.ENOENT: NoSuchScheduler}
_OF_SERVERS: dict[int, type[IpvsRefusal]] = {errno.ESRCH: NoSuchService, errno.EEXIST: ServerExists, errno.ENOENT: NoSuchServer}
_OF_DAEMONS: dict[int, type[IpvsRefusal]] = {errno.ESRCH: NoSuchDaemon, errno.EEXIST: DaemonExists, errno.ENODEV: NoSuchInterface}
_VERBS = {AddService: "add", SetService: "change", DeleteService: "delete", AddServer: "add", SetServer: "change", DeleteServer: "delete"}


def _matter(edit: Edit) -> _Matter:
    verb = _VERBS[type(edit)]
    if isinstance(edit, (AddServer, SetServer, DeleteServer)):
        return _Matter(f"{verb} real server {edit.server} of {edit.service}", edit.server, _OF_SERVERS)
    return _Matter(f"{verb} virtual service {edit.service}", edit.service, _OF_SERVICES)


class Ipvs:
    """A line to the kernel's IPVS; a context manager."""

    def __init__(self) -> None:
        """Open it, and load the module if it is not there; NoIpvs when that is in vain."""
        try:
            self._line = Line()
        except OSError as failure:
            raise NoIpvs(f"it has no generic netlink ({failure.strerror})") from None
        try:
            self._family = self._line.family(ipvs_codec.FAMILY) or self._load()
        except BaseException:
            self._line.close()
            raise

    def __enter__(self) -> Ipvs:  # noqa: PYI034 - Python 3.9 has no Self
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._line.close()

    def _load(self) -> int:
        """The kernel has tried by itself (the module has an alias for the family) where it can reach modprobe."""
        done = system.run(["modprobe", "ip_vs"], timeout=_DEADLINE, environment={"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"})
        family = self._line.family(ipvs_codec.FAMILY)
        if not family:
            said = done.err.strip().splitlines()
            raise NoIpvs(said[-1] if said else "module ip_vs is loaded, the netlink family IPVS is not there")
        return family

    def services(self) -> tuple[Service, ...]:
        """All virtual services for TCP or a firewall mark; those of other protocols are left out."""
        bodies = self._dump(_Matter("list the virtual services", None, _OF_SERVICES), Command.GET_SERVICE)
        return tuple(service for service in map(ipvs_codec.read_service, bodies) if service is not None)

    def servers(self, service: Service) -> tuple[Entry, ...]:
        """The real servers of a service, with what the kernel counts for each; NoSuchService when there is none.

        Up to eighty are read at one moment (32 KiB). Of more, the kernel leaves out some if others are deleted meanwhile, without a word
        (measured with Linux 6.1: no NLM_F_DUMP_INTR).
        """
        matter, key = _Matter(f"list the real servers of {service}", service, _OF_SERVERS), ipvs_codec.service_key(service)
        bodies = self._dump(matter, Command.GET_SERVER, key)
        if not bodies:
            self._ask(matter, Command.GET_SERVICE, key)
        entries = (ipvs_codec.read_entry(body, service) for body in bodies)
        return tuple({entry.server.key: entry for entry in entries}.values())

    def apply(self, edits: Sequence[Edit]) -> None:
        """Make the edits in their order. Every one is tried; then the first refusal is raised, with the number of all."""
        refused: list[tuple[Edit, Answer]] = []
        for start in range(0, len(edits), _BATCH):
            part = edits[start : start + _BATCH]
            answers, _ = self._line.ask(self._family, [_body(*ipvs_codec.request(edit)) for edit in part])
            refused += [(edit, answer) for edit, answer in zip(part, answers) if answer.number]
        if refused:
            first, answer = refused[0]
            raise _matter(first).refusal(answer, len(refused))

    def timeouts(self) -> Timeouts:
        return ipvs_codec.read_timeouts(self._ask(_Matter("tell its timeouts", None, {}), Command.GET_TIMEOUTS))

    def set_timeouts(self, wish: Timeouts) -> None:
        """Set those that are not 0."""
        self._ask(_Matter(f"set its timeouts to {wish}", wish, {}), Command.SET_TIMEOUTS, ipvs_codec.timeouts(wish))

    def daemons(self) -> tuple[Daemon, ...]:
        """The connection synchronisation daemons that run, at most one of each role."""
        return tuple(map(ipvs_codec.read_daemon, self._dump(_Matter("list the sync daemons", None, _OF_DAEMONS), Command.GET_DAEMON)))

    def start_daemon(self, wish: Daemon) -> None:
        matter = _Matter(f"start the {wish.role.name.lower()} sync daemon on {wish.interface}", wish, _OF_DAEMONS)
        self._ask(matter, Command.NEW_DAEMON, ipvs_codec.daemon(wish))

    def stop_daemon(self, role: Role) -> None:
        """Stop it; one that was started a moment ago has not run yet, and is stopped by what the kernel calls an interruption."""
        matter = _Matter(f"stop the {role.name.lower()} sync daemon", role, _OF_DAEMONS)
        (answer,), _ = self._line.ask(self._family, [_body(Command.DEL_DAEMON, ipvs_codec.daemon_key(role))])
        interrupted = answer.number == errno.EINTR and role not in {daemon.role for daemon in self.daemons()}
        if answer.number and not interrupted:
            raise matter.refusal(answer)

    def _ask(self, matter: _Matter, command: Command, inner: bytes = b"") -> bytes:
        """One request; returns what was said beside the acknowledgement, if anything."""
        (answer,), said = self._line.ask(self._family, [_body(command, inner)])
        if answer.number:
            raise matter.refusal(answer)
        return said[0] if said else b""

    def _dump(self, matter: _Matter, command: Command, inner: bytes = b"") -> list[bytes]:
        answer, bodies = self._line.dump(self._family, _body(command, inner))
        if answer.number:
            raise matter.refusal(answer)
        return bodies


def _body(command: Command, inner: bytes = b"") -> bytes:
    return netlink.generic(command, 1, inner)
