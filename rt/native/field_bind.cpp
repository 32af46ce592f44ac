// The Python class around field.h. Arguments are judged in rt/distance/model.py; here only sizes, lest a
// mistake there read past an end.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>

#include "buffer.h"
#include "field.h"

namespace {

using Floats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;

void run(FieldEngine &engine, const Buffer &depth, const Buffer &actions, const field_kernel::Results &results,
         size_t count) {
    depth.require((size_t)engine.pixels() * engine.pixels());
    actions.require(count * 3);
    nb::gil_scoped_release release;
    engine.run(depth.data, actions.data, (int64_t)count, results);
}

void make(FieldEngine *self, const std::vector<std::pair<Floats, Floats>> &layers, Floats whole, Floats turn,
          Floats bias1, Floats weight3, Floats bias3, const std::vector<int> &channels, int hidden,
          int cells, Floats rays, float growth, float far_m, float max_half, float cell_m, float slope,
          float scale, int threads, const std::string &isa) {
    FieldModel m{};
    if (layers.size() != FieldModel::LAYERS || channels.size() != 5)
        throw nb::value_error("a field model has 17 layers and 5 numbers of channels");
    std::copy(channels.begin(), channels.end(), m.channels);
    m.hidden = hidden, m.cells = cells, m.pixels = (int)rays.size();
    for (int count : {m.channels[0], m.channels[1], m.channels[2], m.channels[3], m.channels[4], hidden})
        if (count < 1 || count > 4096) throw nb::value_error("numbers of channels must be from 1 to 4096");
    if (cells < 16 || cells % 16 || cells > metric_map_kernel::MAX_SIDE || m.pixels < 1 ||
        m.pixels > metric_map_kernel::MAX_SIDE || !(max_half >= 0 && max_half <= 15))
        throw nb::value_error("cells must be a multiple of 16, pixels at least 1, both at most 512, max_half 15");
    for (int i = 0; i < FieldModel::LAYERS; i++) {
        const int rows = FieldModel::rows(i);
        require("a weight", layers[i].first, (size_t)rows * rows * m.inputs(i) * m.outputs(i));
        require("a bias", layers[i].second, (size_t)m.outputs(i));
        m.weight[i] = layers[i].first.data(), m.bias[i] = layers[i].second.data();
    }
    require("whole", whole, (size_t)m.channels[4] * m.channels[3]);
    require("turn", turn, (size_t)field_kernel::TURNS * hidden);
    require("bias1", bias1, hidden);
    require("weight3", weight3, (size_t)field_kernel::OUTPUTS * hidden);
    require("bias3", bias3, field_kernel::OUTPUTS);
    m.whole = whole.data(), m.turn = turn.data(), m.bias1 = bias1.data();
    m.weight3 = weight3.data(), m.bias3 = bias3.data(), m.rays = rays.data();
    m.growth = growth, m.far_m = far_m, m.max_half = max_half, m.cell_m = cell_m;
    m.slope = slope, m.scale = scale;
    new (self) FieldEngine(m, threads, isa);
}

}  // namespace

void bind_field(nb::module_ &m) {
    m.def("field_isas", &FieldEngine::isas, "Instruction sets of this processor, best first.");
    nb::class_<FieldEngine>(m, "FieldEngine")
        .def("__init__", &make, nb::arg("layers"), nb::arg("whole"), nb::arg("turn"), nb::arg("bias1"),
             nb::arg("weight3"), nb::arg("bias3"), nb::arg("channels"), nb::arg("hidden"),
             nb::arg("cells"), nb::arg("rays"), nb::arg("growth"), nb::arg("far_m"), nb::arg("max_half"),
             nb::arg("cell_m"), nb::arg("slope"), nb::arg("scale"), nb::arg("threads"), nb::arg("isa"),
             "A copy of the weights (rt/distance/field_native.py), threads, and an instruction set ('' for the "
             "best).")
        .def(
            "run",
            [](FieldEngine &self, nb::handle depth, nb::handle actions, nb::handle out) {
                Buffer d("depth", depth), a("actions", actions), o("out", out, true);
                run(self, d, a, {o.data, nullptr, nullptr, nullptr}, o.size);
            },
            nb::arg("depth"), nb::arg("actions"), nb::arg("out"))
        .def(
            "predict",
            [](FieldEngine &self, nb::handle depth, nb::handle actions, nb::handle out, nb::handle probability,
               nb::handle spread) {
                Buffer d("depth", depth), a("actions", actions), o("out", out, true);
                Buffer p("probability", probability, true), s("spread", spread, true);
                p.require(o.size), s.require(o.size);
                run(self, d, a, {o.data, p.data, s.data, nullptr}, o.size);
            },
            nb::arg("depth"), nb::arg("actions"), nb::arg("out"), nb::arg("probability"), nb::arg("spread"))
        .def(
            "gradient",
            [](FieldEngine &self, nb::handle depth, nb::handle actions, nb::handle out, nb::handle slope) {
                Buffer d("depth", depth), a("actions", actions), o("out", out, true);
                Buffer s("slope", slope, true);
                s.require(o.size * 3);
                run(self, d, a, {o.data, nullptr, nullptr, s.data}, o.size);
            },
            nb::arg("depth"), nb::arg("actions"), nb::arg("out"), nb::arg("slope"))
        .def("stages", [](FieldEngine &self) {
            double s[3];
            self.stages(s);
            return nb::make_tuple(s[0], s[1], s[2]);
        }, "Seconds of the last call: map, convolutions, candidates.")
        .def_prop_ro("isa", &FieldEngine::isa)
        .def_prop_ro("threads", &FieldEngine::threads);
}
