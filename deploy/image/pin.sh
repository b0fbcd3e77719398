#!/bin/sh
# pin.sh: print the FROM images of the Dockerfiles with the digests that their registries have for them now.
# It needs skopeo or docker, and the network. Put what it prints in the place of the tags and commit that.
set -eu
cd "$(dirname "$0")/../.."
{ sed -n 's/^ARG BASE=//p; s/^FROM \(docker\.io[^ ]*\).*/\1/p' Dockerfile Dockerfile.cuda
  sed -n 's/^ *image: *\([^ $]*\).*/\1/p' deploy/compose/compose.yaml 2>/dev/null || true
} | grep -v -e '@sha256:' -e '^inferd:' | sort -u | while read -r image; do
  case "$image" in *.*/*) ;; */*) image="docker.io/$image" ;; *) image="docker.io/library/$image" ;; esac
  if command -v skopeo >/dev/null; then
    digest=$(skopeo inspect --format '{{.Digest}}' "docker://$image")
  else
    digest=$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$image")
  fi
  echo "$image@$digest"
done
