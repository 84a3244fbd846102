# A private RabbitMQ node with the management plugin and TLS. Its own epmd, cookie and home.
# It never uses /usr/sbin/rabbitmq-server, the wrapper that switches to the package's user.
#
# RABBIT_BIN                    folder of rabbitmq-server, if it is not Debian's
# RABBIT_REQUIRE_CLIENT_CERT=1  the TLS listener refuses clients without a certificate
# RABBIT_CONF                   further lines for rabbitmq.conf
# RABBIT_PLUGINS                further plugins: rabbitmq_auth_mechanism_ssl
# All are read at the first start of a folder.

rabbit_bin() { echo "${RABBIT_BIN:-/usr/lib/rabbitmq/bin}"; }

# The environment of the node. Everything RabbitMQ would read from /etc is named.
rabbit_env() {
  ports_for amqp amqps management management_tls dist epmd
  # shellcheck disable=SC2154 # set by ports_for
  export HOME=$DIR/home RABBITMQ_CONF_ENV_FILE=/dev/null \
    RABBITMQ_NODENAME="t$port_amqp@localhost" RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 \
    RABBITMQ_NODE_PORT="$port_amqp" RABBITMQ_DIST_PORT="$port_dist" \
    RABBITMQ_MNESIA_BASE="$DIR/mnesia" RABBITMQ_LOG_BASE="$DIR/log" \
    RABBITMQ_GENERATED_CONFIG_DIR="$DIR/gen" RABBITMQ_CONFIG_FILE="$DIR/rabbitmq" \
    RABBITMQ_ADVANCED_CONFIG_FILE="$DIR/advanced" RABBITMQ_ENABLED_PLUGINS_FILE="$DIR/enabled_plugins" \
    RABBITMQ_PLUGINS_EXPAND_DIR="$DIR/expand" RABBITMQ_PID_FILE="$DIR/beam.pid" \
    ERL_EPMD_PORT="$port_epmd" ERL_EPMD_ADDRESS=127.0.0.1 \
    LANG=C.UTF-8 LC_ALL=C.UTF-8
  # Idle schedulers must not spin: the tests share the processors with the node.
  export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none'
}

rabbit_configure() {
  [ ! -s "$DIR/rabbitmq.conf" ] || return 0
  local tls must=false
  tls=$(tls_folder)
  [ -z "${RABBIT_REQUIRE_CLIENT_CERT:-}" ] || must=true
  mkdir -p "$DIR/home" "$DIR/mnesia" "$DIR/log" "$DIR/gen"
  chmod 700 "$DIR/home"
  echo "[rabbitmq_management${RABBIT_PLUGINS:+,$RABBIT_PLUGINS}]." >"$DIR/enabled_plugins"
  # Statistics twice a second, so that depths in the management API are fresh for tests.
  cat >"$DIR/rabbitmq.conf" <<CONF
listeners.tcp.1 = 127.0.0.1:$port_amqp
listeners.ssl.1 = 127.0.0.1:$port_amqps
ssl_options.cacertfile = $tls/ca.pem
ssl_options.certfile = $tls/server.pem
ssl_options.keyfile = $tls/server.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = $must
management.tcp.ip = 127.0.0.1
management.tcp.port = $port_management
management.ssl.ip = 127.0.0.1
management.ssl.port = $port_management_tls
management.ssl.cacertfile = $tls/ca.pem
management.ssl.certfile = $tls/server.pem
management.ssl.keyfile = $tls/server.key
collect_statistics_interval = 500
loopback_users.guest = true
log.console = false
log.file.level = warning
vm_memory_high_watermark.absolute = 2GiB
disk_free_limit.absolute = 50MB
${RABBIT_CONF:-}
CONF
}

rabbit_print() {
  cat <<VALUES
url=amqp://guest:guest@127.0.0.1:$port_amqp/%2f
tls_url=amqps://guest:guest@127.0.0.1:$port_amqps/%2f
management=http://guest:guest@127.0.0.1:$port_management
management_tls=https://guest:guest@127.0.0.1:$port_management_tls
VALUES
}

rabbit_start() {
  rabbit_env
  rabbit_configure
  if process_noted "$DIR/server" >/dev/null; then rabbit_print; return; fi
  rm -f "$DIR/beam.pid"
  process_noted "$DIR/epmd" >/dev/null ||
    process_start "$DIR/epmd" "$DIR/log/epmd" epmd -port "$port_epmd" -address 127.0.0.1
  # The node registers itself with the epmd at once: wait, or it would start one of its own.
  ports_wait "$port_epmd" 100 "$DIR/epmd" || process_failed epmd "$DIR/log/epmd"
  cd "$DIR"
  process_start "$DIR/server" "$DIR/log/stdout" "$(rabbit_bin)/rabbitmq-server"
  # Ready is when all listeners answer; `rabbitmqctl await_startup` polls every ten seconds only.
  local port
  for port in "$port_amqp" "$port_amqps" "$port_management" "$port_management_tls"; do
    ports_wait "$port" 900 "$DIR/server" || process_failed RabbitMQ "$DIR/log/stdout"
  done
  rabbit_print
}

# The node itself, below the shell script that started it.
rabbit_beam() {
  local pid
  pid=$(cat "$DIR/beam.pid" 2>/dev/null) && process_started "$pid" >/dev/null && echo "$pid"
}

rabbit_stop() {
  local pid
  pid=$(rabbit_beam) || pid=''
  if [ -n "$pid" ]; then kill -TERM "$pid" 2>/dev/null || true; fi # for the node SIGTERM is a clean stop
  pid=$(process_noted "$DIR/server") || return 0
  process_wait_gone "$pid" 600 || { process_kill "$DIR/server"; return 1; }
}

rabbit_kill() { process_kill "$DIR/server"; }

rabbit_pause() { kill -STOP "$(rabbit_beam)"; }
rabbit_resume() { kill -CONT "$(rabbit_beam)"; }

rabbit_remove() {
  process_kill "$DIR/starting"
  process_kill "$DIR/server"
  process_kill "$DIR/epmd"
  process_remove
}

rabbit_ctl() {
  rabbit_env
  cd "$DIR"
  # -q: no greetings; the node name comes from the environment.
  exec "$(rabbit_bin)/rabbitmqctl" -q "$@"
}
