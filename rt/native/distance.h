// d(I, a) on the CPU: the arena, the stages and the threads around the kernels.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "distance_kernel.h"
#include "fork_guard.h"
#include "memory.h"
#include "workers.h"

class DistanceEngine {
  public:
    // Arrays are copied; their layouts are in distance_kernel.h, their sizes must have been checked.
    DistanceEngine(const distance_kernel::Weights &weights, int threads, const std::string &isa);

    // depth (64, 64) m, actions (n, 3), out (n,), gradient (n, 3) or null. Safe from several threads.
    void run(const float *depth, const float *actions, int64_t n, float *out, float *gradient);

    const char *isa() const { return kernel_->name; }
    int threads() const { return workers_.threads(); }
    int64_t growths() const { return growths_; }  // times that the arena was allocated
    // Seconds of the last call: convolutions, sorting and ranking, sums, and the rest.
    void stages(double out[3]);

    static std::vector<std::string> isas();  // that this processor has, best first

  private:
    struct Run;
    void grow(int64_t n, bool gradient);
    static void image_task(void *, int, int);
    static void rank_task(void *, int, int);
    static void second_task(void *, int, int);
    static void head_task(void *, int, int);

    const distance_kernel::Kernel *kernel_;
    distance_kernel::Weights weights_;
    std::unique_ptr<Memory> weight_memory_, image_memory_, tile_memory_;
    distance_kernel::Channel *channels_ = nullptr;
    float *depth_ = nullptr, *pool1_ = nullptr, *image_ = nullptr;
    std::vector<distance_kernel::Scratch> scratch_;
    distance_kernel::Tile tile_{};
    int64_t capacity_ = 0;
    bool gradient_capacity_ = false;
    int64_t growths_ = 0;
    double stages_[3] = {0, 0, 0};
    Workers workers_;
    std::mutex lock_;
    ForkGuard fork_guard_{lock_, workers_};
};
