#!/usr/bin/env bash
# Build the distance kernels with sanitizers and run every path: run.sh [address,undefined | thread]
set -euo pipefail
cd "$(dirname "$0")/../.."
kind=${1:-address,undefined}
out=build/sanitize-${kind//,/-}
mkdir -p "$out"
# GCC's own _mm512_undefined_ps warns under sanitizers (GCC bug 105593), hence the one -Wno.
flags=(-std=c++17 -O2 -g -pthread -Irt/native -Wall -Wextra -Wno-maybe-uninitialized "-fsanitize=$kind" -fno-sanitize-recover=all)
kernel=(-ffp-contract=fast -fno-math-errno -fno-trapping-math)
objects=()
compile() { # name, flags
  local name=$1
  shift
  ${CXX:-g++} "${flags[@]}" "${kernel[@]}" "$@" -c rt/native/distance_kernel.cpp -o "$out/$name.o"
  objects+=("$out/$name.o")
}
compile baseline
if [[ $(uname -m) == x86_64 ]]; then
  compile avx2 -mavx2 -mfma -mf16c
  compile avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mprefer-vector-width=256
  flags+=(-DDISTANCE_X86)
fi
${CXX:-g++} "${flags[@]}" tests/sanitize/distance.cpp rt/native/distance.cpp "${objects[@]}" -o "$out/distance"
"$out/distance"
