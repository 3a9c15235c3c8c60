#!/bin/sh
# Installs blackhole-cg for the whole system: a virtual environment in PREFIX, the units, and a first configuration.
#
#   tools/install.sh install|uninstall      PREFIX=/opt/blackhole-cg
#
# `uninstall` leaves configuration, state and logs: they are the operator's.
set -eu
cd "$(dirname "$0")/.."

PREFIX=${PREFIX:-/opt/blackhole-cg}
UNITS=/etc/systemd/system
CONFIG=/etc/blackhole-cg/blackhole.yaml

[ "$(id -u)" = 0 ] || { echo "tools/install.sh: this needs root: sudo make $1" >&2; exit 1; }

systemd_runs() { [ -d /run/systemd/system ]; }

install_all() {
    VENV=$PREFIX tools/setup.sh install
    for unit in systemd/*.service; do
        sed "s|@PREFIX@|$PREFIX|g" "$unit" > "$UNITS/$(basename "$unit")"
    done
    if [ ! -e "$CONFIG" ]; then
        mkdir -p "$(dirname "$CONFIG")"
        cp systemd/blackhole.yaml "$CONFIG"
    fi
    ln -sf "$PREFIX/bin/blackhole-cg" /usr/local/bin/blackhole-cg
    if systemd_runs; then systemctl daemon-reload; fi
    echo "installed. Edit $CONFIG, then: systemctl enable --now blackhole-cg"
}

uninstall_all() {
    if systemd_runs; then systemctl disable --now blackhole-cg.service blackhole-cg-services.service || true; fi
    rm -f "$UNITS/blackhole-cg.service" "$UNITS/blackhole-cg-services.service" /usr/local/bin/blackhole-cg
    rm -rf "$PREFIX"
    if systemd_runs; then systemctl daemon-reload; fi
    echo "uninstalled. Left in place: /etc/blackhole-cg, /var/lib/blackhole-cg, /var/log/blackhole-cg"
}

case "${1:-}" in
    install) install_all ;;
    uninstall) uninstall_all ;;
    *) echo "usage: tools/install.sh install|uninstall" >&2; exit 2 ;;
esac
