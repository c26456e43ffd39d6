#!/bin/sh
# Run manage.py in the environment of the service.
# Usage: sudo -u modelyard deploy/manage.sh COMMAND [ARGUMENT…]
set -eu
cd "$(dirname "$0")/.."
set -a
. /etc/modelyard/modelyard.env
set +a
exec .venv/bin/python manage.py "$@"
