#!/bin/sh
# Run `modelyard COMMAND` in the environment of the service, as its user.
# Usage: sudo modelyard COMMAND [ARGUMENT…]
set -eu
settings=/etc/modelyard/modelyard.env
if [ ! -r "$settings" ]; then
    echo "$settings cannot be read. Run: sudo modelyard $*" >&2
    exit 77
fi
set -a
. "$settings"
set +a
# The service could not change files that root leaves in the home.
owner=$(stat -c %U "$MODELYARD_HOME/home_id" 2>/dev/null ||
    stat -c %U "$MODELYARD_HOME" 2>/dev/null || id -un)
if [ "$owner" = root ]; then
    # If root took everything, the home is still that of the user.
    user=$(getent passwd | awk -F: -v home="$MODELYARD_HOME" '$6 == home {print $1; exit}')
    owner=${user:-root}
fi
if [ "$(id -u)" = 0 ] && [ "$owner" != root ]; then
    exec runuser -u "$owner" -- "$0" "$@"
fi
# /usr/local/bin/modelyard is a link to this file. Arguments may be relative paths, so
# the folder stays.
exec "$(dirname "$(readlink -f "$0")")/../.venv/bin/modelyard" "$@"
