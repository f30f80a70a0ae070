# shellcheck shell=bash
#
# test/lib/packages.sh: which PostgreSQL, and what a bare Debian lacks. On a
# machine that has it all this asks dpkg once and touches nothing.
#
# Reads PG_MAJOR, the version wanted, or POSTMARK_TEST_PG, the directory of a
# PostgreSQL that was not Debian's to build. Gives
#   PG_MAJOR        the version taken
#   DEBIAN_PG       where its programs are, and its libraries
#   DEBIAN_SHARE    where its extensions are
#   PACKAGES_...    what is needed for what

# The versions that the extension serves, the newest first
SERVED=(19 18 17 16 15)

# choose_postgres: without a PG_MAJOR the newest that is installed, or else the
# newest that can be.
choose_postgres()
{
    local wanted=${PG_MAJOR:-} served="${SERVED[-1]} to ${SERVED[0]}" majors=("${SERVED[@]}")

    [[ -z $wanted || " ${SERVED[*]} " = *" $wanted "* ]] ||
        die "PG_MAJOR is $wanted, and postmark_connector serves PostgreSQL $served"
    command -v dpkg-query >/dev/null || die "this needs Debian, or a system made of it (there is no dpkg here)"
    [ -z "$wanted" ] || majors=("$wanted")
    if [ -n "${POSTMARK_TEST_PG:-}" ]; then
        take_built "$POSTMARK_TEST_PG"
    else
        find_postgres installed "${majors[@]}" ||
            find_postgres offered "${majors[@]}" ||
            { refresh_lists && find_postgres offered "${majors[@]}"; } ||
            die "PostgreSQL ${wanted:-$served} would serve, but it is not installed and no package source of this machine has it"
        take_postgres "$PG_MAJOR"
    fi

    # To build, and to run with the sandbox. The tools of build-essential are
    # named one by one: its C++ compiler is of no use here.
    # shellcheck disable=SC2034  # read by the scripts that source this file
    PACKAGES_RUN=(libcurl4-openssl-dev gcc libc6-dev make python3 python3-aiohttp tzdata)
    [ -n "${POSTMARK_TEST_PG:-}" ] ||
        PACKAGES_RUN+=("postgresql-$PG_MAJOR" "postgresql-server-dev-$PG_MAJOR")

    # To test as well. A clang, for the second compile check, is a dependency
    # of postgresql-server-dev, but it is we who call it.
    # shellcheck disable=SC2034
    PACKAGES_TEST=(clang perl libipc-run-perl openssl ca-certificates procps)

    # What the examples of doc/ name. Node.js and its driver come with them, or
    # from npm where that is there.
    # shellcheck disable=SC2034
    PACKAGES_PAGES=(curl libtap-parser-sourcehandler-pgtap-perl
        python3-flask python3-psycopg python3-pytest
        python3-psycopg2 python3-asyncpg python3-sqlalchemy python3-django)
    # shellcheck disable=SC2034
    PACKAGES_NODE=(nodejs node-pg)

    # A browser for the sandbox's mailbox, and who else speaks with Postmark
    # shellcheck disable=SC2034
    PACKAGES_MAILBOX=(chromium chromium-driver python3-selenium)
    # shellcheck disable=SC2034
    PACKAGES_REFEREES=(python3-django-anymail)

    # Who watches servers
    # shellcheck disable=SC2034
    SERVICES_MONITORING=(prometheus prometheus-postgres-exporter)
}

# take_postgres MAJOR
take_postgres()
{
    PG_MAJOR=$1
    # shellcheck disable=SC2034
    DEBIAN_PG=/usr/lib/postgresql/$1
    # shellcheck disable=SC2034
    DEBIAN_SHARE=/usr/share/postgresql/$1
}

# take_built DIRECTORY: that which "make install" put there
take_built()
{
    local config

    config=$(realpath -m "$1")/bin/pg_config
    [ -x "$config" ] || die "there is no $config"
    PG_MAJOR=$("$config" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
    # shellcheck disable=SC2034
    DEBIAN_PG=${config%/bin/pg_config}
    # shellcheck disable=SC2034
    DEBIAN_SHARE=$("$config" --sharedir)
}

# find_postgres HOW MAJOR...: sets PG_MAJOR to the first that is there
find_postgres()
{
    local how=$1 major

    shift
    for major in "$@"; do
        if "$how" "$major"; then
            PG_MAJOR=$major
            return
        fi
    done
    return 1
}

installed() { [ -x "/usr/lib/postgresql/$1/bin/postgres" ]; }

offered() { has_candidate "postgresql-server-dev-$1"; }

has_candidate() { [[ $(apt-cache policy "$1" 2>/dev/null) = *'Candidate: '[0-9]* ]]; }

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

# as_root COMMAND...
as_root()
{
    if ((EUID == 0)); then
        "$@"
    else
        sudo -n "$@"
    fi
}

can_be_root() { ((EUID == 0)) || sudo -n true 2>/dev/null; }

# True if the lists of packages that can be had are as new as they get.
refresh_lists()
{
    [ -z "${LISTS_ARE_NEW:-}" ] || return 0
    can_be_root || return 1
    say "Fetching the lists of packages"
    as_root apt-get -qq update >"$WORK/log/lists.log" 2>&1 </dev/null || {
        tail -n 20 "$WORK/log/lists.log"
        die "apt-get could not fetch the lists of packages"
    }
    LISTS_ARE_NEW=1
}

# Debian's package of a server makes a cluster and starts it. Ours is none of
# the machine's business, so while we install, no cluster is made.
NO_CLUSTER=/etc/postgresql-common/createcluster.d/postmark_connector.conf

keep_from_clusters()
{
    as_root mkdir -p "${NO_CLUSTER%/*}"
    say "create_main_cluster = false" | as_root tee "$NO_CLUSTER" >/dev/null
    CLUSTERS_KEPT_OFF=1
}

allow_clusters()
{
    [ -n "${CLUSTERS_KEPT_OFF:-}" ] || return 0
    as_root rm -f "$NO_CLUSTER"
    CLUSTERS_KEPT_OFF=
}

# ensure_packages NAME...
ensure_packages()
{
    local log=$WORK/log/packages.log start

    find_missing "$@"
    ((${#MISSING[@]} > 0)) || return 0
    can_be_root || die "only root can install what is missing: apt-get install ${MISSING[*]}"

    refresh_lists
    start=$SECONDS
    say "Installing ${MISSING[*]}: a minute or two"
    keep_from_clusters
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y \
        --no-install-recommends -o DPkg::Lock::Timeout=300 "${MISSING[@]}" >"$log" 2>&1 </dev/null || {
        tail -n 20 "$log"
        die "apt-get could not install ${MISSING[*]}"
    }
    allow_clusters
    find_missing "$@"
    ((${#MISSING[@]} == 0)) || die "still missing after apt-get install: ${MISSING[*]}"
    say "Installed in $((SECONDS - start)) s"
}

# ensure_pgtap: a version that Debian does not have, or not quite yet, has no
# package of pgTAP. It is SQL alone: another version's files serve as well. Then
# sets PGTAP to the folder that they are in.
ensure_pgtap()
{
    local major log=$WORK/log/pgtap.log

    [ ! -e "$DEBIAN_SHARE/extension/pgtap.control" ] || return 0
    major=$(pgtap_major) || { refresh_lists && major=$(pgtap_major); } ||
        die "no package source of this machine has pgTAP (postgresql-$PG_MAJOR-pgtap)"
    if [ "$major" = "$PG_MAJOR" ]; then
        ensure_packages "postgresql-$major-pgtap"
        return
    fi
    say "Taking pgTAP from postgresql-$major-pgtap: PostgreSQL $PG_MAJOR has none"
    mkdir "$WORK/pgtap"
    (
        cd "$WORK/pgtap"
        apt-get -qq -o APT::Sandbox::User= download "postgresql-$major-pgtap"
        dpkg-deb --extract ./*.deb .
    ) >"$log" 2>&1 || {
        tail -n 20 "$log"
        die "apt-get could not download postgresql-$major-pgtap"
    }
    # shellcheck disable=SC2034
    PGTAP=$WORK/pgtap/usr/share/postgresql/$major/extension
}

# pgtap_major: the version that has a package of it, ours if it is one
pgtap_major()
{
    local major

    for major in "$PG_MAJOR" "${SERVED[@]}"; do
        if has_candidate "postgresql-$major-pgtap"; then
            say "$major"
            return
        fi
    done
    return 1
}

# Debian's package of a service starts it, and has it started with the machine.
# Ours are started by the tests, elsewhere and for as long as they run. Debian's
# way to say so is a program that is asked before each start.
POLICY=/usr/sbin/policy-rc.d

keep_from_services()
{
    # one that refuses is as good as ours
    if [ -e "$POLICY" ] && ! "$POLICY" postmark-test start >/dev/null 2>&1; then
        return
    fi
    [ ! -e "$POLICY" ] || as_root mv "$POLICY" "$POLICY.postmark"
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$POLICY" >/dev/null
    as_root chmod 755 "$POLICY"
    SERVICES_KEPT_OFF=1
}

allow_services()
{
    [ -n "${SERVICES_KEPT_OFF:-}" ] || return 0
    as_root rm -f "$POLICY"
    [ ! -e "$POLICY.postmark" ] || as_root mv "$POLICY.postmark" "$POLICY"
    SERVICES_KEPT_OFF=
}

# ensure_services NAME...: as ensure_packages, of packages that bring services.
# What is there already stays as it is.
ensure_services()
{
    local services=() name script

    find_missing "$@"
    services=("${MISSING[@]}")
    ((${#services[@]} > 0)) || return 0
    keep_from_services
    ensure_packages "$@"
    for name in "${services[@]}"; do
        for script in $(dpkg-query -L "$name" | sed -n 's,^/etc/init.d/,,p'); do
            as_root update-rc.d "$script" disable >>"$WORK/log/packages.log" 2>&1
        done
    done
    allow_services
}
