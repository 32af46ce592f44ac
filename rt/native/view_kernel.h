// Reprojection into the canonical view, compiled once per instruction set (view_kernel.cpp).
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace view_kernel {

struct Camera {  // a depth image and where it was taken from, as reproject_numpy in rt/view.py has them
    const float *depth;       // (height, width)
    const float *directions;  // (3, height, width)
    const float *origin;      // (3,)
    const int32_t *spans;     // (height, 2): first column that can fall into the view, and one past the last
    size_t height, width;
    float half_x, half_y;
};

struct View {
    int size;
    float focal, near_m, far_m, max_half;
};

struct Scratch {             // one image row, ready to be drawn; each has room for SLACK more
    int *u0, *u1, *v0, *v1;  // (width) view pixels covered
    float *z;                // (width)
    unsigned char *hit;      // (width) whether it covers any
    void *cells;             // (height, width) view pixel that the point lies in, or size * size:
                             // uint16_t if size <= MAX_SHORT_SIZE, else int
    unsigned char *empty;    // (size * size + 1)
};
constexpr int SLACK = 24;  // one vector, and a word of `hit`
constexpr int MAX_SHORT_SIZE = 255;

struct Kernel {
    const char *name;
    void (*reproject)(const Camera &, const View &, const Scratch &, float *out);  // out: (size, size)
};

extern const Kernel view_baseline;  // SSE2 on x86-64, NEON on aarch64
#if defined(__x86_64__) || defined(_M_X64)
extern const Kernel view_avx2, view_avx512;
#endif

}  // namespace view_kernel
