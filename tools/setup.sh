#!/bin/sh
# Makes .venv ready to use: `tools/setup.sh run` with what blackhole-cg needs, `tools/setup.sh test` with the
# development tools as well. When nothing changed since the last time it ends at once. `tools/setup.sh install`
# does the same in the directory VENV, with a copy of the package instead of a link to this tree.
#
# PYTHON=python3.12 chooses the interpreter. pip and apt are used as they are configured on this machine.
set -eu

KIND=${1:-run}
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
VENV=${VENV:-$ROOT/.venv}
OLDEST=3.11

say() { printf '==> %s\n' "$*"; }

fail() {
    printf 'cannot set up: %s\n' "$*" >&2
    exit 1
}

# --- is there anything to do? ---------------------------------------------------------------------------------

# Everything the environment depends on, in one word. The directory is part of it because a virtual environment
# cannot be moved; the interpreter's version because an upgrade of the system may take it away.
fingerprint() {
    {
        cat "$ROOT/pyproject.toml" "$ROOT/constraints.txt" "$0"
        printf '%s\n' "$ROOT"
        "${PYTHON:-$VENV/bin/python}" -c 'import sys; print(sys.version)'
    } | sha256sum | cut -d ' ' -f 1
}

is_ready() {
    [ -x "$VENV/bin/python" ] && [ -f "$VENV/.ready-$KIND" ] &&
        "$VENV/bin/python" -c '' 2>/dev/null &&
        [ "$(cat "$VENV/.ready-$KIND")" = "$(fingerprint)" ]
}

# --- what the system has to provide ---------------------------------------------------------------------------

is_new_enough() {
    "$1" -c "import sys; sys.exit(sys.version_info < tuple(map(int, '$OLDEST'.split('.'))))" 2>/dev/null
}

find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if command -v "$candidate" >/dev/null && is_new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# The interpreter's own words for its Debian packages: "python3.11".
python_package() { "$1" -c 'import sys; print("python%d.%d" % sys.version_info[:2])'; }

has_header() { printf '#include <%s>\n' "$1" | "$COMPILER" ${2:+"-I$2"} -E -x c - >/dev/null 2>&1; }

# Names the Debian packages that are missing, given a Python. python-prctl has to be compiled here; the C compiler
# is the one Python itself was built with, because that is the one the build will call.
missing_packages() {
    package=$(python_package "$1")
    include=$("$1" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    COMPILER=${CC:-$("$1" -c 'import sysconfig; print((sysconfig.get_config_var("CC") or "cc").split()[0])')}
    "$1" -c 'import ensurepip, venv' 2>/dev/null || echo "$package-venv"
    [ -f "$include/Python.h" ] || echo "$package-dev"
    if command -v "$COMPILER" >/dev/null; then
        has_header stdlib.h || echo libc6-dev
        has_header sys/capability.h || echo libcap-dev
    else
        echo gcc libc6-dev
        [ -f /usr/include/sys/capability.h ] || echo libcap-dev
    fi
}

has_candidate() { apt-cache policy "$1" 2>/dev/null | grep -q 'Candidate: [^(]'; }

# The package that brings a new enough Python: the distribution's default one, or a versioned one beside it.
python_to_install() {
    default=$(apt-cache policy python3 2>/dev/null | sed -n 's/^ *Candidate: \(3\.[0-9]*\).*/\1/p')
    if [ -n "$default" ] && dpkg --compare-versions "$default" ge "$OLDEST"; then
        echo python3
        return
    fi
    for package in python3.13 python3.12 python3.11; do
        if has_candidate "$package"; then
            echo "$package"
            return
        fi
    done
    return 1
}

# Package lists may be absent (a container image) or stale; they are refreshed only when an installation needs it.
update_lists() {
    say "refreshing the package lists"
    apt-get update -qq </dev/null || fail "apt-get update failed"
}

install_packages() {
    command -v apt-get >/dev/null ||
        fail "install with your package manager what these Debian packages contain, then try again: $*"
    [ "$(id -u)" -eq 0 ] ||
        fail "run this first: sudo apt-get install -y --no-install-recommends $*"
    for package in "$@"; do
        has_candidate "$package" || { update_lists; break; }
    done
    say "installing with apt-get: $*"
    quiet_apt "$@" 2>/dev/null || { update_lists && quiet_apt "$@"; } || fail "apt-get could not install: $*"
}

quiet_apt() {
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null
}

ensure_python() {
    if python=$(find_python); then
        return
    fi
    [ -z "${PYTHON:-}" ] || fail "PYTHON=$PYTHON is not Python $OLDEST or newer"
    if command -v apt-cache >/dev/null; then
        wanted=$(python_to_install) || {
            [ "$(id -u)" -ne 0 ] || update_lists
            wanted=$(python_to_install) || fail "Python $OLDEST or newer is needed, and this system's packages have none"
        }
        install_packages "$wanted" "$wanted-venv" "$wanted-dev" gcc libc6-dev libcap-dev
    fi
    python=$(find_python) || fail "Python $OLDEST or newer is needed; install it, or name it: make run PYTHON=/path/to/python3"
}

# python-prctl is all that is compiled here. Nothing is, where pip finds a wheel of it (PIP_FIND_LINKS and the like).
wheel_is_at_hand() {
    "$python" -c 'import ensurepip, venv' 2>/dev/null || return 1
    make_environment
    quiet_pip --only-binary :all: --no-deps python-prctl >/dev/null 2>&1
}

ensure_system() {
    ensure_python
    missing=$(missing_packages "$python")
    if [ -n "$missing" ] && ! wheel_is_at_hand; then
        # shellcheck disable=SC2086 # one package a word
        install_packages $missing
        missing=$(missing_packages "$python")
        # shellcheck disable=SC2086
        [ -z "$missing" ] || fail "$python still lacks what these packages should have brought:" $missing
    fi
}

# --- the virtual environment ----------------------------------------------------------------------------------

version_of() { "$1" -c 'import sys; print(sys.version)' 2>/dev/null; }

make_environment() {
    rm -f "$VENV"/.ready-*
    if [ "$(version_of "$VENV/bin/python")" != "$(version_of "$python")" ] || ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        say "creating $(basename "$VENV") with $("$python" --version)"
        "$python" -m venv --clear "$VENV"
    fi
}

quiet_pip() {
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
        --constraint "$ROOT/constraints.txt" "$@" 2>&1 </dev/null
}

# pip's messages are shown when it fails; what it has to say about its own settings is no news otherwise.
pip_install() {
    messages=$(quiet_pip "$@") || {
        printf '%s\n' "$messages" >&2
        fail "pip could not install what is needed; its messages are above"
    }
}

# The build tools are installed first and used without build isolation: pip's isolated builds would ignore the
# constraints and take whichever versions are newest today.
install_project() {
    extras=''
    [ "$KIND" != test ] || extras="[test]"
    say "installing blackhole-cg$extras and its pinned dependencies into $(basename "$VENV")"
    pip_install setuptools hatchling editables
    if [ "$KIND" = install ]; then
        pip_install --no-build-isolation --use-pep517 "$ROOT"
    else
        pip_install --no-build-isolation --use-pep517 --editable "$ROOT$extras"
    fi
}

# --------------------------------------------------------------------------------------------------------------

case $KIND in
    run | test | install) ;;
    *) printf 'usage: tools/setup.sh [run|test|install]\n' >&2; exit 2 ;;
esac

if is_ready; then
    exit 0
fi

# Two makes at once take turns. The lock is on this file, so that there is no lock file to tidy up.
exec 9<"$0"
if command -v flock >/dev/null; then
    flock 9
    ! is_ready || exit 0
fi

ensure_system
make_environment
install_project
fingerprint >"$VENV/.ready-run"
[ "$KIND" = run ] || cp "$VENV/.ready-run" "$VENV/.ready-$KIND"
[ "$KIND" != install ] || rm "$VENV"/.ready-* # the package's code is not part of the fingerprint
say "set-up is complete"
