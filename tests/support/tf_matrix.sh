#!/usr/bin/env bash
# Builds the package against each supported TensorFlow in an environment of its own, with
# `pip install --no-build-isolation .`, and runs the op tests there. Slow; not part of every CI run.
#   tests/support/tf_matrix.sh [2.20 2.21 ...]
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
export TF_CPP_MIN_LOG_LEVEL=3
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
[ $# -gt 0 ] || set -- 2.20 2.21
for minor in "$@"; do
  printf '\n=== TensorFlow %s\n' "$minor"
  python3 -m venv "$scratch/$minor"
  python="$scratch/$minor/bin/python"
  export PATH="$scratch/$minor/bin:$PATH"
  git clone --quiet "$root" "$scratch/source-$minor"
  "$python" -m pip install --quiet "setuptools>=77" wheel cmake ninja pybind11 "tensorflow==$minor.*" \
    pytest hypothesis
  "$python" -m pip install --quiet --no-build-isolation "$scratch/source-$minor"
  # Away from the source tree: what is tested is the installed package.
  mkdir "$scratch/run-$minor"
  cp -r "$scratch/source-$minor/tests" "$scratch/source-$minor/pyproject.toml" "$scratch/run-$minor/"
  (
    cd "$scratch/run-$minor"
    "$python" -m tfseg_ops
    "$python" -m pytest -q tests/core tests/ops tests/layers tests/pure_tf
  )
done
echo "All versions passed."
