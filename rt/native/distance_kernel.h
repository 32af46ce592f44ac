// The exact piecewise-linear evaluation of d(I, a): sizes, and what is compiled once per instruction
// set. The algebra: docs/inference.md. Twin: rt/distance/reference.py.
#pragma once
#include <cstdint>

namespace distance_kernel {

constexpr int IMAGE = 64;                         // pixels a side
constexpr int CONV1 = 20, CONV2 = 50;             // channels
constexpr int KERNEL = 5, TAPS = KERNEL * KERNEL;
constexpr int GROUP = 5;                          // output channels computed together
constexpr int POOL1 = (IMAGE - KERNEL + 1) / 2;   // 30
constexpr int SIDE2 = POOL1 - KERNEL + 1;         // 26
constexpr int POOL2 = SIDE2 / 2;                  // 13
constexpr int KNOTS = POOL2 * POOL2;              // 169 positions of a channel
constexpr int ROWS = KNOTS + 1;                   // pieces of a channel's function
constexpr int HIDDEN = 500;
constexpr int BLOCK = 64;                         // hidden units computed together
constexpr int BLOCKS = (HIDDEN + BLOCK - 1) / BLOCK;
constexpr int MAX_ENCODED = 4;
constexpr int TILE = 2048;                        // candidates in flight; their sums stay in cache

constexpr int CONV1_POSITIONS = (IMAGE - KERNEL + 1) * IMAGE;  // 60 rows, 64 apart
constexpr int CONV2_POSITIONS = 832;                           // 26 rows, 30 apart, rounded up
constexpr int PAD = 64;                                        // floats that may be read past an end
constexpr int BUCKETS = 256;
constexpr int KNOTS_PADDED = 512;                 // a binary search may look this far

// The model, packed by rt/distance/native.py.
struct Weights {
    const float *conv1;        // (CONV1/GROUP, TAPS, GROUP)
    const float *conv1_bias;   // (CONV1)
    const float *conv2;        // (CONV2/GROUP, CONV1, TAPS, GROUP)
    const float *conv2_bias;   // (CONV2)
    const float *bias_map;     // (CONV2, MAX_ENCODED + 1): b = map . (encoded, 1)
    const void *fc1;           // (BLOCKS, CONV2, KNOTS, BLOCK) float32 or IEEE half
    const float *fc1_bias;     // (BLOCKS, BLOCK)
    const float *fc1_linear;   // (BLOCKS, MAX_ENCODED + 1, BLOCK): sum W b, as a map of (encoded, 1)
    const float *fc2;          // (BLOCKS, BLOCK), 0 where padded
    float fc2_bias, slope;
    int encoded;               // 3 raw, 4 double angle
    bool half;
};

// A channel of the image side: its values, in falling order.
struct Channel {
    float value[KNOTS_PADDED];     // sorted, then -infinity
    uint8_t position[KNOTS];       // where each was
    int32_t bucket_start[BUCKETS + 1]; // values in lower buckets
    float high, scale;             // bucket of t = (high - t) * scale
    int search_steps;              // binary search within the fullest bucket
};

// What the candidates of a tile need of one channel.
struct Span {
    int first, last;               // lowest and highest piece in use
};

struct Tile {
    int n, stride;                 // candidates, and the distance between arrays below
    const float *actions;          // (n, 3)
    float *encoded;                // (MAX_ENCODED, stride)
    float *encoded_slope;          // (2, stride): d cos 2 theta, d sin 2 theta
    float *bias;                   // (CONV2, stride)
    float *bias_slope;             // (CONV2, stride): d bias / d theta
    uint16_t *piece;               // (CONV2, stride), from the channel's span.first
    Span *span;                    // (CONV2)
    float *part;                   // (BLOCKS, stride): d summed over a block's units
    float *slope_part;             // (BLOCKS, 3, stride), gradient only
};

// Room of one thread.
struct Scratch {
    float *conv;                   // (GROUP, CONV1_POSITIONS)
    float *table;                  // (CHANNELS_AT_ONCE, ROWS, 2, BLOCK)
    float *sums;                   // (tile, [1 or 4], BLOCK)
};

constexpr int CHANNELS_AT_ONCE = 5;

struct Kernel {
    const char *name;
    void (*conv1)(const Weights &, const float *depth, int group, Scratch &, float *pool1);
    void (*conv2)(const Weights &, const float *pool1, int group, Scratch &, float *image);
    void (*sort)(const float *image, Channel &);
    void (*encode)(const Weights &, Tile &, bool gradient);
    void (*rank)(const Weights &, const Channel &, int channel, Tile &, bool gradient);
    void (*head)(const Weights &, const Channel *, int block, Scratch &, Tile &, bool gradient);
};

extern const Kernel kernel_baseline;  // SSE2 on x86-64, NEON on aarch64
#ifdef DISTANCE_X86
extern const Kernel kernel_avx2, kernel_avx512;
#endif

}  // namespace distance_kernel
