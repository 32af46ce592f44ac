// Depth reprojection into the canonical view. Twin: rt/view.py.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

void bind_view(nb::module_ &) {}
