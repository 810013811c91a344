#!/usr/bin/env bash
# Find or install what Fleetline needs on this machine; safe to run again at any time.
#
#   deploy/setup.sh         everything: what the demo and the tests need
#   deploy/setup.sh demo    what `make demo` needs
#   deploy/setup.sh test    what `make test` needs (the demo's parts, PostgreSQL and VictoriaMetrics)
#
# As root on Debian or Ubuntu it installs with apt-get; elsewhere it says what is missing.
# Exit code: 0 all is there, 1 a step failed, 2 wrong usage, 3 something is missing that this script may not install.
set -euo pipefail

readonly WANTED_MOSQUITTO=2.0.18
readonly DOCKER_LOG=${FLEETLINE_DOCKER_LOG:-/var/log/fleetline-dockerd.log}
readonly APT_LOG=${FLEETLINE_APT_LOG:-/var/log/fleetline-setup.log}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
readonly root
readonly venv=$root/.venv
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

case ${1:-all} in
  demo) parts=(mosquitto clients docker influxdb busybox uuidgen curl ip python) ;;
  test | all) parts=(mosquitto clients docker influxdb postgresql victoriametrics busybox uuidgen curl ip python) ;;
  *)
    sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac

say() { printf '%-12s %-10s %s\n' "$1" "$2" "${3:-}"; }

die() {
  printf 'setup: %s\n' "$1" >&2
  exit "${2:-1}"
}

# at_least VERSION WANTED: true if VERSION is WANTED or newer.
at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

# ---- one finder for each part: prints the version and succeeds if the part is usable --------------------------

find_mosquitto() {
  local version
  version=$(mosquitto -h 2>/dev/null | sed -n 's/^mosquitto version \([0-9.]*\).*/\1/p') || true
  [ -n "$version" ] && at_least "$version" "$WANTED_MOSQUITTO" && echo "$version"
}

find_clients() { command -v mosquitto_pub >/dev/null && command -v mosquitto_sub >/dev/null && echo found; }

# A daemon that answers is enough; else this machine must have what it takes to start one.
find_docker() {
  command -v docker >/dev/null || return 1
  if docker version >/dev/null 2>&1 || { command -v dockerd && command -v iptables; } >/dev/null; then
    docker --version | sed -n 's/^Docker version \([0-9.]*\).*/\1/p'
  else
    return 1
  fi
}

find_influxdb() { influxd version 2>/dev/null | sed -n 's/^InfluxDB v\{0,1\}\(1\.[0-9.]*\).*/\1/p' | grep .; }

find_postgresql() {
  local initdb
  for initdb in "$(command -v initdb)" /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb; do
    if [ -x "$initdb" ] && [ -x "$(dirname "$(readlink -f "$initdb")")/postgres" ]; then
      "$initdb" --version | sed -n 's/.* \([0-9.]*\).*/\1/p'
      return 0
    fi
  done
  return 1
}

# A second server that speaks InfluxDB 2's way of writing.
find_victoriametrics() { command -v victoria-metrics >/dev/null && echo found; }

# It becomes a container image of its own, so it must need no library.
find_busybox() {
  local path
  path=$(command -v busybox) && ! ldd "$path" >/dev/null 2>&1 &&
    busybox | sed -n '1s/^BusyBox v\([0-9.]*\).*/\1/p'
}

find_uuidgen() { command -v uuidgen >/dev/null && echo found; }
find_curl() { command -v curl >/dev/null && curl --version | sed -n '1s/^curl \([0-9.]*\).*/\1/p'; }
find_ip() { command -v ip >/dev/null && echo found; }

# interpreter: print the first Python of 3.11 or newer that can make a virtual environment with pip in it.
interpreter() {
  local name
  for name in python3 python3.11 python3.12 python3.13 python3.14; do
    if "$name" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return 0
    fi
  done
  return 1
}

find_python() {
  local python
  python=$(interpreter) && "$python" -c 'import platform; print(platform.python_version())'
}

# ---- installing -----------------------------------------------------------------------------------------------

packages_of() {
  case $1 in
    mosquitto) echo mosquitto ;;
    clients) echo mosquitto-clients ;;
    docker) echo docker.io iptables ;;
    influxdb) echo influxdb ;;
    postgresql) echo postgresql ;;
    victoriametrics) echo victoria-metrics ;;
    busybox) echo busybox-static ;;
    uuidgen) echo uuid-runtime ;;
    curl) echo curl ;;
    ip) echo iproute2 ;;
    python) echo python3 python3-venv ;;
  esac
}

what_is() {
  case $1 in
    mosquitto) echo "Mosquitto $WANTED_MOSQUITTO or newer (the broker)" ;;
    clients) echo "mosquitto_pub and mosquitto_sub" ;;
    docker) echo "Docker: the client, and a daemon that answers or dockerd with iptables to start one" ;;
    influxdb) echo "InfluxDB 1.x (the program influxd)" ;;
    postgresql) echo "PostgreSQL's server programs (initdb, postgres)" ;;
    victoriametrics) echo "VictoriaMetrics, single node (the program victoria-metrics)" ;;
    busybox) echo "a statically linked busybox (the demo's container image is made of it)" ;;
    uuidgen) echo "uuidgen" ;;
    curl) echo "curl" ;;
    ip) echo "ip, from iproute2" ;;
    python) echo "Python 3.11 or newer with its venv and ensurepip modules" ;;
  esac
}

may_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && grep -qE '^ID(_LIKE)?=.*(debian|ubuntu)' /etc/os-release; }

explain_and_leave() {
  local part names packages=()
  echo "setup: missing on this machine:" >&2
  for part in "$@"; do
    printf '  - %s\n' "$(what_is "$part")" >&2
    read -ra names <<<"$(packages_of "$part")"
    packages+=("${names[@]}")
  done
  {
    echo "On Debian 12 or newer, and on Ubuntu 24.04 or newer, run this script once as root, or:"
    echo "  apt-get install --no-install-recommends ${packages[*]}"
    echo "On Debian 12 take mosquitto from bookworm-backports (apt-get install -t bookworm-backports mosquitto)."
    echo "On other systems install the same parts with the system's package manager, then run this script again."
  } >&2
  exit 3
}

# apt ARGUMENTS...: apt-get with three tries; its output goes to the log, the log's end to the reader if it fails.
apt() {
  local try
  for try in 1 2 3; do
    if DEBIAN_FRONTEND=noninteractive apt-get -qy -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120 \
      -o Dpkg::Options::=--force-confold "$@" </dev/null >>"$APT_LOG" 2>&1; then
      return 0
    fi
    [ "$try" = 3 ] || sleep $((try * 3))
  done
  tail -n 15 "$APT_LOG" >&2
  die "apt-get $* failed three times; all of its output is in $APT_LOG"
}

codename() { sed -n 's/^VERSION_CODENAME=//p' /etc/os-release; }
candidate_of() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: \([^(].*\)/\1/p'; }

# Debian 12's Mosquitto is too old, the one in its backports is not: add them to this machine's own sources.
add_backports() {
  local codename file
  codename=$(codename)
  if grep -rqsE "^(Suites:|deb ).*[[:space:]]$codename-backports" /etc/apt/sources.list /etc/apt/sources.list.d; then
    return 0
  fi
  grep -q '^ID=debian' /etc/os-release ||
    die "this system's newest mosquitto is $(candidate_of mosquitto): install $WANTED_MOSQUITTO or newer by hand" 3
  for file in /etc/apt/sources.list.d/*.sources /etc/apt/sources.list; do
    [ -f "$file" ] || continue
    sed -i -E -e "/^Suites:.*[[:space:]]$codename([[:space:]]|\$)/ s/\$/ $codename-backports/" \
      -e "s/^(deb [^#]*[[:space:]])$codename([[:space:]]+.*)\$/&\n\1$codename-backports\2/" "$file"
    if grep -q "$codename-backports" "$file"; then
      say mosquitto setup "added $codename-backports to $file"
      apt update
      return 0
    fi
  done
  die "found no '$codename' line in /etc/apt to add $codename-backports to: add it by hand, then run this again" 3
}

# Fleetline starts its own brokers and databases on ports of its choice, so the packages' services stay off.
without_services() {
  local policy=/usr/sbin/policy-rc.d unit
  if [ ! -e "$policy" ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    "$@"
    rm -f "$policy"
    trap - EXIT
  else
    "$@"
  fi
  if [ -d /run/systemd/system ]; then
    for unit in mosquitto influxdb postgresql victoria-metrics; do
      systemctl is-active --quiet "$unit" || systemctl disable --quiet "$unit" 2>/dev/null || true
    done
  fi
}

install_parts() {
  local part names packages=() from=()
  mkdir -p "$(dirname "$APT_LOG")"
  say apt updating "the list of packages (log: $APT_LOG)"
  apt update
  for part in "$@"; do
    say "$part" installing "$(packages_of "$part")"
    read -ra names <<<"$(packages_of "$part")"
    packages+=("${names[@]}")
    case $part in
      mosquitto | clients)
        if ! at_least "$(candidate_of mosquitto)" "$WANTED_MOSQUITTO"; then
          add_backports
          from=(-t "$(codename)-backports")
        fi
        ;;
      docker) [ -z "$(candidate_of docker-cli)" ] || packages+=(docker-cli) ;;
    esac
  done
  without_services apt install --no-install-recommends "${from[@]}" "${packages[@]}"
}

find_parts() {
  local part version missing=()
  for part in "${parts[@]}"; do
    if version=$("find_$part"); then say "$part" "$version" ok; else missing+=("$part"); fi
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  may_install || explain_and_leave "${missing[@]}"
  install_parts "${missing[@]}"
  hash -r
  for part in "${missing[@]}"; do
    version=$("find_$part") || die "$(what_is "$part"): still missing after the installation; see $APT_LOG"
    say "$part" "$version" ok
  done
}

# ---- the Docker daemon ----------------------------------------------------------------------------------------

daemon_version() { docker version --format '{{.Server.Version}}' 2>/dev/null; }

# A container's limits need the kernel's control groups mounted; an init system usually does that. With version 1
# every controller must be there: containerd gives no statistics of a container as long as one is missing.
mount_cgroups() {
  local controller
  if grep -qE ' /sys/fs/cgroup cgroup2 ' /proc/mounts; then return 0; fi
  if ! awk '!/^#/ && $2 != 0 {found = 1} END {exit !found}' /proc/cgroups; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    return 0
  fi
  grep -q ' /sys/fs/cgroup ' /proc/mounts || mount -t tmpfs -o uid=0,gid=0,mode=0755 cgroup /sys/fs/cgroup
  for controller in $(awk '!/^#/ && $4 == 1 {print $1}' /proc/cgroups); do
    if grep -qE "^[^ ]+ /sys/fs/cgroup/[^ ]+ cgroup ([^ ]*,)?$controller[, ]" /proc/mounts; then continue; fi
    mkdir -p "/sys/fs/cgroup/$controller"
    mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller" || rmdir "/sys/fs/cgroup/$controller"
  done
  # A hierarchy without a controller, such as name=systemd: with one unmounted, containerd counts nothing at all.
  for controller in $(sed -n 's/^[0-9]*:name=\([^:]*\):.*/\1/p' /proc/self/cgroup); do
    if grep -qE "^[^ ]+ [^ ]+ cgroup [^ ]*name=$controller[, ]" /proc/mounts; then continue; fi
    mkdir -p "/sys/fs/cgroup/$controller"
    mount -t cgroup -o "none,name=$controller" cgroup "/sys/fs/cgroup/$controller" || rmdir "/sys/fs/cgroup/$controller"
  done
}

# A pid file left by a daemon that was killed stops the next one if its number is another process's by now.
drop_stale_pid_files() {
  local file pid
  for file in /var/run/docker.pid /var/run/docker/containerd/containerd.pid; do
    [ -f "$file" ] || continue
    pid=$(cat "$file")
    case $(cat "/proc/$pid/comm" 2>/dev/null) in
      dockerd | containerd) ;;
      *) rm -f "$file" ;;
    esac
  done
}

# start_daemon: start dockerd apart from this shell; succeed once it answers, fail if it ends or stays silent.
start_daemon() {
  local pid deadline=$((SECONDS + 90))
  mount_cgroups
  drop_stale_pid_files
  setsid nohup dockerd >>"$DOCKER_LOG" 2>&1 </dev/null 9>&- &
  pid=$!
  until daemon_version >/dev/null; do
    kill -0 "$pid" 2>/dev/null || return 1
    if [ "$SECONDS" -ge "$deadline" ]; then
      kill "$pid"
      return 1
    fi
    sleep 0.2
  done
}

uses_legacy_iptables() { [[ $(readlink -f "$(command -v iptables)") == *legacy* ]]; }

ensure_daemon() {
  local version answer
  if version=$(daemon_version); then
    say dockerd "$version" ok
    return 0
  fi
  answer=$(docker version 2>&1 >/dev/null || true)
  if [ -n "${DOCKER_HOST:-}" ]; then
    die "DOCKER_HOST is $DOCKER_HOST, and no Docker answers there: ${answer##*$'\n'}" 3
  fi
  if [ "$(id -u)" != 0 ]; then
    die "no Docker daemon that you may use: ${answer##*$'\n'}
  start it (as root: systemctl start docker, or this script) and join the group docker" 3
  fi
  if [ -d /run/systemd/system ] && systemctl start docker 2>/dev/null && version=$(daemon_version); then
    say dockerd "$version" "ok (started the system's service)"
    return 0
  fi
  say dockerd starting "log: $DOCKER_LOG"
  if ! start_daemon && ! uses_legacy_iptables && [ -x /usr/sbin/iptables-legacy ]; then
    say dockerd retrying "with iptables-legacy"
    update-alternatives --quiet --set iptables /usr/sbin/iptables-legacy
    start_daemon || true
  fi
  version=$(daemon_version) || {
    tail -n 15 "$DOCKER_LOG" >&2
    die "dockerd does not start; the lines above are the end of $DOCKER_LOG"
  }
  say dockerd "$version" ok
}

# ---- the Python environment -----------------------------------------------------------------------------------

usable_venv() {
  grep -qxE "command = .* -m venv (.* )?$venv" "$venv/pyvenv.cfg" 2>/dev/null &&
    "$venv/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

ensure_venv() {
  local stamp=$venv/.fleetline-stamp wanted
  wanted=$(cd "$root" && sha256sum requirements/dev.lock pyproject.toml)
  if usable_venv && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    say packages locked ok
    return 0
  fi
  if ! usable_venv; then
    say venv making "$venv"
    "$(interpreter)" -m venv --clear "$venv"
  fi
  say packages installing requirements/dev.lock
  local pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps)
  "${pip[@]}" --require-hashes -r "$root/requirements/dev.lock" </dev/null ||
    die "pip could not install requirements/dev.lock: is a package index within reach? Its words are above"
  PYTHONWARNINGS=ignore "${pip[@]}" --no-build-isolation --editable "$root" </dev/null || die "pip could not install fleetline itself"
  printf '%s' "$wanted" >"$stamp"
  say packages locked ok
}

# One at a time: two of these would trip over each other's packages.
exec 9<"$root"
flock 9 2>/dev/null || true
find_parts
ensure_daemon
ensure_venv
