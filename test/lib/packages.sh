# shellcheck shell=bash
#
# test/lib/packages.sh: what a bare Debian 12 lacks. On a machine that has it
# all this asks dpkg once and touches nothing.

# To build, and to run with the sandbox. The tools of build-essential are
# named one by one: its C++ compiler is of no use here.
# shellcheck disable=SC2034  # read by the scripts that source this file
PACKAGES_RUN=(postgresql-15 postgresql-server-dev-15 libcurl4-openssl-dev
    gcc libc6-dev make python3 python3-aiohttp python3-pystache)

# To test as well. clang-14, for the second compile check, is a dependency of
# postgresql-server-dev-15, but it is we who call it.
# shellcheck disable=SC2034
PACKAGES_TEST=(clang-14 perl libipc-run-perl openssl ca-certificates)

# What the examples of doc/ name. Node.js and its driver come with them, or from
# npm where that is there.
# shellcheck disable=SC2034
PACKAGES_PAGES=(curl postgresql-15-pgtap libtap-parser-sourcehandler-pgtap-perl
    python3-flask python3-psycopg python3-pytest)
# shellcheck disable=SC2034
PACKAGES_NODE=(nodejs node-pg)

# find_missing NAME...: sets MISSING to those that are not installed
find_missing()
{
    local name status

    MISSING=()
    for name in "$@"; do
        # one word an architecture; a package that dpkg never met has none
        status=" $(dpkg-query -W -f='${db:Status-Status} ' "$name" 2>/dev/null || true)"
        [[ $status = *' installed '* ]] || MISSING+=("$name")
    done
}

# ensure_packages NAME...
ensure_packages()
{
    local log=$WORK/log/packages.log root=()

    command -v dpkg-query >/dev/null || die "this needs Debian 12 (there is no dpkg here)"
    find_missing "$@"
    ((${#MISSING[@]} > 0)) || return 0

    if ((EUID != 0)); then
        sudo -n true 2>/dev/null ||
            die "only root can install what is missing: apt-get install ${MISSING[*]}"
        root=(sudo -n)
    fi
    say "Installing ${MISSING[*]}"
    {
        "${root[@]}" apt-get -qq update &&
            "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y \
                --no-install-recommends -o DPkg::Lock::Timeout=300 "${MISSING[@]}"
    } >"$log" 2>&1 </dev/null || {
        tail -n 20 "$log"
        die "apt-get could not install ${MISSING[*]}"
    }
    find_missing "$@"
    ((${#MISSING[@]} == 0)) || die "still missing after apt-get install: ${MISSING[*]}"
}
