// Every instruction set of the metric map's kernel on generated views: all must agree bit by bit. Prints a
// hash of what was drawn, so that another processor's can be compared with it (tests/sanitize/aarch64.sh).
#include "metric_map.h"

#include <cmath>
#include <cstdio>
#include <cstring>

using namespace metric_map_kernel;

static uint32_t state = 1;
static float uniform() {  // [0, 1), the same on every processor
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / (float)(1 << 24);
}

int main() {
    uint64_t hash = 14695981039346656037u;  // FNV-1a
    int failures = 0;
    for (const int pixels : {1, 17, 64})
        for (const int cells : {1, 33, 80, 96})
            for (const float growth : {0.5f, 4.7f, 40.0f})
                for (const float sine : {0.0f, 0.6f}) {
                    std::vector<float> depth((size_t)pixels * pixels), rays(pixels);
                    for (float &z : depth) {
                        z = uniform() < 0.1f ? 0 : 0.05f + 0.6f * uniform();
                        if (uniform() < 0.02f) z = uniform() < 0.5f ? NAN : INFINITY;
                    }
                    for (int i = 0; i < pixels; i++)
                        rays[i] = ((float)i + 0.5f - 0.5f * (float)pixels) * 400 / (float)pixels;
                    const Setup setup{pixels, cells, rays.data(), growth, 0.6f, 8};
                    const Turn turn{sine > 0 ? 0.8f : 1.0f, sine, sine > 0 ? -1.0f : 1.0f};
                    std::vector<float> wanted;
                    for (const std::string &isa : isas()) {
                        const Room room(pixels, cells);
                        std::vector<float> map(2 * (size_t)cells * cells);
                        find_kernel(isa).draw(setup, turn, depth.data(), room.scratch, map.data());
                        if (wanted.empty()) wanted = map;
                        if (std::memcmp(map.data(), wanted.data(), map.size() * 4)) {
                            std::printf("%s differs: %d pixels, %d cells\n", isa.c_str(), pixels, cells);
                            failures++;
                        }
                    }
                    for (float v : wanted) {
                        uint32_t bits;
                        std::memcpy(&bits, &v, 4);
                        hash = (hash ^ bits) * 1099511628211u;
                    }
                }
    std::printf("map %016llx\n", (unsigned long long)hash);
    return failures ? 1 : 0;
}
