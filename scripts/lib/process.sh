# Processes we started, known by id and start time, so that a recycled id is never signalled.
# A file written by `process_note` holds both.

# Start time of process $1 in clock ticks; fails when it is gone (a zombie is gone).
process_started() {
  local stat # not `$(<file)`: bash 5.2 ends the whole script when the file is not there
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
  stat=${stat##*) }
  # shellcheck disable=SC2086 # the fields are wanted as words
  set -- $stat
  [ "$1" != Z ] && [ "$1" != X ] && echo "${20}"
}

process_note() { # FILE PID
  echo "$2 $(process_started "$2" || echo gone)" >"$1"
}

# Prints the id of the process noted in file $1; fails when it no longer runs.
process_noted() {
  local pid started
  [ -s "$1" ] && read -r pid started <"$1" && [ "$(process_started "$pid")" = "$started" ] && echo "$pid"
}

# Waits until process $1 is gone, for at most $2 tenths of a second.
process_wait_gone() {
  local tenths
  for ((tenths = 0; tenths < $2; tenths++)); do
    process_started "$1" >/dev/null || return 0
    sleep 0.1
  done
  ! process_started "$1" >/dev/null
}

# Process $1 and everything below it, children last.
process_tree() {
  local child
  echo "$1"
  # A process may end while it is looked at: then it has no children to list.
  for child in $(cat "/proc/$1/task/"*/children 2>/dev/null || true); do process_tree "$child"; done
}

# SIGKILL for the noted process and all below it; returns when they are gone.
process_kill() { # FILE
  local pid tree one
  pid=$(process_noted "$1") || return 0
  tree=$(process_tree "$pid")
  # shellcheck disable=SC2086
  kill -KILL $tree 2>/dev/null || true
  for one in $tree; do process_wait_gone "$one" 100; done
}

# A signal and then patience; SIGKILL at the end of it.
process_stop() { # FILE SIGNAL TENTHS
  local pid
  pid=$(process_noted "$1") || return 0
  kill "-$2" "$pid" 2>/dev/null || true
  process_wait_gone "$pid" "$3" || process_kill "$1"
}

process_signal() { # FILE SIGNAL
  local pid
  pid=$(process_noted "$1") || { echo "not running: $DIR" >&2; return 1; }
  kill "-$2" "$pid"
}

# Starts a command in a session of its own, so that Ctrl-C in the terminal does not reach it;
# `process_stop` does. stdout and stderr go to LOG.
process_start() { # FILE LOG COMMAND…
  local file=$1 log=$2
  shift 2
  # `setsid` does not fork here: a background job of a script leads no group, so $! is the server.
  setsid "$@" >>"$log" 2>&1 </dev/null 3>&- &
  process_note "$file" $!
  disown
}

# Makes DIR/data usable for operating system user $1 and prints its path. As root a server runs
# as its package's user, who may not be able to reach the checkout (/root is closed): then the
# data goes to the folder for temporary files, with a link to it.
process_home() {
  local user=$1 home=$DIR/data
  if [ ! -e "$home" ]; then
    mkdir -p "$home"
    if [ "$(id -u)" = 0 ]; then
      chown "$user:" "$home"
      if ! process_reaches "$user" "$home"; then
        rmdir "$home"
        home=$(mktemp -d "${TMPDIR:-/tmp}/warren-$user.XXXXXX")
        ln -s "$home" "$DIR/data"
        chown "$user:" "$home"
        process_reaches "$user" "$home" ||
          { echo "the user $user can reach neither $DIR nor ${TMPDIR:-/tmp}: set TMPDIR" >&2; return 1; }
      fi
    fi
    chmod 700 "$home"
  fi
  readlink -f "$home"
}

process_reaches() { # USER FOLDER
  setpriv --reuid="$1" --regid="$1" --init-groups test -w "$2" 2>/dev/null
}

# The words that run a command as user $1, or none when we are not root.
process_as() {
  AS=()
  [ "$(id -u)" != 0 ] || AS=(setpriv --reuid="$1" --regid="$1" --init-groups env "HOME=/nonexistent")
}

# Copies files, which only we can read, into FOLDER as the server's user, closed to all others.
process_copy() { # FOLDER FILE…
  local folder=$1 file
  shift
  for file in "$@"; do
    # shellcheck disable=SC2016 # expanded by the inner shell
    "${AS[@]}" sh -c 'umask 077 && cat >"$1"' - "$folder/${file##*/}" <"$file"
  done
}

process_remove() { # deletes DIR and the data beside it
  [ ! -L "$DIR/data" ] || rm -rf "$(readlink -f "$DIR/data")"
  ports_release
  rm -rf "$DIR"
}

# Fails with the end of the log.
process_failed() { # WHAT LOG
  echo "$1 did not start; the end of $2:" >&2
  tail -n 25 "$2" >&2 || true
  return 1
}
