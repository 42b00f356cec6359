"""install.sh's work: bring this node, then the others over ssh, to what config.ini says. Running it twice changes nothing the second time.

Every change is planned first, from what is there, and only then made: `--check` prints the plan. All nodes are checked before one is changed.
"""

from __future__ import annotations

import contextlib
import filecmp
import importlib.util
import io
import os
import pwd
import py_compile
import re
import shutil
import stat
import struct
import sys
from typing import TYPE_CHECKING, NamedTuple

from pha4pgsql import arguments, config, packages, paths, remote, system
from pha4pgsql.words import ClusterRefusal, ConfigurationError, EnvironmentFailure, Failure

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from pha4pgsql.config import Config

REFUSED, USAGE, UNKNOWN = 1, 100, 111
"""Exit codes: the cluster says no, or --check has something to change; wrong usage or configuration; this or another machine is at fault."""

OLDEST_POSTGRESQL = 13
PARTS = ("pha4pgsql", "bin", "tools", "agents", "templates")
EXECUTABLE = ("bin", "tools", "agents")
SINGLES = ("install.sh", "config.ini.sample")


class Change(NamedTuple):
    """One thing to do on this node: what it is, in words, and the function that does it."""

    what: str
    do: Callable[[], None]


# ---------------------------------------------------------------- the command line


def main(argv: Sequence[str], source: str) -> int:
    """Run install.sh; `source` is the tree that it stands in."""
    options = _options(argv, source)
    try:
        return _run(options, source)
    except Failure as failure:
        print(f"install.sh: {failure}", file=sys.stderr)
        return USAGE if isinstance(failure, ConfigurationError) else REFUSED if isinstance(failure, ClusterRefusal) else UNKNOWN


def _options(argv: Sequence[str], source: str) -> argparse.Namespace:
    parser = arguments.Parser("install.sh", description="Install pha4pgsql on the nodes of config.ini.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="only say what would change; exit code 1 if anything would")
    what.add_argument("--uninstall", action="store_true", help="remove programs and agents; configuration and state stay")
    what.add_argument("--demo", action="store_true", help="install what a practice cluster on this machine needs, build it, and show a failover")
    parser.add_argument("--local", action="store_true", help="this node only")
    parser.add_argument("--config", metavar="FILE", default=os.path.join(source, "config.ini"), help="default: %(default)s")
    return parser.parse_args(argv)


def _run(options: argparse.Namespace, source: str) -> int:
    if options.demo:
        from pha4pgsql import demo

        return demo.run(source)
    settings = config.load(os.path.abspath(options.config))
    if os.geteuid() != 0:
        raise EnvironmentFailure("not root, expected to be run as root: it installs packages and agents", "sudo ./install.sh")
    job = Job(settings, source, os.path.abspath(options.config))
    if options.local:
        return check(job) if options.check else uninstall(job) if options.uninstall else install(job)
    return _everywhere(job, "--check" if options.check else "--uninstall" if options.uninstall else "")


class Job(NamedTuple):
    """What to install: the configuration, the tree, and the file that the configuration came from."""

    settings: Config
    source: str
    config_file: str


def _everywhere(job: Job, option: str) -> int:
    """Do it here and on the other nodes: all are reached and checked before the first is changed."""
    here = remote.this_node(job.settings.nodes)
    others = [node for node in job.settings.nodes if node != here]
    shell = remote.Ssh()
    places: list[remote.Stage] = []
    try:
        remote.reach(shell, others)
        places.extend(remote.stage(shell, others, remote.pack(job.source, files(job.source), job.config_file)))
        return _on_all(shell, job, here, places, option)
    finally:
        remote.remove(shell, places)
        shell.close()


def _on_all(shell: remote.Ssh, job: Job, here: str, places: Sequence[remote.Stage], option: str) -> int:
    if option != "--uninstall":
        with _told(here):
            code = check(job)
        codes = [code, *(remote.install_on(shell, place, "--check") for place in places)]
        if max(codes) > 1:
            raise EnvironmentFailure(
                "not every node can be installed, see above; nothing was changed on any node", "correct it, then run install.sh again"
            )
        if option == "--check" or not any(codes):
            return max(codes)
    with _told(here):
        (uninstall if option == "--uninstall" else install)(job)
    failed = [place.node for place in places if remote.install_on(shell, place, *([option] if option else []))]
    if failed:
        raise EnvironmentFailure(
            f"not finished on {' '.join(failed)}, see above", "correct it, then run install.sh again: what is done already stays"
        )
    return 0


@contextlib.contextmanager
def _told(node: str) -> Iterator[None]:
    """Put the node's name before what is printed."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            yield
    finally:
        for line in said.getvalue().splitlines():
            print(f"{node}: {line}", flush=True)


# ---------------------------------------------------------------- this node


def check(job: Job) -> int:
    """Say what would change on this node; 1 if anything would. What no installer can give is an EnvironmentFailure."""
    _require_fitness(job)
    changes = [f"install the package {name}" for name in packages.missing(job.settings.ocf_root)] + [change.what for change in plan(job)]
    print("\n".join(f"would {what}" for what in changes) or "nothing to change")
    return int(bool(changes))


def install(job: Job) -> int:
    """Bring this node to what the configuration says."""
    _require_fitness(job)
    missing = packages.missing(job.settings.ocf_root)
    if missing:
        packages.install(missing)
        paths.use_packages()
    done = [_do(change) for change in plan(job)]
    if not done and not missing:
        print("nothing to change")
    return 0


def _do(change: Change) -> Change:
    change.do()
    print(change.what, flush=True)
    return change


def _require_fitness(job: Job) -> None:
    problems = environment_problems(job.settings)
    if problems:
        raise EnvironmentFailure(
            f"this node does not fit {job.config_file}" + "".join(f"\n  {problem}" for problem in problems) + "\nnothing was changed here",
            "correct the file or the node, then run install.sh again",
        )


def environment_problems(settings: Config) -> list[str]:
    """Return what this node lacks that no installer can give: PostgreSQL, its user, a sound data directory."""
    problems = []
    try:
        owner = pwd.getpwnam(settings.pgsql_pgdba).pw_uid
    except KeyError:
        problems.append(f"pgsql_pgdba: no user {settings.pgsql_pgdba!r} in this system, expected the owner of the instance")
        owner = None
    major = _postgresql_major(settings)
    if isinstance(major, str):
        problems.append(major)
    problems += _data_problems(settings, major if isinstance(major, int) else None, owner)
    if settings.vip_nic and not os.path.exists(f"/sys/class/net/{settings.vip_nic}"):
        problems.append(f"vip_nic: no network interface {settings.vip_nic!r}, expected one of: {' '.join(sorted(os.listdir('/sys/class/net')))}")
    return problems


def _postgresql_major(settings: Config) -> int | str:
    """Return the major version of pg_ctl, or what is wrong with it."""
    path = settings.pgsql_pgctl
    if not os.access(path, os.X_OK):
        return f"pgsql_pgctl: no program {path}, expected PostgreSQL's pg_ctl (pgsql_bindir is its directory)"
    done = system.run([path, "--version"], timeout=10)
    found = re.search(r"PostgreSQL\)? (\d+)", done.out)
    if not done.ok or found is None:
        return f"pgsql_pgctl: {path} --version says {(done.out or done.err).strip()!r}, expected a version of PostgreSQL"
    if int(found[1]) < OLDEST_POSTGRESQL:
        return f"pgsql_pgctl: {path} is of PostgreSQL {found[1]}, expected {OLDEST_POSTGRESQL} or newer"
    missing = [name for name in ("postgres", "pg_controldata", "pg_basebackup", "psql") if not os.access(f"{settings.pgsql_bindir}/{name}", os.X_OK)]
    return f"pgsql_bindir: {settings.pgsql_bindir} lacks {' '.join(missing)}, expected all programs of PostgreSQL" if missing else int(found[1])


def _data_problems(settings: Config, major: int | None, owner: int | None) -> list[str]:
    """Return what is wrong with a data directory that exists; one that does not exist yet is made by initdb or pg_basebackup later."""
    key, path = ("pgsql_datadir", settings.pgsql_datadir) if settings.pgsql_datadir else ("pgsql_pgdata", settings.pgsql_pgdata)
    if not os.path.exists(path):
        return []
    if not os.path.isdir(path):
        return [f"{key}: {path} is no directory"]
    if not os.listdir(path):
        return []
    try:
        with open(os.path.join(path, "PG_VERSION"), encoding="ascii") as stream:
            version = stream.read().strip()
    except OSError:
        return [f"{key}: {path} holds no PG_VERSION, expected the data directory of an instance, an empty one, or none"]
    problems = []
    if major is not None and version != str(major):
        problems.append(f"{key}: {path} is of PostgreSQL {version}, expected {major} as pgsql_pgctl is")
    if owner is not None and os.stat(path).st_uid != owner:
        problems.append(f"{key}: {path} does not belong to {settings.pgsql_pgdba}, expected the owner of the instance")
    return problems


def plan(job: Job) -> Iterator[Change]:
    """Yield what has to be done on this node, in order; each is found out when its turn comes, so that it sees what was done before."""
    target = job.settings.pha4pgsql_dir
    if os.path.realpath(job.source) != os.path.realpath(target):
        yield from _tree(job.source, target)
    yield from _compiled(job.source, target)
    yield from _configuration(job.settings, job.config_file)
    yield from _links(job.settings, job.source)
    yield from _directory(job.settings.pgsql_tmpdir, job.settings.pgsql_pgdba)
    yield from _passfile(job.settings)
    yield from _rendered(job.settings, job.source)


def files(source: str) -> dict[str, int]:
    """Return the files of a tree that are installed, by relative path, with their modes."""
    found = {name: 0o755 if name.endswith(".sh") else 0o644 for name in SINGLES if os.path.isfile(os.path.join(source, name))}
    for part in PARTS:
        folder = os.path.join(source, part)
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            if os.path.isfile(os.path.join(folder, name)) and not name.startswith(".") and not name.endswith("~"):
                found[f"{part}/{name}"] = 0o755 if part in EXECUTABLE and not name.endswith(".sql") else 0o644
    return found


def _tree(source: str, target: str) -> Iterator[Change]:
    wanted = files(source)
    new = [name for name, mode in wanted.items() if not _same(os.path.join(source, name), os.path.join(target, name), mode)]
    old = sorted(name for name in files(target) if name not in wanted) if os.path.isdir(target) else []
    if new or old:
        count = f"{len(new)} of {len(wanted)} files" + (f", remove {' '.join(old)}" if old else "")
        yield Change(f"copy the programs to {target}: {count}", lambda: _copy(source, target, new, old))


def _same(source: str, target: str, mode: int) -> bool:
    try:
        return stat.S_IMODE(os.stat(target).st_mode) == mode and filecmp.cmp(source, target, shallow=False)
    except OSError:
        return False


def _copy(source: str, target: str, new: Sequence[str], old: Sequence[str]) -> None:
    """Copy with the time of change kept, so that a compiled module of the source stays valid; a file in use is replaced, not rewritten."""
    for part in ("", *PARTS):
        os.makedirs(os.path.join(target, part), exist_ok=True)
        os.chmod(os.path.join(target, part), 0o755)  # noqa: S103 - programs for everybody
    for name in new:
        place = os.path.join(target, name)
        shutil.copy2(os.path.join(source, name), f"{place}~")
        os.chmod(f"{place}~", files(source)[name])
        os.replace(f"{place}~", place)
    for name in old:
        os.unlink(os.path.join(target, name))


def _compiled(source: str, target: str) -> Iterator[Change]:
    folder = os.path.join(target, "pha4pgsql")
    have = os.listdir(folder) if os.path.isdir(folder) else os.listdir(os.path.join(source, "pha4pgsql"))
    stale = [name for name in sorted(have) if name.endswith(".py") and not _is_compiled(os.path.join(folder, name))]
    if stale:
        yield Change(f"compile {len(stale)} modules", lambda: _compile(source, folder, stale))


def _is_compiled(path: str) -> bool:
    """Tell whether the compiled module is there and of this very source (PEP 552: flags, time of change, size)."""
    try:
        with open(importlib.util.cache_from_source(path), "rb") as stream:
            magic, flags, changed, size = struct.unpack("<4sLLL", stream.read(16))
        now = os.stat(path)
    except (OSError, struct.error):
        return False
    return (magic, flags, changed, size) == (importlib.util.MAGIC_NUMBER, 0, int(now.st_mtime) & 0xFFFFFFFF, now.st_size & 0xFFFFFFFF)


def _compile(source: str, folder: str, names: Sequence[str]) -> None:
    for name in names:
        origin, place = os.path.join(source, "pha4pgsql", name), os.path.join(folder, name)
        compiled = importlib.util.cache_from_source(place)
        if origin != place and _is_compiled(origin):
            os.makedirs(os.path.dirname(compiled), exist_ok=True)
            shutil.copyfile(importlib.util.cache_from_source(origin), compiled)
        if not _is_compiled(place):
            py_compile.compile(place, compiled, doraise=True)


def _configuration(settings: Config, config_file: str) -> Iterator[Change]:
    place = os.path.join(settings.pha4pgsql_dir, "config.ini")
    if os.path.realpath(config_file) == os.path.realpath(place):
        if stat.S_IMODE(os.stat(place).st_mode) != 0o600:
            yield Change(f"make {place} readable by root only", lambda: os.chmod(place, 0o600))
        return
    with open(config_file, encoding="utf-8") as stream:
        text = stream.read()
    yield from _file(place, text, "root")


def _file(path: str, text: str, owner: str) -> Iterator[Change]:
    """Yield the change that makes a file hold this text, mode 0600."""
    if not _holds(path, text, owner):
        yield Change(f"write {path}", lambda: system.write_file(path, text, mode=0o600, owner=owner))


def _holds(path: str, text: str, owner: str) -> bool:
    try:
        with open(path, encoding="utf-8") as stream:
            now = os.fstat(stream.fileno())
            return stream.read() == text and stat.S_IMODE(now.st_mode) == 0o600 and now.st_uid == pwd.getpwnam(owner).pw_uid
    except (OSError, UnicodeDecodeError):
        return False


def _links(settings: Config, source: str) -> Iterator[Change]:
    folder = os.path.join(settings.ocf_root, "resource.d", "pha4pgsql")
    wanted = {os.path.basename(name): os.path.join(settings.pha4pgsql_dir, name) for name in files(source) if name.startswith("agents/")}
    have = {name: _link(os.path.join(folder, name)) for name in (os.listdir(folder) if os.path.isdir(folder) else ())}
    if have != wanted:
        yield Change(f"link the agents into {folder}", lambda: _link_all(folder, wanted, set(have)))


def _link(path: str) -> str:
    return os.readlink(path) if os.path.islink(path) else ""


def _link_all(folder: str, wanted: dict[str, str], have: set[str]) -> None:
    os.makedirs(folder, exist_ok=True)
    for name in have - set(wanted):
        os.unlink(os.path.join(folder, name))
    for name, place in wanted.items():
        os.symlink(place, os.path.join(folder, f".{name}"))
        os.replace(os.path.join(folder, f".{name}"), os.path.join(folder, name))


def _directory(path: str, owner: str) -> Iterator[Change]:
    uid = pwd.getpwnam(owner).pw_uid
    try:
        now = os.stat(path)
    except OSError:
        now = None
    if now is None or now.st_uid != uid or stat.S_IMODE(now.st_mode) != 0o700:
        yield Change(f"make the directory {path}, mode 0700, owner {owner}", lambda: _make_directory(path, owner))


def _make_directory(path: str, owner: str) -> None:
    os.makedirs(path, exist_ok=True)
    shutil.chown(path, owner, pwd.getpwnam(owner).pw_gid)
    os.chmod(path, 0o700)


def _passfile(settings: Config) -> Iterator[Change]:
    secret = config.lock_passfile(settings) + config.passfile(settings)
    if secret:
        yield from _file(settings.pgsql_passfile, secret, settings.pgsql_pgdba)


def _rendered(settings: Config, source: str) -> Iterator[Change]:
    """Make config.pcs. One that was edited by hand is kept, and the new one laid beside it."""
    if packages.missing(settings.ocf_root):  # only in a --check: nothing can be rendered yet
        yield Change(f"write {settings.pha4pgsql_dir}/config.pcs", lambda: None)
        return
    from pha4pgsql import pcs  # its jinja2 and lxml may have been installed a moment ago

    text = pcs.render(settings, os.path.join(source, "templates"), pcs.pcs_version())
    place = os.path.join(settings.pha4pgsql_dir, "config.pcs")
    try:
        with open(place, encoding="utf-8") as stream:
            edited = not pcs.is_untouched(stream.read())
    except OSError:
        edited = False
    for change in _file(f"{place}.new" if edited else place, text, "root"):
        yield change._replace(what=f"{change.what} ({place} was edited by hand and is kept)") if edited else change
    if not edited and os.path.exists(f"{place}.new"):
        yield Change(f"remove {place}.new", lambda: os.unlink(f"{place}.new"))


# ---------------------------------------------------------------- removal


def uninstall(job: Job) -> int:
    """Remove links, programs and passfile. config.ini, config.pcs and the state in pgsql_tmpdir stay."""
    _refuse_if_in_use()
    for what, path in _installed(job.settings):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
        print(f"removed the {what} {path}", flush=True)
    for what, path in (("configuration", f"{job.settings.pha4pgsql_dir}/config.ini"), ("promises of this node in", job.settings.pgsql_tmpdir)):
        if os.path.exists(path):
            print(f"kept the {what} {path}", flush=True)
    return 0


def _refuse_if_in_use() -> None:
    if system.run(["cibadmin", "--query", "--xpath", "//primitive[@provider='pha4pgsql']"], timeout=20).ok:
        raise ClusterRefusal("the cluster's configuration still uses the agents", "cls_stop, then pcs resource delete for each of them, then again")


def _installed(settings: Config) -> Iterator[tuple[str, str]]:
    target = settings.pha4pgsql_dir
    candidates = [
        ("agents", os.path.join(settings.ocf_root, "resource.d", "pha4pgsql")),
        ("passfile", settings.pgsql_passfile if config.lock_passfile(settings) + config.passfile(settings) else ""),
    ]
    if not os.path.isdir(os.path.join(target, ".git")):
        candidates += [("programs", os.path.join(target, part)) for part in (*PARTS, *SINGLES)]
    return ((what, path) for what, path in candidates if path and os.path.lexists(path))
