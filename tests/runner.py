"""What `tests/run` does once there is a Python: packages, tools, checks, tests.

Everything that runs a cluster runs in namespaces of its own that end with this process, however it ends: no interrupt leaves anything behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path[:0] = [ROOT]

from pha4pgsql import packages, paths  # noqa: E402  the line above finds it
from pha4pgsql.words import EnvironmentFailure, Failure  # noqa: E402

TOOLS = f"{ROOT}/.venv"
PYTHON = f"{TOOLS}/bin/python"
REQUIREMENTS = f"{ROOT}/tests/requirements.txt"
CHECKS = (
    ("ruff check", "-m", "ruff", "check", "--quiet", "."),
    ("ruff format", "-m", "ruff", "format", "--check", "--quiet", "."),
    ("mypy", "-m", "mypy"),
)
PURE, LIVE = ("pha4pgsql", "tests/pure"), ("tests/live",)
UNKNOWN = 111

APART = (
    "setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child=SIGKILL", "--mount", "--mount-proc", "--",
    "sh", "-c", 'mount -t tmpfs -o mode=755 tests /run && mkdir -m 1777 /run/tmp && "$@"; exit $?', "sh",
)  # fmt: skip
"""Process 1 of the namespaces is a shell that collects orphans; labs and temporary files lie in a /run that nobody else sees."""


def main(arguments: list[str]) -> int:
    pure, live = "--live" not in arguments, "--pure" not in arguments
    options = [word for word in arguments if word not in {"--pure", "--live"}]
    os.chdir(ROOT)
    try:
        prepare(live=live)
    except Failure as failure:
        print(f"tests/run: {failure}", file=sys.stderr)
        return UNKNOWN
    failed = [name for name, *command in CHECKS if pure and not passes(name, command)]
    if not test([*(PURE if pure else ()), *(LIVE if live else ())], options, apart=live and not os.environ.get("LAB")):
        failed.append("pytest")
    if failed:
        print(f"tests/run: failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def prepare(*, live: bool) -> None:
    """Install what is missing; refuse where the tests could not run."""
    root = os.geteuid() == 0
    if live and not root:
        raise EnvironmentFailure("not root, expected to be run as root: the live tests build clusters", "sudo tests/run, or tests/run --pure")
    missing = packages.missing("/usr/lib/ocf", (*packages.NEEDS, *packages.LAB, *packages.KERNEL, *packages.TESTS))
    if missing and not root:
        raise EnvironmentFailure(f"not root, and these packages are missing: {' '.join(missing)}", f"sudo apt-get install {' '.join(missing)}")
    if missing:
        packages.install(missing)
    paths.use_packages()
    if live:
        from pha4pgsql.lab_up import check_machine
        from pha4pgsql.lab_words import Plan

        check_machine(Plan("tests"), bare=True)
    install_tools()


def install_tools() -> None:
    """Make .venv from tests/requirements.txt; one that was made from the same text is used again."""
    with open(REQUIREMENTS, encoding="utf-8") as stream:
        wanted = f"{ROOT} {sys.version}\n{stream.read()}"
    stamp = f"{TOOLS}/made-from"
    try:
        with open(stamp, encoding="utf-8") as stream:
            if stream.read() == wanted:
                return
    except OSError:
        print(f"tests/run: making {TOOLS}", flush=True)
    shutil.rmtree(TOOLS, ignore_errors=True)
    for command in (
        ("/usr/bin/python3", "-m", "venv", "--system-site-packages", TOOLS),
        (PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", REQUIREMENTS),
    ):
        if subprocess.run(command, check=False).returncode:
            raise EnvironmentFailure(f"{' '.join(command)} failed, see above", "is the Python package index reachable?")
    with open(stamp, "w", encoding="utf-8") as stream:
        stream.write(wanted)


def passes(name: str, command: list[str]) -> bool:
    print(f"tests/run: {name}", flush=True)
    return subprocess.run([PYTHON, *command], check=False).returncode == 0


def test(places: list[str], options: list[str], *, apart: bool) -> bool:
    """Run pytest, once for all places, so that its last line tells of all; Ctrl-C is pytest's, which then cleans up.

    A developer's own lab (LAB=name) lies in the /run that all see.
    """
    given = any(os.path.exists(word.partition("::")[0]) for word in options)
    command = [PYTHON, "-m", "pytest", *options, *([] if given else places)]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    if apart:
        command = [*APART, *command, "--no-skips"]
        environment["TMPDIR"] = "/run/tmp"
    signal.signal(signal.SIGINT, lambda _number, _frame: None)
    return subprocess.run(command, env=environment, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
