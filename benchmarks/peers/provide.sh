#!/usr/bin/env bash
# Installs what the comparison needs beside scripts/services.sh: Redis, RabbitMQ, and the queues' Python packages in a
# virtual environment of their own (.services/peers/venv). Run it as often as you like. It starts nothing: each run of
# the comparison has brokers of its own, on free ports and in temporary directories.
set -euo pipefail
cd "$(dirname "$0")/../.."

state=.services/peers
python=${PYTHON:-python3}
mkdir -p $state

# Debian's packages would start their servers; policy-rc.d is Debian's own way of asking for the contrary.
install_brokers() {
    local packages=(redis-server rabbitmq-server) policy=/usr/sbin/policy-rc.d as_root=() ours=no
    dpkg-query -W -f '${db:Status-Status}\n' "${packages[@]}" 2>/dev/null | grep -c '^installed' | grep -qx 2 && return
    if [ "$(id -u)" != 0 ]; then
        if sudo -n true 2>/dev/null; then as_root=(sudo -n); else
            echo "peers: as root: apt-get install ${packages[*]}" >&2
            return 1
        fi
    fi
    echo "peers: installing ${packages[*]}"
    if [ ! -e $policy ]; then
        ours=yes
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" install -m 755 /dev/stdin $policy
    fi
    local options=(-q -y -o DPkg::Lock::Timeout=300) status=0
    "${as_root[@]}" apt-get "${options[@]}" update >>$state/apt.log 2>&1 || true # stale lists may well do
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}" install --no-install-recommends \
        "${packages[@]}" >>$state/apt.log 2>&1 || status=$?
    if [ $ours = yes ]; then "${as_root[@]}" rm -f $policy; fi
    [ $status = 0 ] || { tail -n 5 $state/apt.log >&2; return $status; }
}

install_queues() {
    local wanted=benchmarks/peers/requirements.txt
    cmp -s $wanted $state/installed.txt && return
    echo "peers: installing $wanted"
    rm -f $state/installed.txt
    [ -x $state/venv/bin/pip ] || "$python" -m venv --clear $state/venv
    $state/venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement $wanted
    cp $wanted $state/installed.txt # last: a half-made environment is never taken for a whole one
}

# Two checkouts on one machine would race for apt; two runs of one checkout for the environment.
exec 9>"${TMPDIR:-/tmp}/broadway-peers.$(id -u).lock"
flock 9
install_brokers
install_queues
