# Servers of another Debian release than the machine's: a root folder made by debootstrap, in which `scripts/servers` runs itself
# again. Needs root. Mounts live in a mount namespace of the server's process: they end with it, and nothing has to be unmounted.
#
# SERVERS_ROOT   the root folder in which new servers run; empty: the machine's own servers. scripts/install makes it

# Runs `scripts/servers` with these arguments inside ROOT. The checkout, DIR and the folder for temporary files have the same paths there.
root_run() { # ROOT ARGUMENTS…
  local root=$1 checkout
  shift
  checkout=$(cd "$here/.." && pwd)
  [ -x "$root/bin/bash" ] || { echo "$root is missing: run ./test, which makes it" >&2; return 1; }
  # shellcheck disable=SC2016 # expanded by the inner shell
  exec unshare --mount --propagation private bash -c '
    set -euo pipefail
    root=$1 checkout=$2 dir=$3 tmp=$4
    shift 4
    # The parent of DIR: a folder that is mounted itself could not be removed.
    for from in /proc /dev /sys "$tmp" "$checkout" "$(dirname "$dir")"; do
      case $from/ in "$checkout"/?* | "$tmp"/?*) continue ;; esac # is there with the other
      mkdir -p "$root$from"
      mount --rbind "$from" "$root$from"
    done
    touch "$root/etc/hosts"
    mount --bind /etc/hosts "$root/etc/hosts"
    exec chroot "$root" /usr/bin/env -C "$dir" SERVERS_INSIDE=1 \
      PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$checkout/scripts/servers" "$@"
  ' - "$root" "$checkout" "$DIR" "${TMPDIR:-/tmp}" "$@"
}

# The root folder in which the server of DIR runs; fails when it is one of the machine's own. A new DIR gets it from the environment, and keeps it.
root_of() { # VERB
  if [ "$1" = start ] && [ ! -e "$DIR/ports" ] && [ ! -e "$DIR/root" ] && [ -n "${SERVERS_ROOT:-}" ]; then
    echo "$SERVERS_ROOT" >"$DIR/root"
  fi
  [ -s "$DIR/root" ] && cat "$DIR/root"
}
