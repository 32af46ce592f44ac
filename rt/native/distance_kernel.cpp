// Compiled once per instruction set (CMakeLists.txt), so nothing here may come from a C++ library
// header: an inline function built for AVX-512 could be linked into the baseline.
#include "distance_kernel.h"

#if defined(__F16C__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#define KERNEL_NAME avx512
#elif defined(__AVX2__)
#define LANES 8
#define KERNEL_NAME avx2
#elif defined(__SSE2__) || defined(__ARM_NEON)
#define LANES 4
#define KERNEL_NAME baseline
#else
#define LANES 4
#define KERNEL_NAME baseline
#endif

namespace distance_kernel {
namespace {

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef float vec_unaligned __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t integers __attribute__((vector_size(LANES * 4)));
typedef uint32_t words __attribute__((vector_size(LANES * 4)));
typedef uint16_t halves __attribute__((vector_size(LANES * 2), aligned(2), may_alias));

inline vec load(const float *p) { return *(const vec_unaligned *)p; }
inline void store(float *p, vec v) { *(vec_unaligned *)p = v; }
inline vec leaky(vec z, float slope) {
    vec scaled = z * slope;
    return z > scaled ? z : scaled;  // 0 <= slope <= 1
}
inline float larger(float a, float b) { return a > b ? a : b; }

inline vec load_weight(const float *p) { return load(p); }
inline vec load_weight(const uint16_t *p) {
#if defined(__AVX512F__)
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif defined(__F16C__)
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#else  // IEEE half to float by moving its bits; exact for all finite values
    words h = __builtin_convertvector(*(const halves *)p, words);
    words magnitude = (h & 0x7fff) << 13;
    vec value = (vec)magnitude * 0x1p112f;
    return (vec)((words)value | (h & 0x8000) << 16);
#endif
}

inline float sum(vec v) {
    float lane[LANES];
    store(lane, v);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) lane[i] += lane[i + width];
    return lane[0];
}

// Valid cross-correlation at NV vectors of positions, GROUP output channels at a time.
template <int NV>
inline void correlate(const float *in, int in_channels, int channel_stride, int row_stride,
                      const float *weight, const float *bias, float *out, int out_stride) {
    vec acc[GROUP][NV];
#pragma GCC unroll 8
    for (int g = 0; g < GROUP; g++)
#pragma GCC unroll 8
        for (int v = 0; v < NV; v++) acc[g][v] = vec{} + bias[g];
    for (int i = 0; i < in_channels; i++)
        for (int y = 0; y < KERNEL; y++) {
            const float *row = in + i * channel_stride + y * row_stride;
#pragma GCC unroll 1
            for (int x = 0; x < KERNEL; x++, weight += GROUP) {
                vec pixel[NV];
#pragma GCC unroll 8
                for (int v = 0; v < NV; v++) pixel[v] = load(row + x + v * LANES);
#pragma GCC unroll 8
                for (int g = 0; g < GROUP; g++)
#pragma GCC unroll 8
                    for (int v = 0; v < NV; v++) acc[g][v] += pixel[v] * weight[g];
            }
        }
#pragma GCC unroll 8
    for (int g = 0; g < GROUP; g++)
#pragma GCC unroll 8
        for (int v = 0; v < NV; v++) store(out + g * out_stride + v * LANES, acc[g][v]);
}

#if LANES == 16
constexpr int NV = 4;  // 20 sums in 32 registers
#else
constexpr int NV = 2;  // 10 sums in 16 registers
#endif

void pool2(const float *in, int stride, int side, float *out) {
    for (int y = 0; y < side; y++, out += side) {
        const float *a = in + 2 * y * stride, *b = a + stride;
        for (int x = 0; x < side; x++)
            out[x] = larger(larger(a[2 * x], b[2 * x]), larger(a[2 * x + 1], b[2 * x + 1]));
    }
}

void conv1(const Weights &w, const float *depth, int group, Scratch &scratch, float *pool1) {
    const float *weight = w.conv1 + group * TAPS * GROUP, *bias = w.conv1_bias + group * GROUP;
    for (int p = 0; p < CONV1_POSITIONS; p += NV * LANES)
        correlate<NV>(depth + p, 1, 0, IMAGE, weight, bias, scratch.conv + p, CONV1_POSITIONS);
    for (int g = 0; g < GROUP; g++) {
        float *out = pool1 + (group * GROUP + g) * POOL1 * POOL1;
        pool2(scratch.conv + g * CONV1_POSITIONS, IMAGE, POOL1, out);
        for (int i = 0; i < POOL1 * POOL1; i++) out[i] = larger(out[i], out[i] * w.slope);
    }
}

void conv2(const Weights &w, const float *pool1, int group, Scratch &scratch, float *image) {
    const float *weight = w.conv2 + group * CONV1 * TAPS * GROUP;
    const float *bias = w.conv2_bias + group * GROUP;
    for (int p = 0; p < SIDE2 * POOL1; p += NV * LANES)
        correlate<NV>(pool1 + p, CONV1, POOL1 * POOL1, POOL1, weight, bias, scratch.conv + p,
                      CONV2_POSITIONS);
    for (int g = 0; g < GROUP; g++)
        pool2(scratch.conv + g * CONV2_POSITIONS, POOL1, POOL2, image + (group * GROUP + g) * KNOTS);
}

// Every value's rank is the number of values above it; ties go by position.
void sort(const float *image, Channel &channel) {
    constexpr int N = (KNOTS + LANES - 1) / LANES * LANES, AT_ONCE = LANES == 16 ? 11 : 4;
    float value[N];
    int32_t rank[N];
    for (int i = 0; i < KNOTS; i++) {  // an overflow must not become an index
        float v = image[i] < 1e30f ? image[i] : 1e30f;
        value[i] = v > -1e30f ? v : -1e30f;
    }
    for (int i = KNOTS; i < N; i++) value[i] = -__builtin_inff();
    for (int start = 0; start < N; start += AT_ONCE * LANES) {
        vec mine[AT_ONCE];
        integers above[AT_ONCE] = {};
        for (int v = 0; v < AT_ONCE; v++)
            mine[v] = start + v * LANES < N ? load(value + start + v * LANES) : vec{};
        for (int j = 0; j < KNOTS; j++)
#pragma GCC unroll 11
            for (int v = 0; v < AT_ONCE; v++) above[v] -= mine[v] < value[j];
        for (int v = 0; v < AT_ONCE && start + v * LANES < N; v++)
            __builtin_memcpy(rank + start + v * LANES, &above[v], sizeof(integers));
    }
    uint8_t equals[N] = {};
    for (int i = 0; i < KNOTS; i++) rank[i] += equals[rank[i]]++;
    for (int i = 0; i < KNOTS; i++) {
        channel.value[rank[i]] = value[i];
        channel.position[rank[i]] = (uint8_t)i;
    }
    for (int i = KNOTS; i < KNOTS_PADDED; i++) channel.value[i] = -__builtin_inff();

    // Buckets of equal width: bucket(t) is monotone, so all in lower buckets are above t.
    float high = channel.value[0], range = high - channel.value[KNOTS - 1];
    channel.high = high;
    channel.scale = range > 1e-30f ? (BUCKETS - 1) / range : 0.0f;
    int32_t bucket[KNOTS];
    uint16_t count[BUCKETS] = {};
    for (int k = 0; k < KNOTS; k++) bucket[k] = (int32_t)((high - channel.value[k]) * channel.scale);
    for (int k = 0; k < KNOTS; k++) count[bucket[k]]++;
    int before = 0, fullest = 0;
    for (int i = 0; i < BUCKETS; i++) {
        channel.bucket_start[i] = before;
        before += count[i];
        fullest = count[i] > fullest ? count[i] : fullest;
    }
    channel.bucket_start[BUCKETS] = KNOTS;
    channel.search_steps = 0;
    while ((1 << channel.search_steps) <= fullest) channel.search_steps++;
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

void encode(const Weights &w, Tile &t, bool gradient) {
    const float *__restrict a = t.actions;
    float *__restrict x = t.encoded, *__restrict y = x + t.stride, *__restrict c = y + t.stride,
                     *__restrict s = c + t.stride;
    if (w.encoded == 3) {
        for (int n = 0; n < t.n; n++) x[n] = a[3 * n], y[n] = a[3 * n + 1], c[n] = a[3 * n + 2];
        return;
    }
    for (int n = 0; n < t.n; n++) {
        x[n] = a[3 * n], y[n] = a[3 * n + 1];
        float sine, cosine;
        sine_cosine(2.0f * a[3 * n + 2], sine, cosine);
        s[n] = sine, c[n] = cosine;
    }
    if (gradient)
        for (int n = 0; n < t.n; n++) {
            t.encoded_slope[n] = -2.0f * s[n];
            t.encoded_slope[t.stride + n] = 2.0f * c[n];
        }
}

void rank(const Weights &w, const Channel &channel, int index, Tile &t, bool gradient) {
    const float *map = w.bias_map + index * (MAX_ENCODED + 1);
    const float *__restrict x = t.encoded, *__restrict y = x + t.stride, *__restrict c = y + t.stride,
                           *__restrict s = c + t.stride;
    float *__restrict bias = t.bias + (int64_t)index * t.stride;
    uint16_t *__restrict piece = t.piece + (int64_t)index * t.stride;
    const float *__restrict value = channel.value;
    if (w.encoded == 3)
        for (int n = 0; n < t.n; n++)
            bias[n] = map[0] * x[n] + map[1] * y[n] + map[2] * c[n] + map[MAX_ENCODED];
    else
        for (int n = 0; n < t.n; n++)
            bias[n] = map[0] * x[n] + map[1] * y[n] + map[2] * c[n] + map[3] * s[n] + map[MAX_ENCODED];
    if (gradient) {
        float *__restrict slope = t.bias_slope + (int64_t)index * t.stride;
        const float *ds = t.encoded_slope;
        for (int n = 0; n < t.n; n++)
            slope[n] = w.encoded == 3 ? map[2] : map[2] * ds[n] + map[3] * ds[t.stride + n];
    }
    // The piece is the number of values above -bias: from the bucket on by binary search.
    constexpr int CHUNK = 64;
    int first = KNOTS, last = 0;
    for (int begin = 0; begin < t.n; begin += CHUNK) {
        int count = t.n - begin < CHUNK ? t.n - begin : CHUNK;
        float threshold[CHUNK];
        int k[CHUNK];
        for (int i = 0; i < count; i++) threshold[i] = -bias[begin + i];
        for (int i = count; i < CHUNK; i++) threshold[i] = threshold[0];
        for (int i = 0; i < CHUNK; i++) {
            float bucket = (channel.high - threshold[i]) * channel.scale;
            bucket = bucket > 0.0f ? bucket : 0.0f;
            bucket = bucket < (float)BUCKETS ? bucket : (float)BUCKETS;
            k[i] = channel.bucket_start[(int)bucket];
        }
        for (int step = 1 << channel.search_steps >> 1; step > 0; step >>= 1)
            for (int i = 0; i < CHUNK; i++) k[i] += value[k[i] + step - 1] > threshold[i] ? step : 0;
        for (int i = 0; i < CHUNK; i++) {
            first = k[i] < first ? k[i] : first;
            last = k[i] > last ? k[i] : last;
        }
        for (int i = 0; i < count; i++) piece[begin + i] = (uint16_t)k[i];
    }
    for (int n = 0; n < t.n; n++) piece[n] = (uint16_t)(piece[n] - first);
    t.span[index] = {first, last};
}

constexpr int VB = BLOCK / LANES;  // vectors of a block

// Running sums of a channel's weights in the order of its values: row k holds sum W Y and sum W of
// the first k, for the k in use. The sum of W Y over all positions is added to `all`.
template <class W>
inline void build_table(const W *weight, const Channel &channel, Span span, float *table, vec *all) {
    vec a[VB], b[VB];
    for (int v = 0; v < VB; v++) a[v] = b[v] = vec{};
    auto advance = [&](int k) {
        const W *row = weight + channel.position[k] * BLOCK;
#pragma GCC unroll 8
        for (int v = 0; v < VB; v++) {
            vec x = load_weight(row + v * LANES);
            a[v] += x * channel.value[k];
            b[v] += x;
        }
    };
    int k = 0;
    for (; k < span.first; k++) advance(k);
    for (;; k++) {
#pragma GCC unroll 8
        for (int v = 0; v < VB; v++) {
            store(table + v * LANES, a[v]);
            store(table + BLOCK + v * LANES, b[v]);
        }
        table += 2 * BLOCK;
        if (k == span.last) break;
        advance(k);
    }
    for (; k < KNOTS; k++) advance(k);
    for (int v = 0; v < VB; v++) all[v] += a[v];
}

// sums[n] += A + bias B for CHANNELS_AT_ONCE channels; meanwhile the next weights are fetched.
template <bool FIRST, bool GRADIENT>
inline void accumulate(const Weights &w, int channel, const float *table, Tile &t, float *sums,
                       const char *next, int next_bytes) {
    constexpr int S = GRADIENT ? 4 : 1, CHUNK = 4;
    const uint16_t *piece = t.piece + (int64_t)channel * t.stride;
    const float *bias = t.bias + (int64_t)channel * t.stride;
    const float *bias_slope = t.bias_slope + (int64_t)channel * t.stride;
    const float *map = w.bias_map + channel * (MAX_ENCODED + 1);
    const char *end = next + next_bytes;
    int chunks = (t.n + CHUNK - 1) / CHUNK, lines = (next_bytes / 64 + chunks - 1) / chunks;
    for (int begin = 0; begin < t.n; begin += CHUNK) {
        for (int i = 0; i < lines && next < end; i++, next += 64) __builtin_prefetch(next, 0, 2);
        int stop = begin + CHUNK < t.n ? begin + CHUNK : t.n;
        for (int n = begin; n < stop; n++) {
            float *out = sums + (int64_t)n * (S * BLOCK);
            const float *row[CHANNELS_AT_ONCE];
            float b[CHANNELS_AT_ONCE];
#pragma GCC unroll 8
            for (int c = 0; c < CHANNELS_AT_ONCE; c++) {
                row[c] = table + c * ROWS * 2 * BLOCK + piece[c * t.stride + n] * (2 * BLOCK);
                b[c] = bias[c * t.stride + n];
            }
            float by[3][CHANNELS_AT_ONCE];
            if (GRADIENT)
#pragma GCC unroll 8
                for (int c = 0; c < CHANNELS_AT_ONCE; c++) {
                    by[0][c] = map[c * (MAX_ENCODED + 1)];
                    by[1][c] = map[c * (MAX_ENCODED + 1) + 1];
                    by[2][c] = bias_slope[c * t.stride + n];
                }
#pragma GCC unroll 16
            for (int v = 0; v < VB; v++) {
                vec acc = FIRST ? vec{} : load(out + v * LANES), slope[3] = {};
                if (GRADIENT && !FIRST)
#pragma GCC unroll 3
                    for (int j = 0; j < 3; j++) slope[j] = load(out + (j + 1) * BLOCK + v * LANES);
#pragma GCC unroll 8
                for (int c = 0; c < CHANNELS_AT_ONCE; c++) {
                    vec gain = load(row[c] + BLOCK + v * LANES);
                    acc += load(row[c] + v * LANES);
                    acc += gain * b[c];
                    if (GRADIENT)
#pragma GCC unroll 3
                        for (int j = 0; j < 3; j++) slope[j] += gain * by[j][c];
                }
                store(out + v * LANES, acc);
                if (GRADIENT)
#pragma GCC unroll 3
                    for (int j = 0; j < 3; j++) store(out + (j + 1) * BLOCK + v * LANES, slope[j]);
            }
        }
    }
}

template <class W, bool GRADIENT>
void head(const Weights &w, const Channel *channels, int block, Scratch &scratch, Tile &t) {
    constexpr int S = GRADIENT ? 4 : 1;
    constexpr int64_t PANEL = (int64_t)KNOTS * BLOCK;  // weights of a channel
    const W *weight = (const W *)w.fc1 + block * CONV2 * PANEL;
    vec all[VB] = {};
    for (int c = 0; c < CONV2; c += CHANNELS_AT_ONCE) {
        for (int i = 0; i < CHANNELS_AT_ONCE; i++)
            build_table(weight + (c + i) * PANEL, channels[c + i], t.span[c + i],
                        scratch.table + i * ROWS * 2 * BLOCK, all);
        const char *next = (const char *)(weight + (c + CHANNELS_AT_ONCE) * PANEL);
        int bytes = (int)(CHANNELS_AT_ONCE * PANEL * sizeof(W));
        if (c + CHANNELS_AT_ONCE == CONV2 && block == BLOCKS - 1) bytes = 0;
        if (c == 0)
            accumulate<true, GRADIENT>(w, c, scratch.table, t, scratch.sums, next, bytes);
        else
            accumulate<false, GRADIENT>(w, c, scratch.table, t, scratch.sums, next, bytes);
    }
    const float *bias = w.fc1_bias + block * BLOCK, *fc2 = w.fc2 + block * BLOCK;
    const float *linear = w.fc1_linear + block * (MAX_ENCODED + 1) * BLOCK;
    const float slope = w.slope, rest = 1.0f - slope;
    vec constant[VB];
    for (int v = 0; v < VB; v++)
        constant[v] = load(bias + v * LANES) +
                      (all[v] + load(linear + MAX_ENCODED * BLOCK + v * LANES)) * slope;
    for (int n = 0; n < t.n; n++) {
        const float *in = scratch.sums + (int64_t)n * (S * BLOCK);
        vec d = {}, by[3] = {};
        for (int v = 0; v < VB; v++) {
            vec line = {};
            for (int e = 0; e < w.encoded; e++)
                line += load(linear + e * BLOCK + v * LANES) * t.encoded[e * t.stride + n];
            vec z = constant[v] + line * slope + load(in + v * LANES) * rest;
            vec out = load(fc2 + v * LANES);
            d += leaky(z, slope) * out;
            if (GRADIENT) {
                vec gain = z > 0.0f ? out : out * slope;
                vec direct[3] = {load(linear + v * LANES), load(linear + BLOCK + v * LANES),
                                 load(linear + 2 * BLOCK + v * LANES)};
                if (w.encoded == 4)
                    direct[2] = direct[2] * t.encoded_slope[n] +
                                load(linear + 3 * BLOCK + v * LANES) * t.encoded_slope[t.stride + n];
                for (int j = 0; j < 3; j++)
                    by[j] += gain * (direct[j] * slope + load(in + (j + 1) * BLOCK + v * LANES) * rest);
            }
        }
        t.part[(int64_t)block * t.stride + n] = sum(d);
        if (GRADIENT)
            for (int j = 0; j < 3; j++)
                t.slope_part[((int64_t)block * 3 + j) * t.stride + n] = sum(by[j]);
    }
}

void head_any(const Weights &w, const Channel *channels, int block, Scratch &scratch, Tile &t,
              bool gradient) {
    if (w.half)
        gradient ? head<uint16_t, true>(w, channels, block, scratch, t)
                 : head<uint16_t, false>(w, channels, block, scratch, t);
    else
        gradient ? head<float, true>(w, channels, block, scratch, t)
                 : head<float, false>(w, channels, block, scratch, t);
}

}  // namespace

#define CONCATENATE(a, b) a##b
#define SYMBOL(name) CONCATENATE(kernel_, name)
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
extern const Kernel SYMBOL(KERNEL_NAME) = {SHOWN, conv1, conv2, sort, encode, rank, head_any};

}  // namespace distance_kernel
