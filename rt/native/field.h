// The field network on the CPU: the map, the images, the stages and the threads around the kernels.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "field_kernel.h"
#include "fork_guard.h"
#include "memory.h"
#include "metric_map.h"
#include "workers.h"

// The model, as rt/distance/field_native.py lays it out; sizes must have been checked.
struct FieldModel {
    static constexpr int LAYERS = 17;
    // in1, in2, down2, same2, down3, same3, down4, same4, up3, mix3, up2, mix2, up1, mix1, then of the head the
    // first layer's part over the map (out and head1 in one), the second layer, the second layer backwards. Each weight is
    // (rows, columns * input channels rounded up to 8, output channels).
    const float *weight[LAYERS], *bias[LAYERS];
    const float *whole;    // (channels[4], channels[3]): what the mean over the map adds to up3's bias
    const float *turn;     // (4, hidden): first layer's part over the angle
    const float *bias1;    // (hidden)
    const float *weight3;  // (3, hidden)
    const float *bias3;    // (3)
    int pixels, cells, channels[5], hidden;
    const float *rays;     // (pixels), see metric_map_kernel.h
    float growth, far_m, max_half, cell_m, slope, scale;

    static int rows(int layer);      // of a window: 5, 3 or 1, and as many columns
    int inputs(int layer) const;     // channels, rounded up as they lie in memory
    int outputs(int layer) const;
};

class FieldEngine {
  public:
    // Arrays are copied.
    FieldEngine(const FieldModel &model, int threads, const std::string &isa);

    // depth (pixels, pixels) m, actions (n, 3); distance (n), probability and spread (n) or both null,
    // gradient (n, 3) or null. Safe from several threads.
    void run(const float *depth, const float *actions, int64_t n, const field_kernel::Results &results);

    const char *isa() const { return kernel_->name; }
    int threads() const { return workers_.threads(); }
    int pixels() const { return model_.pixels; }
    void stages(double out[3]);  // seconds of the last call: map, convolutions, candidates

    static std::vector<std::string> isas();  // that this processor has, best first

  private:
    struct Image {  // (side + 2 ring, side + 2 ring, stride)
        int side, stride, ring;
        float *data;
        ptrdiff_t row() const { return ptrdiff_t(side + 2 * ring) * stride; }
        float *pixel(int y, int x) const { return data + (y + ring) * row() + ptrdiff_t(x + ring) * stride; }
        size_t size() const { return size_t(side + 2 * ring) * row(); }
    };
    struct Task {
        int block, begin, end;
    };
    struct Layer {
        field_kernel::Convolution convolution;
        std::vector<Task> tasks;
    };
    struct Call;
    static constexpr int MAX_THREADS = Workers::MAX_THREADS;
    void add_layer(int index, const Image &in, const Image &out, field_kernel::Mode mode);
    void draw(const float *depth);
    void add_whole();
    static void draw_task(void *context, int task, int thread);
    static void layer_task(void *context, int task, int thread);
    static void head_task(void *context, int task, int thread);

    const field_kernel::Kernel *kernel_;
    const metric_map_kernel::Kernel *map_kernel_;
    FieldModel model_;
    metric_map_kernel::Room map_room_;
    std::unique_ptr<Memory> memory_;
    float *rays_ = nullptr, *map_ = nullptr, *whole_ = nullptr, *mean_ = nullptr, *up3_bias_ = nullptr;
    float *weight_[FieldModel::LAYERS] = {}, *bias_[FieldModel::LAYERS] = {};
    Image in_{}, start_{}, x_[4]{}, middle_[4]{}, plane_{};
    std::vector<Layer> layers_;
    field_kernel::Head head_{};
    std::vector<field_kernel::Room> rooms_;
    double stages_[3] = {0, 0, 0};
    Workers workers_;
    std::mutex lock_;
    ForkGuard fork_guard_{lock_, workers_};
};
