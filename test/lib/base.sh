# shellcheck shell=bash
#
# test/lib/base.sh: the ground that test/check and test/demo stand on: one
# temporary directory, one list of the processes we started, one clean-up.
#
# Sourced, with "set -euo pipefail" in force, by a script that has set
#   ROOT   the top of the source tree
# and gives it
#   WORK   the temporary directory; all that we write lies below it
#   OWNER  the words to put before a command that has to run unprivileged
#
# Everything we start is either a job of job_start(), in a process group of
# its own and listed in $WORK/jobs, or a postmaster whose data directory lies
# below $WORK. That is what lets clean_up() end exactly our processes, by pid,
# and no others.

# shellcheck disable=SC2034  # read by the scripts that source this file
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' GREEN=$'\e[32m' CYAN=$'\e[36m'
    PLAIN=$'\e[0m'
else
    BOLD='' DIM='' RED='' GREEN='' CYAN='' PLAIN=''
fi

# Always Debian's Python: one from elsewhere in PATH lacks the modules that
# the packages bring.
# shellcheck disable=SC2034
PYTHON=/usr/bin/python3

WORK=''
OWNER=()

say() { printf '%s\n' "$*"; }
heading() { printf '\n%s%s%s\n' "$BOLD" "$*" "$PLAIN"; }
indent() { sed "s/^/${1:-    }/"; }

die()
{
    printf '%s%s: %s%s\n' "$RED" "${0##*/}" "$*" "$PLAIN" >&2
    exit 1
}

# Nothing of the caller's session may reach the programs we start: a PGHOST
# would send psql elsewhere, a locale would change initdb's encoding, and a
# PATH with version managers in it would find the wrong python3.
clean_environment()
{
    local name

    for name in $(compgen -e | grep -E '^(PG|LC_)' | grep -vE '^(PG_TEST_TIMEOUT_DEFAULT|PG_MAJOR|PG_OLD_MAJOR)$'); do
        unset "$name"
    done
    unset LANGUAGE CDPATH GREP_OPTIONS PERL5OPT PYTHONHOME PYTHONPATH MAKEFLAGS
    export LANG=C.UTF-8 LC_MESSAGES=C
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    umask 022
}

# Sets WORK. The name is short because a Unix socket's path, which has to fit
# below it, is limited to 107 bytes.
make_work()
{
    local parent=${TMPDIR:-/tmp}

    ((${#parent} <= 40)) || parent=/tmp
    WORK=$(mktemp -d "$parent/pmc.XXXXXX")
    chmod 755 "$WORK"
    mkdir "$WORK/jobs" "$WORK/log" "$WORK/own"
}

# Sets OWNER. PostgreSQL refuses to run as root, so there its server, and
# whatever writes beside it, runs as the user that Debian's package made for
# it, in $WORK/own.
choose_owner()
{
    OWNER=()
    if ((EUID == 0)); then
        id -u postgres >/dev/null 2>&1 || die "there is no user postgres to run the server as"
        OWNER=(setpriv --reuid=postgres --regid=postgres --init-groups)
        chown postgres: "$WORK/own"
    fi
    mkdir -p "$WORK/own/home" "$WORK/own/tmp"
    if ((EUID == 0)); then
        chown postgres: "$WORK/own"/*
    fi
    # so that nothing is read from, or left in, the caller's home or /tmp
    export HOME=$WORK/own/home TMPDIR=$WORK/own/tmp
}

# wait_until SECONDS COMMAND...: true as soon as the command is, false if it
# never was.
wait_until()
{
    local end=$((SECONDS + $1))

    shift
    until "$@"; do
        ((SECONDS < end)) || return 1
        sleep 0.05
    done
}

# When a process was started, in clock ticks since the machine was: with the pid
# it names one process for good.
started() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }

# job_start LOG COMMAND...: sets JOB to the pid, which is its group's as well.
job_start()
{
    local log=$1

    shift
    setsid "$@" >>"$log" 2>&1 </dev/null &
    JOB=$!
    started "$JOB" >"$WORK/jobs/$JOB" || true
}

# Ends a job with all that it started. A pid that has become somebody else's
# meanwhile, which matters to what test/demo --keep left, is let be.
job_end()
{
    local job=$1 signal now

    now=$(started "$job") || now=''
    if [ -n "$now" ] && [ "$now" != "$(cat "$WORK/jobs/$job" 2>/dev/null)" ]; then
        rm -f "$WORK/jobs/$job"
        return 0
    fi
    # Of a job that has only just been forked the group may not exist yet.
    for signal in TERM KILL; do
        kill -s "$signal" -- "-$job" 2>/dev/null || kill -s "$signal" "$job" 2>/dev/null || break
        wait_until 5 job_gone "$job" && break
    done
    rm -f "$WORK/jobs/$job"
}

job_gone() { ! kill -0 -- "-$1" 2>/dev/null && ! kill -0 "$1" 2>/dev/null; }

# job_follow LOG SECONDS COMMAND...: runs the command as a job, shows its
# output as it comes, returns its exit status (124 at the time limit). The
# shell itself only ever sits in "wait", where a signal finds it at once.
job_follow()
{
    local log=$1 limit=$2 job show status=0

    shift 2
    : >"$log"
    job_start "$log" timeout --kill-after=10 "$limit" "$@"
    job=$JOB
    tail -n +1 -s 0.1 -f --pid="$job" "$log" &
    show=$!
    wait "$job" || status=$?
    wait "$show" || true
    job_end "$job"
    ((status != 124)) || say "stopped: not finished within $limit s"
    return "$status"
}

# The postmasters whose data directory lies below $WORK, one pid a line. One
# counts only if it still sits in that directory: the pid of a server that
# crashed may belong to somebody else by now.
our_postmasters()
{
    local file pid

    while IFS= read -r file; do
        pid=$(head -n 1 "$file" 2>/dev/null) || continue
        if [[ $pid =~ ^[0-9]+$ && $(readlink "/proc/$pid/cwd") = "${file%/*}" ]]; then
            say "$pid"
        fi
    done < <(find "$WORK" -name postmaster.pid 2>/dev/null)
}

pid_gone() { ! kill -0 "$1" 2>/dev/null; }

# The last thing a script does, however it ends: nothing of ours stays. With
# POSTMARK_TEST_KEEP=1 the files do, to be looked at.
clean_up()
{
    local file pid

    allow_clusters
    allow_services
    [ -n "$WORK" ] && [ -d "$WORK/jobs" ] || return 0
    for file in "$WORK"/jobs/*; do
        [ ! -e "$file" ] || job_end "${file##*/}"
    done
    for pid in $(our_postmasters); do
        kill -QUIT "$pid" 2>/dev/null || true
        wait_until 10 pid_gone "$pid" || kill -KILL "$pid" 2>/dev/null || true
    done
    if [ "${POSTMARK_TEST_KEEP:-0}" = 1 ]; then
        say "kept: $WORK"
    else
        rm -rf "$WORK"
    fi
}

# on_exit FUNCTION: called with the exit status, however the script ends.
# Signals are made to end it in the ordinary way, so that this holds for them
# too, and they can't interrupt the function itself.
on_exit()
{
    # shellcheck disable=SC2064  # the name is known now
    trap "EXIT_STATUS=\$?; trap '' HUP INT TERM; $1 \$EXIT_STATUS" EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}
