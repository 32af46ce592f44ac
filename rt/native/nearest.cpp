// Distances from places to the nearest of many grasps, the labels of training. Twin and oracle:
// nearest_grasp in train/offsets.py.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cmath>
#include <stdexcept>

namespace nb = nanobind;

namespace {

using Places = nb::ndarray<const float, nb::shape<-1, -1, 3>, nb::c_contig, nb::device::cpu>;
using Grasps = nb::ndarray<const float, nb::shape<3, -1>, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<const int64_t, nb::shape<-1, 2>, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define EVERY_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define EVERY_PROCESSOR
#endif

// x, y and angle in half turns of `count` grasps -> the least squared distance.
EVERY_PROCESSOR
float least_squared(const float *gx, const float *gy, const float *gt, size_t count, float x,
                    float y, float t, float metres) {
    float least = INFINITY;
#pragma omp simd reduction(min : least)
    for (size_t g = 0; g < count; ++g) {
        const float dx = gx[g] - x, dy = gy[g] - y;
        float turn = gt[g] - t;
        turn = (turn - rintf(turn)) * metres;
        const float squared = dx * dx + dy * dy + turn * turn;
        least = squared < least ? squared : least;
    }
    return least;
}

void nearest_grasps(Places places, Grasps grasps, Rows rows, Out out, float metres_per_half_turn) {
    const size_t images = places.shape(0), actions = places.shape(1), total = grasps.shape(1);
    if (rows.shape(0) != images || out.shape(0) != images || out.shape(1) != actions)
        throw std::invalid_argument("nearest_grasps: shapes of places, rows and out disagree");
    for (size_t i = 0; i < images; ++i) {
        const int64_t from = rows.data()[2 * i], to = rows.data()[2 * i + 1];
        if (from < 0 || to < from || to > int64_t(total))
            throw std::invalid_argument("nearest_grasps: rows lie outside the grasps");
    }
    const float *at = places.data(), *g = grasps.data();
    float *result = out.data();

    nb::gil_scoped_release release;
    for (size_t i = 0; i < images; ++i) {
        const size_t from = rows.data()[2 * i], count = rows.data()[2 * i + 1] - from;
        for (size_t k = 0; k < actions; ++k, at += 3)
            *result++ = sqrtf(least_squared(g + from, g + total + from, g + 2 * total + from, count,
                                            at[0], at[1], at[2], metres_per_half_turn));
    }
}

}  // namespace

void bind_nearest(nb::module_ &m) {
    m.def("nearest_grasps", &nearest_grasps, nb::arg("places").noconvert(),
          nb::arg("grasps").noconvert(), nb::arg("rows").noconvert(), nb::arg("out").noconvert(),
          nb::arg("metres_per_half_turn"),
          "Distances (B, K) from places (B, K, 3) of x, y [m], half turns to the nearest of grasps (3, G) "
          "[rows[b, 0], rows[b, 1]); see train.offsets.nearest_grasp.");
}
