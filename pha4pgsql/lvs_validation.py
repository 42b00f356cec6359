"""The parameters of the load balancing agents from their environment, and what keeps the agents from working.

Layer 4. The same questions as `validation` answers for PostgreSQL. Cheap enough for every call.
"""

from __future__ import annotations

import binascii
import os
import time
from typing import TYPE_CHECKING, Union

from pha4pgsql import lvs_settings
from pha4pgsql.lvs_settings import DirectorSettings, RealServerSettings
from pha4pgsql.parameters import LVSDR, Agent
from pha4pgsql.paths import has_package
from pha4pgsql.settings import Code, Context, Problem, read_values, resource_name
from pha4pgsql.validation import conninfo_keywords, unknown_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Settings = Union[DirectorSettings, RealServerSettings]


def read(agent: Agent, environment: Mapping[str, str]) -> tuple[Settings, tuple[Problem, ...]]:
    """The settings of one of the agents, and what is wrong with their text."""
    values, problems = read_values(agent, environment)
    resource = resource_name(environment, agent.name)
    settings: Settings
    if agent is LVSDR:
        configuration, mistakes = lvs_settings.read_director(values)
        sound = not mistakes and not problems
        settings = DirectorSettings(resource, configuration, str(values["heartbeat_file"]), _fingerprint(environment), sound)
    else:
        settings, mistakes = lvs_settings.read_real_server(values, resource)
    named = {problem.message.partition(" ")[0] for problem in problems}
    problems += [Problem(Code.CONFIGURED, one.message, one.hint) for one in mistakes if one.parameter not in named]
    return settings, tuple(problems)


def _fingerprint(environment: Mapping[str, str]) -> str:
    """Of all parameters as they were given."""
    given = sorted(f"{name}={value}" for name, value in environment.items() if name.startswith("OCF_RESKEY_") and "_CRM_meta_" not in name)
    return f"{binascii.crc32(chr(0).join(given).encode()):08x}"


def arrive(settings: Settings) -> str:
    """Leave a sign of every call in heartbeat_file; what went wrong with it, if anything."""
    if not isinstance(settings, DirectorSettings) or not settings.heartbeat_file:
        return ""
    try:
        with open(settings.heartbeat_file, "w", encoding="ascii") as stream:
            stream.write(f"{int(time.time())}\n")
    except OSError as failure:
        return f"heartbeat_file {settings.heartbeat_file} cannot be written: {(failure.strerror or '').lower()}"
    return ""


def check(agent: Agent, settings: Settings, context: Context) -> tuple[Problem, ...]:
    """What is wrong on this machine, before something is begun."""
    if agent is not LVSDR or not isinstance(settings, DirectorSettings) or context.action not in ("start", "reload", "validate-all"):
        return ()
    return tuple(_check_director(settings))


def _check_director(settings: DirectorSettings) -> Iterator[Problem]:
    from pha4pgsql import lvs, marks  # not needed by a monitor

    configuration = settings.configuration
    if wrong := lvs.fault(configuration.pattern):
        hint = "It is an extended regular expression for the whole value, such as HS:sync|HS:async."
        yield Problem(Code.CONFIGURED, f"realserver_dependent_attribute_value is {configuration.pattern!r}: {wrong}", hint)
    if configuration.wants_replicas and not has_package("psycopg2"):
        hint = "Install the distribution's package python3-psycopg2."
        yield Problem(Code.INSTALLED, "the Python package psycopg2 is not there, needed to ask the primary", hint)
    if configuration.passfile and not os.path.isfile(configuration.passfile):
        yield Problem(Code.ARGS, f"passfile {configuration.passfile} is not there", "Make it, mode 0600: host:port:database:role:password")
    if configuration.service.fwmark and not marks.program(ipv6=configuration.service.ipv6):
        yield Problem(Code.INSTALLED, "iptables is not there, needed with fwmark", "Install the distribution's package iptables.")


def advice(agent: Agent, environment: Mapping[str, str]) -> Iterator[str]:
    """What is allowed and yet worth a word when somebody asks for a validation."""
    yield from unknown_parameters(agent, environment)
    if "password" in conninfo_keywords(environment.get("OCF_RESKEY_conninfo", "")):
        yield "the password in conninfo can be read in the CIB: use passfile"
    for name in ("realserver_get_real_servers_script", "realserver_check_active_real_server_script"):
        if "password=" in environment.get(f"OCF_RESKEY_{name}", ""):
            yield f"the password in {name} can be read in the CIB and in the list of processes: use a password file"
