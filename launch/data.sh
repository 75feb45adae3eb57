#!/usr/bin/env bash
# The recordings, the dataset and the held-out clips of the shipped model: bash launch/data.sh [OUT] [--workers N]
# Fetches Debian 12's packages (5 GB) and repositories from GitHub, or copies those from a folder (--recordings /DIR), and
# keeps 10 GB under OUT (default: corpus); an hour or more. Run again, it goes on where it was, and does nothing where all
# is there.
out=$(realpath -m "${1:-corpus}")
source "$(dirname "$0")/setup.sh"
exec python launch/small/corpus.py "$out" "${@:2}"
