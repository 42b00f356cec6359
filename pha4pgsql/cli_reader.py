"""cls_reader: read servers outside of the cluster, added, removed and listed with one command.

It runs on a node of the cluster and reaches the read server by ssh, or on the read server itself, with config.ini beside it, and reaches a node
of the cluster by ssh; or on a third machine, and reaches both. Each half of the work is an errand (errand.py) on its machine.
Running a command again after an interruption finishes the job: every step looks whether it is done.
Exit codes: 0 done, 1 not reached or refused, 100 wrong usage, 101 the cluster cannot be asked, 102 no quorum.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from pha4pgsql import arguments, cli, config, errand, paths, procedure, reader, reader_cluster, reader_node, remote, replicas
from pha4pgsql.checks import must
from pha4pgsql.procedure import Plan, Step
from pha4pgsql.words import ClusterRefusal, ConfigurationError, EnvironmentFailure

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

    from pha4pgsql.config import Config
    from pha4pgsql.errand import Errand, Say
    from pha4pgsql.reader import Ground, Standing

NODE, CLUSTER = "node", "cluster"
VERBS: dict[str, dict[str, errand.Verb]] = {NODE: reader_node.VERBS, CLUSTER: reader_cluster.VERBS}
WAIT = 60.0


def main(argv: Sequence[str]) -> int:
    """cls_reader: the command line."""
    if len(argv) == 3 and argv[0] == "errand" and argv[1] in VERBS:
        paths.use_packages()
        return errand.serve(VERBS[argv[1]], argv[2])
    parser = arguments.Parser("cls_reader", description="Add, remove and list read servers outside of the cluster.")
    parser.add_argument("--config", default=config.beside(sys.argv[0]), metavar="FILE", help="config.ini (default: %(default)s)")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    _add_parser(verbs.add_parser("add", help="make a machine a read server, or finish doing so"))
    _remove_parser(verbs.add_parser("remove", help="take a read server out of service"))
    listing = verbs.add_parser("list", help="show all read servers")
    listing.add_argument("--json", action="store_true", help="the same for programs, as one JSON list")
    listing.set_defaults(body=_list)
    return cli.main(parser, lambda options: int(options.body(options)), argv)


def _add_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NODE", help="the machine: a name that the cluster's nodes resolve, or an address")
    parser.add_argument("--weight", default="", metavar="N", help="its weight in the pool (default: the director's default_weight)")
    parser.add_argument("--again", action="store_true", help="copy the primary anew, in place of the copy that is there")
    parser.add_argument("--pgdata", default="", metavar="DIRECTORY", help="data directory there (default: as on the members)")
    parser.add_argument("--bindir", default="", metavar="DIRECTORY", help="PostgreSQL's programs there (default: as on the members)")
    _common(parser)
    parser.set_defaults(body=_add)


def _remove_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NODE", help="the machine, as it was named to `add`")
    parser.add_argument("--delete-data", action="store_true", help="delete its data directory, too")
    parser.add_argument("--pgdata", default="", metavar="DIRECTORY", help="data directory there (default: as on the members)")
    _common(parser)
    parser.set_defaults(body=_remove, bindir="", weight="", again=False)


def _common(parser: argparse.ArgumentParser) -> None:
    procedure.options(parser, timeout=WAIT, waits_for="each thing; not for a copy")


# ---------------------------------------------------------------- where the work is done


class Job(NamedTuple):
    """A read server, and the two places where work for it is done."""

    name: str
    address: str
    settings: Config
    parameters: Mapping[str, str]
    node: Errand
    cluster: Errand

    @property
    def slot(self) -> str:
        return reader.slot(slot_prefix(self.settings), self.name)

    @property
    def wish(self) -> dict[str, Any]:
        """What the read server's half is told; the secret goes through standard input only."""
        given = self.settings
        return {
            "name": self.name, "address": self.address, "vip": given.reader_vip, "writer": given.writer_vip,
            "parameters": dict(self.parameters), "secret": config.passfile(given) if given.pgsql_reppassword else "",
        }  # fmt: skip

    @property
    def asking(self) -> dict[str, str]:
        """How the primary is asked from a node of the cluster."""
        return asking(self.settings)


def slot_prefix(given: Config) -> str:
    """What the agents' slots begin with."""
    return given.pgsql_replication_slot_name or config.slot_part(given.pgsql_resource)


def asking(given: Config) -> dict[str, str]:
    conninfo = f"host={given.writer_vip} port={given.pgsql_pgport} user={given.pgsql_repuser} dbname=postgres"
    return {"conninfo": f"{conninfo} {given.pgsql_primary_conninfo_opt}".strip(), "passfile": given.pgsql_passfile}


@contextlib.contextmanager
def _job(options: argparse.Namespace, say: Say) -> Iterator[Job]:
    """Reach both places; what was unpacked there is gone afterwards."""
    settings = config.load(options.config)
    with _machines(settings, say) as (_, cluster, far):
        address = _resolve(options.name)
        node = errand.here(reader_node.VERBS, say) if remote.is_here(options.name) else far(options.name, NODE)
        yield Job(options.name, address, settings, parameters(settings, options), node, cluster)


@contextlib.contextmanager
def _machines(settings: Config, say: Say) -> Iterator[tuple[remote.Ssh, Errand, Callable[[str, str], Errand]]]:
    """A shell for other machines, the cluster's half wherever it is, and a way to send errands to one more machine."""
    shell = remote.Ssh()
    places: list[remote.Stage] = []

    def far(machine: str, part: str) -> Errand:
        _require_python(shell, machine)
        (place,) = remote.stage(shell, [machine], remote.library("cls_reader"))
        places.append(place)
        return errand.there(shell, machine, sent(settings, f"{place.folder}/bin/cls_reader", part), say)

    try:
        members = [node for node in settings.nodes if remote.is_here(node)]
        cluster = errand.here(reader_cluster.VERBS, say) if members else far(_first_reached(shell, settings.nodes), CLUSTER)
        yield shell, cluster, far
    finally:
        remote.remove(shell, places)
        shell.close()


def sent(settings: Config, program: str, part: str) -> list[str]:
    """The command that does errands on another machine. Which set is meant goes along: what was unpacked there has no config.ini."""
    return ["env", f"{cli.CHOSEN}={os.environ.get(cli.CHOSEN) or settings.resource_list[0]}", *errand.PYTHON, program, "errand", part]


def _require_python(shell: remote.Ssh, machine: str) -> None:
    """Make sure that commands run there, and ours can."""
    answer = shell(machine, ["test", "-x", errand.PYTHON[0]])
    if answer.code:
        said = answer.output.strip().splitlines()
        why = said[-1] if said else f"there is no {errand.PYTHON[0]}"
        raise EnvironmentFailure(f"{machine}: {why}, expected to run commands as root by ssh", f"try ssh root@{machine} true")


def _first_reached(shell: remote.Ssh, nodes: Sequence[str]) -> str:
    """The first node of the cluster on which commands can be run and Pacemaker answers."""
    for node in nodes:
        if shell(node, ["crmadmin", "--nodes"]).code == 0:
            return node
    raise EnvironmentFailure(
        f"none of the cluster's nodes {' '.join(nodes)} can be reached as root by ssh with Pacemaker running there",
        f"try ssh root@{nodes[0]} crm_mon -1",
    )


def _resolve(name: str) -> str:
    """The address of a name as this machine knows it, numeric."""
    try:
        return str(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as unknown:
        raise ConfigurationError(
            f"NODE: {name!r} does not resolve here: {unknown.strerror}", "put it into /etc/hosts, or name it by its address"
        ) from None


def parameters(settings: Config, options: argparse.Namespace) -> dict[str, str]:
    """The pgsql agent's parameters, with the read server's own paths."""
    given = {**settings.agent_parameters}
    if options.pgdata:
        given["pgdata"] = options.pgdata
        given.pop("datadir", None)
    if options.bindir:
        given.update(bindir=options.bindir, pgctl=f"{options.bindir}/pg_ctl")
    return given


# ---------------------------------------------------------------- add


def _add(options: argparse.Namespace) -> int:
    cli.need_root()
    if options.weight and not (options.weight.isdigit() and int(options.weight) <= 65535):
        raise ConfigurationError(f"--weight is {options.weight!r}, expected a number from 0 to 65535")
    say = procedure.stopwatch()
    with _job(options, say) as job:
        ground = survey(job, again=options.again)
        what = f"{'copy the primary anew to' if reader.copies(ground) else 'finish'} {job.name}, and let readers in"
        risk = "\n".join([*reader.remarks(ground), *_configured(job), what])
        done = procedure.perform(Plan(reader.checks(ground), add_steps(job, ground, options, say), risk, insists=True), options, say)
    if done:
        print(f"{job.name} is a read server")
    return 0


def _configured(job: Job) -> list[str]:
    """config.ini may have a list of its own, which the next cls_setup puts in place of the cluster's."""
    own = job.settings.lvs_readers
    return [f"config.ini has lvs_readers={own!r}: put {job.name} there, too"] if own and job.name not in reader.listed(own) else []


def survey(job: Job, *, again: bool) -> Ground:
    """Look at both places and at what the cluster's nodes take the name for."""
    network = ipaddress.ip_network(f"{job.settings.reader_vip}/{job.settings.vip_cidr_netmask}", strict=False)
    return reader.Ground(
        name=job.name,
        address=job.address,
        members=job.settings.nodes,
        node=job.node("look", **job.wish),
        cluster=job.cluster("look"),
        resolved=_resolved(job),
        same_network=ipaddress.ip_address(job.address) in network,
        again=again,
    )


def _resolved(job: Job) -> dict[str, str | None]:
    """What each node of the cluster takes the name for: an address, nothing (empty), or None where it could not be asked without a password."""
    with contextlib.suppress(ValueError):
        return {node: str(ipaddress.ip_address(job.name)) for node in job.settings.nodes}
    shell = remote.Ssh("BatchMode=yes", "LogLevel=ERROR", "ConnectTimeout=2")
    try:
        with ThreadPoolExecutor(len(job.settings.nodes)) as pool:
            return dict(zip(job.settings.nodes, pool.map(lambda node: _resolved_by(shell, node, job), job.settings.nodes)))
    finally:
        shell.close()


def _resolved_by(shell: remote.Ssh, node: str, job: Job) -> str | None:
    if remote.is_here(node):
        return job.address
    answer = shell(node, ["getent", "ahosts", job.name])
    if answer.code not in {0, 2}:
        return None
    return answer.output.split()[0] if answer.output.split() else ""


def add_steps(job: Job, ground: Ground, options: argparse.Namespace, say: Say) -> list[Step]:
    """What `add` does, in order: nothing of the network changes before the copy streams, no reader comes before all is in place."""
    node, size = ground.node, ground.node.get("primary", {}).get("size", 0)
    copy, name, vip = reader.copies(ground), job.name, job.settings.reader_vip
    listed = reader.listed(ground.cluster["readers"])
    in_pool = reader.pooled(ground.cluster["pool"], name, job.address) is not None
    weight = options.weight
    streaming, slot_left = seen_streaming(job)
    slots: list[Step] = [
        Step(
            f"drop the slot {job.slot}, which an interrupted copy has left",
            lambda: job.cluster("free_slot", **job.asking, slot=job.slot),
            not copy or not slot_left,
        ),
        Step(
            f"copy the primary to {job.parameters['pgdata']} on {name} ({reader.megabytes(size)}), slot {job.slot}",
            lambda: job.node("clone", **job.wish, slot=job.slot, replace=options.again),
            not copy,
        ),
    ]
    return [
        Step(f"lay the passfile on {name}", lambda: job.node("secret", **job.wish), bool(node.get("prepared"))),
        *([Step(f"stop PostgreSQL on {name}", lambda: job.node("stop", **job.wish, keep=True), not node.get("running"))] if copy else []),
        *slots,
        Step(
            f"make it a standby of {job.settings.writer_vip} that calls itself {name}",
            lambda: job.node("configure", **job.wish),
            not copy and bool(node.get("configured")),
        ),
        Step(f"start PostgreSQL on {name}", lambda: job.node("start", **job.wish), not copy and bool(node.get("settled"))),
        Step(f"wait until {name} streams", lambda: streams(job, options.timeout, say), not copy and streaming),
        Step(f"drop the slot {job.slot}", lambda: job.cluster("free_slot", **job.asking, slot=job.slot), not copy and not slot_left),
        Step(f"answer no ARP for {vip} on {name}, and carry it on lo", lambda: job.node("attach", **job.wish), bool(node.get("carries"))),
        Step(
            f"reach {name} from the cluster",
            lambda: job.cluster("reach", address=job.address, port=job.settings.pgsql_pgport),
            name in listed and in_pool,
        ),
        Step(
            f"put {name} into `readers` of {ground.cluster['director'] or 'the director'}",
            lambda: job.cluster("put", name=name, weight=weight),
            name in listed and weight in {"", listed[name]},
        ),
        Step(f"wait until {name} is in the pool", lambda: joins(job, options.timeout, say), in_pool),
    ]


def seen_streaming(job: Job) -> tuple[bool, bool]:
    """Whether the primary sees the server stream, and whether it keeps a slot of a copy; where it cannot be asked, that is found out later."""
    try:
        answer = job.cluster("receivers", **job.asking)
    except EnvironmentFailure:
        return False, True
    found = reader.replica_of(reader_cluster.replicas_of(answer), job.name, "")
    return found is not None and replicas.is_server(found), job.slot in answer["slots"]


def streams(job: Job, limit: float, say: Say) -> None:
    """Wait until the primary sees it stream."""

    def missing() -> str:
        found = reader.replica_of(reader_cluster.replicas_of(job.cluster("receivers", **job.asking)), job.name, "")
        if found is None:
            return f"{job.name} is not connected to the primary"
        if replicas.is_server(found):
            return ""
        return f"{job.name} is connected, its state is {found.state}" + (
            f", {reader.megabytes(found.lag_bytes)} behind" if found.lag_bytes > 0 else ""
        )

    left = procedure.wait(missing, limit, say)
    if left:
        seen = job.node("condition", **job.wish)
        why = f": {seen['complaint']}" if seen["complaint"] else ""
        raise ClusterRefusal(
            f"{left} after {limit:g} s, {'PostgreSQL runs there' if seen['running'] else 'PostgreSQL does not run there'}{why}",
            f"correct the cause, then run the command again; cls_reader add --again {job.name} copies anew",
        )


def joins(job: Job, limit: float, say: Say) -> None:
    """Wait until the director has it in its table."""

    def missing() -> str:
        seen = job.cluster("pool")
        if not seen["runs"]:
            return "the director runs on no node"
        return "" if reader.pooled(seen["pool"], job.name, job.address) else f"the director on {seen['runs']} has not got it yet"

    left = procedure.wait(missing, limit, say)
    if left:
        raise ClusterRefusal(f"{left} after {limit:g} s; {job.name} itself is ready", "cls_status shows the director; its log says what it misses")


# ---------------------------------------------------------------- remove


def _remove(options: argparse.Namespace) -> int:
    cli.need_root()
    say = procedure.stopwatch()
    settings = config.load(options.config)
    if options.name.lower() in {node.lower() for node in settings.nodes}:
        raise ConfigurationError(
            f"{options.name} is a member of the cluster, expected a read server", f"cls_standby_node {options.name} takes a member out of service"
        )
    with _machines(settings, say) as (_, cluster, far):
        node, lost = _node_or_why(options.name, far, say)
        job = Job(options.name, _resolve(options.name), settings, parameters(settings, options), node, cluster)
        reached = must(f"{options.name} can be reached", None if lost else True, lost)
        risk = f"take {job.name} out of service{' and delete its data' if options.delete_data else ''}"
        done = procedure.perform(Plan([reached], remove_steps(job, options, say, there=not lost), risk, insists=True), options, say)
    if done and lost:
        raise ClusterRefusal(
            f"{job.name} is out of the pool, but it could not be reached, and carries {settings.reader_vip} and runs PostgreSQL if it is up: {lost}",
            f"run cls_reader remove {job.name} again when it can be reached",
        )
    if done:
        print(f"{job.name} is no read server any more")
    return 0


def _node_or_why(name: str, far: Callable[[str, str], Errand], say: Say) -> tuple[Errand, str]:
    """The way to the machine, or why there is none: a dead one must leave the pool all the same."""
    if remote.is_here(name):
        return errand.here(reader_node.VERBS, say), ""
    try:
        return far(name, NODE), ""
    except EnvironmentFailure as lost:
        return errand.here({}, say), lost.message


def remove_steps(job: Job, options: argparse.Namespace, say: Say, *, there: bool) -> list[Step]:
    """What `remove` does: readers first, then the address, then the server; what keeps nothing alive any more last."""
    seen = job.cluster("look")
    name = job.name
    pooled, listed = reader.pooled(seen["pool"], name, job.address) is not None, name in reader.listed(seen["readers"])
    cluster = [
        Step(f"take {name} out of `readers` of {seen['director'] or 'the director'}", lambda: job.cluster("put", name=name, out=True), not listed),
        Step(f"wait until {name} has left the pool, its connections drained", lambda: leaves(job, options.timeout, say), not pooled and not listed),
    ]
    machine = [
        Step(f"give {job.settings.reader_vip} up on {name}, and its ARP settings back", lambda: job.node("detach", **job.wish)),
        Step(f"stop PostgreSQL on {name}", lambda: job.node("stop", **job.wish)),
        Step(
            f"forget {name}: passfile and notes{', and delete ' + job.parameters['pgdata'] if options.delete_data else ''}",
            lambda: job.node("forget", **job.wish, delete=options.delete_data),
        ),
    ]
    slot = Step(f"drop the slot {job.slot}, if there is one", lambda: job.cluster("free_slot", **job.asking, slot=job.slot), not seen["primary"])
    return [*cluster, *(machine if there else []), slot]


def leaves(job: Job, limit: float, say: Say) -> None:
    """Wait until the director has it no more."""

    def missing() -> str:
        seen = job.cluster("pool")
        row = reader.pooled(seen["pool"], job.name, job.address) if seen["runs"] else None
        return f"{job.name} is in the pool with weight {row.weight} and {row.active} connections" if row else ""

    left = procedure.wait(missing, limit, say)
    if left:
        raise ClusterRefusal(f"{left} after {limit:g} s", "run the command again, with a longer --timeout than the director's drain_time")


# ---------------------------------------------------------------- list


def _list(options: argparse.Namespace) -> int:
    cli.need_root()
    settings = config.load(options.config)
    with _machines(settings, lambda text: print(text, file=sys.stderr)) as (_, cluster, _far):
        found = standings(settings, cluster)
    if options.json:
        import json

        print(json.dumps([one._asdict() for one in found], indent=2))
    else:
        print(table(found))
    return 0


def standings(settings: Config, cluster: Errand) -> list[Standing]:
    """Every read server that the director is told of, or that streams and is no member."""
    seen, asked = cluster("look"), asking(settings)
    try:
        answer = cluster("receivers", **asked)
    except EnvironmentFailure as silent:
        print(f"the primary could not be asked: {silent}", file=sys.stderr)
        answer = {"replicas": [], "slots": {}, "oldest": None}
    found = reader_cluster.replicas_of(answer)
    members = {node.lower() for node in settings.nodes}
    strangers = [one.name for one in found if replicas.is_server(one) and one.name.lower() not in members]
    copying = [slot for slot in answer["slots"] if slot.startswith(reader.slot_beginning(slot_prefix(settings)))]
    for slot in copying:
        print(
            f"the slot {slot} keeps WAL on the primary for a copy\nHINT: cls_reader add finishes it, cls_reader remove gives it up", file=sys.stderr
        )
    names = dict.fromkeys([*reader.listed(seen["readers"]), *strangers])
    return [_standing(name, seen, answer, lambda address: cluster("tell", **asked, address=address)["told"]) for name in names]


def _standing(name: str, seen: Mapping[str, Any], answer: Mapping[str, Any], ask: Callable[[str], list[Any] | None]) -> Standing:
    with contextlib.suppress(ConfigurationError):
        address = _resolve(name)
        return _known(name, address, seen, answer, ask)
    return reader.Standing(name, "", "unknown", f"{name} does not resolve here")


def _known(name: str, address: str, seen: Mapping[str, Any], answer: Mapping[str, Any], ask: Callable[[str], list[Any] | None]) -> Standing:
    row = reader.replica_of(reader_cluster.replicas_of(answer), name, address)
    said = None if reader.receives(row) else ask(address)
    state, hint = reader.state(row, reader.Told(*said) if said else None, seen["eras"], answer["oldest"], name)
    if name not in reader.listed(seen["readers"]) and not hint:
        hint = f"not in the pool: cls_reader add {name}"
    pooled = reader.pooled(seen["pool"], name, address)
    return reader.Standing(
        name, address, state, hint,
        lag_bytes=row.lag_bytes if row and row.lag_bytes != replicas.NOTHING else None,
        lag_seconds=row.lag_seconds if row else None,
        weight=pooled.weight if pooled else None,
        active=pooled.active if pooled else None,
        inactive=pooled.inactive if pooled else None,
        slot=next((slot for slot in answer["slots"] if slot.endswith(reader.slot("", name))), None),
    )  # fmt: skip


COLUMNS = ("NAME", "ADDRESS", "STATE", "LAG BYTES", "LAG S", "WEIGHT", "ACTIVE", "INACTIVE", "SLOT")


def table(found: Sequence[Standing]) -> str:
    """The list for people: a line each, and a hint under it where something is to be done."""
    if not found:
        return "there are no read servers outside of the cluster"
    rows = [COLUMNS, *(_cells(one) for one in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    for place, one in reversed(list(enumerate(found, 1))):
        if one.hint:
            lines.insert(place + 1, f"    HINT: {one.hint}")
    return "\n".join(lines)


def _cells(one: Standing) -> tuple[str, ...]:
    """One line's cells; `-` where nothing is known."""
    seconds = None if one.lag_seconds is None else f"{one.lag_seconds:.1f}"
    values = (one.name, one.address, one.state, one.lag_bytes, seconds, one.weight, one.active, one.inactive, one.slot)
    return tuple("-" if value in {None, ""} else str(value) for value in values)
