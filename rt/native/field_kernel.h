// The field network's convolutions and head: sizes, and what is compiled once per instruction set.
// Images lie pixel by pixel, channels together, in a ring of zeros. Twin: rt/distance/field_reference.py.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace field_kernel {

constexpr int OUTPUTS = 3;  // scaled distance, logit, logarithm of the spread
constexpr int TURNS = 4;    // cos 2t, sin 2t, cos 4t, sin 4t
constexpr int PAD = 64;     // floats that may be read past an end
constexpr int TILE = 96;    // candidates of one task

enum Mode {
    PLAIN,  // the sum
    LEAKY,  // its leaky ReLU
    TWICE,  // added to the four pixels of an image of twice the size
};

// A convolution as a matrix product: each output pixel is a window of `rows` rows of `length` floats.
struct Convolution {
    int rows, length;
    int height, width, channels;   // of the output
    ptrdiff_t in_row;              // floats from one row of the input to the next
    ptrdiff_t step_y, step_x;      // floats from an output pixel's window to its neighbours'
    ptrdiff_t out_row, out_pixel;  // floats, of the output (for TWICE of the larger image)
    const float *in;               // first window
    float *out;                    // first pixel, channel 0
    const float *weight, *bias;    // as `pack` puts them
    float slope;
    Mode mode;
};

struct Head {
    int stride;            // floats of a row of hidden units: their number rounded up to 16
    int side;              // of `plane` without its ring
    const float *plane;    // (side + 2, side + 2, stride): first layer's sum over the features at each pixel
    float per_m, centre;   // pixel = metres * per_m + centre
    const float *turn;     // (TURNS, stride)
    const float *bias1;    // (stride)
    const float *weight3;  // (OUTPUTS, stride)
    float bias3[OUTPUTS];
    float slope, scale;    // of the leaky ReLU; distance = scale * sinh(first output)
    Convolution second, back;  // second layer, and its transpose for the gradient
};

struct Room {  // of one thread
    float *first, *second;         // (TILE, stride): hidden units
    float *back_second, *back_first;
    float *turn, *place;           // (TURNS, TILE); (2, TILE) part of a pixel
    int32_t *pixel;                // (TILE) corner of the four that a candidate lies between
    float *inside;                 // (2, TILE) 1 where the look-up has a slope
    float *out;                    // (OUTPUTS, TILE)
};

struct Results {
    float *distance, *probability, *spread, *gradient;  // all but the first may be null
};

struct Kernel {
    const char *name;
    size_t (*packed)(int rows, int length, int channels);  // floats of the packed weights
    // weight (rows, length, channels), bias (channels) to what `convolve` reads
    void (*pack)(int rows, int length, int channels, const float *weight, const float *bias, float *to_weight,
                 float *to_bias);
    int (*blocks)(const Convolution &);           // of channels computed together
    int (*tiles)(const Convolution &, int block);  // of pixels computed together
    void (*convolve)(const Convolution &, int block, int begin, int end);
    void (*head)(const Head &, const float *actions, int n, Room &, const Results &);
};

extern const Kernel field_baseline;  // SSE2 on x86-64, NEON on aarch64
#ifdef FIELD_X86
extern const Kernel field_avx2, field_avx512;
#endif

}  // namespace field_kernel
