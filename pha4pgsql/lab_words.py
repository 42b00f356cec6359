"""What a practice cluster is: its nodes, addresses and options as frozen values, and the files that follow from them."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from pha4pgsql.words import ConfigurationError

ROOM = "/run/pha4pgsql-lab"
"""Every lab has a directory of its name here; inside the nodes it is the directory of the power switch's socket."""

SWITCH = "switch.sock"
SUBNET = "192.168.0.0/24"
CLIENT = "client"
CLIENT_ADDRESS = "192.168.0.240"
LOCK, LOCK_ADDRESS = "lock", "192.168.0.241"
"""A further address of the client: the server of the distributed lock, when there is one, is reached by it alone."""
WRITER_VIP = "192.168.0.236"
READER_VIP = "192.168.0.237"
NIC = "eth0"
INSTALLED = "/opt/pha4pgsql"
PGDATA = "/pgsql/data"
OWN_POSTGRESQL_CONF = "/etc/postgresql-lab.conf"
"""What tells a node's server from its copies: they name themselves, as through the reader address all have the same address."""
TWO = 2
MOST_NODES = 5
"""The seed's addresses: 231 to 235 for nodes and read servers, 236 and 237 for the virtual addresses."""
IPVS_KINDS = ("auto", "host", "uml", "none")
WITH_LVS, WITHOUT_LVS, DUAL = "muti_with_lvs", "muti", "dual"
"""Templates."""

COROSYNC_DEFAULTS = {"token": "1000", "token_coefficient": "0", "consensus": "1200"}
COROSYNC_UML = {"token": "3000", "consensus": "3600"}
"""A kernel in a process has no real-time scheduling: under load it may be late."""


class Node(NamedTuple):
    """A machine of the lab: a member of the cluster, a read server outside of it, or the client. `uml` tells that it has a kernel of its own."""

    name: str
    address: str
    member: bool
    reader: bool = False
    uml: bool = False

    @property
    def mac(self) -> str:
        """The same in every life: the others would go on sending to the old one for half a minute."""
        return ":".join(f"{int(part):02x}" for part in ["2", "0", *self.address.split(".")])


class File(NamedTuple):
    """A file that a node has from its first boot on."""

    path: str
    content: str
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"


class Plan(NamedTuple):
    """All that has to be known to run a lab; kept in its directory as `plan.json`."""

    name: str
    size: int = 3
    bindir: str = "/usr/lib/postgresql/15/bin"
    corosync: tuple[tuple[str, str], ...] = ()
    fencing: bool = True
    template: str = "muti"
    settings: tuple[tuple[str, str], ...] = ()
    disk: str = ""
    ipvs: str = "none"
    """Who has the kernel's IPVS: `host`, the kernel below; `uml`, members with kernels of their own; `none`, nobody."""
    readers: int = 0
    directors: int = 2
    """With `uml`, how many members have kernels of their own, the last ones: each is several times slower than a namespace."""

    @property
    def room(self) -> str:
        return f"{ROOM}/{self.name}"

    @property
    def disks(self) -> str:
        """The directory of the nodes' disks, as the hub sees it: in memory unless `disk` names a place."""
        return f"{self.disk or self.room}/disks-{self.name}"

    @property
    def nodes(self) -> tuple[Node, ...]:
        numbers = range(1, self.size + self.readers + 1)
        return (*(self._server(number) for number in numbers), Node(CLIENT, CLIENT_ADDRESS, member=False))

    def _server(self, number: int) -> Node:
        member = number <= self.size
        own_kernel = self.ipvs == "uml" and member and number > max(self.size - self.directors, min(self.size - 1, 1))
        return Node(f"node{number}", f"192.168.0.{230 + number}", member, not member, own_kernel)

    @property
    def without_ipvs(self) -> tuple[Node, ...]:
        """The members that cannot be directors."""
        return tuple(node for node in self.members if not node.uml and self.ipvs != "host")

    @property
    def members(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.member)

    def node(self, name: str) -> Node:
        """The node of that name; a name that does not exist is the caller's mistake."""
        for node in self.nodes:
            if node.name == name:
                return node
        names = " ".join(node.name for node in self.nodes)
        raise ConfigurationError(f"no node {name} in lab {self.name}, expected one of: {names}", f"cls_lab list --name {self.name}")


def checked(plan: Plan) -> Plan:
    """The plan itself, when a lab can be built from it."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,30}", plan.name):
        raise ConfigurationError(f"--name is {plan.name!r}, expected at most 31 lower-case letters, digits, - or _, beginning with a letter or digit")
    if not 1 <= plan.size <= MOST_NODES:
        raise ConfigurationError(f"--nodes is {plan.size}, expected 1 to {MOST_NODES}")
    if not 0 <= plan.readers <= MOST_NODES - plan.size:
        most = MOST_NODES - plan.size
        raise ConfigurationError(f"--readers is {plan.readers}, expected at most {most}: there are addresses for {MOST_NODES} servers")
    if not 1 <= plan.directors <= MOST_NODES:
        raise ConfigurationError(f"--directors is {plan.directors}, expected 1 to {MOST_NODES}")
    if plan.template == WITH_LVS and plan.ipvs == "none":
        raise ConfigurationError(f"--template is {WITH_LVS} and --ipvs is none, expected a kernel with IPVS", "--ipvs auto")
    return plan


def pair(text: str, option: str) -> tuple[str, str]:
    """`KEY=VALUE` of a command line.

    >>> pair("token=500", "--corosync")
    ('token', '500')
    """
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
        raise ConfigurationError(f"{option} is {text!r}, expected KEY=VALUE")
    return key, value


def to_json(plan: Plan) -> str:
    return json.dumps(plan._asdict(), indent=1) + "\n"


def from_json(text: str) -> Plan:
    """What `to_json` wrote."""
    raw = json.loads(text)
    pairs = {key: tuple((str(name), str(value)) for name, value in raw[key]) for key in ("corosync", "settings")}
    return Plan(**{**raw, **pairs})


def first_files(plan: Plan, node: Node) -> tuple[File, ...]:
    """What the node finds on its disk when it is switched on for the first time."""
    common: tuple[File, ...] = (
        File("/etc/hosts", _hosts(plan)),
        File("/etc/hostname", f"{node.name}\n"),
        File("/etc/machine-id", f"{node.address.rpartition('.')[2]:0>32}\n"),
    )
    if node.member or node.reader:
        common = (*common, File(OWN_POSTGRESQL_CONF, f"cluster_name = '{node.name}'\n"))
    if not node.member:
        return common
    cib = File("/var/lib/pacemaker/cib/cib.xml", _first_cib(), 0o600, "hacluster", "haclient")
    return (*common, File("/etc/corosync/corosync.conf", corosync_conf(plan)), cib)


def _hosts(plan: Plan) -> str:
    lines = ["127.0.0.1 localhost", *(f"{node.address} {node.name}" for node in plan.nodes), f"{LOCK_ADDRESS} {LOCK}"]
    return "\n".join([*lines, f"{WRITER_VIP} writer-vip", f"{READER_VIP} reader-vip", ""])


def corosync_conf(plan: Plan) -> str:
    """`token`, `token_coefficient` and `consensus` always stand in it: what a lab waits for must not depend on a default."""
    totem = {"version": "2", "cluster_name": "pgcluster", "transport": "knet", "crypto_cipher": "none", "crypto_hash": "none"}
    totem.update(COROSYNC_DEFAULTS)
    totem.update(COROSYNC_UML if any(node.uml for node in plan.members) else {})
    totem.update(plan.corosync)
    quorum = {"provider": "corosync_votequorum", **({"two_node": "1"} if plan.size == TWO else {})}
    nodes = [_block("node", {"name": n.name, "nodeid": str(i), "ring0_addr": n.address}, "    ") for i, n in enumerate(plan.members, 1)]
    logging = {"to_logfile": "yes", "logfile": "/var/log/corosync/corosync.log", "to_syslog": "no", "timestamp": "hires"}
    return "".join([_block("totem", totem), "nodelist {\n", *nodes, "}\n", _block("quorum", quorum), _block("logging", logging)])


def _block(name: str, values: dict[str, str], indent: str = "") -> str:
    """Corosync wants a line end after each opening brace."""
    lines = "".join(f"{indent}    {key}: {value}\n" for key, value in values.items())
    return f"{indent}{name} {{\n{lines}{indent}}}\n"


def _first_cib() -> str:
    """An empty configuration, except that nodes which boot look for each other for one second instead of twenty (`dc-deadtime`)."""
    return (
        '<cib crm_feature_set="3.5.0" validate-with="pacemaker-3.9" epoch="1" num_updates="0" admin_epoch="0"><configuration>'
        '<crm_config><cluster_property_set id="cib-bootstrap-options">'
        '<nvpair id="cib-bootstrap-options-dc-deadtime" name="dc-deadtime" value="1s"/>'
        "</cluster_property_set></crm_config><nodes/><resources/><constraints/></configuration><status/></cib>\n"
    )
