#!/usr/bin/env bash
# Build rt._native whole with ASan and UBSan, and run the tests of the kernels that only Python calls: lines of
# jaws, raster, sensor, nearest grasp, view. Needs g++, Python's headers and `make test` before it.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=build/sanitize-module
python=.venv/bin/python
rm -rf "$out"
flags="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g"
PIP_CONSTRAINT=constraints.txt $python -m pip install --quiet --no-deps --no-compile --target "$out" \
  -C build-dir=build/sanitize-cmake -C cmake.define.CMAKE_CXX_FLAGS="$flags" .
# Python itself leaks by design, and is not built with ASan: the library must come first.
LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)"
export LD_PRELOAD ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
# The finder of the editable install comes before sys.path, and would give the module that is installed.
$python - "$out" "$@" <<'RUN'
import sys

sys.meta_path = [finder for finder in sys.meta_path if "ScikitBuild" not in type(finder).__name__]
sys.path[0:0] = [sys.argv[1], "."]
import pytest

import rt.native

assert rt.native.native is not None and sys.argv[1] in rt.native.native.__file__, rt.native.native
names = "sim/test_lines sim/test_grasps sim/test_raster sim/test_material sim/test_sensor train/test_field rt/test_view"
files = [f"tests/{name}.py" for name in names.split()]
sys.exit(pytest.main(["-n0", "-p", "no:cacheprovider", *files, *sys.argv[2:]]))
RUN
