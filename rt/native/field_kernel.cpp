// Compiled once per instruction set (CMakeLists.txt), so nothing here may come from a C++ library
// header: an inline function built for AVX-512 could be linked into the baseline.
#include "field_kernel.h"

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

namespace field_kernel {
namespace {

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef float vec_unaligned __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

inline vec load(const float *p) { return *(const vec_unaligned *)p; }
inline void store(float *p, vec v) { *(vec_unaligned *)p = v; }
inline void store(float *p, vec v, int lanes) {
    if (lanes >= LANES) store(p, v);
    else
        for (int i = 0; i < lanes; i++) p[i] = v[i];
}
inline vec leaky(vec z, float slope) {
    vec scaled = z * slope;
    return z > scaled ? z : scaled;  // 0 <= slope <= 1
}
inline float sum(vec v) {
    float lane[LANES];
    store(lane, v);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) lane[i] += lane[i + width];
    return lane[0];
}

// Sums in registers: as many as leave room for a vector of weights each and one input.
#if LANES == 16 || defined(__ARM_NEON)
constexpr int GROUPS = 6, WIDE_GROUPS = 4;  // 6 * 2 * 2 or 4 * 2 * 3 vectors of 32 registers
#else
constexpr int GROUPS = 3, WIDE_GROUPS = 2;  // 12 of 16
#endif
constexpr int GROUP = 2;  // neighbouring pixels: the sides of all images but the last are even

// Vectors of channels go two by two, but three first where their number is odd.
inline int vectors(int channels) { return (channels + LANES - 1) / LANES; }
int blocks_of(int channels) { return vectors(channels) == 1 ? 1 : vectors(channels) / 2; }
inline int block_vectors(int channels, int block) {
    const int all = vectors(channels);
    if (all == 1) return 1;
    return block == 0 && all % 2 ? 3 : 2;
}
inline int block_first(int channels, int block) {  // its first vector
    return 2 * block + (block > 0 && vectors(channels) % 2 ? 1 : 0);
}
inline int groups_of(int channels, int block) { return block_vectors(channels, block) == 3 ? WIDE_GROUPS : GROUPS; }

size_t packed(int rows, int length, int channels) {
    return (size_t)rows * length * vectors(channels) * LANES;
}

void pack(int rows, int length, int channels, const float *weight, const float *bias, float *to_weight,
          float *to_bias) {
    for (int b = 0; b < blocks_of(channels); b++) {
        const int first = block_first(channels, b) * LANES, width = block_vectors(channels, b) * LANES;
        for (int k = 0; k < rows * length; k++)
            for (int o = 0; o < width; o++)
                *to_weight++ = first + o < channels ? weight[(size_t)k * channels + first + o] : 0.0f;
    }
    for (int o = 0; o < vectors(channels) * LANES; o++) to_bias[o] = o < channels ? bias[o] : 0.0f;
}

// A group is GROUP neighbouring pixels of a row; the last of a row begins earlier where it would reach past
// the end, and what it has in common with the one before is not stored twice.
inline int groups_across(const Convolution &c) { return (c.width + GROUP - 1) / GROUP; }

int blocks(const Convolution &c) { return blocks_of(c.channels); }

int tiles(const Convolution &c, int block) {
    const int groups = c.height * groups_across(c), at_once = groups_of(c.channels, block);
    return (groups + at_once - 1) / at_once;
}

template <int V, int AT_ONCE>
void convolve_block(const Convolution &c, int block, int begin, int end) {
    const int first = block_first(c.channels, block);
    const float *weights = c.weight + (size_t)first * LANES * c.rows * c.length;
    const float *biases = c.bias + first * LANES;
    const int across = groups_across(c), groups = c.height * across;
    const ptrdiff_t step = c.step_x;
    for (int t = begin; t < end; t++) {
        const float *from[AT_ONCE];
        int y[AT_ONCE], x[AT_ONCE], new_x[AT_ONCE];
        for (int g = 0; g < AT_ONCE; g++) {
            const int index = t * AT_ONCE + g < groups ? t * AT_ONCE + g : groups - 1;
            y[g] = index / across;
            new_x[g] = t * AT_ONCE + g < groups ? index % across * GROUP : c.width;
            x[g] = index % across * GROUP;
            x[g] = x[g] < c.width - GROUP ? x[g] : c.width - GROUP;
            x[g] = x[g] > 0 ? x[g] : 0;
            from[g] = c.in + y[g] * c.step_y + x[g] * step;
        }
        vec acc[AT_ONCE][GROUP][V];
#pragma GCC unroll 8
        for (int g = 0; g < AT_ONCE; g++)
#pragma GCC unroll 8
            for (int p = 0; p < GROUP; p++)
#pragma GCC unroll 8
                for (int v = 0; v < V; v++) acc[g][p][v] = load(biases + v * LANES);
        const float *weight = weights;
        for (int r = 0; r < c.rows; r++) {
            const float *in[AT_ONCE];
#pragma GCC unroll 8
            for (int g = 0; g < AT_ONCE; g++) in[g] = from[g] + r * c.in_row;
#pragma GCC unroll 1
            for (int k = 0; k < c.length; k++, weight += V * LANES) {
                vec w[V];
#pragma GCC unroll 8
                for (int v = 0; v < V; v++) w[v] = load(weight + v * LANES);
#pragma GCC unroll 8
                for (int g = 0; g < AT_ONCE; g++)
#pragma GCC unroll 8
                    for (int p = 0; p < GROUP; p++) {
                        const float input = in[g][k + p * step];
#pragma GCC unroll 8
                        for (int v = 0; v < V; v++) acc[g][p][v] += w[v] * input;
                    }
            }
        }
#pragma GCC unroll 8
        for (int g = 0; g < AT_ONCE; g++)
#pragma GCC unroll 8
            for (int p = 0; p < GROUP; p++) {
                const int at = x[g] + p;
                if (at < new_x[g] || at >= c.width) continue;
                const int room = c.channels - first * LANES;
                if (c.mode == TWICE) {
                    float *out = c.out + 2 * y[g] * c.out_row + 2 * at * c.out_pixel + first * LANES;
                    for (int corner = 0; corner < 4; corner++) {
                        float *pixel = out + (corner & 1) * c.out_pixel + (corner >> 1) * c.out_row;
#pragma GCC unroll 8
                        for (int v = 0; v < V; v++)
                            store(pixel + v * LANES, load(pixel + v * LANES) + acc[g][p][v], room - v * LANES);
                    }
                    continue;
                }
                float *out = c.out + y[g] * c.out_row + at * c.out_pixel + first * LANES;
#pragma GCC unroll 8
                for (int v = 0; v < V; v++) {
                    const vec z = acc[g][p][v];
                    store(out + v * LANES, c.mode == LEAKY ? leaky(z, c.slope) : z, room - v * LANES);
                }
            }
    }
}

void convolve(const Convolution &c, int block, int begin, int end) {
    switch (block_vectors(c.channels, block)) {
        case 1: return convolve_block<1, GROUPS>(c, block, begin, end);
        case 2: return convolve_block<2, GROUPS>(c, block, begin, end);
        default: return convolve_block<3, WIDE_GROUPS>(c, block, begin, end);
    }
}

// sin and cos of x, |x| <= 4 pi + a little: two-part reduction by pi/2, then Cephes' polynomials.
inline void sine_cosine(float x, float &s, float &c) {
    float q = x * 0.636619772f;
    int k = (int)(q + (q >= 0 ? 0.5f : -0.5f));
    float r = (float)k;
    float y = ((x - r * 1.5703125f) - r * 4.837512969970703125e-4f) - r * 7.54978995489188e-8f;
    float z = y * y;
    float sine = y + y * z * (-1.6666654611e-1f + z * (8.3321608736e-3f - z * 1.9515295891e-4f));
    float cosine = 1.0f - 0.5f * z +
                   z * z * (4.166664568298827e-2f + z * (-1.388731625493765e-3f + z * 2.443315711809948e-5f));
    float a = k & 1 ? cosine : sine, b = k & 1 ? sine : cosine;
    s = k & 2 ? -a : a;
    c = (k + 1) & 2 ? -b : b;
}

inline float between(float x, float low, float high) {  // low for NaN
    x = x > low ? x : low;
    return x < high ? x : high;
}

// e^x for |x| up to 87, beyond as there: Cephes' polynomial.
inline float exponential(float x) {
    x = between(x, -87.0f, 87.0f);
    const float n = (float)(int)(x * 1.44269504089f + (x >= 0 ? 0.5f : -0.5f));
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    const float value = p * r * r + r + 1.0f;
    const int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    __builtin_memcpy(&power, &bits, 4);
    return value * power;
}

// Angles' harmonics, and the four pixels that each candidate lies between.
void place(const Head &h, const float *actions, int n, Room &room) {
    float *__restrict c2 = room.turn, *__restrict s2 = c2 + TILE, *__restrict c4 = s2 + TILE,
                     *__restrict s4 = c4 + TILE;
    const float end = (float)h.side;
    for (int i = 0; i < n; i++) {
        float s, c;
        sine_cosine(2.0f * between(actions[3 * i + 2], -6.5f, 6.5f), s, c);
        c2[i] = c, s2[i] = s;
        c4[i] = 1.0f - 2.0f * s * s, s4[i] = 2.0f * s * c;
    }
    for (int i = 0; i < n; i++) {
        const float x = actions[3 * i] * h.per_m + h.centre, y = actions[3 * i + 1] * h.per_m + h.centre;
        const float at_x = between(x, -1.0f, end), at_y = between(y, -1.0f, end);
        int column = (int)(at_x + 1.0f), row = (int)(at_y + 1.0f);  // of the ring; not below 0, so this is floor
        column = column < h.side ? column : h.side;
        row = row < h.side ? row : h.side;
        room.place[i] = at_x - (float)(column - 1);
        room.place[TILE + i] = at_y - (float)(row - 1);
        room.pixel[i] = row * (h.side + 2) + column;
        room.inside[i] = x > -1.0f && x < end && y > -1.0f && y < end ? h.per_m : 0.0f;
    }
}

// The first layer: what the plane has at the place, and what the angle adds.
void first_layer(const Head &h, int n, Room &room) {
    const ptrdiff_t stride = h.stride, down = (h.side + 2) * stride;
    for (int i = 0; i < n; i++) {
        const float *corner = h.plane + room.pixel[i] * stride;
        const float a = room.place[i], b = room.place[TILE + i];
        const float right = a * (1 - b), below = (1 - a) * b, both = a * b, here = (1 - a) * (1 - b);
        const float c2 = room.turn[i], s2 = room.turn[TILE + i], c4 = room.turn[2 * TILE + i],
                    s4 = room.turn[3 * TILE + i];
        float *out = room.first + i * stride;
        for (ptrdiff_t k = 0; k < stride; k += LANES) {
            vec z = load(h.bias1 + k);
            z += load(corner + k) * here;
            z += load(corner + stride + k) * right;
            z += load(corner + down + k) * below;
            z += load(corner + down + stride + k) * both;
            z += load(h.turn + k) * c2;
            z += load(h.turn + stride + k) * s2;
            z += load(h.turn + 2 * stride + k) * c4;
            z += load(h.turn + 3 * stride + k) * s4;
            store(out + k, leaky(z, h.slope));
        }
    }
}

void run_layer(Convolution c, int n) {
    c.width = n;
    for (int b = 0; b < blocks(c); b++) convolve(c, b, 0, tiles(c, b));
}

void gradient(const Head &h, int n, Room &room, float *out) {
    const ptrdiff_t stride = h.stride, down = (h.side + 2) * stride;
    for (int i = 0; i < n; i++)
        for (ptrdiff_t k = 0; k < stride; k += LANES) {
            const vec w = load(h.weight3 + k);
            store(room.back_second + i * stride + k,
                  load(room.second + i * stride + k) > 0.0f ? w : w * h.slope);
        }
    Convolution back = h.back;
    back.in = room.back_second, back.out = room.back_first;
    run_layer(back, n);
    for (int i = 0; i < n; i++) {
        const float *corner = h.plane + room.pixel[i] * stride;
        const float a = room.place[i], b = room.place[TILE + i];
        vec by_x = {}, by_y = {}, by_turn[TURNS] = {};
        for (ptrdiff_t k = 0; k < stride; k += LANES) {
            vec g = load(room.back_first + i * stride + k);
            g = load(room.first + i * stride + k) > 0.0f ? g : g * h.slope;
            const vec here = load(corner + k), right = load(corner + stride + k);
            const vec below = load(corner + down + k), both = load(corner + down + stride + k);
            by_x += g * ((right - here) * (1 - b) + (both - below) * b);
            by_y += g * ((below - here) * (1 - a) + (both - right) * a);
            for (int t = 0; t < TURNS; t++) by_turn[t] += g * load(h.turn + t * stride + k);
        }
        const float e = exponential(room.out[i]);
        const float outer = h.scale * 0.5f * (e + 1.0f / e);
        const float c2 = room.turn[i], s2 = room.turn[TILE + i], c4 = room.turn[2 * TILE + i],
                    s4 = room.turn[3 * TILE + i];
        out[3 * i] = outer * room.inside[i] * sum(by_x);
        out[3 * i + 1] = outer * room.inside[i] * sum(by_y);
        out[3 * i + 2] = outer * (2.0f * (c2 * sum(by_turn[1]) - s2 * sum(by_turn[0])) +
                                  4.0f * (c4 * sum(by_turn[3]) - s4 * sum(by_turn[2])));
    }
}

void head(const Head &h, const float *actions, int n, Room &room, const Results &results) {
    const ptrdiff_t stride = h.stride;
    place(h, actions, n, room);
    first_layer(h, n, room);
    Convolution second = h.second;
    second.in = room.first, second.out = room.second;
    run_layer(second, n);
    const int outputs = results.probability ? OUTPUTS : 1;
    for (int i = 0; i < n; i++) {
        const float *row = room.second + i * stride;
        for (int o = 0; o < outputs; o++) {
            vec z = {};
            for (ptrdiff_t k = 0; k < stride; k += LANES) z += load(row + k) * load(h.weight3 + o * stride + k);
            room.out[o * TILE + i] = sum(z) + h.bias3[o];
        }
    }
    for (int i = 0; i < n; i++) {
        const float e = exponential(room.out[i]);
        results.distance[i] = h.scale * 0.5f * (e - 1.0f / e);
    }
    if (results.probability)
        for (int i = 0; i < n; i++) {
            results.probability[i] = 1.0f / (1.0f + exponential(-room.out[TILE + i]));
            results.spread[i] = exponential(room.out[2 * TILE + i]);
        }
    if (results.gradient) gradient(h, n, room, results.gradient);
}

}  // namespace

#define CONCATENATE(a, b) a##b
#define SYMBOL(name) CONCATENATE(field_, name)
#define STRING_(x) #x
#define STRING(x) STRING_(x)
#if defined(__ARM_NEON)
#define SHOWN "neon"
#elif LANES == 4 && defined(__SSE2__)
#define SHOWN "sse2"
#elif LANES == 4
#define SHOWN "generic"
#else
#define SHOWN STRING(KERNEL_NAME)
#endif
extern const Kernel SYMBOL(KERNEL_NAME) = {SHOWN, packed, pack, blocks, tiles, convolve, head};

}  // namespace field_kernel
