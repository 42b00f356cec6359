"""Run many pcs commands in one process. A program of its own, started isolated by pcs.py: pcs keeps module state and ends the process.

Standard input: one command per line, as a JSON list of its arguments. Exit code 0: all done; 90: pcs cannot be used in this way
(then the caller starts one process per command); anything else: the failure of the command whose number is written last to standard output.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys

UNUSABLE = 90


def main() -> int:
    try:
        from pcs import app, settings  # type: ignore[import-not-found, import-untyped, unused-ignore]

        sys.path[:0] = [path for path in [getattr(settings, "pcs_bundled_packages_dir", "")] if os.path.isdir(path)]
        run = app.main
    except (ImportError, AttributeError):
        return UNUSABLE
    for number, line in enumerate(sys.stdin):
        print(number, flush=True)
        with contextlib.redirect_stdout(sys.stderr):
            code = _ended(run, json.loads(line))
        if code:
            return code
    return 0


def _ended(run: object, arguments: list[str]) -> int:
    try:
        run(arguments)  # type: ignore[operator]
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
