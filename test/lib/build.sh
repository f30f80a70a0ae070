# shellcheck shell=bash
#
# test/lib/build.sh: the library, and a PostgreSQL that has it installed.
#
# The tests don't install into the machine's PostgreSQL. Its programs find
# their libraries and extensions relative to where they lie, so a copy of
# their directory with links to all the rest is an installation of its own,
# made in a tenth of a second. That needs no root, leaves the machine as it
# was, and lets two runs with different sources go on side by side.
#
# Needs choose_postgres() of packages.sh. Gives
#   BINDIR   the programs of that installation, first in PATH from then on
#   TREE     a copy of the source tree that the unprivileged user can read

PREFIX=''
BINDIR=''
TREE=''

# Copies what belongs to the source tree as it stands, committed or not, but
# nothing that git ignores. The clone itself may lie where only root can read.
copy_tree()
{
    local to=$1 file

    mkdir -p "$to"
    if git_here rev-parse --git-dir >/dev/null 2>&1; then
        git_here ls-files -z --cached --others --exclude-standard
    else
        # a release's tarball
        (cd "$ROOT" && find . \( -name .git -o -path ./build -o -name '*.o' -o -name '*.so' \) -prune -o -type f -print0)
    fi | while IFS= read -r -d '' file; do
        # git also lists what has been deleted and not committed yet
        [ ! -e "$ROOT/$file" ] || printf '%s\0' "$file"
    done | tar -C "$ROOT" --null -T - -cf - | tar -C "$to" --no-same-owner -xf -
}

# git refuses a clone of another user's, which here only lists file names.
git_here() { git -c safe.directory='*' -C "$ROOT" "$@"; }

# Sets TREE.
make_tree()
{
    TREE=$WORK/own/tree
    copy_tree "$TREE"
    if ((EUID == 0)); then
        chown -R postgres: "$TREE"
    fi
}

# Where a compiler builds: test/check builds in build/ of the source tree, so
# that the next run compiles only what has changed, in a folder for each
# compiler and version of the server; git ignores it. Others, and who may not
# write there, build in $WORK. One with other flags has POSTMARK_TEST_BUILD as
# its name, one for a server that is not Debian's that server's as well.
build_dir()
{
    if [ -n "${KEEP_BUILDS:-}" ] && [ -w "$ROOT" ]; then
        say "$ROOT/build/$PG_MAJOR-${POSTMARK_TEST_PG:+${DEBIAN_PG##*/}-}${POSTMARK_TEST_BUILD:-$1}"
    else
        say "$WORK/build-$1"
    fi
}

# build_with COMPILER [make's arguments]: builds a copy of the tree. Warnings
# are errors.
build_with()
{
    local compiler=$1 log=$WORK/log/build-$1.log dir

    shift
    dir=$(build_dir "$compiler")
    mkdir -p "$dir"
    # Two runs may share the source tree: one at a time. Of a lock on a folder
    # nothing stays behind.
    # shellcheck disable=SC2094
    (
        # make goes by the time of a file, which the copy keeps
        flock 9 && find "$dir" -type f ! -name '*.o' ! -name '*.inc' ! -name '*.gcno' -delete && copy_tree "$dir" &&
            make -C "$dir" -j "$(nproc)" CC="$compiler" WERROR=-Werror \
                PG_CONFIG="$DEBIAN_PG/bin/pg_config" "$@" >"$log" 2>&1
    ) 9<"$dir" || {
        grep -E -A 6 ': (fatal )?(error|warning): |\*\*\*' "$log" | head -n 60 | grep . || tail -n 30 "$log"
        say "$compiler: the build failed"
        return 1
    }
}

# Builds with gcc and installs into an installation of our own. Sets PREFIX
# and BINDIR.
build_and_install()
{
    local share headers

    [ -x "$DEBIAN_PG/bin/postgres" ] || die "PostgreSQL $PG_MAJOR is not in $DEBIAN_PG"
    PREFIX=$WORK/pg
    share=$PREFIX$DEBIAN_SHARE
    headers=$("$DEBIAN_PG/bin/pg_config" --includedir)
    mkdir -p "$PREFIX$DEBIAN_PG" "$share" "$PREFIX${headers%/*}"
    # Copies of the programs, since a program looks where its links lead; of
    # all else links, less an extension of ours that the machine has.
    cp -r "$DEBIAN_PG/bin" "$PREFIX$DEBIAN_PG/bin"
    cp -rs "$DEBIAN_PG/lib" "$PREFIX$DEBIAN_PG/lib"
    cp -rs "$DEBIAN_SHARE/." "$share/"
    ln -sfn "$headers" "$PREFIX$headers"
    rm -f "$PREFIX$DEBIAN_PG/lib/postmark_connector.so" \
        "$share"/extension/postmark_connector{.control,--*.sql}

    build_with gcc install DESTDIR="$PREFIX" || return 1

    BINDIR=$PREFIX$DEBIAN_PG/bin
    [ -z "${POSTMARK_TEST_UNDER:-}" ] || put_under "$POSTMARK_TEST_UNDER"
    export PATH=$BINDIR:$PATH
    export PG_CONFIG=$BINDIR/pg_config
}

# put_under COMMAND: every server of that installation is started by it. Not
# what initdb and pg_ctl call the program for, which would only take long.
put_under()
{
    mv "$BINDIR/postgres" "$BINDIR/postgres.bare"
    cat >"$BINDIR/postgres" <<EOF
#!/bin/sh
case \$1 in
    --boot | --check | --single | --describe-config | -V | -C) exec "$BINDIR/postgres.bare" "\$@" ;;
esac
exec $1 "$BINDIR/postgres.bare" "\$@"
EOF
    chmod 755 "$BINDIR/postgres"
}
