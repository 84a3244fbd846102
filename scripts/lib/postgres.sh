# A private PostgreSQL cluster on loopback, without a unix socket (whose path has a short limit).
#
#   postgres     superuser, no password
#   warren       password "secret", scram
#   warren_tls   password "secret", only with TLS
#   warren_cert  only with TLS and the client certificate of the tests
#
# PG_BIN   folder of initdb and postgres, if not Debian's newest
# PG_OPTS  further options for the server, for instance "-c shared_buffers=512MB"

postgres_bin() {
  local found
  found=${PG_BIN:-$(find /usr/lib/postgresql -path '*/bin/initdb' 2>/dev/null | sort -V | tail -1)}
  [ -n "$found" ] || { echo "PostgreSQL is not installed" >&2; return 1; }
  [ -d "$found" ] && echo "$found" || dirname "$found"
}

postgres_create() { # HOME
  local tls
  tls=$(tls_folder)
  (cd / && "${AS[@]}" "$(postgres_bin)/initdb" -D "$1/db" -U postgres --auth=trust --no-sync -E UTF8 --locale=C.UTF-8) >"$DIR/log" 2>&1 ||
    process_failed initdb "$DIR/log"
  # Keys must belong to the server's user and be closed to others.
  process_copy "$1" "$tls/server.key" "$tls/server.pem" "$tls/ca.pem"
  # Nothing here outlives the tests: no disk flushes.
  "${AS[@]}" tee -a "$1/db/postgresql.conf" >/dev/null <<CONF
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 300
shared_buffers = 128MB
fsync = off
synchronous_commit = off
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
password_encryption = 'scram-sha-256'
ssl = on
ssl_ca_file = '$1/ca.pem'
ssl_cert_file = '$1/server.pem'
ssl_key_file = '$1/server.key'
CONF
  "${AS[@]}" tee "$1/db/pg_hba.conf" >/dev/null <<CONF
host    all  postgres     127.0.0.1/32  trust
hostssl all  warren_tls   127.0.0.1/32  scram-sha-256
hostssl all  warren_cert  127.0.0.1/32  cert
host    all  warren_tls,warren_cert  127.0.0.1/32  reject
host    all  all          127.0.0.1/32  scram-sha-256
CONF
  # Roles without a running server: the single-user mode reads statements, a line each.
  (cd / && "${AS[@]}" "$(postgres_bin)/postgres" --single -D "$1/db" postgres) >>"$DIR/log" 2>&1 <<SQL ||
CREATE ROLE warren LOGIN PASSWORD 'secret'
CREATE ROLE warren_tls LOGIN PASSWORD 'secret'
CREATE ROLE warren_cert LOGIN
CREATE DATABASE warren OWNER warren
SQL
    process_failed "PostgreSQL in single-user mode" "$DIR/log"
  echo yes >"$DIR/created"
}

postgres_print() {
  # shellcheck disable=SC2154 # set by ports_for
  cat <<VALUES
admin_url=postgres://postgres@127.0.0.1:$port_postgres/postgres
url=postgres://warren:secret@127.0.0.1:$port_postgres/warren
tls_url=postgres://warren_tls:secret@127.0.0.1:$port_postgres/warren?sslmode=require
cert_url=postgres://warren_cert@127.0.0.1:$port_postgres/warren?sslmode=require
VALUES
}

postgres_start() {
  local home tenths
  ports_for postgres
  process_as "${PG_OS_USER:-postgres}"
  home=$(process_home "${PG_OS_USER:-postgres}")
  [ -s "$DIR/created" ] || postgres_create "$home"
  if process_noted "$DIR/server" >/dev/null; then postgres_print; return; fi
  # After a kill its lock file stays, and names a process that may not have been reaped yet.
  rm -f "$home/db/postmaster.pid"
  cd /
  # shellcheck disable=SC2086 # PG_OPTS is several words
  process_start "$DIR/server" "$DIR/log" "${AS[@]}" "$(postgres_bin)/postgres" -D "$home/db" -p "$port_postgres" ${PG_OPTS:-}
  # The eighth line of its pid file says when it takes connections.
  for ((tenths = 0; tenths < 600; tenths++)); do
    case $("${AS[@]}" sed -n 8p "$home/db/postmaster.pid" 2>/dev/null || true) in ready*) break ;; esac
    process_noted "$DIR/server" >/dev/null || process_failed PostgreSQL "$DIR/log"
    sleep 0.1
  done
  ports_wait "$port_postgres" 50 "$DIR/server" || process_failed PostgreSQL "$DIR/log"
  postgres_print
}

postgres_stop() { process_stop "$DIR/server" INT 600; }
postgres_kill() { process_kill "$DIR/server"; }
postgres_pause() { process_signal "$DIR/server" STOP; }
postgres_resume() { process_signal "$DIR/server" CONT; }

postgres_remove() {
  process_kill "$DIR/starting"
  process_stop "$DIR/server" QUIT 70 # ends at once and leaves no shared memory behind
  process_remove
}
