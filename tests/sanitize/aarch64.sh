#!/usr/bin/env bash
# Cross-compile the native kernels for aarch64 and run their harnesses under qemu-user: every path of the
# distance function, and the view, which must equal this machine's bit by bit.
# Exit code 0: passed, or nothing to try it with (says what to install); --require makes that a failure.
set -euo pipefail
cd "$(dirname "$0")/../.."
CROSS=${CROSS:-aarch64-linux-gnu-g++}
QEMU=${QEMU:-qemu-aarch64}
for tool in "$CROSS" "$QEMU" "${CXX:-g++}"; do
  if ! command -v "$tool" >/dev/null; then
    echo "aarch64: skipped, $tool is not installed (Debian: apt-get install g++ g++-aarch64-linux-gnu qemu-user)"
    [[ ${1:-} != --require ]]
    exit
  fi
done
out=build/aarch64
mkdir -p "$out"
flags=(-std=c++17 -O3 -pthread -Irt/native -Wall -Wextra -Wno-psabi -fno-math-errno -fno-trapping-math)
view=(tests/sanitize/view.cpp rt/native/view_kernel.cpp)
map=(tests/sanitize/metric_map.cpp rt/native/metric_map.cpp rt/native/metric_map_kernel.cpp)
engines=(rt/native/memory.cpp rt/native/fork_guard.cpp)
# As in CMakeLists.txt: contraction for distance and field, none for view and map. Static: no sysroot is needed.
for kernel in distance field; do
  "$CROSS" "${flags[@]}" -ffp-contract=fast -c "rt/native/${kernel}_kernel.cpp" -o "$out/$kernel.o"
done
"$CROSS" "${flags[@]}" -ffp-contract=off -c rt/native/metric_map_kernel.cpp -o "$out/metric_map.o"
# The harnesses at -O1: GCC 12 for aarch64 breaks down (internal error) over their loops at -O3.
"$CROSS" "${flags[@]}" -O1 -DUNDER_QEMU -static tests/sanitize/distance.cpp rt/native/distance.cpp \
  "${engines[@]}" "$out/distance.o" -o "$out/distance"
"$CROSS" "${flags[@]}" -O1 -DUNDER_QEMU -static tests/sanitize/field.cpp rt/native/field.cpp \
  rt/native/metric_map.cpp "${engines[@]}" "$out/field.o" "$out/metric_map.o" -o "$out/field"
"$CROSS" "${flags[@]}" -static -ffp-contract=off "${view[@]}" -o "$out/view"
"$CROSS" "${flags[@]}" -static -ffp-contract=off "${map[@]}" -o "$out/metric_map"
"${CXX:-g++}" "${flags[@]}" -ffp-contract=off "${view[@]}" -o "$out/view-host"
"${CXX:-g++}" "${flags[@]}" -ffp-contract=off "${map[@]}" -o "$out/metric_map-host"
for exact in view metric_map; do
  here=$("$out/$exact-host")
  there=$("$QEMU" "$out/$exact")
  if [[ $here != "$there" ]]; then
    echo "aarch64: the $exact differs: '$there', here '$here'"
    exit 1
  fi
  echo "aarch64: $there here and there"
done
"$QEMU" "$out/distance"
"$QEMU" "$out/field"
echo "aarch64: distance, field, view and map passed under $QEMU"
