#!/usr/bin/env bash
# Makes the container images that the sample run and the tests use, without a registry of images: `busybox` from
# Debian's static busybox, `python` (the longer one, under a minute) from a debootstrap of Debian with python3.
#
#   scripts/make_images.sh busybox|python...
#
# An image that exists is left alone. Installs nothing: scripts/services.sh does that. `python` needs root, unless the
# tarball that an earlier run left in .services/ is there. Exits 1 when an image could not be made.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

state=.services
mkdir -p $state

say() { printf 'images: %s\n' "$*"; }
fail() {
    printf 'images: %s\n' "$*" >&2
    exit 1
}

cleanup=()
trap '[ ${#cleanup[@]} -eq 0 ] || rm -rf --one-file-system "${cleanup[@]}"' EXIT

make_busybox() {
    local busybox root applet
    busybox=$(command -v busybox) || fail "no busybox on PATH: apt-get install busybox-static"
    root=$(mktemp -d)
    cleanup+=("$root")
    mkdir -p "$root"/{bin,dev,etc,job,proc,root,sys,tmp,usr}
    chmod 755 "$root"
    chmod 1777 "$root/tmp"
    cp "$busybox" "$root/bin/busybox"
    "$root/bin/busybox" --list | while read -r applet; do
        [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
    done
    ln -s ../bin "$root/usr/bin" # scripts that start with #!/usr/bin/env
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
    tar --create --numeric-owner --owner 0 --group 0 --directory "$root" . |
        docker import --change 'CMD ["sh"]' --change 'ENV PATH=/bin' - broadway-busybox:latest >/dev/null
}

make_python() {
    local tarball=$state/broadway-python.tar.gz
    if [ ! -f $tarball ]; then
        command -v debootstrap >/dev/null || fail "no debootstrap: as root, apt-get install debootstrap"
        [ "$(id -u)" = 0 ] || fail "making broadway-python needs root (debootstrap does)"
        local root suite mirror
        # Not below the checkout: that may be mounted without device files or set-user-id bits.
        root=$(mktemp -d)
        cleanup+=("$root" "$tarball.part")
        suite=$(. /etc/os-release && [ "$ID" = debian ] && printf '%s' "$VERSION_CODENAME") || suite=bookworm
        # The mirror that apt uses on this machine is the one that is known to be reachable.
        mirror=$(apt-get indextargets --format '$(REPO_URI)' "Release: $suite" 'Created-By: Packages' 2>/dev/null |
            head -n 1) || true
        debootstrap --variant=minbase --include=python3 "$suite" "$root" \
            "${mirror:-http://deb.debian.org/debian}" >$state/debootstrap.log 2>&1 ||
            fail "debootstrap failed: $(tail -n 1 $state/debootstrap.log), see $state/debootstrap.log"
        chmod 755 "$root"
        tar --create --gzip --numeric-owner --one-file-system --directory "$root" --exclude './var/cache/apt/*' \
            --exclude './var/lib/apt/lists/*' --exclude './usr/share/doc/*' --exclude './usr/share/man/*' \
            --exclude './usr/share/locale/*' --exclude './dev/*' . >$tarball.part
        mv $tarball.part $tarball
    fi
    docker import --change 'CMD ["python3"]' $tarball broadway-python:latest >/dev/null
}

[ $# -gt 0 ] || fail "usage: scripts/make_images.sh busybox|python..."
for name in "$@"; do
    case $name in busybox | python) ;; *) fail "no such image: $name" ;; esac
    if docker image inspect "broadway-$name:latest" >/dev/null 2>&1; then
        say "broadway-$name:latest is there"
    else
        say "making broadway-$name:latest"
        "make_$name"
    fi
done
