#!/usr/bin/env bash
# The recordings, the dataset and the held-out clips of the shipped model: bash launch/data.sh [OUT] [OPTION...]
#   --recordings DIR     take the repositories' recordings from a folder, where there is no way to GitHub
#   --packages NAME...   only these sources of launch/small/corpus.csv, Debian packages and OWNER/NAME of repositories
#   --workers N          processes that decode
# Fetches Debian 12's packages (5 GB) and clones repositories, and keeps 10 GB under OUT (default: corpus); an hour or
# more. Run again, it goes on with the sources that are missing, and builds the dataset anew only where they changed.
here=$PWD
source "$(dirname "$0")/setup.sh"
script=$PWD/launch/small/corpus.py
cd "$here" || exit
python "$script" "$@"
