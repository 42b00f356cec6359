"""What IPVS says over generic netlink, as values: services, real servers, daemons, timeouts and edits (linux/ip_vs.h).

Layer 2: bytes in, bytes out. Attributes that are not known here are skipped; a service that is neither TCP nor fwmark is nobody's.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from socket import AF_INET, AF_INET6, IPPROTO_TCP, inet_ntop, inet_pton
from typing import TYPE_CHECKING

from pha4pgsql.lvs_words import (
    AddServer,
    AddService,
    Daemon,
    DeleteServer,
    DeleteService,
    Edit,
    Entry,
    Load,
    Method,
    RealServer,
    Role,
    Service,
    SetServer,
    SetService,
    Timeouts,
)
from pha4pgsql.netlink import U16, U32, Garbled, attribute, attributes, generic_attributes, nest, number, text, word

if TYPE_CHECKING:
    from collections.abc import Mapping

FAMILY = "IPVS"


class Command(IntEnum):
    """IPVS_CMD_*, by what it is about."""

    NEW_SERVICE = 1
    SET_SERVICE = 2
    DEL_SERVICE = 3
    GET_SERVICE = 4
    NEW_SERVER = 5
    SET_SERVER = 6
    DEL_SERVER = 7
    GET_SERVER = 8
    NEW_DAEMON = 9
    DEL_DAEMON = 10
    GET_DAEMON = 11
    SET_TIMEOUTS = 12
    GET_TIMEOUTS = 13


SERVICE, SERVER, DAEMON, TIMEOUT_TCP, TIMEOUT_FIN, TIMEOUT_UDP = 1, 2, 3, 4, 5, 6
"""IPVS_CMD_ATTR_*"""
S_FAMILY, S_PROTOCOL, S_ADDRESS, S_PORT, S_FWMARK, S_SCHEDULER, S_FLAGS, S_PERSISTENCE, S_NETMASK = 1, 2, 3, 4, 5, 6, 7, 8, 9
"""IPVS_SVC_ATTR_*"""
R_ADDRESS, R_PORT, R_METHOD, R_WEIGHT, R_UPPER, R_LOWER, R_ACTIVE, R_INACTIVE, R_PERSISTENT, R_FAMILY = 1, 2, 3, 4, 5, 6, 7, 8, 9, 11
"""IPVS_DEST_ATTR_*"""
D_ROLE, D_INTERFACE, D_SYNC_ID = 1, 2, 3
"""IPVS_DAEMON_ATTR_*"""

PERSISTENT, HASHED = 1, 2
"""IP_VS_SVC_F_*: the first goes with `Service.persistence`, the second is the kernel's own."""

_PORT = struct.Struct("!H")
_FLAGS = struct.Struct("=II")
_METHODS = {method.value: method for method in Method}
_FORWARDING = 7
"""IP_VS_CONN_F_FWD_MASK"""
_EDITS = {
    AddService: Command.NEW_SERVICE, SetService: Command.SET_SERVICE, DeleteService: Command.DEL_SERVICE,
    AddServer: Command.NEW_SERVER, SetServer: Command.SET_SERVER, DeleteServer: Command.DEL_SERVER,
}  # fmt: skip


def request(edit: Edit) -> tuple[Command, bytes]:
    """The command and the attributes of an edit."""
    command = _EDITS[type(edit)]
    if isinstance(edit, (AddServer, SetServer)):
        return command, service_key(edit.service) + server(edit.server)
    if isinstance(edit, DeleteServer):
        return command, service_key(edit.service) + nest(SERVER, _server_key(edit.server))
    return command, service_key(edit.service) if isinstance(edit, DeleteService) else service(edit.service)


def service_key(wish: Service) -> bytes:
    """What names a service; a dump of its real servers needs it, too."""
    return nest(SERVICE, _service_key(wish))


def service(wish: Service) -> bytes:
    """A service with all its settings."""
    flags = wish.flags & ~HASHED | (PERSISTENT if wish.persistence else 0)
    return nest(
        SERVICE,
        _service_key(wish),
        text(S_SCHEDULER, wish.scheduler),
        attribute(S_FLAGS, _FLAGS.pack(flags, 0xFFFFFFFF)),
        attribute(S_PERSISTENCE, U32.pack(wish.persistence)),
        attribute(S_NETMASK, _netmask(wish)),
    )


def _service_key(wish: Service) -> bytes:
    family = attribute(S_FAMILY, U16.pack(AF_INET6 if wish.ipv6 else AF_INET))
    if wish.fwmark:
        return family + attribute(S_FWMARK, U32.pack(wish.fwmark))
    return (
        family
        + attribute(S_PROTOCOL, U16.pack(IPPROTO_TCP))
        + attribute(S_ADDRESS, packed(wish.address, wish.ipv6))
        + attribute(S_PORT, _PORT.pack(wish.port))
    )


def _netmask(wish: Service) -> bytes:
    """A mask in network order for IPv4, the length of the prefix for IPv6."""
    if wish.ipv6:
        return U32.pack(wish.prefix or 128)
    return struct.pack("!I", (0xFFFFFFFF << (32 - (wish.prefix or 32))) & 0xFFFFFFFF)


def server(wish: RealServer) -> bytes:
    """A real server with all its settings."""
    return nest(
        SERVER,
        _server_key(wish),
        attribute(R_METHOD, U32.pack(wish.method.value)),
        attribute(R_WEIGHT, U32.pack(wish.weight)),
        attribute(R_UPPER, U32.pack(wish.upper)),
        attribute(R_LOWER, U32.pack(wish.lower)),
    )


def _server_key(wish: RealServer) -> bytes:
    ipv6 = ":" in wish.address
    family = attribute(R_FAMILY, U16.pack(AF_INET6 if ipv6 else AF_INET))
    return family + attribute(R_ADDRESS, packed(wish.address, ipv6)) + attribute(R_PORT, _PORT.pack(wish.port))


def daemon(wish: Daemon) -> bytes:
    return nest(DAEMON, attribute(D_ROLE, U32.pack(wish.role.value)), text(D_INTERFACE, wish.interface), attribute(D_SYNC_ID, U32.pack(wish.sync_id)))


def daemon_key(role: Role) -> bytes:
    return nest(DAEMON, attribute(D_ROLE, U32.pack(role.value)))


def timeouts(wish: Timeouts) -> bytes:
    kinds = (TIMEOUT_TCP, TIMEOUT_FIN, TIMEOUT_UDP)
    return b"".join(attribute(kind, U32.pack(seconds)) for kind, seconds in zip(kinds, wish))


def packed(address: str, ipv6: bool) -> bytes:  # noqa: FBT001
    """The sixteen bytes of an address (union nf_inet_addr).

    >>> packed("192.168.0.237", False).hex()
    'c0a800ed000000000000000000000000'
    """
    try:
        return inet_pton(AF_INET6 if ipv6 else AF_INET, address).ljust(16, b"\0")
    except OSError:
        raise ValueError(f"not a numeric IPv{6 if ipv6 else 4} address: {address!r}") from None


def read_service(body: bytes) -> Service | None:
    """The service in an answer of the kernel; None for one of another protocol."""
    found = _part(body, SERVICE)
    ipv6 = number(_need(found, S_FAMILY)) == AF_INET6
    flags, _ = _FLAGS.unpack(_exactly(_need(found, S_FLAGS), _FLAGS.size))
    common = Service(
        ipv6=ipv6,
        scheduler=word(_need(found, S_SCHEDULER)),
        flags=flags & ~HASHED,
        persistence=number(_need(found, S_PERSISTENCE)) if flags & PERSISTENT else 0,
        prefix=_prefix(_need(found, S_NETMASK), ipv6),
    )
    if S_FWMARK in found:
        return common._replace(fwmark=number(found[S_FWMARK]))
    if number(_need(found, S_PROTOCOL)) != IPPROTO_TCP:
        return None
    return common._replace(address=_address(_need(found, S_ADDRESS), ipv6), port=_port(_need(found, S_PORT)))


def _prefix(netmask: bytes, ipv6: bool) -> int:  # noqa: FBT001
    length = number(netmask) if ipv6 else bin(number(netmask)).count("1")
    return 0 if length == (128 if ipv6 else 32) else length


def read_entry(body: bytes, of: Service) -> Entry:
    """The real server in an answer of the kernel; its family is the service's where the kernel is too old to say."""
    found = _part(body, SERVER)
    try:
        ipv6 = number(found[R_FAMILY]) == AF_INET6 if R_FAMILY in found else of.ipv6
        address, port, weight = _address(found[R_ADDRESS], ipv6), _port(found[R_PORT]), number(found[R_WEIGHT])
        known = RealServer(address, port, weight, _method(found[R_METHOD]), number(found[R_UPPER]), number(found[R_LOWER]))
        return Entry(known, Load(number(found[R_ACTIVE]), number(found[R_INACTIVE]), number(found[R_PERSISTENT])))
    except KeyError as missing:
        raise Garbled(f"a real server without attribute {missing}") from None


def _method(value: bytes) -> Method:
    forwarding = number(value) & _FORWARDING
    if forwarding not in _METHODS:
        raise Garbled(f"forwarding method {forwarding}")
    return _METHODS[forwarding]


def read_daemon(body: bytes) -> Daemon:
    found = _part(body, DAEMON)
    role = number(_need(found, D_ROLE))
    if role not in (Role.MASTER.value, Role.BACKUP.value):
        raise Garbled(f"a daemon in state {role}")
    return Daemon(Role(role), word(_need(found, D_INTERFACE)), number(_need(found, D_SYNC_ID)))


def read_timeouts(body: bytes) -> Timeouts:
    found = generic_attributes(body)
    return Timeouts(*(number(_need(found, kind)) for kind in (TIMEOUT_TCP, TIMEOUT_FIN, TIMEOUT_UDP)))


def _part(body: bytes, kind: int) -> dict[int, bytes]:
    """The attributes of the one object that an answer is about."""
    return attributes(_need(generic_attributes(body), kind))


def _need(found: Mapping[int, bytes], kind: int) -> bytes:
    if kind not in found:
        raise Garbled(f"no attribute {kind} among {sorted(found)}")
    return found[kind]


def _exactly(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise Garbled(f"{len(value)} bytes where {size} were expected")
    return value


def _address(value: bytes, ipv6: bool) -> str:  # noqa: FBT001
    size = 16 if ipv6 else 4
    if len(value) < size:
        raise Garbled(f"an address of {len(value)} bytes")
    return inet_ntop(AF_INET6 if ipv6 else AF_INET, value[:size])


def _port(value: bytes) -> int:
    return int(_PORT.unpack(_exactly(value, 2))[0])
