// rt._native: the compiled half of rt. Each bind_* lives in the file that it is named for.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

void bind_view(nb::module_ &m);
void bind_distance(nb::module_ &m);
void bind_metric_map(nb::module_ &m);
void bind_nearest(nb::module_ &m);
void bind_field(nb::module_ &m);
void bind_lines(nb::module_ &m);
void bind_raster(nb::module_ &m);
void bind_sensor(nb::module_ &m);

NB_MODULE(_native, m) {
    m.doc() = "Compiled kernels of rt; each has a NumPy twin that is its oracle.";
    bind_view(m);
    bind_distance(m);
    bind_metric_map(m);
    bind_nearest(m);
    bind_field(m);
    bind_lines(m);
    bind_raster(m);
    bind_sensor(m);
}
