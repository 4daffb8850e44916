#!/bin/sh
# The front door: prepares this machine, then hands over to the builder in images/ (`./mkimage.sh help`).
#   ./mkimage.sh [build]       build the image into out/
#   ./mkimage.sh run           build it if needed and boot it, serial console in this terminal
#   ./mkimage.sh tools CMD...  run a command in the tool root (compilers, QEMU ...), sources at /keelson
set -eu
cd "$(dirname "$0")"
say() { echo "mkimage: $*" >&2; }
if [ "${1:-}" = tools ]; then shift; else set -- cargo run --quiet --locked --profile tool -p keelson-images -- "${@:-build}"; fi
[ -z "${KEELSON_IN_TOOLS:-}" ] || exec "$@" # called from inside the tool root: it is prepared and locked already

[ "$(id -u)" = 0 ] || { say "must run as root: it makes a Debian tree and enters it with chroot"; exit 1; }
# All that the host itself contributes: a way to make a Debian 13 tree, and to enter it.
for need in mmdebstrap:mmdebstrap unshare:util-linux flock:util-linux; do
    command -v "${need%:*}" >/dev/null && continue
    say "installing ${need#*:} (for ${need%:*}: makes or enters the Debian 13 tool root, all other tools come from there)"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need#*:}"; } >&2 ||
        { say "could not install ${need#*:} with apt-get; install it by hand and try again"; exit 1; }
done

# The tool root: compilers and image tools of one version whatever the host's age.
packages=$(sed 's/#.*//' images/tools.packages | tr -s '\n ' ',' | sed 's/^,//; s/,$//')
tools=out/tools-$(printf %s "$packages" | sha256sum | cut -c1-12)
mkdir -p out && exec 9>out/.tools.lock && flock 9
if [ ! -d "$tools" ]; then
    say "making the tool root $tools from Debian 13 packages (once; about 600 MB to fetch)"
    rm -rf "$tools.new"
    mmdebstrap --quiet --variant=apt --skip=cleanup/apt --include="$packages" trixie "$tools.new" ||
        { rm -rf "$tools.new"; say "the tool root could not be made: see the error above (network? disk space?)"; exit 1; }
    mv "$tools.new" "$tools"
    for old in out/tools-*; do [ "$old" = "$tools" ] || flock --nonblock "$old" rm -rf "$old" || true; done
fi
exec 8<"$tools" && flock --shared 8 && exec 9>&- # held as long as the tool root is in use

# The keys that may log in to a machine made by `run`: the tool root does not see anybody's home.
home=$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)
KEELSON_SSH_KEYS=${KEELSON_SSH_KEYS-$(cat "$home"/.ssh/*.pub 2>/dev/null || true)}
export KEELSON_SSH_KEYS KEELSON_IN_TOOLS=1
unset RUSTFLAGS CARGO_TARGET_DIR CARGO_BUILD_TARGET RUSTC_WRAPPER RUSTUP_TOOLCHAIN
# shellcheck disable=SC2016  # the inner shell expands these
exec unshare --mount --propagation private sh -eu -c '
    root=$1 top=$2; shift 2
    for dir in proc sys dev; do mount --rbind "/$dir" "$root/$dir"; done
    mkdir -p "$root/keelson"; mount --bind "$top" "$root/keelson"
    for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt; do
        [ -e "$file" ] || continue
        [ -e "$root$file" ] || touch "$root$file"
        mount --bind "$file" "$root$file"
    done
    export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root CARGO_HOME=/keelson/out/cargo TMPDIR=/tmp
    mount -t tmpfs tmpfs "$root/tmp"
    exec chroot "$root" sh -c "cd /keelson && exec \"\$@\"" sh "$@"
' sh "$tools" "$PWD" "$@"
