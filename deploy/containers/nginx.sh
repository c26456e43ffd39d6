#!/bin/sh
# Run nginx in a container with deploy/nginx/modelyard.conf, in front of gateways.
# Usage: nginx.sh [ARGUMENT OF NGINX…], with the public name in MODELYARD_NAME and the names
# of the gateways in GATEWAYS.
set -eu
from="${MODELYARD_NGINX:-/etc/modelyard/modelyard.conf}"
folder="${TMPDIR:-/tmp}"
servers() { for name in $GATEWAYS; do printf 'server %s:%s; ' "$name" "$1"; done; }
sed -e "s/models\.example\.com/$MODELYARD_NAME/" \
    -e 's/listen 80;/listen 8080;/' -e 's/listen 443 /listen 8443 /' \
    -e "s/server 127\.0\.0\.1:8000;/$(servers 8000)/" \
    -e "s/server 127\.0\.0\.1:8002;/$(servers 8002)/" \
    -e 's#/var/log/nginx/modelyard.log#/dev/stdout#' \
    "$from" >"$folder/modelyard.conf"
# Not root, and nothing to write to but this folder.
cat >"$folder/nginx.conf" <<END
pid $folder/nginx.pid;
error_log stderr;
worker_processes auto;
events { worker_connections 16384; }
http {
    client_body_temp_path $folder/body;
    proxy_temp_path $folder/proxy;
    fastcgi_temp_path $folder/fastcgi;
    uwsgi_temp_path $folder/uwsgi;
    scgi_temp_path $folder/scgi;
    include $folder/modelyard.conf;
}
END
exec nginx -c "$folder/nginx.conf" -g 'daemon off;' "$@"
