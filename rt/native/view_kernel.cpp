// Splatting a depth image, once per instruction set. Twin and oracle: reproject_numpy in rt/view.py,
// equal to this bit by bit on every processor: the same float32 operations in the same order, so this
// file is compiled without contraction of a*b + c into one rounding (CMakeLists.txt). Nothing here may
// come from a C++ library header: an inline function built for AVX-512 could be linked into the baseline.
#include "view_kernel.h"

#if defined(__AVX512F__)
#define LANES 16
#define KERNEL_NAME avx512
#elif defined(__AVX2__)
#define LANES 8
#define KERNEL_NAME avx2
#else
#define LANES 4
#define KERNEL_NAME baseline
#endif

namespace view_kernel {
namespace {

constexpr float NONE = __builtin_inff();

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int integers __attribute__((vector_size(LANES * 4)));
typedef uint16_t shorts __attribute__((vector_size(LANES * 2)));
typedef unsigned char bytes __attribute__((vector_size(LANES)));

inline void lower(float &least, float x) {
    if (x < least) least = x;
}
template <typename T>
inline T load(const void *from) {
    T x;
    __builtin_memcpy(&x, from, sizeof x);
    return x;
}
template <typename T>
inline void store(void *to, T x) {
    __builtin_memcpy(to, &x, sizeof x);
}
inline vec all(float x) { return x - vec{}; }
inline integers choose(integers mask, integers yes, integers no) { return (mask & yes) | (~mask & no); }
inline vec choose(integers mask, vec yes, vec no) {
    return (vec)choose(mask, (integers)yes, (integers)no);
}
inline vec least(vec a, vec b) { return choose(a < b, a, b); }
inline vec clamp(vec x, float low, float high) {  // low for NaN
    x = choose(all(low) < x, x, all(low));
    return least(x, all(high));
}
inline integers ceil_to_int(vec x) {
    const integers i = __builtin_convertvector(x, integers);
    return i - (__builtin_convertvector(i, vec) < x);  // a comparison is 0 or -1
}
inline integers floor_to_int(vec x) {
    const integers i = __builtin_convertvector(x, integers);
    return i + (x < __builtin_convertvector(i, vec));
}

// LANES points of a row, from depths and directions, to splats at [i, i + LANES) of `row`.
template <typename Cell>
inline void splat(const Camera &camera, const View &view, vec d, vec dx, vec dy, vec dz,
                  const Scratch &row, Cell *cells, size_t i) {
    const int size = view.size;
    const float end = float(size), last = float(size - 1), centre = float(double(size) / 2 - 0.5);
    const vec x = d * dx + camera.origin[0];
    const vec y = d * dy + camera.origin[1];
    const vec z = d * dz + camera.origin[2];
    const vec scale = view.focal / z, ratio = d / z;
    const vec u = x * scale + centre, v = y * scale + centre;
    const vec hu = least(camera.half_x * ratio, all(view.max_half));
    const vec hv = least(camera.half_y * ratio, all(view.max_half));
    const integers seen = (d > 0) & (z >= view.near_m) & (z <= view.far_m);  // false for NaN, too
    const integers left = ceil_to_int(clamp(u - hu, 0, end));
    const integers right = floor_to_int(clamp(u + hu, -1, last));
    const integers top = ceil_to_int(clamp(v - hv, 0, end));
    const integers bottom = floor_to_int(clamp(v + hv, -1, last));
    const integers a = floor_to_int(clamp(u + 0.5f, -1, end));
    const integers b = floor_to_int(clamp(v + 0.5f, -1, end));
    const integers inside = seen & (a >= 0) & (a < size) & (b >= 0) & (b < size);
    const integers cell = choose(inside, b * size + a, size * size - integers{});
    const integers hit = seen & (left <= right) & (top <= bottom);
    store(row.u0 + i, left);
    store(row.u1 + i, right);
    store(row.v0 + i, top);
    store(row.v1 + i, bottom);
    store(row.z + i, z);
    store(row.hit + i, __builtin_convertvector(hit, bytes));
    if (sizeof(Cell) == 2) store(cells + i, __builtin_convertvector(cell, shorts));
    else store(cells + i, cell);
}

template <typename Cell>
void splat_row(const Camera &camera, const View &view, size_t first, size_t count,
               const Scratch &row, Cell *cells) {
    const size_t plane = camera.height * camera.width;
    const float *from[4] = {camera.depth + first, camera.directions + first,
                            camera.directions + plane + first,
                            camera.directions + 2 * plane + first};
    size_t i = 0;
    for (; i + LANES <= count; i += LANES)
        splat(camera, view, load<vec>(from[0] + i), load<vec>(from[1] + i), load<vec>(from[2] + i),
              load<vec>(from[3] + i), row, cells, i);
    if (i < count) {
        vec rest[4] = {};  // no return where there is no pixel
        for (int k = 0; k < 4; ++k)
            __builtin_memcpy(&rest[k], from[k] + i, (count - i) * sizeof(float));
        splat(camera, view, rest[0], rest[1], rest[2], rest[3], row, cells, i);
        i += LANES;
    }
    __builtin_memset(row.hit + i, 0, 8);
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
    const float *dz = camera.directions + 2 * camera.height * camera.width;
    const float oz = camera.origin[2];
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

#define NAMED(name) #name
#define TEXT(name) NAMED(name)
#define JOINED(name) view_##name
#define SYMBOL(name) JOINED(name)
const Kernel SYMBOL(KERNEL_NAME) = {TEXT(KERNEL_NAME), reproject};

}  // namespace view_kernel
