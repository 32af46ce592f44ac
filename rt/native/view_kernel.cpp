// Splatting a depth image, once per instruction set. Twin and oracle: reproject_numpy in rt/view.py,
// equal to this bit by bit on every processor: the same float32 operations in the same order, so this
// file is compiled without contraction of a*b + c into one rounding (CMakeLists.txt). Nothing here may
// come from a C++ library header: an inline function built for AVX-512 could be linked into the baseline.
#include "view_kernel.h"

namespace view_kernel {
namespace {

constexpr float NONE = __builtin_inff();

inline void lower(float &least, float x) {
    if (x < least) least = x;
}
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
template <typename Cell>
void splat_row(const Camera &camera, const View &view, size_t first, size_t count,
               const Scratch &row, Cell *__restrict cells) {
    const size_t plane = camera.height * camera.width;
    const float *__restrict depth = camera.depth + first;
    const float *__restrict dx = camera.directions + first;
    const float *__restrict dy = dx + plane, *__restrict dz = dy + plane;
    int *__restrict u0 = row.u0, *__restrict u1 = row.u1;
    int *__restrict v0 = row.v0, *__restrict v1 = row.v1;
    int *__restrict cell = row.cell;
    float *__restrict zs = row.z;
    uint8_t *__restrict hit = row.hit;
    const float ox = camera.origin[0], oy = camera.origin[1], oz = camera.origin[2];
    const float half_x = camera.half_x, half_y = camera.half_y, max_half = view.max_half;
    const float focal = view.focal, near_m = view.near_m, far_m = view.far_m;
    const int size = view.size, none = size * size;
    const float centre = float(double(size) / 2 - 0.5), end = float(size), last = float(size - 1);
    for (size_t i = 0; i < count; ++i) {
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
        const int top = ceil_to_int(clamp(v - hv, 0.0f, end));
        const int bottom = floor_to_int(clamp(v + hv, -1.0f, last));
        u0[i] = ceil_to_int(clamp(u - hu, 0.0f, end));
        v0[i] = top;
        u1[i] = (seen & (top <= bottom)) ? floor_to_int(clamp(u + hu, -1.0f, last)) : -1;
        v1[i] = bottom;
        const int a = floor_to_int(clamp(u + 0.5f, -1.0f, end));
        const int b = floor_to_int(clamp(v + 0.5f, -1.0f, end));
        const bool inside = seen & (a >= 0) & (a < size) & (b >= 0) & (b < size);
        cell[i] = inside ? b * size + a : none;
        zs[i] = z;
    }
    for (size_t i = 0; i < count; ++i) cells[i] = Cell(cell[i]);
    for (size_t i = 0; i < count; ++i) hit[i] = u0[i] <= u1[i];
    __builtin_memset(hit + count, 0, 8);
}

void draw_row(const Scratch &row, size_t count, int size, float *nearest) {
    for (size_t block = 0; block < count; block += 8) {
        uint64_t any;  // a fine camera has a splat that covers a pixel's centre only now and then
        __builtin_memcpy(&any, row.hit + block, 8);
        if (!any) continue;
        for (size_t i = block; i < block + 8; ++i) {
            if (!row.hit[i]) continue;
            for (int b = row.v0[i]; b <= row.v1[i]; ++b)
                for (int a = row.u0[i]; a <= row.u1[i]; ++a) lower(nearest[b * size + a], row.z[i]);
        }
    }
}

// View pixels that no splat has reached take the nearest return inside their own cell.
template <typename Cell>
void fill_cells(const Camera &camera, const View &view, const Cell *cells,
                unsigned char *empty, float *nearest) {
    const size_t pixels = size_t(view.size) * view.size;
    bool any = false;
    for (size_t p = 0; p < pixels; ++p) any |= empty[p] = nearest[p] == NONE;
    empty[pixels] = 0;  // no pixel's
    if (!any) return;
    const float *dz = camera.directions + 2 * camera.height * camera.width, oz = camera.origin[2];
    for (size_t r = 0; r < camera.height; ++r) {
        const size_t begin = r * camera.width;
        const size_t to = begin + camera.spans[2 * r + 1];
        for (size_t i = begin + camera.spans[2 * r]; i < to; ++i) {
            if (!empty[cells[i]]) continue;
            lower(nearest[cells[i]], camera.depth[i] * dz[i] + oz);
        }
    }
}

template <typename Cell>
void reproject_with(const Camera &camera, const View &view, const Scratch &scratch, float *nearest) {
    const size_t pixels = size_t(view.size) * view.size;
    Cell *cells = static_cast<Cell *>(scratch.cells);
    for (size_t p = 0; p < pixels; ++p) nearest[p] = NONE;
    for (size_t r = 0; r < camera.height; ++r) {
        const int from = camera.spans[2 * r], to = camera.spans[2 * r + 1];
        if (from >= to) continue;
        const size_t first = r * camera.width + from, count = to - from;
        splat_row(camera, view, first, count, scratch, cells + first);
        draw_row(scratch, count, view.size, nearest);
    }
    fill_cells(camera, view, cells, scratch.empty, nearest);
    for (size_t p = 0; p < pixels; ++p)
        if (nearest[p] == NONE) nearest[p] = 0;
}

void reproject(const Camera &camera, const View &view, const Scratch &scratch, float *out) {
    if (view.size <= MAX_SHORT_SIZE) reproject_with<uint16_t>(camera, view, scratch, out);
    else reproject_with<int>(camera, view, scratch, out);
}

}  // namespace

#if defined(__AVX512F__)
const Kernel view_avx512 = {"avx512", reproject};
#elif defined(__AVX2__)
const Kernel view_avx2 = {"avx2", reproject};
#else
const Kernel view_baseline = {"baseline", reproject};
#endif

}  // namespace view_kernel
