// The Python class around distance.h. Arguments are judged in rt/distance/model.py; here only sizes,
// lest a mistake there read past an end.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cmath>

#include "buffer.h"
#include "distance.h"

namespace nb = nanobind;
using namespace distance_kernel;

namespace {

using Floats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Halves = nb::ndarray<const uint16_t, nb::c_contig, nb::device::cpu>;

void run(DistanceEngine &engine, const Buffer &depth, const Buffer &actions, const Buffer &out,
         float *slope) {
    depth.require(IMAGE * IMAGE);
    actions.require(out.size * 3);
    nb::gil_scoped_release release;
    engine.run(depth.data, actions.data, (int64_t)out.size, out.data, slope);
}

// Lowest and highest value of each of `columns` interleaved columns, NaN if it holds one.
nb::tuple extremes(nb::handle array, size_t columns) {
    Buffer a("array", array);
    constexpr size_t MOST = 3;
    if (columns < 1 || columns > MOST || a.size % columns != 0)
        throw nb::value_error("columns must be 1 to 3 and divide the array");
    float low[MOST], high[MOST];
    for (size_t c = 0; c < columns; c++) low[c] = INFINITY, high[c] = -INFINITY;
    bool nan[MOST] = {};
    for (size_t i = 0; i < a.size; i += columns)
        for (size_t c = 0; c < columns; c++) {
            float v = a.data[i + c];
            low[c] = v < low[c] ? v : low[c];
            high[c] = v > high[c] ? v : high[c];
            nan[c] |= v != v;
        }
    for (size_t c = 0; c < columns; c++)
        if (nan[c]) low[c] = high[c] = NAN;
    if (columns == 1) return nb::make_tuple(low[0], high[0]);
    if (columns == 2) return nb::make_tuple(low[0], high[0], low[1], high[1]);
    return nb::make_tuple(low[0], high[0], low[1], high[1], low[2], high[2]);
}

struct Arrays {
    Floats conv1, conv1_bias, conv2, conv2_bias, bias_map, fc1_bias, fc1_linear, fc2;
};

Weights checked(const Arrays &a, float fc2_bias, float slope, int encoded) {
    require("conv1", a.conv1, CONV1 * TAPS);
    require("conv1_bias", a.conv1_bias, CONV1);
    require("conv2", a.conv2, CONV2 * CONV1 * TAPS);
    require("conv2_bias", a.conv2_bias, CONV2);
    require("bias_map", a.bias_map, CONV2 * (MAX_ENCODED + 1));
    require("fc1_bias", a.fc1_bias, BLOCKS * BLOCK);
    require("fc1_linear", a.fc1_linear, BLOCKS * (MAX_ENCODED + 1) * BLOCK);
    require("fc2", a.fc2, BLOCKS * BLOCK);
    return {a.conv1.data(), a.conv1_bias.data(), a.conv2.data(), a.conv2_bias.data(),
            a.bias_map.data(), nullptr, a.fc1_bias.data(), a.fc1_linear.data(), a.fc2.data(),
            fc2_bias, slope, encoded, false};
}

}  // namespace

void bind_distance(nb::module_ &m) {
    m.attr("DISTANCE_BLOCK") = BLOCK;
    m.attr("DISTANCE_GROUP") = GROUP;
    m.attr("DISTANCE_BLOCKS") = BLOCKS;
    m.def("distance_isas", &DistanceEngine::isas, "Instruction sets of this processor, best first.");
    m.def("extremes", &extremes, nb::arg("array"), nb::arg("columns"),
          "(low, high) of each of 1 to 3 interleaved columns of a float32 array, NaN if it has one.");
    nb::class_<DistanceEngine>(m, "DistanceEngine")
        .def(
            "__init__",
            [](DistanceEngine *self, Floats conv1, Floats conv1_bias, Floats conv2, Floats conv2_bias,
               Floats bias_map, nb::object fc1, Floats fc1_bias, Floats fc1_linear, Floats fc2,
               float fc2_bias, float slope, int encoded, int threads, const std::string &isa) {
                Weights w = checked({conv1, conv1_bias, conv2, conv2_bias, bias_map, fc1_bias,
                                     fc1_linear, fc2}, fc2_bias, slope, encoded);
                constexpr size_t SIZE = (size_t)BLOCKS * CONV2 * KNOTS * BLOCK;
                Floats full;
                Halves half;
                w.half = nb::try_cast(fc1, half, false);
                if (w.half) {
                    require("fc1", half, SIZE);
                    w.fc1 = half.data();
                } else {
                    full = nb::cast<Floats>(fc1, false);
                    require("fc1", full, SIZE);
                    w.fc1 = full.data();
                }
                new (self) DistanceEngine(w, threads, isa);
            },
            nb::arg("conv1"), nb::arg("conv1_bias"), nb::arg("conv2"), nb::arg("conv2_bias"),
            nb::arg("bias_map"), nb::arg("fc1"), nb::arg("fc1_bias"), nb::arg("fc1_linear"),
            nb::arg("fc2"), nb::arg("fc2_bias"), nb::arg("slope"), nb::arg("encoded"),
            nb::arg("threads"), nb::arg("isa"),
            "A copy of the packed weights (rt/distance/native.py), threads, and an instruction set "
            "('' for the best).")
        .def(
            "run",
            [](DistanceEngine &self, nb::handle depth, nb::handle actions, nb::handle out) {
                Buffer d("depth", depth), a("actions", actions), o("out", out, true);
                run(self, d, a, o, nullptr);
            },
            nb::arg("depth"), nb::arg("actions"), nb::arg("out"))
        .def(
            "gradient",
            [](DistanceEngine &self, nb::handle depth, nb::handle actions, nb::handle out,
               nb::handle slope) {
                Buffer d("depth", depth), a("actions", actions), o("out", out, true);
                Buffer s("slope", slope, true);
                s.require(o.size * 3);
                run(self, d, a, o, s.data);
            },
            nb::arg("depth"), nb::arg("actions"), nb::arg("out"), nb::arg("slope"))
        .def("stages", [](DistanceEngine &self) {
            double s[3];
            self.stages(s);
            return nb::make_tuple(s[0], s[1], s[2]);
        }, "Seconds of the last call: convolutions, sorting and ranking, sums.")
        .def_prop_ro("isa", &DistanceEngine::isa)
        .def_prop_ro("threads", &DistanceEngine::threads)
        .def_prop_ro("growths", &DistanceEngine::growths, "Times that working memory was allocated.");
}
