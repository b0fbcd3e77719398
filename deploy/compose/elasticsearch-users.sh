#!/bin/sh
# Gives Kibana's own user its password, and makes one for what ships logs, which may only add to inferd's indices.
set -eu
# On standard input, so that no password is in the list of processes.
ask() { # METHOD PATH, the body on standard input
  curl --silent --show-error --fail-with-body --netrc-file "$netrc" -X "$1" -H 'Content-Type: application/json' \
    --data-binary @- "http://elasticsearch:9200$2" >/dev/null
}
netrc=$(mktemp)
trap 'rm -f "$netrc"' EXIT
printf 'machine elasticsearch login elastic password %s\n' "$(cat /run/secrets/elastic_password)" >"$netrc"
printf '{"password":"%s"}' "$(cat /run/secrets/kibana_password)" | ask POST /_security/user/kibana_system/_password
ask PUT /_security/role/shipper <<'ROLE'
{"cluster": ["monitor"], "indices": [{"names": ["inferd-*"], "privileges": ["create_doc", "create_index", "auto_configure"]}]}
ROLE
printf '{"password":"%s","roles":["shipper"]}' "$(cat /run/secrets/shipper_password)" | ask PUT /_security/user/shipper
