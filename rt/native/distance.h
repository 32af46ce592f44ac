// d(I, a) on the CPU: the arena, the stages and the threads around the kernels.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include "distance_kernel.h"
#include "workers.h"

// Zeroed memory on 64-byte lines, on huge pages where the system gives them.
class Memory {
  public:
    explicit Memory(size_t bytes);
    ~Memory();
    Memory(const Memory &) = delete;
    template <class T> T *take(size_t count) {  // nullptr past the end, so that a dry run can count
        size_t at = used_, size = count * sizeof(T);
        used_ += (size + 63) / 64 * 64;
#if defined(__SANITIZE_ADDRESS__)  // a gap that nobody may touch, since all of it is one block
        used_ += 64;
        if (used_ <= bytes_) ASAN_POISON_MEMORY_REGION(data_ + at + size, used_ - at - size);
#endif
        return used_ <= bytes_ ? reinterpret_cast<T *>(data_ + at) : nullptr;
    }
    size_t used() const { return used_; }

  private:
    char *data_ = nullptr;
    size_t bytes_, used_ = 0;
};

class DistanceEngine {
  public:
    // Arrays are copied; their layouts are in distance_kernel.h, their sizes must have been checked.
    DistanceEngine(const distance_kernel::Weights &weights, int threads, const std::string &isa);
    ~DistanceEngine();

    // depth (64, 64) m, actions (n, 3), out (n,), gradient (n, 3) or null. Safe from several threads.
    void run(const float *depth, const float *actions, int64_t n, float *out, float *gradient);

    const char *isa() const { return kernel_->name; }
    int threads() const { return workers_.threads(); }
    int64_t growths() const { return growths_; }  // times that the arena was allocated
    // Seconds of the last call: convolutions, sorting and ranking, sums, and the rest.
    void stages(double out[3]);

    static std::vector<std::string> isas();  // that this processor has, best first

    std::mutex &lock() { return lock_; }
    void after_fork() { workers_.restart_after_fork(); }

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
};
