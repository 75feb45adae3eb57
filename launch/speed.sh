#!/usr/bin/env bash
# small and base against another system, in turn in one run: bash launch/speed.sh FOLDER MODULE:CLASS [OPTION...]
# FOLDER/MODULE.py has a class that is made without arguments and called with a waveform and its sample rate;
# docs/performance.md says more, `python launch/speed.py --help` the options. A system's own packages go into .venv first.
here=$PWD
source "$(dirname "$0")/setup.sh"
script=$PWD/launch/speed.py
cd "$here" || exit
python "$script" "$@"
