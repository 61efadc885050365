#!/usr/bin/env bash
# Puts Fashion-MNIST from Debian's package dataset-fashion-mnist into the trainer's cache. Needs no
# root and installs nothing: it unpacks the package in a temporary folder.
set -euo pipefail

main() {
    local cache=${XDG_CACHE_HOME:-$HOME/.cache}/lockstep/fashion_mnist
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        echo "dataset-fashion-mnist: this system has no Debian packages (apt-get, dpkg-deb)" >&2
        exit 2
    fi
    mkdir -p -- "$cache"
    # Next to the cache folder, so that each file moves into its place in one step.
    temporary=$(mktemp -d -- "${cache%/*}/.debian-XXXXXX")
    trap 'rm -rf -- "$temporary"' EXIT
    cd -- "$temporary"
    if ! download 2>/dev/null; then
        # The system's package lists are missing or old, and only root may update them.
        mkdir -p lists/partial archives/partial
        local own=(-o "Dir::State::Lists=$temporary/lists" -o "Dir::Cache=$temporary")
        apt_get "${own[@]}" update
        download "${own[@]}"
    fi
    dpkg-deb -x dataset-fashion-mnist_*.deb package
    mv -f -- package/usr/share/datasets/fashion-mnist/*-ubyte.gz "$cache"
}

download() {
    apt_get "$@" download dataset-fashion-mnist
}

# The sandbox user is only for downloads into system folders.
apt_get() {
    apt-get -qq -o Acquire::Retries=1 -o Acquire::http::Timeout=20 -o APT::Sandbox::User=root "$@"
}

main
