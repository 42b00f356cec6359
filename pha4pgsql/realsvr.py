"""The actions of lvsdr-realsvr: the virtual address on lo, and a kernel that keeps quiet about it.

Layer 4. The kernel is told to keep quiet before the address comes, and may speak again after it has gone: a node that answers ARP requests
for the virtual address takes the director's clients away. IPaddr2 may put the same address onto another interface, and (with lvs_support)
take it off lo meanwhile.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Callable

from pha4pgsql import address, handover
from pha4pgsql.ocf import Code, exit_reason, log
from pha4pgsql.resident import RUN, locked
from pha4pgsql.words import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pha4pgsql.lvs_settings import RealServerSettings
    from pha4pgsql.settings import Context


def _state(settings: RealServerSettings) -> str:
    """Who wants the kernel to keep quiet, and how it was before. IPv6 has no ARP: there it only tells that we are started."""
    return f"{RUN}/{'ndp' if settings.ipv6 else 'arp'}"


def start(settings: RealServerSettings, context: Context) -> int:
    """Become a real server."""
    os.makedirs(RUN, mode=0o755, exist_ok=True)
    with locked(f"{RUN}/arp.lock", context.deadline):
        _keep_quiet(settings)
        try:
            address.add(settings.vip, settings.label)
        except OSError as failure:
            exit_reason(f"{settings.vip} cannot be put onto lo: {(failure.strerror or str(failure)).lower()}")
            return Code.ERROR
    _follow_connections(settings, context)
    return Code.SUCCESS


def _keep_quiet(settings: RealServerSettings) -> None:
    for change in address.quiet(_state(settings), settings.resource, arp=not settings.ipv6):
        log("INFO", f"net.ipv4.conf: {change}")


def _follow_connections(settings: RealServerSettings, context: Context) -> None:
    """Be told of the director's connections. A real server serves without that, too."""
    wanted = settings.daemon
    if wanted is None and not os.path.exists(f"{RUN}/{settings.resource}.backup"):
        return
    from pha4pgsql import connection_sync
    from pha4pgsql.ipvs import Ipvs

    try:
        with Ipvs() as ipvs:
            if wanted is None:
                connection_sync.forget(ipvs, settings.resource, context.deadline)
            else:
                connection_sync.remember(ipvs, wanted, settings.resource, context.deadline)
    except (Failure, OSError) as failure:
        log("WARNING", f"connections are not followed: {failure}")


def reload(settings: RealServerSettings, context: Context) -> int:
    """Take over changed parameters: a start changes only what is not as they say."""
    return start(settings, context) if address.uses(_state(settings), settings.resource) else Code.NOT_RUNNING


def stop(settings: RealServerSettings, context: Context) -> int:
    """Be no real server any more."""
    if settings.vip:
        for place in _on_lo(settings):
            address.remove(place.address, place.prefix)
    if not os.path.isdir(RUN):
        return Code.SUCCESS
    handover.clear(settings.vip)
    with locked(f"{RUN}/arp.lock", context.deadline):
        address.speak(_state(settings), settings.resource)
    _follow_connections(settings._replace(daemon=None), context)
    return Code.SUCCESS


def _on_lo(settings: RealServerSettings) -> list[address.Place]:
    return [place for place in address.places(ipv6=settings.ipv6) if place.address == settings.vip and place.interface == "lo"]


def monitor(settings: RealServerSettings, context: Context) -> int:
    """Whether the virtual address is on lo, or has been taken to another interface since we put it there."""
    if not settings.vip:
        return Code.NOT_RUNNING
    interfaces = {place.interface for place in address.places(ipv6=settings.ipv6) if place.address == settings.vip}
    started = address.uses(_state(settings), settings.resource)
    if "lo" not in interfaces and not (started and interfaces):
        return Code.NOT_RUNNING
    if started:
        handover.clear(settings.vip)
        with locked(f"{RUN}/arp.lock", context.deadline):
            _keep_quiet(settings)
        if settings.daemon is not None and not context.is_probe:
            _follow_connections(settings, context)
    return Code.SUCCESS


ACTIONS: Mapping[str, Callable[[RealServerSettings, Context], int]] = {"start": start, "stop": stop, "monitor": monitor, "reload": reload}
