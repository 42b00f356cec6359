"""The actions of lvsdr: the virtual service comes and goes, and a resident process (`pool`) keeps its real servers right in between.

Layer 4. A steady monitor reads three small files. No action waits for a script, a server or Pacemaker.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Callable

from pha4pgsql import resident
from pha4pgsql.ocf import Code, exit_reason, log
from pha4pgsql.resident import RUN
from pha4pgsql.words import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pha4pgsql.lvs_settings import DirectorSettings
    from pha4pgsql.lvs_words import Configuration, Service
    from pha4pgsql.pool import Kernel
    from pha4pgsql.settings import Context

STALE = 5.0
"""Seconds without a good look after which the resident process is replaced: it hangs, or the kernel refuses something."""
FILL = 4.0
"""Seconds that a start waits for the first complete look."""
TABLE = "/proc/net/ip_vs"
"""There if and only if the kernel has IPVS loaded."""
SYSCTLS = (("expire_nodest_conn", "1"), ("expire_quiescent_template", "1"))
"""Connections to a removed server are reset instead of hanging; clients bound to a server of weight 0 are balanced anew."""


class Director:
    """A node as the director of one virtual service."""

    def __init__(self, settings: DirectorSettings, context: Context, *, kernel: Callable[[], Kernel] | None = None, room: str = RUN) -> None:
        self.settings, self.context, self.room = settings, context, room
        self.prefix = f"{room}/{settings.resource}"
        self.kernel = kernel or _real_kernel
        self.proc = TABLE if kernel is None else ""

    @property
    def configuration(self) -> Configuration:
        return self.settings.configuration

    def start(self) -> int:
        """Be the director: the service, its settings in the kernel, the resident process. What is there already stays."""
        os.makedirs(self.room, mode=0o755, exist_ok=True)
        self._take_over()
        with resident.locked(self._path("table.lock"), self.context.deadline), self.kernel() as kernel:
            former = self._former()
            self._prepare(kernel, former)
        self._renew()
        for service in former:
            if service.key != self.configuration.service.key:
                self._delete(service)
        return Code.SUCCESS

    def reload(self) -> int:
        """Take over changed parameters: connections, service and real servers stay."""
        if not os.path.exists(self._path("started")):
            return Code.NOT_RUNNING
        if not self.settings.sound:
            log("ERROR", "the changed parameters are not taken over: those from before stay")
            return Code.SUCCESS
        return self.start()

    def _prepare(self, kernel: Kernel, former: tuple[Service, ...]) -> None:
        """The kernel's side, with a note of it first, so that a stop finds whatever a crash leaves behind."""
        from pha4pgsql import connection_sync, lvs, marks
        from pha4pgsql.lvs_words import AddService, SetService
        from pha4pgsql.pool import standing

        configuration = self.configuration
        for name, value in SYSCTLS if self.proc else ():
            connection_sync.set_kernel(name, value)
        old = self._noted_marks()
        new = (configuration.vip, configuration.service.fwmark, configuration.mark_ports)
        self._note((configuration.service, *(one for one in former if one.key != configuration.service.key)), new)
        there = standing(kernel, configuration.service)
        if there is None:
            kernel.apply([AddService(configuration.service)])
            log("INFO", f"virtual service {configuration.service} added")
        elif not lvs.alike(there, configuration.service):
            kernel.apply([SetService(configuration.service)])
            log("INFO", f"virtual service {configuration.service} changed: {_about(there)} -> {_about(configuration.service)}")
        if old and old != new and old[1]:
            marks.take(old[0], old[2], old[1])
        if configuration.service.fwmark:
            marks.put(configuration.vip, configuration.mark_ports, configuration.service.fwmark)
        connection_sync.direct(kernel, configuration.daemon, configuration.sync_threshold, self.context.deadline, self.room)

    def _renew(self) -> None:
        """A resident process with these parameters, and its first complete look."""
        from pha4pgsql import pool

        resident.end(self.prefix, self.context.deadline)
        with suppress(FileNotFoundError):
            os.unlink(self._path("beat"))
        files = pool.Files(self.room, self.settings.resource)
        resident.launch(self.prefix, lambda: pool.Resident(self.settings, files, self.kernel).live())
        until = min(time.monotonic() + FILL, self.context.deadline)
        while pool.read_beat(files) is None:
            if time.monotonic() > until:
                log("WARNING", f"the first look at the pool is not complete after {FILL:g} s; {self.prefix}.log tells why")
                return
            time.sleep(resident.PAUSE)

    def stop(self) -> int:
        """Be no director any more. The virtual address has gone before."""
        if not os.path.isdir(self.room):
            return Code.SUCCESS
        if not resident.end(self.prefix, self.context.deadline - 1):
            exit_reason("the resident process did not end in time")
            return Code.ERROR
        was = os.path.exists(self._path("started"))
        if was:
            self._hand_over()
        with resident.locked(self._path("table.lock"), self.context.deadline):
            left = [str(service) for service in self._services() if not self._delete(service)]
            if left:
                exit_reason(f"the virtual service {', '.join(left)} could not be deleted")
                return Code.ERROR
            self._put_away()
        if was:
            self._unpublish()
        return Code.SUCCESS

    def _hand_over(self) -> None:
        """Keep held sessions alive until the next director has the address. A director stops without that, too."""
        from pha4pgsql import handover

        try:
            handover.begin(self.configuration.vip, self.room)
        except OSError as failure:
            log("WARNING", f"held sessions may be reset while the address moves: {failure.strerror or failure}")

    def _take_over(self) -> None:
        """What this node did not say as the last director, it has to say as the next one."""
        from pha4pgsql import handover

        handover.end(self.configuration.vip, self.room, deadline=self.context.deadline)

    def _put_away(self) -> None:
        """Marks, files, and the synchronisation of connections."""
        from pha4pgsql import connection_sync, marks

        noted = self._noted_marks()
        if noted and noted[1]:
            with suppress(Failure):
                marks.take(noted[0], noted[2], noted[1])
        for name in ("started", "memory", "beat"):
            with suppress(FileNotFoundError):
                os.unlink(self._path(name))
        if self._has_table():
            try:
                with self.kernel() as kernel:
                    connection_sync.retire(kernel, self.context.deadline, self.room)
            except (Failure, OSError) as failure:
                log("WARNING", f"the synchronisation of connections: {failure}")

    def _unpublish(self) -> None:
        from pha4pgsql import pacemaker

        try:
            pacemaker.publish(f"{self.settings.resource}-pool", None, private=True, timeout=2)
        except Failure as failure:
            log("WARNING", f"the published pool stays: {failure.message}")

    def monitor(self) -> int:
        """Whether this node is the director. What a script or a server does never makes it fail."""
        if not os.path.exists(self._path("started")):
            if self._has_table() and self.context.is_probe:
                self._clear_leftover()
            return Code.NOT_RUNNING
        changed = self.context.in_cluster and self.settings.sound and self._fingerprint() != self.settings.fingerprint
        if not changed and self._beats():
            return Code.SUCCESS
        return self._revive(changed=changed)

    def _beats(self) -> bool:
        """Whether the resident process lives, and its last look was a good one, not long ago."""
        if not resident.lives(self.prefix):
            return False
        try:
            with open(self._path("beat"), encoding="ascii") as stream:
                return time.monotonic() - float(stream.read()) < max(STALE, 4 * self.configuration.check_interval)
        except (OSError, ValueError):
            return False

    def _revive(self, *, changed: bool) -> int:
        """The service has to be there; then a new resident process takes care of it."""
        from pha4pgsql.pool import standing

        if not self._has_table():
            return Code.NOT_RUNNING
        with self.kernel() as kernel:
            if standing(kernel, self.configuration.service) is None and not changed:
                exit_reason(f"the virtual service {self.configuration.service} is not in the kernel's table")
                return Code.NOT_RUNNING
        if changed:
            log("INFO", "the parameters have changed: taken over")
            return self.start()
        log("WARNING", f"the resident process {'hangs' if resident.lives(self.prefix) else 'is gone'}: started again")
        self._renew()
        return Code.SUCCESS

    def _clear_leftover(self) -> None:
        """A table of another life makes packets bounce between directors."""
        service = self.configuration.service
        try:
            from pha4pgsql.pool import standing

            with self.kernel() as kernel:
                if standing(kernel, service) is None:
                    return
            if self._delete(service):
                log("WARNING", f"the virtual service {service} was left over from another life: deleted")
        except Failure as failure:
            log("WARNING", failure.message)

    # ------------------------------------------------------------ notes

    def _path(self, name: str) -> str:
        return f"{self.prefix}.{name}"

    def _has_table(self) -> bool:
        return not self.proc or os.path.exists(self.proc)

    def _delete(self, service: Service) -> bool:
        """Whether a service is not in the table any more. A kernel without IPVS has none."""
        from pha4pgsql.lvs_words import DeleteService
        from pha4pgsql.pool import standing

        if not self._has_table():
            return True
        with self.kernel() as kernel:
            there = standing(kernel, service)
            if there is None:
                return True
            try:
                kernel.apply([DeleteService(there)])
            except Failure as failure:
                log("WARNING", failure.message)
            return standing(kernel, service) is None

    def _note(self, services: tuple[Service, ...], marks: tuple[str, int, tuple[int, ...]]) -> None:
        import json

        from pha4pgsql import system

        kept = {"services": [list(one.key) for one in services], "marks": [marks[0], marks[1], list(marks[2])]}
        system.write_file(self._path("started"), f"{self.settings.fingerprint}\n{json.dumps(kept)}\n")

    def _fingerprint(self) -> str:
        try:
            with open(self._path("started"), encoding="utf-8") as stream:
                return stream.readline().strip()
        except OSError:
            return ""

    def _noted(self) -> Mapping[str, list[object]]:
        import json

        try:
            with open(self._path("started"), encoding="utf-8") as stream:
                stream.readline()
                found = json.load(stream)
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _noted_marks(self) -> tuple[str, int, tuple[int, ...]] | None:
        noted = self._noted().get("marks")
        if not noted:
            return None
        vip, mark, ports = noted
        return str(vip), int(str(mark)), tuple(int(port) for port in ports) if isinstance(ports, list) else ()

    def _former(self) -> tuple[Service, ...]:
        """The services that this resource has noted."""
        from pha4pgsql.lvs_words import Service

        rows = self._noted().get("services", [])
        return tuple(Service(str(row[0]), int(row[1]), int(row[2]), bool(row[3])) for row in rows if isinstance(row, list))

    def _services(self) -> tuple[Service, ...]:
        """Those noted, and that of the parameters."""
        former, own = self._former(), self.configuration.service
        readable = own.fwmark or (own.address and own.port)
        return (*former, own) if readable and own.key not in {one.key for one in former} else former


def _about(service: Service) -> str:
    return f"{service.scheduler}, flags {service.flags:#x}, persistence {service.persistence} s, prefix {service.prefix}"


def _real_kernel() -> Kernel:
    from pha4pgsql.ipvs import Ipvs

    return Ipvs()


def _start(settings: DirectorSettings, context: Context) -> int:
    return Director(settings, context).start()


def _stop(settings: DirectorSettings, context: Context) -> int:
    return Director(settings, context).stop()


def _monitor(settings: DirectorSettings, context: Context) -> int:
    return Director(settings, context).monitor()


def _reload(settings: DirectorSettings, context: Context) -> int:
    return Director(settings, context).reload()


ACTIONS: Mapping[str, Callable[[DirectorSettings, Context], int]] = {"start": _start, "stop": _stop, "monitor": _monitor, "reload": _reload}
