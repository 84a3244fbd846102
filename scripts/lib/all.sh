# All four servers side by side, and the environment the tests read. CONTRIBUTING.md lists it.

all_start() {
  local one failed='' pids=()
  export WARREN_TEST_TLS_DIR=$DIR/tls
  tls_make "$WARREN_TEST_TLS_DIR"
  mkdir -p "$DIR/scratch"
  for one in rabbit postgres mariadb sqs; do
    mkdir -p "$DIR/$one"
    "$here/servers" "$one" start "$DIR/$one" >"$DIR/$one.values" &
    process_note "$DIR/$one/starting" $! # so that a remove in the middle can end it
    pids+=($!)
  done
  for one in "${pids[@]}"; do wait "$one" || failed=yes; done
  if [ -n "$failed" ]; then
    all_remove_servers
    return 1
  fi
  {
    echo "WARREN_TEST_DIR=$DIR/scratch"
    echo "WARREN_TEST_SCRIPTS=$here"
    echo "WARREN_TEST_TLS_DIR=$DIR/tls"
    all_value RABBIT_URL rabbit url
    all_value RABBITS_URL rabbit tls_url
    all_value RABBIT_MGMT rabbit management
    all_value RABBIT_MGMT_TLS rabbit management_tls
    all_value PG_ADMIN_URL postgres admin_url
    all_value PG_URL postgres url
    all_value PG_TLS_URL postgres tls_url
    all_value PG_CERT_URL postgres cert_url
    echo "WARREN_TEST_PG_PSQL=$(command -v psql)"
    all_value MYSQL_URL mariadb url
    all_value MYSQL_TLS_URL mariadb tls_url
    all_value SQS_URL sqs url
  } >"$DIR/env"
  local line
  while IFS= read -r line; do printf 'export %s=%q\n' "${line%%=*}" "${line#*=}"; done <"$DIR/env"
}

all_value() { # NAME SERVER KEY
  local line
  line=$(grep "^$3=" "$DIR/$2.values")
  echo "WARREN_TEST_$1=${line#*=}"
}

all_remove() {
  process_kill "$DIR/running" # the tests, when ./test was killed
  all_remove_servers
  rm -rf "$DIR"
}

# Also what tests started below the scratch folder and could not end, because they were killed.
all_remove_servers() {
  local folder kind
  for folder in "$DIR"/scratch/*-server-*/ "$DIR"/rabbit/ "$DIR"/postgres/ "$DIR"/mariadb/ "$DIR"/sqs/; do
    [ -d "$folder" ] || continue
    kind=$(basename "$folder")
    kind=${kind%%-server-*}
    "$here/servers" "$kind" remove "$folder" || echo "not removed: $folder" >&2
  done
}
