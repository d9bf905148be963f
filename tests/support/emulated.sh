#!/usr/bin/env bash
# Runs the CUDA sources on the CPU. The launchers: by ctest in a plain build, under AddressSanitizer and
# UBSan, and under ThreadSanitizer, each in three orders of threads. The ops: their whole suite in a
# process of its own. Needs Boost.Context (Debian: libboost-context-dev) and an installation by
# `pip install -e ".[test]"` made with it; CMake, ninja and Python are taken from the PATH.
#   tests/support/emulated.sh [folder for the builds]
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
builds=${1:-$root/build/emulated}
for sanitizers in "" address,undefined thread; do
  name=${sanitizers:-plain}
  build="$builds/${name/,/-}"
  printf '\n=== launchers of CUDA kernels: %s build\n' "$name"
  cmake -G Ninja -S "$root" -B "$build" -DTFSEG_CUDA=OFF -DTFSEG_EMULATOR=ON -DTFSEG_NUMPY=OFF \
    -DTFSEG_SANITIZE="$sanitizers" -DTFSEG_WERROR=ON -DTFSEG_OUTPUT="$build/out" >/dev/null
  cmake --build "$build" --parallel --target tfseg_cuda_tests >/dev/null
  (cd "$build" && ctest --parallel "$(nproc)" --output-on-failure)
done
printf '\n=== ops on emulated CUDA kernels\n'
cd "$root"
TFSEG_OPS_LIBRARY=emulated python -m pytest -q tests/ops
