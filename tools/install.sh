#!/bin/sh
# Installs blackhole-cg, its systemd units and a first configuration: for the whole system, or with --user for
# yourself alone, in your home directory and under your own systemd.
#
#   tools/install.sh install|uninstall [--user]      PREFIX=/opt/blackhole-cg
#
# Installing again is the upgrade. Each time a new virtual environment is made beside the one in use, and PREFIX/bin
# is switched to it at the very end: a failure leaves everything as it was, and a supervisor that runs goes on with
# its own files until it is restarted. `uninstall` leaves configuration, state and logs: they are the operator's.
set -eu
umask 022
cd "$(dirname "$0")/.."

ACTION=${1:-}
SCOPE=${2:-}
SUPERVISOR=blackhole-cg.service
HOLDER=blackhole-cg-services.service

fail() {
    printf 'tools/install.sh: %s\n' "$*" >&2
    exit 1
}

usage() {
    echo "usage: tools/install.sh install|uninstall [--user]" >&2
    exit 2
}

choose_system() {
    [ "$(id -u)" = 0 ] || fail "this needs root: sudo make $ACTION; for yourself alone: make $ACTION ARGS=--user"
    TEMPLATES=systemd/system
    PREFIX=${PREFIX:-/opt/blackhole-cg}
    UNITS=/usr/local/lib/systemd/system # /etc/systemd/system is the operator's, and overrides it
    LINK=/usr/local/bin/blackhole-cg
    CONFIG=/etc/blackhole-cg
    STATE=/var/lib/blackhole-cg
    LOGS=/var/log/blackhole-cg
    RUNTIME=/run/blackhole-cg
    MANAGER=/run/systemd/system
    SERVICES=system.slice/$HOLDER
}

choose_user() {
    data=${XDG_DATA_HOME:-$HOME/.local/share}
    TEMPLATES=systemd/user
    PREFIX=${PREFIX:-$data/blackhole-cg}
    UNITS=$data/systemd/user
    LINK=$HOME/.local/bin/blackhole-cg
    CONFIG=${XDG_CONFIG_HOME:-$HOME/.config}/blackhole-cg
    STATE=${XDG_STATE_HOME:-$HOME/.local/state}/blackhole-cg
    LOGS=$STATE/log
    export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}" # unset after su, though the manager may run
    RUNTIME=$XDG_RUNTIME_DIR/blackhole-cg
    MANAGER=$XDG_RUNTIME_DIR/systemd/private
    SERVICES=user.slice/user-$(id -u).slice/user@$(id -u).service/app.slice/$HOLDER
}

manager_runs() { [ -e "$MANAGER" ]; }

# shellcheck disable=SC2086 # "--user" or nothing
control() { systemctl $SCOPE "$@"; }

# --- install --------------------------------------------------------------------------------------------------

# Of the two places for a virtual environment the one that is not in use.
free_place() {
    case $(readlink "$PREFIX/bin" || true) in
        venv-1/bin) echo "$PREFIX/venv-2" ;;
        *) echo "$PREFIX/venv-1" ;;
    esac
}

discard() {
    rm -rf "$new" "$PREFIX/bin.new"
    rmdir "$PREFIX" 2>/dev/null || true
}

install_all() {
    [ ! -e "$PREFIX/bin" ] || [ -L "$PREFIX/bin" ] || fail "PREFIX=$PREFIX has to be a directory of blackhole-cg's own"
    mkdir -p "$PREFIX"
    new=$(free_place)
    trap discard EXIT
    trap 'exit 1' HUP INT TERM
    rm -rf "$new"
    VENV=$new tools/setup.sh install
    "$new/bin/blackhole-cg" --help >/dev/null
    for unit in "$SUPERVISOR" "$HOLDER"; do
        sed "s|@PREFIX@|$PREFIX|g" "$TEMPLATES/$unit" >"$new/$unit"
    done
    switch
    trap - EXIT HUP INT TERM
    if manager_runs; then control daemon-reload; fi
    say_next_steps
}

# Everything is made; what is left are renames and small files.
switch() {
    mkdir -p "$UNITS" "$(dirname "$LINK")"
    if [ ! -e "$CONFIG/blackhole.yaml" ]; then
        # There may be secrets in it.
        install -d -m 750 "$CONFIG"
        install -m 640 "$TEMPLATES/blackhole.yaml" "$CONFIG/blackhole.yaml"
    fi
    for unit in "$SUPERVISOR" "$HOLDER"; do
        install -m 644 "$new/$unit" "$UNITS/$unit"
    done
    ln -s "$(basename "$new")/bin" "$PREFIX/bin.new"
    mv -T "$PREFIX/bin.new" "$PREFIX/bin"
    ln -sfn "$PREFIX/bin/blackhole-cg" "$LINK"
}

say_next_steps() {
    command="systemctl${SCOPE:+ $SCOPE}"
    if manager_runs && control is-active --quiet "$SUPERVISOR"; then
        echo "installed. The services go on running over: $LINK upgrade (units that changed: $command restart blackhole-cg)"
        return
    fi
    echo "installed. Edit $CONFIG/blackhole.yaml, then: $command enable --now blackhole-cg"
    [ -z "$SCOPE" ] || echo "So that it starts with the machine and not with your first login: loginctl enable-linger"
}

# --- uninstall ------------------------------------------------------------------------------------------------

stop_services() {
    [ -e "$UNITS/$SUPERVISOR" ] || return 0
    control disable --now --quiet "$SUPERVISOR" || fail "cannot stop the services; nothing was removed"
    for cgroup in "/sys/fs/cgroup/$SERVICES" "/sys/fs/cgroup/unified/$SERVICES"; do
        ! grep -qs '^populated 1' "$cgroup/cgroup.events" ||
            fail "there are services without a supervisor; nothing was removed. End them first, in one of these ways:
    systemctl${SCOPE:+ $SCOPE} start $SUPERVISOR, and uninstall again
    echo 1 >$cgroup/cgroup.kill"
    done
    control reset-failed "$SUPERVISOR" 2>/dev/null || true
}

uninstall_all() {
    if manager_runs; then stop_services; fi
    rm -f "$UNITS/$SUPERVISOR" "$UNITS/$HOLDER"
    [ "$(readlink "$LINK" || true)" != "$PREFIX/bin/blackhole-cg" ] || rm "$LINK"
    rm -rf "$PREFIX/venv-1" "$PREFIX/venv-2" "$RUNTIME"
    [ ! -L "$PREFIX/bin" ] || rm "$PREFIX/bin"
    rmdir "$PREFIX" 2>/dev/null || true
    if manager_runs; then
        control daemon-reload
        control stop "$HOLDER" 2>/dev/null || true # possible now that the file that refuses it is gone
    fi
    echo "uninstalled. Left in place, where they exist: $CONFIG $STATE $LOGS"
}

# --------------------------------------------------------------------------------------------------------------

case "$ACTION $SCOPE" in
    'install ' | 'uninstall ') choose_system ;;
    'install --user' | 'uninstall --user') choose_user ;;
    *) usage ;;
esac
"${ACTION}_all"
