#!/bin/sh
# Install pha4pgsql on the nodes of config.ini: install.sh [--check | --uninstall | --demo] [--local] [--config FILE]
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")" && pwd -P)

fail() {
    printf 'install.sh: %s\nHINT: %s\n' "$1" "$2" >&2
    exit 111
}

# Python is needed to read config.ini; everything else is found out and installed by pha4pgsql/install.py.
if [ ! -x /usr/bin/python3 ]; then
    case " $* " in *" --check "*) echo "would install the package python3, and more"; exit 1 ;; esac
    [ "$(id -u)" = 0 ] || fail "not root, expected to be run as root: it installs packages and agents" "sudo ./install.sh"
    if command -v apt-get >/dev/null; then
        { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends python3; } >/dev/null
    elif command -v dnf >/dev/null; then
        dnf -q -y install python3 >/dev/null
    fi || fail "python3 could not be installed" "is the package source reachable?"
    [ -x /usr/bin/python3 ] || fail "there is no /usr/bin/python3" "install python3 3.9 or newer, then run install.sh again"
fi
/usr/bin/python3 -IS -c 'import sys; sys.exit(sys.version_info < (3, 9))' || fail "/usr/bin/python3 is too old, expected 3.9 or newer" "install a newer python3"

exec /usr/bin/python3 -IS -c '
import sys
source = sys.argv[1]
sys.path[:0] = [source]
from pha4pgsql.paths import use_packages
use_packages()
from pha4pgsql.install import main
sys.exit(main(sys.argv[2:], source))
' "$here" "$@"
