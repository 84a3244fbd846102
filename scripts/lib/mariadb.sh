# A private MariaDB on loopback.
#
#   warren       password "secret", may do everything
#   warren_tls   password "secret", only with TLS
#
# MARIADB_OPTS  further options for the server

mariadb_create() { # HOME
  # As root we are already the right user by then; the script must not switch again.
  (cd / && "${AS[@]}" mariadb-install-db --no-defaults --datadir="$1/db" --skip-test-db \
    --auth-root-authentication-method=normal --skip-name-resolve) >"$DIR/log" 2>&1 ||
    process_failed mariadb-install-db "$DIR/log"
  local tls
  tls=$(tls_folder)
  process_copy "$1" "$tls/server.key" "$tls/server.pem" "$tls/ca.pem"
  "${AS[@]}" tee "$1/init.sql" >/dev/null <<SQL
CREATE USER IF NOT EXISTS 'warren'@'127.0.0.1' IDENTIFIED BY 'secret';
GRANT ALL ON *.* TO 'warren'@'127.0.0.1' WITH GRANT OPTION;
CREATE USER IF NOT EXISTS 'warren_tls'@'127.0.0.1' IDENTIFIED BY 'secret' REQUIRE SSL;
CREATE DATABASE IF NOT EXISTS warren CHARACTER SET utf8mb4;
GRANT ALL ON *.* TO 'warren_tls'@'127.0.0.1';
SQL
  echo yes >"$DIR/created"
}

mariadb_print() {
  # shellcheck disable=SC2154 # set by ports_for
  cat <<VALUES
url=mysql://warren:secret@127.0.0.1:$port_mariadb/warren
tls_url=mysql://warren_tls:secret@127.0.0.1:$port_mariadb/warren
VALUES
}

mariadb_start() {
  local home server
  ports_for mariadb
  process_as mysql
  home=$(process_home mysql)
  server=$(PATH=$PATH:/usr/sbin:/usr/libexec command -v mariadbd) || { echo "MariaDB is not installed" >&2; return 1; }
  [ -s "$DIR/created" ] || mariadb_create "$home"
  if process_noted "$DIR/server" >/dev/null; then mariadb_print; return; fi
  cd /
  # A relative socket lies in the data folder: socket paths have a short limit.
  # shellcheck disable=SC2086 # MARIADB_OPTS is several words
  process_start "$DIR/server" "$DIR/log" "${AS[@]}" "$server" --no-defaults --datadir="$home/db" \
    --bind-address=127.0.0.1 --port="$port_mariadb" --socket=mysqld.sock --pid-file="$home/pid" \
    --skip-name-resolve --skip-log-bin --init-file="$home/init.sql" --max-connections=300 \
    --character-set-server=utf8mb4 --max-allowed-packet=64M \
    --innodb-flush-log-at-trx-commit=0 --innodb-doublewrite=0 --innodb-buffer-pool-size=128M --innodb-log-file-size=48M \
    --ssl-ca="$home/ca.pem" --ssl-cert="$home/server.pem" --ssl-key="$home/server.key" ${MARIADB_OPTS:-}
  # It listens after its init file is done.
  ports_wait "$port_mariadb" 600 "$DIR/server" || process_failed MariaDB "$DIR/log"
  mariadb_print
}

mariadb_stop() { process_stop "$DIR/server" TERM 600; }
mariadb_kill() { process_kill "$DIR/server"; }
mariadb_pause() { process_signal "$DIR/server" STOP; }
mariadb_resume() { process_signal "$DIR/server" CONT; }

mariadb_remove() {
  process_kill "$DIR/starting"
  process_kill "$DIR/server"
  process_remove
}
