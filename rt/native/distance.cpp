// The engine behind rt/distance/native.py: the stages of a call. Kernels are in
// distance_kernel.cpp, the Python class in distance_bind.cpp.
#include "distance.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <stdexcept>

using namespace distance_kernel;

namespace {

const Kernel *find_kernel(const std::string &name) {
    std::string known;
    for (const std::string &isa : DistanceEngine::isas()) known += (known.empty() ? "" : ", ") + isa;
    const std::string wanted = name.empty() ? DistanceEngine::isas().front() : name;
    for (const std::string &isa : DistanceEngine::isas()) {
        if (isa != wanted) continue;
#ifdef DISTANCE_X86
        if (isa == kernel_avx512.name) return &kernel_avx512;
        if (isa == kernel_avx2.name) return &kernel_avx2;
#endif
        return &kernel_baseline;
    }
    throw std::invalid_argument("instruction set '" + name + "' is not one of this processor: " + known);
}

double now() {
    using namespace std::chrono;
    return duration<double>(steady_clock::now().time_since_epoch()).count();
}

}  // namespace

std::vector<std::string> DistanceEngine::isas() {
    std::vector<std::string> names;
#ifdef DISTANCE_X86
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                __builtin_cpu_supports("f16c");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        names.emplace_back(kernel_avx512.name);
    if (avx2) names.emplace_back(kernel_avx2.name);
#endif
    names.emplace_back(kernel_baseline.name);
    return names;
}

DistanceEngine::DistanceEngine(const Weights &w, int threads, const std::string &isa)
    : kernel_(find_kernel(isa)), weights_(w), workers_(threads) {
    auto pack = [&](Memory &m) {
        auto copy = [&](const auto *&from, size_t count) {
            using T = std::remove_const_t<std::remove_reference_t<decltype(*from)>>;
            T *to = m.take<T>(count);
            if (to) std::memcpy(to, from, count * sizeof(T)), from = to;
        };
        constexpr size_t FC1 = (size_t)BLOCKS * CONV2 * KNOTS * BLOCK;
        if (w.half) {
            auto *fc1 = static_cast<const uint16_t *>(weights_.fc1);
            copy(fc1, FC1);
            weights_.fc1 = fc1;
        } else {
            auto *fc1 = static_cast<const float *>(weights_.fc1);
            copy(fc1, FC1);
            weights_.fc1 = fc1;
        }
        copy(weights_.conv1, CONV1 * TAPS);
        copy(weights_.conv1_bias, CONV1);
        copy(weights_.conv2, CONV2 * CONV1 * TAPS);
        copy(weights_.conv2_bias, CONV2);
        copy(weights_.bias_map, CONV2 * (MAX_ENCODED + 1));
        copy(weights_.fc1_bias, BLOCKS * BLOCK);
        copy(weights_.fc1_linear, BLOCKS * (MAX_ENCODED + 1) * BLOCK);
        copy(weights_.fc2, BLOCKS * BLOCK);
    };
    Memory dry(0);
    pack(dry);
    weight_memory_ = std::make_unique<Memory>(dry.used());
    pack(*weight_memory_);

    auto image = [&](Memory &m) {
        depth_ = m.take<float>(IMAGE * IMAGE + PAD);
        pool1_ = m.take<float>(CONV1 * POOL1 * POOL1 + PAD);
        image_ = m.take<float>(CONV2 * KNOTS);
        channels_ = m.take<Channel>(CONV2);
        for (Scratch &s : scratch_) {
            s.conv = m.take<float>(GROUP * CONV1_POSITIONS + PAD);
            s.table = m.take<float>(CHANNELS_AT_ONCE * ROWS * 2 * BLOCK);
        }
    };
    scratch_.resize(workers_.threads());
    Memory dry_image(0);
    image(dry_image);
    image_memory_ = std::make_unique<Memory>(dry_image.used());
    image(*image_memory_);
}

void DistanceEngine::stages(double out[3]) {
    std::lock_guard<std::mutex> hold(lock_);
    std::copy(stages_, stages_ + 3, out);
}

// Room for tiles of n candidates (at most TILE). Kept for later calls, so that they allocate nothing.
void DistanceEngine::grow(int64_t n, bool gradient) {
    gradient = gradient || gradient_capacity_;
    if (n <= capacity_ && gradient == gradient_capacity_) return;
    int64_t stride = 64;
    while (stride < std::max(n, capacity_)) stride *= 2;
    auto tile = [&](Memory &m) {
        Tile &t = tile_;
        t.stride = (int)stride;
        t.encoded = m.take<float>(MAX_ENCODED * stride);
        t.encoded_slope = m.take<float>(gradient ? 2 * stride : 0);
        t.bias = m.take<float>(CONV2 * stride);
        t.bias_slope = m.take<float>(gradient ? CONV2 * stride : 0);
        t.piece = m.take<uint16_t>(CONV2 * stride);
        t.span = m.take<Span>(CONV2);
        t.part = m.take<float>(BLOCKS * stride);
        t.slope_part = m.take<float>(gradient ? 3 * BLOCKS * stride : 0);
        for (Scratch &s : scratch_) s.sums = m.take<float>((gradient ? 4 : 1) * BLOCK * stride);
    };
    Memory dry(0);
    tile(dry);
    auto memory = std::make_unique<Memory>(dry.used());
    tile(*memory);
    tile_memory_ = std::move(memory);
    capacity_ = stride;
    gradient_capacity_ = gradient;
    growths_++;
}

struct DistanceEngine::Run {
    DistanceEngine &engine;
    bool gradient;
};

void DistanceEngine::image_task(void *context, int task, int thread) {
    auto &[e, gradient] = *static_cast<Run *>(context);
    if (task == 0) e.kernel_->encode(e.weights_, e.tile_, gradient);
    else e.kernel_->conv1(e.weights_, e.depth_, task - 1, e.scratch_[thread], e.pool1_);
}

void DistanceEngine::second_task(void *context, int group, int thread) {
    auto &e = static_cast<Run *>(context)->engine;
    e.kernel_->conv2(e.weights_, e.pool1_, group, e.scratch_[thread], e.image_);
}

void DistanceEngine::rank_task(void *context, int channel, int) {
    auto &[e, gradient] = *static_cast<Run *>(context);
    if (e.tile_.actions) e.kernel_->sort(e.image_ + channel * KNOTS, e.channels_[channel]);
    e.kernel_->rank(e.weights_, e.channels_[channel], channel, e.tile_, gradient);
}

void DistanceEngine::head_task(void *context, int block, int thread) {
    auto &[e, gradient] = *static_cast<Run *>(context);
    e.kernel_->head(e.weights_, e.channels_, block, e.scratch_[thread], e.tile_, gradient);
}

void DistanceEngine::run(const float *depth, const float *actions, int64_t n, float *out,
                         float *gradient) {
    std::lock_guard<std::mutex> hold(lock_);
    Run run{*this, gradient != nullptr};
    const int64_t tile = gradient ? TILE / 4 : TILE;
    grow(std::min(n, tile), run.gradient);
    workers_.prepare();
    std::memcpy(depth_, depth, IMAGE * IMAGE * sizeof(float));
    std::fill(stages_, stages_ + 3, 0.0);
    for (int64_t begin = 0; begin < n; begin += tile) {
        Tile &t = tile_;
        t.actions = actions + begin * 3;
        t.n = (int)std::min(tile, n - begin);
        double start = now();
        if (begin == 0) {
            workers_.run(1 + CONV1 / GROUP, image_task, &run);
            workers_.run(CONV2 / GROUP, second_task, &run);
        } else {
            kernel_->encode(weights_, t, run.gradient);
            t.actions = nullptr;  // the image is sorted already
        }
        double image = now();
        workers_.run(CONV2, rank_task, &run);
        double ranked = now();
        workers_.run(BLOCKS, head_task, &run);
        for (int i = 0; i < t.n; i++) {  // in a fixed order, whichever thread did what
            float d = weights_.fc2_bias;
            for (int b = 0; b < BLOCKS; b++) d += t.part[(int64_t)b * t.stride + i];
            out[begin + i] = d;
        }
        for (int i = 0; gradient && i < t.n; i++)
            for (int j = 0; j < 3; j++) {
                float g = 0;
                for (int b = 0; b < BLOCKS; b++) g += t.slope_part[((int64_t)b * 3 + j) * t.stride + i];
                gradient[(begin + i) * 3 + j] = g;
            }
        double end = now();
        stages_[0] += image - start, stages_[1] += ranked - image, stages_[2] += end - ranked;
    }
}
