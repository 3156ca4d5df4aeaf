#!/usr/bin/env bash
# Usage: examples/train_lenet.sh [OPTIONS OF lenet.py]
# Trains LeNet on real digits on a fresh machine: makes a virtual environment (.venv in the checkout, or IRCONV_VENV),
# installs irconv into it with what the pictures need, and runs lenet.py.
set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${IRCONV_VENV:-$checkout/.venv}
"$checkout/.ci/install" "$venv" examples
"$venv/bin/python" "$checkout/examples/lenet.py" "$@"
