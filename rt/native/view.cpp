// Depth reprojection into the canonical view: the Python function, and the choice of its kernel
// (view_kernel.cpp). Twin and oracle: reproject_numpy in rt/view.py.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "view_kernel.h"

namespace nb = nanobind;
using namespace view_kernel;

namespace {

using Image = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Rays = nb::ndarray<const float, nb::shape<3, -1, -1>, nb::c_contig, nb::device::cpu>;
using Spans = nb::ndarray<const int32_t, nb::shape<-1, 2>, nb::c_contig, nb::device::cpu>;
using Three = nb::ndarray<const float, nb::shape<3>, nb::c_contig, nb::device::cpu>;
using Two = nb::ndarray<const float, nb::shape<2>, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

std::vector<const Kernel *> kernels() {  // of this processor, best first
    std::vector<const Kernel *> found;
#ifdef VIEW_X86
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        found.push_back(&view_avx512);
    if (avx2) found.push_back(&view_avx2);
#endif
    found.push_back(&view_baseline);
    return found;
}

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

// Cut from one piece, which nothing sets to zero first.
struct Room {
    Room(size_t height, size_t width, size_t size) {
        const size_t cell = size <= size_t(MAX_SHORT_SIZE) ? sizeof(uint16_t) : sizeof(int);
        const size_t row = width + SLACK, image = height * width + SLACK;
        bytes.reset(new char[64 * 8 + row * (5 * 4 + 1) + image * cell + size * size + 1]);
        for (int **at : {&scratch.u0, &scratch.u1, &scratch.v0, &scratch.v1})
            *at = static_cast<int *>(take(row * 4));
        scratch.z = static_cast<float *>(take(row * 4));
        scratch.hit = static_cast<unsigned char *>(take(row));
        scratch.cells = take(image * cell);
        scratch.empty = static_cast<unsigned char *>(take(size * size + 1));
    }
    Scratch scratch{};

  private:
    void *take(size_t count) {
        void *at = bytes.get() + used;
        used += (count + 63) / 64 * 64;
        return at;
    }
    std::unique_ptr<char[]> bytes;
    size_t used = 0;
};

void reproject(Image depth, Rays directions, Spans spans, Three origin, Two half, Out out,
               float focal, float near_m, float far_m, float max_half, const std::string &isa) {
    const size_t height = depth.shape(0), width = depth.shape(1), size = out.shape(0);
    if (directions.shape(1) != height || directions.shape(2) != width || spans.shape(0) != height ||
        out.shape(1) != size || size == 0 || size > 4096)
        throw std::invalid_argument("reproject: shapes of depth, directions, spans and out disagree");
    for (size_t r = 0; r < height; ++r) {
        const int32_t from = spans.data()[2 * r], to = spans.data()[2 * r + 1];
        if (from < 0 || to > int64_t(width))
            throw std::invalid_argument("reproject: a span lies outside its row");
    }
    const Camera camera{depth.data(), directions.data(), origin.data(),   spans.data(),
                        height,       width,             half.data()[0], half.data()[1]};
    const View view{int(size), focal, near_m, far_m, max_half};
    const Kernel &kernel = find_kernel(isa);
    float *nearest = out.data();

    nb::gil_scoped_release release;
    const Room room(height, width, size);
    kernel.reproject(camera, view, room.scratch, nearest);
}

}  // namespace

void bind_view(nb::module_ &m) {
    m.def("reproject", &reproject, nb::arg("depth").noconvert(), nb::arg("directions").noconvert(),
          nb::arg("spans").noconvert(), nb::arg("origin").noconvert(), nb::arg("half").noconvert(),
          nb::arg("out").noconvert(), nb::arg("focal_px"), nb::arg("near_m"), nb::arg("far_m"),
          nb::arg("max_half_px"), nb::arg("isa") = "",
          "Splats depth (H, W) into out (size, size); see rt.view.reproject_numpy.");
    m.def("view_isas", &isas, "Instruction sets of `reproject` on this processor, best first.");
}
