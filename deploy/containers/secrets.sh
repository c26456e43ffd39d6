#!/bin/sh
# Make what compose.yaml needs and a repository must not hold: passwords, a certificate for
# trying, and .env. Files that are there stay as they are.
# Usage: deploy/containers/secrets.sh NAME        e.g. models.example.com
set -eu
name="${1:?Usage: deploy/containers/secrets.sh NAME}"
cd "$(dirname "$0")"
mkdir -p secrets
# Only root and you enter the folder. Each file is for one process in a container, which has
# another user.
chmod 0700 secrets

put() {
    [ -e "secrets/$1" ] && return
    printf '%s\n' "$2" >"secrets/$1"
}

password() { openssl rand -hex 24; }

put postgres_password "$(password)"
put redis_password "$(password)"
put rabbitmq_password "$(password)"
put objects_user modelyard
put objects_password "$(password)"
put grafana_password "$(password)"
put secret_key "$(openssl rand -hex 32)"
postgres="modelyard:$(cat secrets/postgres_password)@postgres:5432"
put database_url "postgres://$postgres/modelyard"
put mlflow_database_url "postgresql+psycopg://$postgres/mlflow"
put cache_url "redis://:$(cat secrets/redis_password)@redis:6379/0"
put broker_url "amqp://modelyard:$(cat secrets/rabbitmq_password)@rabbitmq:5672//"
put redis_configuration "requirepass $(cat secrets/redis_password)
save \"\"
appendonly no
maxmemory 256mb
maxmemory-policy allkeys-lru"
put rabbitmq_user "default_user = modelyard
default_pass = $(cat secrets/rabbitmq_password)"
put objects_credentials "[default]
aws_access_key_id = $(cat secrets/objects_user)
aws_secret_access_key = $(cat secrets/objects_password)"
if [ ! -e secrets/tls_key ]; then
    openssl req -x509 -newkey rsa:2048 -nodes -days 90 -subj "/CN=$name" \
        -addext "subjectAltName=DNS:$name" \
        -keyout secrets/tls_key -out secrets/tls_certificate 2>/dev/null
    echo "secrets/tls_certificate signs itself: replace it and secrets/tls_key by yours."
fi
chmod 0444 secrets/*
if [ ! -e ../../.env ]; then
    printf 'MODELYARD_NAME=%s\nCOMPOSE_PROFILES=cpu\n' "$name" >../../.env
fi
