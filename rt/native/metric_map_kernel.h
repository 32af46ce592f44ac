// Drawing a view's returns into a metric map, compiled once per instruction set (metric_map_kernel.cpp).
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace metric_map_kernel {

constexpr int MAX_SIDE = 512;  // of a view, and of a map

struct Setup {            // the same for every view, as metric_map_numpy in rt/distance/metric_map.py has it
    int pixels, cells;    // sides of the view and of the map
    const float *rays;    // (pixels): cells across for each metre of depth
    float growth;         // half a footprint's width, cells for each metre of depth
    float far_m;          // a larger depth is no return
    float max_half;       // at most, cells; see WIDEST
};

struct Turn {  // of the points before they are drawn: y mirrored, then turned about z
    float cosine, sine, sign;
};

struct Scratch {
    int *left, *right, *top, *bottom;  // (pixels + SLACK): cells that a row's returns cover
    float *z;                          // (pixels + SLACK)
    int *own;                          // (pixels * pixels + SLACK): cell that the return lies in, or cells * cells
    float *nearest;                    // (cells, stride) + WIDEST
    int stride;                        // cells
    unsigned char *empty;              // (cells * cells + 1)
};
constexpr int SLACK = 16;   // one vector
constexpr int WIDEST = 32;  // cells drawn at once; max_half must be at most (WIDEST - 1) / 2

struct Kernel {
    const char *name;
    // depth (pixels, pixels) [m] to out (2, cells, cells)
    void (*draw)(const Setup &, const Turn &, const float *depth, const Scratch &, float *out);
};

extern const Kernel map_baseline;  // SSE2 on x86-64, NEON on aarch64
#if defined(__x86_64__) || defined(_M_X64)
extern const Kernel map_avx2, map_avx512;
#endif

}  // namespace metric_map_kernel
