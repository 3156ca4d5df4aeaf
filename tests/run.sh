#!/usr/bin/env bash
# Usage: tests/run.sh [PYTEST OPTIONS]
# Passes the tests on a fresh machine: makes a virtual environment (.venv in the checkout, or IRCONV_VENV), installs irconv
# into it, and runs the tests from a copy outside of the checkout, so that they meet the package as a user has it.
set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${IRCONV_VENV:-$checkout/.venv}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
"$checkout/.ci/install" "$venv" tests

outside=$(mktemp -d)
trap 'rm -rf "$outside"' EXIT
cp -R "$checkout"/{pyproject.toml,README.md,tests,examples} "$outside"
cd "$outside"
"$venv/bin/python" -m pytest --numprocesses auto --dist worksteal "$@"
