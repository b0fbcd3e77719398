#!/bin/sh
# make-secrets.sh [NAME]: passwords, and certificates to try with, into ./secrets. NAME is what clients call this server.
# What is there stays. Bring tls.crt, tls.key and ca.crt of your own in the place of these for anything but a trial.
set -eu
cd "$(dirname "$0")"
name=${1:-localhost}
mkdir -p secrets
# The folder keeps others out; services of several users read the files.
chmod 700 secrets
cd secrets
for password in grafana elastic kibana shipper redis postgres; do
  [ -e "${password}_password" ] || openssl rand -hex 24 | tr -d '\n' >"${password}_password"
done
make() { # FILE SUBJECT EXTENSION [SIGNING OPTIONS]
  file=$1 subject=$2 extension=$3
  shift 3
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj "/CN=$subject" \
    -addext "$extension" -keyout "$file.key" -out "$file.crt" "$@" 2>/dev/null
}
if [ ! -e tls.key ]; then
  make ca "inferd trial authority" "keyUsage=critical,keyCertSign,cRLSign"
  make tls "$name" "subjectAltName=DNS:$name" -CA ca.crt -CAkey ca.key
  make client client "extendedKeyUsage=clientAuth" -CA ca.crt -CAkey ca.key
fi
chmod 444 ./*
# Nothing mounts it.
[ ! -e ca.key ] || chmod 400 ca.key
