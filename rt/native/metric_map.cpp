// The choice of the metric map's kernel (metric_map_kernel.cpp). Python function: metric_map_bind.cpp.
#include "metric_map.h"

#include <stdexcept>

namespace metric_map_kernel {
namespace {

std::vector<const Kernel *> kernels() {
    std::vector<const Kernel *> found;
#ifdef METRIC_MAP_X86
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        found.push_back(&map_avx512);
    if (avx2) found.push_back(&map_avx2);
#endif
    found.push_back(&map_baseline);
    return found;
}

}  // namespace

std::vector<std::string> isas() {
    std::vector<std::string> names;
    for (const Kernel *kernel : kernels()) names.emplace_back(kernel->name);
    return names;
}

const Kernel &find_kernel(const std::string &isa) {
    static const std::vector<const Kernel *> known = kernels();
    if (isa.empty()) return *known.front();
    for (const Kernel *kernel : known)
        if (isa == kernel->name) return *kernel;
    throw std::invalid_argument("instruction set '" + isa + "' is not one of this processor");
}

Room::Room(int pixels, int cells) {
    const size_t row = size_t(pixels) + SLACK, image = size_t(pixels) * pixels + SLACK;
    const size_t map = size_t(cells) * cells + 1, padded = size_t(cells) * cells + WIDEST;
    bytes_.reset(new char[64 * 9 + row * (5 * 4) + image * 4 + padded * 4 + map]);
    for (int **at : {&scratch.left, &scratch.right, &scratch.top, &scratch.bottom})
        *at = static_cast<int *>(take(row * 4));
    scratch.z = static_cast<float *>(take(row * 4));
    scratch.own = static_cast<int *>(take(image * 4));
    scratch.nearest = static_cast<float *>(take(padded * 4));
    scratch.stride = cells;
    scratch.empty = static_cast<unsigned char *>(take(map));
}

void *Room::take(size_t count) {
    void *at = bytes_.get() + used_;
    used_ += (count + 63) / 64 * 64;
    return at;
}

}  // namespace metric_map_kernel
