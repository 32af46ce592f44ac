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
# As in CMakeLists.txt: contraction for the distance, none for the view. Static: no sysroot is needed.
"$CROSS" "${flags[@]}" -ffp-contract=fast -c rt/native/distance_kernel.cpp -o "$out/kernel.o"
# The harness at -O1: GCC 12 for aarch64 breaks down (internal error) over its loops at -O3.
"$CROSS" "${flags[@]}" -O1 -DUNDER_QEMU -static tests/sanitize/distance.cpp rt/native/distance.cpp "$out/kernel.o" -o "$out/distance"
"$CROSS" "${flags[@]}" -static -ffp-contract=off "${view[@]}" -o "$out/view"
"${CXX:-g++}" "${flags[@]}" -ffp-contract=off "${view[@]}" -o "$out/view-host"
here=$("$out/view-host")
there=$("$QEMU" "$out/view")
if [[ $here != "$there" ]]; then
  echo "aarch64: the view differs: '$there', here '$here'"
  exit 1
fi
"$QEMU" "$out/distance"
echo "aarch64: distance and view passed under $QEMU ($there here and there)"
