# shellcheck shell=bash
# Sourced by other scripts: creates .venv and installs Lockstep into it.

repository=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
environment=$repository/.venv

# install_lockstep EXTRAS LABEL: does nothing if .venv already matches the project files. EXTRAS is
# in pip's syntax, or empty; LABEL starts the line that is printed.
install_lockstep() {
    local extras=$1 label=$2 stamp=$environment/.installed$1
    if [[ -f $stamp && $(<"$stamp") == "$(fingerprint)" ]]; then
        echo "${label}Installed in .venv"
        return
    fi
    echo "${label}Installing into .venv (some minutes the first time)"
    make_environment
    run_pip --editable "$repository$extras"
    # With any extras, the default is installed too.
    fingerprint | tee -- "$environment/.installed" >"$stamp"
}

# Installs what the tests need in addition. timm and torchvision have their own folder, .venv/timm,
# which only the tests of timm's models search: with a CPU build of torch, importing torchvision fails,
# and Accelerate's command line imports timm if it finds it. Without dependencies, because timm's are
# installed already and torchvision's torch might be another build.
install_for_tests() {
    install_lockstep "[test]" ""
    local folder=$environment/timm stamp=$environment/.installed-timm
    if [[ -f $stamp && $(<"$stamp") == "$(fingerprint)" ]]; then
        return
    fi
    rm -rf -- "$folder"
    run_pip --no-deps --target "$folder" timm torchvision
    fingerprint >"$stamp"
}

# Prints only pip's errors: its full output is hundreds of lines.
run_pip() {
    if ! "$environment/bin/python" -m pip install -qq --disable-pip-version-check --no-input \
        --constraint "$repository/constraints.txt" "$@"; then
        echo "The installation failed, for the reason above. Started again, it goes on." >&2
        exit 1
    fi
}

# What an installation depends on; an editable one also depends on the repository's path.
fingerprint() {
    {
        echo "$repository"
        "$environment/bin/python" --version
        cat -- "$repository/pyproject.toml" "$repository/constraints.txt"
    } 2>&1 | cksum
}

make_environment() {
    local python=${PYTHON:-python3}
    if "$environment/bin/python" -m pip --version >/dev/null 2>&1; then
        return
    fi
    if ! command -v "$python" >/dev/null; then
        stop "Lockstep needs Python 3.11 or newer, but there is no $python." \
            "On Debian or Ubuntu: apt-get install python3 python3-venv"
    fi
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        stop "Lockstep needs Python 3.11 or newer, but $python is $("$python" --version 2>&1)." \
            "Where a newer one is installed, name it: PYTHON=python3.12 $0"
    fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        stop "$python cannot make virtual environments: its venv module is missing." \
            "On Debian or Ubuntu: apt-get install python3-venv"
    fi
    "$python" -m venv "$environment"
}

# Exit code 2: something that the user can fix.
stop() {
    echo "$*" >&2
    exit 2
}
