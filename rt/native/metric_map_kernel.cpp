// The metric map, once per instruction set. Twin and oracle: metric_map_numpy in rt/distance/metric_map.py,
// equal to this bit by bit on every processor: the same float32 operations in the same order, so this
// file is compiled without contraction of a*b + c into one rounding (CMakeLists.txt). Nothing here may
// come from a C++ library header: an inline function built for AVX-512 could be linked into the baseline.
#include "metric_map_kernel.h"

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

namespace metric_map_kernel {
namespace {

constexpr float NONE = __builtin_inff();

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int integers __attribute__((vector_size(LANES * 4)));

template <int WIDE>
struct Wide {
    typedef float floats __attribute__((vector_size(WIDE * 4)));
    typedef int integers __attribute__((vector_size(WIDE * 4)));
};

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

// LANES returns of a row to footprints at [i, i + LANES) of `s`.
inline void place(const Setup &m, const Turn &turn, vec z, vec ray_x, float ray_y, const Scratch &s,
                  int *own, size_t i) {
    const float end = float(m.cells), last = float(m.cells - 1);
    const float centre = float(double(m.cells) / 2 - 0.5);
    const integers seen = (z > 0) & (z <= m.far_m);  // false for NaN, too
    const vec x = z * ray_x, y = (z * ray_y) * turn.sign;
    const vec p = (x * turn.cosine - y * turn.sine) + centre;
    const vec q = (x * turn.sine + y * turn.cosine) + centre;
    const vec half = least(z * m.growth, all(m.max_half));
    const integers left = ceil_to_int(clamp(p - half, 0, end));
    const integers right = floor_to_int(clamp(p + half, -1, last));
    const integers top = ceil_to_int(clamp(q - half, 0, end));
    const integers bottom = floor_to_int(clamp(q + half, -1, last));
    const integers a = floor_to_int(clamp(p + 0.5f, -1, end));
    const integers b = floor_to_int(clamp(q + 0.5f, -1, end));
    const integers inside = seen & (a >= 0) & (a < m.cells) & (b >= 0) & (b < m.cells);
    store(own + i, choose(inside, b * m.cells + a, m.cells * m.cells - integers{}));
    // One that covers nothing becomes an infinite depth in cell 0, where it changes nothing.
    const integers hit = seen & (left <= right) & (top <= bottom);
    store(s.left + i, left & hit);
    store(s.right + i, right & hit);
    store(s.top + i, top & hit);
    store(s.bottom + i, bottom & hit);
    store(s.z + i, choose(hit, z, all(NONE)));
}

void place_row(const Setup &m, const Turn &turn, const float *depth, float ray_y, const Scratch &s, int *own) {
    size_t i = 0, count = size_t(m.pixels);
    for (; i + LANES <= count; i += LANES)
        place(m, turn, load<vec>(depth + i), load<vec>(m.rays + i), ray_y, s, own, i);
    if (i < count) {
        vec z = {}, ray = {};  // no return where there is no pixel
        __builtin_memcpy(&z, depth + i, (count - i) * sizeof(float));
        __builtin_memcpy(&ray, m.rays + i, (count - i) * sizeof(float));
        place(m, turn, z, ray, ray_y, s, own, i);
    }
}

// The same number of steps for every footprint of the row, since branches on the sizes of a handful of
// cells would be mispredicted most of the time: a row of WIDE cells at once, of which those past the right
// edge keep what they have, and the bottom row again for a footprint that is less high than the row's highest.
template <int WIDE>
void draw_footprints(const Setup &m, const Scratch &s, int height, float *nearest) {
    using wide = typename Wide<WIDE>::floats;
    using wide_integers = typename Wide<WIDE>::integers;
    wide_integers lane;
    for (int k = 0; k < WIDE; ++k) lane[k] = k;
    const wide none = NONE - wide{};
    // Neighbours share cells, and would wait for each other's stores: every eighth, then their neighbours.
    constexpr int APART = 8;
    for (int first = 0; first < APART; ++first)
        for (int i = first; i < m.pixels; i += APART) {
            const int left = s.left[i], top = s.top[i], bottom = s.bottom[i];
            const wide_integers mine = lane <= s.right[i] - left;
            const wide z = (wide)((mine & (wide_integers)(s.z[i] - wide{})) | (~mine & (wide_integers)none));
            for (int b = top; b < top + height; ++b) {
                float *at = nearest + (b < bottom ? b : bottom) * s.stride + left;
                const wide have = load<wide>(at);
                store(at, have < z ? have : z);
            }
        }
}

void draw_row(const Setup &m, const Scratch &s, float *nearest) {
    int width = 0, height = 0;
    for (int i = 0; i < m.pixels; ++i) {
        const int w = s.right[i] - s.left[i] + 1, h = s.bottom[i] - s.top[i] + 1;
        width = w > width ? w : width;
        height = h > height ? h : height;
    }
    if (width <= 4) draw_footprints<4>(m, s, height, nearest);
    else if (width <= 8) draw_footprints<8>(m, s, height, nearest);
    else draw_footprints<WIDEST>(m, s, height, nearest);
}

void draw(const Setup &m, const Turn &turn, const float *depth, const Scratch &s, float *out) {
    const size_t side = size_t(m.cells), cells = side * side, pixels = size_t(m.pixels) * m.pixels;
    for (size_t c = 0; c < side * s.stride + WIDEST; ++c) s.nearest[c] = NONE;
    for (int v = 0; v < m.pixels; ++v) {
        const size_t first = size_t(v) * m.pixels;
        place_row(m, turn, depth + first, m.rays[v], s, s.own + first);
        draw_row(m, s, s.nearest);
    }
    for (size_t r = 0; r < side; ++r) __builtin_memcpy(out + r * side, s.nearest + r * s.stride, side * sizeof(float));
    unsigned char any = 0;
    for (size_t c = 0; c < cells; ++c) any |= s.empty[c] = out[c] == NONE;
    s.empty[cells] = 0;  // nobody's
    if (any)             // a cell that no footprint reached takes the nearest return inside it
        for (size_t i = 0; i < pixels; ++i)
            if (s.empty[s.own[i]]) lower(out[s.own[i]], depth[i]);
    float *seen = out + cells;
    for (size_t c = 0; c < cells; ++c) {
        const bool known = out[c] < NONE;
        seen[c] = known ? 1.0f : 0.0f;
        out[c] = known ? (out[c] - 0.2f) * 10.0f : 0.0f;
    }
}

}  // namespace

#define NAMED(name) #name
#define TEXT(name) NAMED(name)
#define JOINED(name) map_##name
#define SYMBOL(name) JOINED(name)
const Kernel SYMBOL(KERNEL_NAME) = {TEXT(KERNEL_NAME), draw};

}  // namespace metric_map_kernel
