// The Python function around metric_map.h. Twin and oracle: metric_map_numpy in rt/distance/metric_map.py.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "metric_map.h"

namespace nb = nanobind;
using namespace metric_map_kernel;

namespace {

using Views = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Rays = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Turns = nb::ndarray<const float, nb::shape<-1, 3>, nb::c_contig, nb::device::cpu>;
using Maps = nb::ndarray<float, nb::shape<-1, 2, -1, -1>, nb::c_contig, nb::device::cpu>;

void metric_map(Views depth, Rays rays, Turns turns, Maps out, float growth, float far_m, float max_half,
                const std::string &isa) {
    const size_t count = depth.shape(0), pixels = depth.shape(1), cells = out.shape(2);
    if (depth.shape(2) != pixels || rays.shape(0) != pixels || turns.shape(0) != count ||
        out.shape(0) != count || out.shape(3) != cells || pixels == 0 || cells == 0 ||
        pixels > size_t(MAX_SIDE) || cells > size_t(MAX_SIDE))
        throw std::invalid_argument("metric_map: shapes of depth, rays, turns and out disagree");
    if (!(max_half >= 0 && max_half <= float((WIDEST - 1) / 2)))
        throw std::invalid_argument("metric_map: max_half must be from 0 to 15");
    const Setup setup{int(pixels), int(cells), rays.data(), growth, far_m, max_half};
    const Kernel &kernel = find_kernel(isa);
    const float *from = depth.data(), *turn = turns.data();
    float *to = out.data();

    nb::gil_scoped_release release;
    const Room room(setup.pixels, setup.cells);
    for (size_t b = 0; b < count; ++b, turn += 3)
        kernel.draw(setup, {turn[0], turn[1], turn[2]}, from + b * pixels * pixels, room.scratch,
                    to + b * 2 * cells * cells);
}

}  // namespace

void bind_metric_map(nb::module_ &m) {
    m.def("metric_map", &metric_map, nb::arg("depth").noconvert(), nb::arg("rays").noconvert(),
          nb::arg("turns").noconvert(), nb::arg("out").noconvert(), nb::arg("growth"),
          nb::arg("far_m"), nb::arg("max_half"), nb::arg("isa") = "",
          "Draws depth (B, S, S) into out (B, 2, G, G); see rt.distance.metric_map.metric_map_numpy.");
    m.def("metric_map_isas", &isas, "Instruction sets of `metric_map` on this processor, best first.");
}
