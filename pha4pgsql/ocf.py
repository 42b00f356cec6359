"""The OCF resource agent interface: metadata from the parameter table, exit codes, exit reasons, and the way from a call to an action.

Layer 4. Loaded by every call of an agent: nothing heavy is imported here (no argparse, logging, xml, subprocess, SQL).
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

from pha4pgsql import validation
from pha4pgsql.parameters import AGENTS, PGSQL, PGWATCH, Agent, Parameter, Status
from pha4pgsql.paths import use_packages
from pha4pgsql.settings import Code, Context, Notify, Problem, Settings, read_context
from pha4pgsql.words import ConfigurationError, EnvironmentFailure, Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Actions = Mapping[str, Callable[[Any, Context], int]]

__all__ = ["Code", "Context", "Notify", "Problem", "Settings", "exit_reason", "log", "main", "metadata"]


def log(level: str, message: str) -> None:
    """One line for Pacemaker's log, which takes what an agent writes to standard error. Level: DEBUG, INFO, WARNING or ERROR.

    DEBUG is written only if the cluster's debugging is on (HA_debug).
    """
    if level != "DEBUG" or os.environ.get("HA_debug", "0") not in ("", "0"):  # noqa: SIM112  the name is Pacemaker's
        sys.stderr.write(f"{level}: {_one_line(message)}\n")


def exit_reason(message: str) -> None:
    """Tell Pacemaker why the action fails; crm_mon shows it. The last one counts."""
    prefix = os.environ.get("OCF_EXIT_REASON_PREFIX", "ocf-exit-reason:")
    sys.stderr.write(f"{prefix}{_one_line(message)}\n")


def _one_line(message: str) -> str:
    return " ".join(message.split())


def main(name: str, load: Callable[[], Actions], argv: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """One call of the agent `name`; returns the exit code. `load` imports and returns its actions, only when one of them is needed."""
    started = time.monotonic()
    agent = AGENTS[name]
    if len(argv) != 1:
        sys.stderr.write(usage(agent))
        return Code.ERROR
    if argv[0] in DOCUMENTS:
        sys.stdout.write(DOCUMENTS[argv[0]](agent))
        return Code.SUCCESS
    if argv[0] not in {row.name for row in agent.actions}:
        exit_reason(f"{argv[0]} is not an action of {name}")
        sys.stderr.write(usage(agent))
        return Code.UNIMPLEMENTED
    return _call(agent, load, argv[0], os.environ if environment is None else environment, started)


def _call(agent: Agent, load: Callable[[], Actions], action: str, environment: Mapping[str, str], started: float) -> int:
    """Read, validate, then run the action if nothing is wrong, or if it has to be done all the same."""
    judge = _judge(agent)
    settings, problems = judge.read(agent, environment)
    context = read_context(action, environment, started, _ask_node, "pgsql" if agent is PGWATCH else agent.name)
    if unwritten := judge.arrive(settings):
        log("WARNING", unwritten)
    problems += judge.check(agent, settings, context)
    if action == "validate-all":
        for line in judge.advice(agent, environment):
            log("WARNING", line)
        return _report(problems)
    if problems and (code := _answer_for(agent, settings, action, problems)) is not None:
        return code
    if not problems and action in ("promote", "demote") and not settings.replicated:
        exit_reason(f"rep_mode is {settings.rep_mode.value}: there is nothing to {action} without replication")
        return Code.UNIMPLEMENTED
    return _perform(agent, load, settings, context)


def _judge(agent: Agent) -> Any:  # noqa: ANN401  two modules with the same functions, each for settings of its own
    """The module that reads and judges the parameters of an agent."""
    if agent in (PGSQL, PGWATCH):
        return validation
    from pha4pgsql import lvs_validation

    return lvs_validation


def _answer_for(agent: Agent, settings: Settings, action: str, problems: tuple[Problem, ...]) -> Code | None:
    """The exit code of an action whose validation failed; None if the action has to be done nevertheless.

    Nothing that is broken may make a stop or a probe fail (a node would be fenced because a file is missing), and nothing may make a
    running postmaster look stopped. With wrong parameters it is still stopped, but not asked for its role.
    """
    if agent is not PGSQL:
        if action == "reload":  # what runs goes on with the parameters from before
            _report(problems)
        return None if action in ("stop", "monitor", "status", "reload") else _report(problems)
    runs = validation.postmaster_lives(settings.datadir)
    inherent = any(problem.code is Code.CONFIGURED for problem in problems)
    if runs and (action == "stop" or (not inherent and action in ("monitor", "status", "demote", "notify"))):
        _warn(problems)
        return None
    if not runs and action in ("stop", "monitor", "status"):
        _warn(problems)
        return Code.SUCCESS if action == "stop" else Code.NOT_RUNNING
    code = _report(problems)
    return Code.ERROR if action in ("monitor", "status") else code


def _perform(agent: Agent, load: Callable[[], Actions], settings: Settings, context: Context) -> int:
    """Run the action and turn whatever it raises into an exit code with a reason."""
    try:
        use_packages()
        actions = load()
        name = "monitor" if context.action == "status" and "status" not in actions else context.action
        return int(actions[name](settings, context))
    except Failure as failure:
        log("ERROR", failure.message + (f" HINT: {failure.hint}" if failure.hint else ""))
        return _failed(agent, settings, context.action, failure.message, _code_of(failure))
    except Exception as bug:  # noqa: BLE001  the outermost handler: whatever happens, the cluster is told why
        _print_trace(bug)
        return _failed(agent, settings, context.action, f"internal error: {type(bug).__name__}: {bug}", Code.ERROR)


def _failed(agent: Agent, settings: Settings, action: str, reason: str, code: Code) -> Code:
    """The exit code of an action that did not come to its end. A stop has succeeded if no postmaster lives, and never if one may."""
    if agent is PGSQL and action in ("stop", "monitor", "status") and not validation.postmaster_lives(settings.datadir):
        return Code.SUCCESS if action == "stop" else Code.NOT_RUNNING
    exit_reason(reason)
    return code if action == "start" else Code.ERROR


def _code_of(failure: Failure) -> Code:
    if isinstance(failure, ConfigurationError):
        return Code.CONFIGURED
    return Code.INSTALLED if isinstance(failure, EnvironmentFailure) else Code.ERROR


def _print_trace(bug: Exception) -> None:
    import traceback  # slow to import, rarely needed

    for line in traceback.format_exception(type(bug), bug, bug.__traceback__):
        log("ERROR", line)


def _report(problems: tuple[Problem, ...]) -> Code:
    """Write all problems; the worst one's code: of the configuration first, then as OCF orders them."""
    if not problems:
        return Code.SUCCESS
    for problem in problems:
        log("ERROR", problem.message + (f" HINT: {problem.hint}" if problem.hint else ""))
    worst = max(problems, key=lambda problem: problem.code)
    exit_reason(worst.message)
    return worst.code


def _warn(problems: tuple[Problem, ...]) -> None:
    for problem in problems:
        log("WARNING", problem.message)


def _ask_node() -> str:
    """The name of this node in the cluster; outside of a cluster the machine's."""
    from pha4pgsql.system import run  # slow to import; Pacemaker's own calls tell the name

    done = run(["crm_node", "-n"], timeout=5)
    return done.out.strip() if done.ok and done.out.strip() else os.uname().nodename


def methods(agent: Agent) -> str:
    """The names of the actions, one a line."""
    return "".join(f"{name}\n" for name in dict.fromkeys(row.name for row in agent.actions))


def usage(agent: Agent) -> str:
    """How to call the agent."""
    return f"usage: {agent.name} {{{'|'.join(methods(agent).split())}|usage|help}}\n"


def escape(text: str) -> str:
    """Text as it may stand in XML, in an attribute too.

    >>> escape('a < "b" & c')
    'a &lt; &quot;b&quot; &amp; c'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def metadata(agent: Agent) -> str:
    """The agent's metadata: OCF 1.0 with the DTD of resource-agents, which every validator accepts. Refused parameters are left out."""
    parameters = "".join(_parameter_xml(row) for row in agent.parameters if row.status is not Status.REFUSED)
    actions = "".join(
        f'<action name="{row.name}" timeout="{row.timeout}"'
        + (f' interval="{row.interval}" depth="0"' if row.interval else "")
        + (f' role="{row.role}"' if row.role else "")
        + " />\n"
        for row in agent.actions
    )
    return (
        '<?xml version="1.0"?>\n'
        '<!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd">\n'
        f'<resource-agent name="{agent.name}" version="1.0">\n'
        "<version>1.0</version>\n"
        f'<longdesc lang="en">\n{escape(agent.long)}\n</longdesc>\n'
        f'<shortdesc lang="en">{escape(agent.short)}</shortdesc>\n'
        f"<parameters>\n{parameters}</parameters>\n"
        f"<actions>\n{actions}</actions>\n"
        "</resource-agent>\n"
    )


def _parameter_xml(row: Parameter) -> str:
    text = f"{row.long} {row.why[0].upper()}{row.why[1:]}." if row.why else row.long
    default = f' default="{escape(row.default)}"' if row.default else ""
    return (
        f'<parameter name="{row.name}" unique="{row.unique:d}" required="{row.required:d}">\n'
        f'<longdesc lang="en">\n{escape(text)}\n</longdesc>\n'
        f'<shortdesc lang="en">{escape(row.short)}</shortdesc>\n'
        f'<content type="{row.kind.ocf}"{default} />\n'
        "</parameter>\n"
    )


DOCUMENTS = {"meta-data": metadata, "methods": methods, "usage": usage, "help": usage}
