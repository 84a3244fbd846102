# A private server that speaks as SQS and STS do, on loopback: moto, of the tests' Python.
#
# WARREN_TEST_PYTHON  the Python that has moto; default: the one that ./test makes
#
# It forgets everything when it ends: a stop and a start lose its queues.

sqs_print() {
  # shellcheck disable=SC2154 # set by ports_for
  echo "url=http://127.0.0.1:$port_sqs"
}

sqs_start() {
  ports_for sqs
  if process_noted "$DIR/server" >/dev/null; then sqs_print; return; fi
  # Nothing of the machine's own settings or keys.
  process_start "$DIR/server" "$DIR/log" env -u AWS_PROFILE AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null \
    "${WARREN_TEST_PYTHON:-$here/../.test/venv/bin/python}" -m moto.server -H 127.0.0.1 -p "$port_sqs"
  ports_wait "$port_sqs" 600 "$DIR/server" || process_failed moto "$DIR/log"
  sqs_print
}

sqs_stop() { process_stop "$DIR/server" TERM 600; }
sqs_kill() { process_kill "$DIR/server"; }
sqs_pause() { process_signal "$DIR/server" STOP; }
sqs_resume() { process_signal "$DIR/server" CONT; }

sqs_remove() {
  process_kill "$DIR/starting"
  process_kill "$DIR/server"
  process_remove
}
