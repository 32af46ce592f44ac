// Depth reprojection into the canonical view. Twin and oracle: reproject_numpy in rt/view.py, equal
// to this bit by bit: the same float32 operations in the same order, so this file is compiled
// without contraction of a*b + c into one rounding (CMakeLists.txt).
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <vector>

namespace nb = nanobind;

namespace {

using Image = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Rays = nb::ndarray<const float, nb::shape<3, -1, -1>, nb::c_contig, nb::device::cpu>;
using Three = nb::ndarray<const float, nb::shape<3>, nb::c_contig, nb::device::cpu>;
using Two = nb::ndarray<const float, nb::shape<2>, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

struct Splats {  // one image row, ready to be drawn
    explicit Splats(size_t width) : u0(width), u1(width), v0(width), v1(width), cell(width), z(width) {}
    std::vector<int> u0, u1, v0, v1;  // view pixels covered; none when u1 < u0
    std::vector<int> cell;            // view pixel that the point lies in, or -1
    std::vector<float> z;
};

inline float clamp(float x, float low, float high) {  // low for NaN
    x = low < x ? x : low;
    return x < high ? x : high;
}
inline int ceil_to_int(float x) {
    const int i = int(x);
    return i + (float(i) < x);
}
inline int floor_to_int(float x) {
    const int i = int(x);
    return i - (x < float(i));
}

// What follows has no branches, so that the compiler vectorises it.
void splat_row(const float *__restrict depth, const float *__restrict dx,
               const float *__restrict dy, const float *__restrict dz, const float *origin,
               float half_x, float half_y, float focal, float near_m, float far_m, float max_half,
               int size, size_t width, Splats &row) {
    int *__restrict u0 = row.u0.data(), *__restrict u1 = row.u1.data();
    int *__restrict v0 = row.v0.data(), *__restrict v1 = row.v1.data();
    int *__restrict cell = row.cell.data();
    float *__restrict zs = row.z.data();
    const float ox = origin[0], oy = origin[1], oz = origin[2];
    const float centre = float(double(size) / 2 - 0.5), end = float(size), last = float(size - 1);
    for (size_t i = 0; i < width; ++i) {
        const float d = depth[i];
        const float x = d * dx[i] + ox;
        const float y = d * dy[i] + oy;
        const float z = d * dz[i] + oz;
        const float scale = focal / z, ratio = d / z;
        const float u = x * scale + centre, v = y * scale + centre;
        const float wide = half_x * ratio, high = half_y * ratio;
        const float hu = wide < max_half ? wide : max_half;
        const float hv = high < max_half ? high : max_half;
        const bool seen = (d > 0) & (z >= near_m) & (z <= far_m);  // false for NaN, too
        u0[i] = ceil_to_int(clamp(u - hu, 0.0f, end));
        v0[i] = ceil_to_int(clamp(v - hv, 0.0f, end));
        u1[i] = seen ? floor_to_int(clamp(u + hu, -1.0f, last)) : -1;
        v1[i] = floor_to_int(clamp(v + hv, -1.0f, last));
        const int a = floor_to_int(clamp(u + 0.5f, -1.0f, end));
        const int b = floor_to_int(clamp(v + 0.5f, -1.0f, end));
        const bool inside = seen & (a >= 0) & (a < size) & (b >= 0) & (b < size);
        cell[i] = inside ? b * size + a : -1;
        zs[i] = z;
    }
}

void reproject(Image depth, Rays directions, Three origin, Two half, Out out, float focal,
               float near_m, float far_m, float max_half) {
    const size_t height = depth.shape(0), width = depth.shape(1), size = out.shape(0);
    if (directions.shape(1) != height || directions.shape(2) != width || out.shape(1) != size ||
        size == 0)
        throw std::invalid_argument("reproject: shapes of depth, directions and out disagree");
    const float *depths = depth.data(), *rays = directions.data(), *from = origin.data();
    const float half_x = half.data()[0], half_y = half.data()[1];
    float *nearest = out.data();

    nb::gil_scoped_release release;
    constexpr float none = std::numeric_limits<float>::infinity();
    std::fill(nearest, nearest + size * size, none);
    std::vector<float> cells(size * size, none);
    Splats row(width);
    for (size_t r = 0; r < height; ++r) {
        const float *x = rays + r * width, *y = x + height * width, *z = y + height * width;
        splat_row(depths + r * width, x, y, z, from, half_x, half_y, focal, near_m, far_m, max_half,
                  int(size), width, row);
        for (size_t i = 0; i < width; ++i) {
            for (int b = row.v0[i]; b <= row.v1[i]; ++b)
                for (int a = row.u0[i]; a <= row.u1[i]; ++a) {
                    float &pixel = nearest[b * size + a];
                    pixel = std::min(pixel, row.z[i]);
                }
            if (row.cell[i] >= 0) cells[row.cell[i]] = std::min(cells[row.cell[i]], row.z[i]);
        }
    }
    for (size_t i = 0; i < size * size; ++i) {
        if (nearest[i] == none) nearest[i] = cells[i];
        if (nearest[i] == none) nearest[i] = 0;
    }
}

}  // namespace

void bind_view(nb::module_ &m) {
    m.def("reproject", &reproject, nb::arg("depth").noconvert(), nb::arg("directions").noconvert(),
          nb::arg("origin").noconvert(), nb::arg("half").noconvert(), nb::arg("out").noconvert(),
          nb::arg("focal_px"), nb::arg("near_m"), nb::arg("far_m"), nb::arg("max_half_px"),
          "Splats depth (H, W) into out (size, size); see rt.view.reproject_numpy.");
}
