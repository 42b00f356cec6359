"""The parameters of the load balancing agents -> what they mean: weights, options of a virtual service, addresses. Every mistake is named.

Layer 2: pure. A reader returns the value and the mistakes; a value with mistakes is good enough for a stop.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, NamedTuple

from pha4pgsql.lvs_words import Configuration, Daemon, Role, Service

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Weights = tuple[tuple[str, int], ...]


class Mistake(NamedTuple):
    """A parameter that cannot be what it is; `parameter` names it."""

    parameter: str
    message: str
    hint: str = ""


HIGHEST_WEIGHT = 65535
HIGHEST_MARK = 2**32 - 1
HIGHEST_SYNC_ID = 255
LONGEST_PERSISTENCE = 31 * 86400
"""MAX_TIMEOUT of ipvsadm."""
LONGEST_SCHEDULER = 15
"""IP_VS_SCHEDNAME_MAXLEN with its zero byte is 16."""

PERSISTENT, ONE_PACKET = 0x1, 0x4
FLAGS = {"flag-1": 0x8, "flag-2": 0x10, "flag-3": 0x20, "sh-fallback": 0x8, "sh-port": 0x10, "mh-fallback": 0x8, "mh-port": 0x10}
"""What ipvsadm calls IP_VS_SVC_F_SCHED1 to 3."""

HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:%")


class DirectorSettings(NamedTuple):
    """The parameters of lvsdr. sound: nothing is wrong with them. fingerprint: of their texts, to notice a change."""

    resource: str
    configuration: Configuration
    heartbeat_file: str = ""
    fingerprint: str = ""
    sound: bool = True


class RealServerSettings(NamedTuple):
    """The parameters of lvsdr-realsvr. label: of an IPv4 address, empty for none."""

    resource: str
    vip: str
    ipv6: bool = False
    label: str = "lo:0"
    daemon: Daemon | None = None


def is_host(word: str) -> bool:
    """Whether a word can be the name or the address of a host.

    >>> [is_host(word) for word in ("node1", "fd00::1", "ERROR!", "-h", "")]
    [True, True, False, False, False]
    """
    return bool(word) and set(word) <= HOST_CHARACTERS and word[0] not in "-.%"


def read_weights(parameter: str, words: Sequence[str], default: int) -> tuple[Weights, list[Mistake]]:
    """Read `host,weight host ...`; an entry without weight has the default one. Of two entries for a host the last counts.

    >>> read_weights("w", ("node1,3", "node2"), 1)
    ((('node1', 3), ('node2', 1)), [])
    """
    found: dict[str, int] = {}
    mistakes = []
    for word in words:
        host, comma, text = word.partition(",")
        if not is_host(host):
            mistakes.append(Mistake(parameter, f"{parameter} has {word!r}, expected host or host,weight"))
        elif comma and not (text.isascii() and text.isdigit() and int(text) <= HIGHEST_WEIGHT):
            mistakes.append(Mistake(parameter, f"{parameter} has {word!r}, expected a weight from 0 to {HIGHEST_WEIGHT} after the comma"))
        else:
            found.pop(host, None)
            found[host] = int(text) if comma else default
    return tuple(found.items()), mistakes


class _Options:
    """The words of `ipvsadm -A` one after the other."""

    def __init__(self, text: str) -> None:
        self.words = [piece for word in text.split() for piece in _pieces(word)]
        self.mistakes: list[Mistake] = []

    def value(self, option: str) -> str:
        """The word after an option that needs one."""
        if self.words:
            return self.words.pop(0)
        self.fault(f"{option} needs a value")
        return ""

    def optional(self) -> str:
        """The number after an option that may have one."""
        return self.words.pop(0) if self.words and not self.words[0].startswith("-") else ""

    def fault(self, message: str) -> None:
        hint = "It takes -s SCHEDULER, -p [SECONDS], -M NETMASK, -b FLAGS, and with fwmark -o, as ipvsadm does."
        self.mistakes.append(Mistake("virtual_service_options", f"virtual_service_options: {message}", hint))


def _pieces(word: str) -> list[str]:
    """Take `--name=value` and `-p300` apart.

    >>> _pieces("--persistent=300"), _pieces("-p300"), _pieces("-s"), _pieces("rr")
    (['--persistent', '300'], ['-p', '300'], ['-s'], ['rr'])
    """
    if word.startswith("--") and "=" in word:
        name, _, value = word.partition("=")
        return [name, value]
    return [word[:2], word[2:]] if word.startswith("-") and not word.startswith("--") and len(word) > 2 else [word]


def read_options(text: str, service: Service) -> tuple[Service, list[Mistake]]:
    """Read virtual_service_options into a service of which address, port and mark are known. Without -s the scheduler is wlc, as for ipvsadm.

    >>> read_options("-s wrr -p 300 -M 255.255.255.0", Service("1.2.3.4", 1))[0][4:]
    ('wrr', 1, 300, 24)
    """
    options, found = _Options(text), service._replace(scheduler="wlc")
    while options.words:
        word = options.words.pop(0)
        if word in ("-s", "--scheduler"):
            found = found._replace(scheduler=_scheduler(options, options.value(word)))
        elif word in ("-p", "--persistent"):
            found = found._replace(flags=found.flags | PERSISTENT, persistence=_persistence(options, options.optional()))
        elif word in ("-M", "--netmask"):
            found = found._replace(prefix=_prefix(options, options.value(word), ipv6=service.ipv6))
        elif word in ("-b", "--sched-flags"):
            found = found._replace(flags=found.flags | _flags(options, options.value(word)))
        elif word in ("-o", "--ops"):
            found = _one_packet(options, found)
        else:
            options.fault(f"{word} is not an option that fits here")
    return found, options.mistakes


def _one_packet(options: _Options, service: Service) -> Service:
    if not service.fwmark:
        options.fault("-o is for UDP, and the service is for TCP")
        return service
    return service._replace(flags=service.flags | ONE_PACKET)


def _scheduler(options: _Options, text: str) -> str:
    if text and text.replace("_", "").replace("-", "").isalnum() and text.isascii() and len(text) <= LONGEST_SCHEDULER and text[0] != "-":
        return text
    if text:
        options.fault(f"the scheduler is {text!r}, expected a name such as rr, wrr, lc, wlc, sh, mh")
    return "wlc"


def _persistence(options: _Options, text: str) -> int:
    if not text:
        return 300
    if text.isascii() and text.isdigit() and 1 <= int(text) <= LONGEST_PERSISTENCE:
        return int(text)
    options.fault(f"-p is {text!r}, expected 1 to {LONGEST_PERSISTENCE} seconds")
    return 300


def _prefix(options: _Options, text: str, *, ipv6: bool) -> int:
    """A netmask as ipvsadm takes it: dotted for IPv4, a length for IPv6. Only masks without holes."""
    if ipv6 and text.isascii() and text.isdigit() and 1 <= int(text) <= 128:
        return int(text) % 128
    try:
        mask = int(IPv4Address(text)) if not ipv6 else 0
    except ValueError:
        mask = 0
    length = mask.bit_count() if hasattr(mask, "bit_count") else bin(mask).count("1")
    if mask and mask == (0xFFFFFFFF << (32 - length)) & 0xFFFFFFFF:
        return length % 32
    if text:
        options.fault(f"-M is {text!r}, expected {'a prefix length from 1 to 128' if ipv6 else 'a netmask such as 255.255.255.0'}")
    return 0


def _flags(options: _Options, text: str) -> int:
    found = 0
    for name in filter(None, text.split(",")):
        if name in FLAGS:
            found |= FLAGS[name]
        else:
            options.fault(f"-b has {name!r}, expected some of {', '.join(FLAGS)}")
    return found


def read_address(parameter: str, text: str) -> tuple[str, bool, list[Mistake]]:
    """An address as it is printed, whether it is an IPv6 one, and what is wrong with it."""
    try:
        address = ip_address(text)
    except ValueError:
        seen = f"{parameter} is {text!r}" if text else f"{parameter} is not set"
        return "", False, [Mistake(parameter, f"{seen}, expected an IPv4 or IPv6 address", f"Set {parameter} to the reader address.")]
    return str(address), isinstance(address, IPv6Address), []


def read_daemon(values: Mapping[str, object], role: Role) -> tuple[Daemon | None, list[Mistake]]:
    """The synchronisation daemon that the parameters ask for, if any."""
    if not values["sync_daemon"]:
        return None, []
    interface, number = str(values["sync_interface"]), int(str(values["sync_id"]))
    mistakes = []
    if not interface or len(interface) > 15 or "/" in interface or " " in interface:
        hint = "Set it to the interface that the nodes share, such as eth0."
        mistakes.append(Mistake("sync_interface", f"sync_interface is {interface!r}, needed with sync_daemon", hint))
    if number > HIGHEST_SYNC_ID:
        mistakes.append(Mistake("sync_id", f"sync_id is {number}, expected 0 to {HIGHEST_SYNC_ID}"))
    return Daemon(role, interface, number), mistakes


def read_director(values: Mapping[str, object]) -> tuple[Configuration, list[Mistake]]:
    """The configuration of lvsdr from the values of its parameters, and everything that is wrong with it."""
    address, ipv6, mistakes = read_address("vip", str(values["vip"]))
    port, mark = int(str(values["port"])), int(str(values["fwmark"]))
    bare = Service(fwmark=mark, ipv6=ipv6) if mark else Service(address, port, ipv6=ipv6)
    service, faults = read_options(str(values["virtual_service_options"]), bare)
    weights, more = read_weights("weight_of_realservers", _words(values["weight_of_realservers"]), int(str(values["default_weight"])))
    readers, others = read_weights("readers", _words(values["readers"]), int(str(values["default_weight"])))
    ports, wrong = _ports(values, port)
    daemon, missing = read_daemon(values, Role.MASTER)
    threshold, bad = _threshold(_words(values["sync_threshold"]))
    mistakes += [*faults, *more, *others, *wrong, *missing, *bad, *_check_numbers(values), *_check_replicas(values)]
    attribute = str(values["realserver_dependent_attribute_name"])
    return Configuration(
        service, port, int(str(values["default_weight"])), weights, str(values["realserver_dependent_resource"]),
        "" if attribute == "-" else attribute, str(values["realserver_dependent_attribute_value"]),
        str(values["realserver_get_real_servers_script"]), str(values["realserver_check_active_real_server_script"]),
        readers, str(values["conninfo"]), str(values["passfile"]),
        int(str(values["max_lag_bytes"])), float(str(values["max_lag_seconds"])), int(str(values["lag_weight"])),
        float(str(values["drain_time"])), bool(values["fallback_to_primary"]),
        float(str(values["check_interval"])), float(str(values["check_timeout"])), float(str(values["script_timeout"])),
        daemon, threshold, address, ports,
    ), mistakes  # fmt: skip


def _words(value: object) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else ()


def _ports(values: Mapping[str, object], port: int) -> tuple[tuple[int, ...], list[Mistake]]:
    """The ports that get the mark: `port` itself unless they are named."""
    found, mistakes = [], []
    for word in _words(values["fwmark_ports"]):
        if word.isascii() and word.isdigit() and 1 <= int(word) <= 65535:
            found.append(int(word))
        else:
            mistakes.append(Mistake("fwmark_ports", f"fwmark_ports has {word!r}, expected ports from 1 to 65535"))
    if found and not int(str(values["fwmark"])):
        mistakes.append(Mistake("fwmark_ports", "fwmark_ports is set without fwmark", "Set fwmark to a number that no other rule uses."))
    return tuple(dict.fromkeys(found)) or (port,), mistakes


def _threshold(words: Sequence[str]) -> tuple[tuple[int, int], list[Mistake]]:
    """Of the kernel: the first number is below the second."""
    if len(words) == 2 and all(word.isascii() and word.isdigit() for word in words) and int(words[0]) < int(words[1]):
        return (int(words[0]), int(words[1])), []
    return (0, 1), [
        Mistake("sync_threshold", f"sync_threshold is {' '.join(words)!r}, expected two numbers, the first below the second, such as 0 1")
    ]


def _check_numbers(values: Mapping[str, object]) -> list[Mistake]:
    """Numbers within what the kernel takes, and times that are none of waiting for ever or not at all."""
    limits: dict[str, tuple[float, float]] = {
        "port": (1, 65535), "default_weight": (0, HIGHEST_WEIGHT), "lag_weight": (0, HIGHEST_WEIGHT), "fwmark": (0, HIGHEST_MARK),
        "check_interval": (0.05, 60), "check_timeout": (0.05, 60), "script_timeout": (0.1, 3600),
    }  # fmt: skip
    found = []
    for name, (least, most) in limits.items():
        number = float(str(values[name]))
        if not least <= number <= most:
            seen = "is not set" if name == "port" and not number else f"is {number:g}"
            found.append(Mistake(name, f"{name} {seen}, expected {least:g} to {most:g}"))
    return found


def _check_replicas(values: Mapping[str, object]) -> list[Mistake]:
    """What only the primary can tell needs a way to ask it."""
    asking = [name for name in ("readers", "max_lag_bytes", "max_lag_seconds") if values[name]]
    if not asking or values["conninfo"]:
        return []
    hint = "Set conninfo to a connection string that leads to the primary, such as host=WRITER_VIP user=replication dbname=postgres."
    return [Mistake("conninfo", f"conninfo is not set, needed with {' and '.join(asking)}", hint)]


def read_real_server(values: Mapping[str, object], resource: str) -> tuple[RealServerSettings, list[Mistake]]:
    """The settings of lvsdr-realsvr from the values of its parameters, and everything that is wrong with them."""
    address, ipv6, mistakes = read_address("vip", str(values["vip"]))
    daemon, missing = read_daemon(values, Role.BACKUP)
    label = str(values["nic_lo"])
    if label.partition(":")[0] != "lo" or len(label) > 15 or not label.isascii() or " " in label or "/" in label:
        hint = "The kernel does not answer for addresses of the loopback interface; on any other it would."
        mistakes.append(Mistake("nic_lo", f"nic_lo is {label!r}, expected lo or lo with a label, such as lo:0", hint))
    return RealServerSettings(resource, address, ipv6, label if ":" in label and not ipv6 else "", daemon), [*mistakes, *missing]
