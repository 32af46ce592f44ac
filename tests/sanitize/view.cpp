// Every instruction set of the view's kernel on generated images: all must agree bit by bit. Prints a
// hash of what was drawn, so that another processor's can be compared with it (tests/sanitize/aarch64.sh).
#include "view_kernel.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

using namespace view_kernel;

static uint32_t state = 1;
static float uniform() {  // [0, 1), the same on every processor
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / (float)(1 << 24);
}

static std::vector<float> draw(const Kernel &kernel, const Camera &camera, const View &view) {
    const size_t row = camera.width + SLACK, image = camera.height * camera.width + SLACK;
    std::vector<int> u0(row), u1(row), v0(row), v1(row), cells(image);
    std::vector<float> z(row), out((size_t)view.size * view.size);
    std::vector<unsigned char> hit(row), empty((size_t)view.size * view.size + 1);
    const Scratch scratch{u0.data(), u1.data(),  v0.data(),    v1.data(),
                          z.data(),  hit.data(), cells.data(), empty.data()};
    kernel.reproject(camera, view, scratch, out.data());
    return out;
}

static std::vector<const Kernel *> vector_kernels() {
    std::vector<const Kernel *> found;
#ifdef VIEW_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) found.push_back(&view_avx2);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        found.push_back(&view_avx512);
#endif
    return found;
}

int main() {
    uint64_t hash = 14695981039346656037u;  // FNV-1a
    int failures = 0;
    const size_t widths[] = {1, 15, 64, 157, 320};
    for (const size_t width : widths)
        for (const int size : {16, 64, 300}) {  // 300: cells of int, not uint16_t
            const size_t height = width / 2 + 1, plane = height * width;
            std::vector<float> depth(plane), directions(3 * plane);
            std::vector<int32_t> spans(2 * height);
            const float origin[3] = {0.02f, -0.01f, 0.03f};
            for (size_t r = 0; r < height; r++) {
                spans[2 * r] = 0;
                spans[2 * r + 1] = (int32_t)(r % 7 == 6 ? width / 2 : width);
                for (size_t c = 0; c < width; c++) {
                    const size_t i = r * width + c;
                    depth[i] = uniform() < 0.1f ? 0 : 0.1f + 0.6f * uniform();
                    if (uniform() < 0.01f) depth[i] = NAN;
                    directions[i] = ((float)c + 0.5f) / (float)width - 0.5f;
                    directions[plane + i] = ((float)r + 0.5f) / (float)height - 0.5f;
                    directions[2 * plane + i] = 1 - 0.1f * uniform();
                }
            }
            const float half = 0.6f * (float)size / (float)width;
            const Camera camera{depth.data(), directions.data(), origin, spans.data(), height, width, half, half};
            const View view{size, 0.9f * (float)size, 0.15f, 0.6f, 4};
            const std::vector<float> wanted = draw(view_baseline, camera, view);
            size_t drawn = 0;
            for (float z : wanted) {
                uint32_t bits;
                std::memcpy(&bits, &z, 4);
                hash = (hash ^ bits) * 1099511628211u;
                drawn += z > 0;
            }
            if (width >= 64 && drawn < wanted.size() / 100) {
                std::printf("%zu columns, size %d: only %zu pixels drawn\n", width, size, drawn);
                failures++;
            }
            for (const Kernel *kernel : vector_kernels())
                if (std::memcmp(draw(*kernel, camera, view).data(), wanted.data(), wanted.size() * 4)) {
                    std::printf("%s differs from baseline: %zu columns, size %d\n", kernel->name, width, size);
                    failures++;
                }
        }
    std::printf("view %016llx\n", (unsigned long long)hash);
    return failures ? 1 : 0;
}
