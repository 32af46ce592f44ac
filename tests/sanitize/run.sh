#!/usr/bin/env bash
# Build the native kernels of rt.distance with sanitizers and run every path: run.sh [address,undefined | thread]
set -euo pipefail
cd "$(dirname "$0")/../.."
kind=${1:-address,undefined}
out=build/sanitize-${kind//,/-}
mkdir -p "$out"
# GCC's own _mm512_undefined_ps warns under sanitizers (GCC bug 105593), hence the one -Wno.
flags=(-std=c++17 -O2 -g -pthread -Irt/native -Wall -Wextra -Wno-maybe-uninitialized "-fsanitize=$kind" -fno-sanitize-recover=all)
contracted=(-ffp-contract=fast -fno-math-errno -fno-trapping-math)
exact=(-ffp-contract=off -fno-math-errno -fno-trapping-math -Wno-psabi)
avx2=(-mavx2)
avx512=(-mavx512f -mavx512bw -mavx512dq -mavx512vl)
machine=()
[[ $(uname -m) == x86_64 ]] && machine=(-DDISTANCE_X86 -DFIELD_X86 -DMETRIC_MAP_X86)
objects=()
compile() { # kernel, instruction set, flags
  local name=$1_$2
  local source=rt/native/$1_kernel.cpp
  shift 2
  ${CXX:-g++} "${flags[@]}" "$@" -c "$source" -o "$out/$name.o"
  objects+=("$out/$name.o")
}
for kernel in distance field metric_map; do
  [[ $kernel == metric_map ]] && rounding=("${exact[@]}") || rounding=("${contracted[@]}")
  compile "$kernel" baseline "${rounding[@]}"
  if [[ $(uname -m) == x86_64 ]]; then
    compile "$kernel" avx2 "${rounding[@]}" "${avx2[@]}" -mfma -mf16c
    compile "$kernel" avx512 "${rounding[@]}" "${avx512[@]}" -mfma -mf16c -mprefer-vector-width=256
  fi
done
shared=(rt/native/memory.cpp rt/native/fork_guard.cpp rt/native/metric_map.cpp)
for harness in distance field metric_map; do
  engine=()
  [[ $harness != metric_map ]] && engine=("rt/native/$harness.cpp")
  ${CXX:-g++} "${flags[@]}" "${machine[@]}" "tests/sanitize/$harness.cpp" "${engine[@]}" "${shared[@]}" \
    "${objects[@]}" -o "$out/$harness"
  "$out/$harness"
done
