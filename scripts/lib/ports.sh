# Free ports. They lie below the range from which the kernel takes ports for outgoing
# connections, and are reserved by a file each, so that servers that start at the same moment
# never get the same one. A server keeps its ports in DIR/ports over a restart.

ports_folder() { echo "${TMPDIR:-/tmp}/warren-ports-$(id -u)"; }

# Reserves a free port and prints it.
ports_take() {
  local folder port tries
  folder=$(ports_folder)
  mkdir -p "$folder"
  for ((tries = 0; tries < 1000; tries++)); do
    port=$((10000 + RANDOM % 22000))
    (set -o noclobber && echo "$DIR" >"$folder/$port") 2>/dev/null || continue
    # Somebody listens there already: leave the file for now, it costs nothing.
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then continue; fi
    echo "$port"
    return
  done
  echo "no free port found; is $folder full of old files?" >&2
  return 1
}

# Sets the variable port_NAME for each NAME, from DIR/ports or anew.
ports_for() {
  local name
  if [ ! -s "$DIR/ports" ]; then
    find "$(ports_folder)" -type f -mmin +1440 -delete 2>/dev/null || true # left by killed runs
    for name in "$@"; do echo "port_$name=$(ports_take)"; done >"$DIR/ports.new"
    mv "$DIR/ports.new" "$DIR/ports"
  fi
  # shellcheck source=/dev/null
  . "$DIR/ports"
}

ports_release() {
  local line
  [ -s "$DIR/ports" ] || return 0
  while read -r line; do rm -f "$(ports_folder)/${line#*=}"; done <"$DIR/ports"
}

# Waits until something answers on port $1, for at most $2 tenths, as long as process file $3 lives.
ports_wait() {
  local tenths
  for ((tenths = 0; tenths < $2; tenths++)); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return 0; fi
    process_noted "$3" >/dev/null || return 1
    sleep 0.1
  done
  return 1
}
