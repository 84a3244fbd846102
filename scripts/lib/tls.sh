# Certificates for the tests, made anew for each run and valid for a few days: no private key is
# ever committed, and none can expire in the repository.
#
#   ca.pem                      signs everything below
#   server.pem server.key       for localhost and 127.0.0.1
#   client.pem client.key       CN=warren_cert, for servers that ask for a client certificate
#   nobody.pem nobody.key       CN=nobody, a client no server knows
#   stranger-ca.pem             an authority that signed nothing but the next
#   stranger.pem stranger.key   CN=warren_cert of that authority, which no server trusts

tls_authority() { # NAME
  openssl req -x509 -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
    -keyout "$1.key" -out "$1.pem" -subj "/CN=Warren tests $1" \
    -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign"
}

tls_leaf() { # NAME SUBJECT EXTENSIONS [AUTHORITY]
  local by=${4:-ca}
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -out "$1.csr" -subj "$2"
  openssl x509 -req -in "$1.csr" -CA "$by.pem" -CAkey "$by.key" -CAcreateserial -days 30 -out "$1.pem" \
    -extfile <(printf '%b' "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\n$3\n")
  rm "$1.csr"
}

tls_make() { # FOLDER
  [ ! -s "$1/done" ] || return 0
  mkdir -p "$1"
  (
    cd "$1"
    umask 022
    tls_authority ca
    tls_authority stranger-ca
    tls_leaf server "/CN=localhost" "extendedKeyUsage=serverAuth\nsubjectAltName=DNS:localhost,IP:127.0.0.1"
    tls_leaf client "/CN=warren_cert" "extendedKeyUsage=clientAuth\nsubjectAltName=DNS:warren.test"
    tls_leaf nobody "/CN=nobody" "extendedKeyUsage=clientAuth"
    tls_leaf stranger "/CN=warren_cert" "extendedKeyUsage=clientAuth" stranger-ca
    chmod 600 ./*.key # libpq refuses a client key that others can read
    echo yes >done
  ) >"$1/openssl.log" 2>&1 || { cat "$1/openssl.log" >&2; return 1; }
}

# The folder of the run when there is one, else one of the server's own.
tls_folder() {
  if [ -n "${WARREN_TEST_TLS_DIR:-}" ]; then echo "$WARREN_TEST_TLS_DIR"; return; fi
  tls_make "$DIR/tls"
  echo "$DIR/tls"
}
