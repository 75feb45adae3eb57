# Sourced by the other scripts: a virtual environment in .venv with the package and its tests' needs, made once.
# shellcheck shell=bash
set -euo pipefail
case ${1:-} in -h | --help) # the lines at the script's head, before anything is installed or a folder called that
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
  exit
  ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

find_python() {
  for python in python3.13 python3.12 python3.11 python3; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$python"
      return
    fi
  done
  echo "flashsr_jax needs Python 3.11 or newer; none was found" >&2
  return 1
}

if [ -n "${FLASHSR_SITE:-}" ]; then # a folder of installed packages beside the host's own: launch/offline.sh
  export PYTHONPATH=$FLASHSR_SITE:$PWD
  python() { python3 "$@"; }
  return
fi
if ! cmp -s setup.py .venv/installed-setup.py; then
  python=$(find_python)
  echo "Installing into .venv with $("$python" --version)"
  "$python" -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[test]"
  cp setup.py .venv/installed-setup.py
fi
source .venv/bin/activate
echo ".venv has $(python --version)"
