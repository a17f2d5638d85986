# shellcheck shell=bash disable=SC2034
# Sourced by the scripts under tests/: where things are kept, how a part is started and stopped, how long things take.
# A part is a process whose working directory is its own folder, with NAME.pid and NAME.log in it: that folder is
# also how a process is known to be ours when a pid file has outlived it.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cache=$root/.cache
bin=$cache/bin

say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# seconds_since EPOCHREALTIME: with one decimal.
seconds_since() { awk "BEGIN { printf \"%.1f\", ${EPOCHREALTIME/,/.} - ${1/,/.} }"; }

# wait_for SECONDS COMMAND…: polls until the command succeeds; fails at the deadline.
wait_for() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.05
  done
}

# running DIR NAME: whether the part NAME of the folder DIR (absolute, without links) is alive.
running() {
  [[ -s $1/$2.pid && $(readlink "/proc/$(<"$1/$2.pid")/cwd") == "$1" ]]
}
not_running() { ! running "$@"; }

# start DIR NAME COMMAND…: in a session of its own, so that a Ctrl-C does not reach it before its user has ended.
start() {
  local dir=$1 name=$2
  shift 2
  (
    cd "$dir"
    setsid "$@" </dev/null >"$name.log" 2>&1 &
    echo $! >"$name.pid"
  )
}

# stop DIR NAME SIGNAL: and waits until it is gone.
stop() {
  running "$1" "$2" || return 0
  kill -s "$3" "$(<"$1/$2.pid")"
  wait_for 30 not_running "$1" "$2" || die "$2 of $1 does not stop"
  rm -f "$1/$2.pid"
}

# supervise COMMAND…: in a process group of its own, which gets a TERM when we are interrupted; returns its status.
supervise() {
  local child status=0
  set -m
  "$@" </dev/null &
  child=$!
  set +m
  # shellcheck disable=SC2064 # the id is wanted as it is now
  trap "kill -TERM -- -$child 2>/dev/null" INT TERM HUP
  wait "$child" || status=$?
  while kill -0 "$child" 2>/dev/null; do wait "$child" || status=$?; done
  trap - INT TERM HUP
  return "$status"
}

# engine_answers: whether a Docker engine does, on the default socket.
engine_answers() { DOCKER_HOST=unix:///var/run/docker.sock docker version >/dev/null 2>&1; }

# engine_works: whether the engine of DOCKER_HOST answers, and has not locked up; says so if not. One before 20.10.27 can
# (https://github.com/moby/moby/issues/46661), and then neither lists networks nor removes a container.
engine_works() {
  timeout 30 docker network ls >/dev/null 2>&1 && return
  say "the Docker engine does not answer, or has locked up: what the tests made there stays"
  return 1
}

# debian_file PACKAGE PATH: a file of a Debian package, taken out of it without installing it; prints where it is.
debian_file() {
  local package=$1 path=$2 dir=$cache/debian/$1
  if [[ ! -e $dir$path ]]; then
    command -v apt-get >/dev/null || die "$package: needs Debian, or put its $path into $dir"
    mkdir -p "$cache/debian"
    (
      cd "$cache/debian"
      download=(apt-get -qq -o APT::Sandbox::User=root download "$package")
      "${download[@]}" >&2 || { apt-get -qq update >&2 && "${download[@]}" >&2; }
      dpkg -x "$package"_*.deb "$dir"
      rm "$package"_*.deb
    ) || die "$package: apt-get cannot download it"
  fi
  echo "$dir$path"
}

# installed PROGRAM PACKAGE: sees to it that the program of a Debian package is there.
installed() {
  [[ ! -x $1 ]] || return 0
  if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
    die "no $1: install it (Debian: apt-get install $2)"
  fi
  local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$2")
  say "installing $2"
  "${install[@]}" >&2 || { apt-get -qq update >&2 && "${install[@]}" >&2; }
}
