# shellcheck shell=bash
# For the scripts that source it: makes .venv and installs Lockstep into it.

repository=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
environment=$repository/.venv

# install_lockstep EXTRAS LABEL: does nothing where .venv already holds what the project files ask
# for. EXTRAS as pip writes them, or empty; LABEL starts the line that says what is happening.
install_lockstep() {
    local extras=$1 label=$2 stamp=$environment/.installed$1
    if [[ -f $stamp && $(<"$stamp") == "$(fingerprint)" ]]; then
        echo "${label}Installed in .venv"
        return
    fi
    echo "${label}Installing into .venv (some minutes the first time)"
    make_environment
    run_pip --editable "$repository$extras"
    # Whatever the extras, the default is now there too.
    fingerprint | tee -- "$environment/.installed" >"$stamp"
}

# What the tests need besides. timm and torchvision lie in a folder of their own, .venv/timm, which
# only the tests of timm's models search: together with a CPU build of torch the import of torchvision
# fails, and Accelerate's command line imports timm wherever it finds it. Without dependencies,
# because timm's are there already and torchvision's torch might be another build.
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

# Of pip's output only the errors: it would name some hundred files.
run_pip() {
    if ! "$environment/bin/python" -m pip install -qq --disable-pip-version-check --no-input \
        --constraint "$repository/constraints.txt" "$@"; then
        echo "The installation failed, for the reason above. Started again, it goes on." >&2
        exit 1
    fi
}

# What an installation depends on; an editable one also on where the repository lies.
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

# Exit code 2: something that the user can put right.
stop() {
    echo "$*" >&2
    exit 2
}
