// A depth camera's faults on an exact depth image. Python: sim.scene.sensor.observe, whose NumPy twin is the
// oracle, equal bit by bit; the chance comes from there.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

namespace nb = nanobind;

namespace {

using Images = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Words = nb::ndarray<const uint16_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Steps = nb::ndarray<const int8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Row = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define EVERY_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define EVERY_PROCESSOR
#endif

struct Numbers {  // as in sim.scene.sensor.Sensor, at the images' resolution
    float near_m, far_m, shadow_fB, first_column, fx, fy, grazing_cosine, fB, fB_scaled, subpixel, step, unit;
    int dropout;  // of 65536
};

// Every depth from a pixel nearby.
void jitter(const float *depth, int height, int width, const uint8_t *rows, const uint8_t *columns,
            const int8_t *steps, float *seen) {
    for (int r = 0, k = 0; r < height; ++r)
        for (int c = 0; c < width; ++c, ++k) {
            const int row = std::clamp(r + steps[rows[k]], 0, height - 1);
            const int column = std::clamp(c + steps[columns[k]], 0, width - 1);
            seen[k] = depth[row * width + column];
        }
}

// What the second imager does not see.
EVERY_PROCESSOR
void shadow(const float *seen, int width, const Numbers &n, float *other, int32_t *lost) {
    for (int c = 0; c < width; ++c) {
        const float place = float(c) - n.shadow_fB / seen[c];
        other[c] = seen[c] <= 0 ? INFINITY : place;
    }
    float right = INFINITY;
    for (int c = width - 1; c >= 0; --c) {
        const float place = other[c];
        lost[c] |= (place > right) | (place < -n.first_column);
        right = place < right ? place : right;
    }
}

EVERY_PROCESSOR
void difference(const float *from, const float *to, size_t count, float *out) {
    for (size_t k = 0; k < count; ++k) out[k] = to[k] - from[k];
}

EVERY_PROCESSOR
void invert(const float *seen, size_t count, float *inverse) {
    for (size_t k = 0; k < count; ++k) inverse[k] = 1.0f / seen[k];
}

// One row: its values of 1/z, the differences to the rows beside it, and those between its columns (c - 1 and c:
// before and after column c).
EVERY_PROCESSOR
void graze(const float *row, const float *up, const float *down, const float *between, int width, const float *x,
           float y, const Numbers &n, int32_t *lost) {
    for (int c = 0; c < width; ++c) {
        const float before = between[c], after = between[c + 1];
        const float du = std::fabs(before) < std::fabs(after) ? before : after;
        const float dv = std::fabs(up[c]) < std::fabs(down[c]) ? up[c] : down[c];
        const float a = -n.fx * du / row[c], b = -n.fy * dv / row[c];
        const float along = 1.0f + x[c] * a + y * b;
        const float normal = std::sqrt(a * a + b * b + along * along);
        const float cosine = 1.0f / (normal * std::sqrt(1.0f + x[c] * x[c] + y * y));
        lost[c] |= int32_t(cosine < n.grazing_cosine);  // NaN: no surface to judge
    }
}

void graze_all(const float *inverse, int height, int width, const float *x, const float *y, const Numbers &n,
               float *rows, float *between, int32_t *lost) {
    difference(inverse, inverse + width, size_t(height - 1) * width, rows);
    for (int r = 0; r < height; ++r) {
        const float *row = inverse + size_t(r) * width;
        difference(row, row + 1, width - 1, between + 1);
        between[0] = between[1], between[width] = between[width - 1];  // at the border the only one
        const float *up = rows + size_t(r ? r - 1 : 0) * width, *down = rows + size_t(std::min(r, height - 2)) * width;
        graze(row, up, down, between, width, x, y[r], n, lost + size_t(r) * width);
    }
}

EVERY_PROCESSOR
void measure(const float *seen, const int32_t *lost, size_t count, const Numbers &n, const float *noise,
             float *out) {
    for (size_t k = 0; k < count; ++k) {
        float depth = seen[k];
        if (n.fB > 0) {
            float disparity = n.fB / depth;
            if (noise) disparity += n.subpixel * noise[k];
            if (n.step > 0) disparity = std::rint(disparity / n.step) * n.step;
            depth = n.fB_scaled / (disparity > 1e-3f ? disparity : 1e-3f);
        }
        if (n.unit > 0) depth = std::rint(depth / n.unit) * n.unit;
        out[k] = lost[k] ? 0.0f : depth;
    }
}

void observe(Images depth, Bytes moves, Steps steps, Words words, Row normal, Bytes lost_patches, Row x, Row y,
             Row numbers, int dropout, Out out) {
    const size_t images = depth.shape(0), height = depth.shape(1), width = depth.shape(2);
    const size_t size = height * width, all = images * size;
    if (out.shape(0) != images || out.shape(1) != height || out.shape(2) != width || x.shape(0) != width ||
        y.shape(0) != height || height < 2 || width < 2 || numbers.shape(0) != 12)
        throw std::invalid_argument("observe: shapes of depth, x, y, numbers and out disagree");
    if ((moves.size() && (moves.size() != 2 * all || steps.shape(0) != 256)) ||
        (words.size() && (words.size() != 2 * all || normal.shape(0) != 65536)) ||
        (lost_patches.size() && lost_patches.size() != all))
        throw std::invalid_argument("observe: chance must be given for every pixel or for none");
    const float *v = numbers.data();
    const Numbers n{v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[11], dropout};
    const float *from = depth.data();
    float *to = out.data();

    nb::gil_scoped_release release;
    std::vector<float> moved(size), inverse(size), rows(size), noise(words.size() ? size : 0), between(width + 1);
    std::vector<int32_t> lost(size);
    for (size_t i = 0; i < images; ++i, from += size, to += size) {
        const float *seen = from;
        if (moves.size()) {
            jitter(from, int(height), int(width), moves.data() + i * size, moves.data() + all + i * size,
                   steps.data(), moved.data());
            seen = moved.data();
        }
        for (size_t k = 0; k < size; ++k) lost[k] = (seen[k] < n.near_m) | (seen[k] > n.far_m) | (seen[k] <= 0);
        if (n.shadow_fB > 0)
            for (size_t r = 0; r < height; ++r)
                shadow(seen + r * width, int(width), n, between.data(), &lost[r * width]);
        if (n.grazing_cosine > 0) {
            invert(seen, size, inverse.data());
            graze_all(inverse.data(), int(height), int(width), x.data(), y.data(), n, rows.data(), between.data(),
                      lost.data());
        }
        if (lost_patches.size())
            for (size_t k = 0; k < size; ++k) lost[k] |= lost_patches.data()[i * size + k];
        if (words.size()) {
            const uint16_t *drop = words.data() + i * size, *level = words.data() + all + i * size;
            for (size_t k = 0; k < size; ++k) lost[k] |= int(drop[k]) < n.dropout, noise[k] = normal.data()[level[k]];
        }
        measure(seen, lost.data(), size, n, words.size() ? noise.data() : nullptr, to);
    }
}

}  // namespace

void bind_sensor(nb::module_ &m) {
    m.def("observe", &observe, nb::arg("depth").noconvert(), nb::arg("moves").noconvert(),
          nb::arg("steps").noconvert(), nb::arg("words").noconvert(), nb::arg("normal").noconvert(),
          nb::arg("lost").noconvert(), nb::arg("x").noconvert(), nb::arg("y").noconvert(),
          nb::arg("numbers").noconvert(), nb::arg("dropout"), nb::arg("out").noconvert(),
          "A depth camera's faults on depth (N, H, W); see sim.scene.sensor.observe.");
}
