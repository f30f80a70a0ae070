# shellcheck shell=bash
#
# test/lib/services.sh: a PostgreSQL cluster of our own and the local Postmark.
#
# Both are out of anybody's way: the cluster listens on a Unix socket in a
# directory of ours alone, so that its port can be 5432 on any machine; the
# sandbox listens on a port of 127.0.0.1 that the kernel picks.
#
# Gives
#   DATA, PGHOST, PGPORT, PGUSER   the cluster's; psql needs no more
#   SANDBOX_PORT, SANDBOX_URL      the sandbox's

DATA=''
SANDBOX=''

# start_cluster [LINE OF postgresql.conf]...
start_cluster()
{
    local log=$WORK/own/postgres.log

    DATA=$WORK/own/data
    export PGHOST=$WORK/own/socket PGPORT=5432 PGUSER=postgres
    "${OWNER[@]}" mkdir -m 755 "$PGHOST"
    "${OWNER[@]}" env -C "$WORK/own" "$BINDIR/initdb" -D "$DATA" -U "$PGUSER" -A trust \
        --no-locale --encoding=UTF8 >"$WORK/log/initdb.log" 2>&1 || {
        tail -n 20 "$WORK/log/initdb.log"
        die "initdb failed"
    }
    {
        say "listen_addresses = ''"
        say "unix_socket_directories = '$PGHOST'"
        say "port = $PGPORT"
        say "log_line_prefix = '%m [%p] %b %q%a '"
        say "max_worker_processes = 16"
        say "shared_preload_libraries = 'postmark_connector'"
        # whatever a test leaves out, no mail goes to the real Postmark
        [ -z "${SANDBOX_URL:-}" ] || say "postmark_connector.api_url = '$SANDBOX_URL'"
        (($# == 0)) || printf '%s\n' "$@"
    } >>"$DATA/postgresql.conf"
    "${OWNER[@]}" env -C "$WORK/own" "$BINDIR/pg_ctl" -D "$DATA" -l "$log" -w -t 60 -s start || {
        tail -n 30 "$log"
        die "PostgreSQL did not start"
    }
}

# stop_cluster [MODE]
stop_cluster()
{
    "${OWNER[@]}" env -C "$WORK/own" "$BINDIR/pg_ctl" -D "$DATA" -m "${1:-fast}" -w -t 60 -s stop
}

# start_sandbox [ARGUMENT]...: needs TREE. Sets SANDBOX to its pid.
start_sandbox()
{
    local port_file=$WORK/own/sandbox.port log=$WORK/own/sandbox.log

    job_start "$log" "${OWNER[@]}" env -C "$TREE" "$PYTHON" test/sandbox/postmark_sandbox \
        --host 127.0.0.1 --port 0 --port-file "$port_file" "$@"
    SANDBOX=$JOB
    if ! wait_until 30 sandbox_settled "$port_file" || [ ! -s "$port_file" ]; then
        tail -n 20 "$log"
        die "the sandbox did not start"
    fi
    SANDBOX_PORT=$(<"$port_file")
    export SANDBOX_PORT SANDBOX_URL=http://127.0.0.1:$SANDBOX_PORT
}

# It is up once it has written its port; or it has died trying.
sandbox_settled() { [ -s "$1" ] || pid_gone "$SANDBOX"; }
