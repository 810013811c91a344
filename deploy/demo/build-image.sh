#!/usr/bin/env bash
# build-image.sh TAG: make the demo's container image out of a static busybox and print the image's id.
#
# No registry is asked. The image has a shell, busybox's small programs and two services:
#   /app/store  serves on port 8080 how often it was started and since when, kept in the volume /data
#   /app/api    serves on port 8080 {"service":"api","store":"..."}, asking http://store:8080/ each time
# Both answer /health and end at once on SIGTERM. Running this again changes nothing.
set -euo pipefail

tag=${1:?usage: build-image.sh TAG}
die() { echo "build-image: $*" >&2; exit 1; }

busybox=$(command -v busybox || true)
[ -n "$busybox" ] || die "busybox is missing: install busybox-static"
if ldd "$busybox" >/dev/null 2>&1; then die "$busybox is not statically linked: install busybox-static"; fi

content=$(cat "$0" "$busybox" | sha256sum | cut -d' ' -f1)
label=io.fleetline.demo-content
if [ "$(docker image inspect -f "{{index .Config.Labels \"$label\"}}" "$tag" 2>/dev/null)" = "$content" ]; then
  exec docker image inspect -f '{{.Id}}' "$tag"
fi

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,etc,tmp,data,app,www/cgi-bin}
chmod 1777 "$root/tmp"
cp "$busybox" "$root/bin/busybox"
"$busybox" --list | while read -r name; do
  [ "$name" = busybox ] || ln -s busybox "$root/bin/$name"
done
echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
echo ok >"$root/www/health"

cat >"$root/app/store" <<'STORE'
#!/bin/sh
starts=$(($(cat /data/starts 2>/dev/null || echo 0) + 1))
echo "$starts" >/data/starts
since=$(date -u +%Y-%m-%dT%H:%M:%SZ)
echo "start $starts since $since" >/data/index.html
echo ok >/data/health
echo "store: start $starts since $since"
trap 'echo "store: ends"; kill "$server"; exit 0' TERM INT
httpd -f -p 8080 -h /data &
server=$!
wait "$server"
STORE

cat >"$root/app/api" <<'API'
#!/bin/sh
echo "api: asks http://store:8080/"
trap 'echo "api: ends"; kill "$server"; exit 0' TERM INT
httpd -f -p 8080 -h /www &
server=$!
wait "$server"
API

# httpd runs this for / because /www has no index.html; what it says to stderr is the service's log. Not `wget -T`:
# Debian's static busybox 1.35 crashes when it resolves a name under that option.
cat >"$root/www/cgi-bin/index.cgi" <<'CGI'
#!/bin/sh
if answer=$(timeout 3 wget -q -O - http://store:8080/); then
  echo "api: store answered: $answer" >&2
  printf 'Content-Type: application/json\r\n\r\n{"service":"api","store":"%s"}\n' "$answer"
else
  echo "api: store does not answer" >&2
  printf 'Status: 502 Bad Gateway\r\nContent-Type: application/json\r\n\r\n{"service":"api","store":null}\n'
fi
CGI
chmod +x "$root/app/store" "$root/app/api" "$root/www/cgi-bin/index.cgi"

tar -C "$root" --owner=0 --group=0 --numeric-owner -c . |
  docker import --change "LABEL $label=$content" --change 'ENV PATH=/bin' --change 'EXPOSE 8080' \
    --change 'CMD ["/app/store"]' - "$tag"
