// The engine behind rt/distance/field_native.py: the stages of a call. Kernels are in field_kernel.cpp,
// the Python class in field_bind.cpp.
#include "field.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <stdexcept>

using namespace field_kernel;

namespace {

enum { IN1, IN2, DOWN2, SAME2, DOWN3, SAME3, DOWN4, SAME4, UP3, MIX3, UP2, MIX2, UP1, MIX1, FIRST, SECOND, BACK };

const Kernel *find_kernel(const std::string &name) {
    std::string known;
    for (const std::string &isa : FieldEngine::isas()) known += (known.empty() ? "" : ", ") + isa;
    const std::string wanted = name.empty() ? FieldEngine::isas().front() : name;
    for (const std::string &isa : FieldEngine::isas()) {
        if (isa != wanted) continue;
#ifdef FIELD_X86
        if (isa == field_avx512.name) return &field_avx512;
        if (isa == field_avx2.name) return &field_avx2;
#endif
        return &field_baseline;
    }
    throw std::invalid_argument("instruction set '" + name + "' is not one of this processor: " + known);
}

double now() {
    using namespace std::chrono;
    return duration<double>(steady_clock::now().time_since_epoch()).count();
}

int rounded(int count, int to) { return (count + to - 1) / to * to; }

}  // namespace

int FieldModel::rows(int layer) {
    switch (layer) {
        case IN1: return 5;
        case UP3: case UP2: case UP1: case FIRST: case SECOND: case BACK: return 1;
        default: return 3;
    }
}

int FieldModel::inputs(int layer) const {
    const int *c = channels;
    const int of[LAYERS] = {2,    c[0], c[1], c[2], c[2], c[3], c[3],   c[4],  c[4],
                            c[3], c[3], c[2], c[2], c[1], c[1], hidden, hidden};
    return layer == IN1 ? 2 : rounded(of[layer], layer == SECOND || layer == BACK ? 16 : 8);
}

int FieldModel::outputs(int layer) const {
    const int *c = channels;
    const int of[LAYERS] = {c[0], c[1], c[2], c[2], c[3], c[3],   c[4],   c[4],  c[3],
                            c[3], c[2], c[2], c[1], c[1], hidden, hidden, hidden};
    return of[layer];
}

std::vector<std::string> FieldEngine::isas() {
    std::vector<std::string> names;
#ifdef FIELD_X86
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        names.emplace_back(field_avx512.name);
    if (avx2) names.emplace_back(field_avx2.name);
#endif
    names.emplace_back(field_baseline.name);
    return names;
}

FieldEngine::FieldEngine(const FieldModel &model, int threads, const std::string &isa)
    : kernel_(find_kernel(isa)), map_kernel_(nullptr), model_(model), map_room_(model.pixels, model.cells),
      workers_(threads) {
    const bool vectors = std::strncmp(kernel_->name, "avx", 3) == 0;
    map_kernel_ = &metric_map_kernel::find_kernel(vectors ? kernel_->name : "baseline");
    const FieldModel &m = model_;
    const int half = m.cells / 2, stride = rounded(m.hidden, 16);
    in_ = {m.cells, 2, 2, nullptr};
    start_ = {half, rounded(m.channels[0], 8), 1, nullptr};
    for (int level = 0; level < 4; level++)
        x_[level] = {half >> level, rounded(m.channels[level + 1], 8), 1, nullptr};
    middle_[0] = x_[0];  // what the last convolution but one leaves at each level
    for (int level = 1; level < 4; level++) middle_[level] = x_[level];
    plane_ = {half, stride, 1, nullptr};
    rooms_.resize(workers_.threads());
    auto lay_out = [&](Memory &memory) {
        rays_ = memory.take<float>(m.pixels);
        map_ = memory.take<float>(2 * size_t(m.cells) * m.cells);
        whole_ = memory.take<float>(size_t(m.channels[4]) * m.channels[3]);
        mean_ = memory.take<float>(m.channels[4]);
        up3_bias_ = memory.take<float>(m.channels[3]);
        for (int i = 0; i < FieldModel::LAYERS; i++) {
            const int rows = m.rows(i), length = rows * m.inputs(i);
            weight_[i] = memory.take<float>(kernel_->packed(rows, length, m.outputs(i)) + PAD);
            bias_[i] = memory.take<float>(rounded(m.outputs(i), 64));
        }
        for (Image *image : {&in_, &start_, &x_[0], &x_[1], &x_[2], &x_[3], &middle_[0], &middle_[1],
                             &middle_[2], &middle_[3], &plane_})
            image->data = memory.take<float>(image->size() + PAD);
        float *turn = memory.take<float>(TURNS * stride), *bias1 = memory.take<float>(stride);
        float *weight3 = memory.take<float>(OUTPUTS * stride);
        for (Room &room : rooms_) {
            const size_t units = size_t(TILE) * stride + PAD;
            room.first = memory.take<float>(units);
            room.second = memory.take<float>(units);
            room.back_second = memory.take<float>(units);
            room.back_first = memory.take<float>(units);
            room.turn = memory.take<float>(TURNS * TILE);
            room.place = memory.take<float>(2 * TILE);
            room.pixel = memory.take<int32_t>(TILE);
            room.inside = memory.take<float>(TILE);
            room.out = memory.take<float>(OUTPUTS * TILE);
        }
        if (!rooms_.back().out) return;  // the dry run
        std::copy_n(m.rays, m.pixels, rays_);
        std::copy_n(m.whole, size_t(m.channels[4]) * m.channels[3], whole_);
        std::copy_n(m.bias[UP3], m.channels[3], up3_bias_);
        for (int i = 0; i < FieldModel::LAYERS; i++) {
            const int rows = m.rows(i);
            kernel_->pack(rows, rows * m.inputs(i), m.outputs(i), m.weight[i], m.bias[i], weight_[i], bias_[i]);
        }
        for (int t = 0; t < TURNS; t++) std::copy_n(m.turn + t * m.hidden, m.hidden, turn + t * stride);
        std::copy_n(m.bias1, m.hidden, bias1);
        for (int o = 0; o < OUTPUTS; o++) std::copy_n(m.weight3 + o * m.hidden, m.hidden, weight3 + o * stride);
        head_.turn = turn, head_.bias1 = bias1, head_.weight3 = weight3;
        std::copy_n(m.bias3, OUTPUTS, head_.bias3);
    };
    Memory dry(0);
    lay_out(dry);
    memory_ = std::make_unique<Memory>(dry.used());
    lay_out(*memory_);
    model_.rays = rays_;

    add_layer(IN1, in_, start_, LEAKY);
    add_layer(IN2, start_, x_[0], LEAKY);
    for (int level = 1; level < 4; level++) {
        add_layer(DOWN2 + 2 * (level - 1), x_[level - 1], middle_[level], LEAKY);
        add_layer(SAME2 + 2 * (level - 1), middle_[level], x_[level], LEAKY);
    }
    for (int level = 3; level > 0; level--) {  // the sum with the skip is made in the skip's place
        const int up = UP3 + 2 * (3 - level);
        add_layer(up, level == 3 ? x_[3] : middle_[level], x_[level - 1], TWICE);
        add_layer(up + 1, x_[level - 1], middle_[level - 1], LEAKY);
    }
    add_layer(FIRST, middle_[0], plane_, PLAIN);

    head_.stride = stride, head_.side = half, head_.plane = plane_.data;
    head_.per_m = 0.5f / m.cell_m, head_.centre = 0.5f * float(half) - 0.5f;
    head_.slope = m.slope, head_.scale = m.scale;
    for (int i : {SECOND, BACK}) {
        Convolution &c = i == SECOND ? head_.second : head_.back;
        c = {1, stride, 1, 0, m.hidden, 0, 0, stride, 0, stride, nullptr, nullptr, weight_[i], bias_[i],
             m.slope, i == SECOND ? LEAKY : PLAIN};
    }
}

// Threads share out a layer in about this many tasks, so that none waits long for the others.
static constexpr int TASKS = 36;

void FieldEngine::add_layer(int index, const Image &in, const Image &out, Mode mode) {
    const int rows = model_.rows(index), inputs = model_.inputs(index);
    const bool halves = index == IN1 || index == DOWN2 || index == DOWN3 || index == DOWN4;
    const int side = mode == TWICE ? out.side / 2 : out.side, step = halves ? 2 : 1;
    Layer layer;
    layer.convolution = {rows,
                         rows * inputs,
                         side,
                         side,
                         model_.outputs(index),
                         in.row(),
                         step * in.row(),
                         ptrdiff_t(step) * in.stride,
                         out.row(),
                         out.stride,
                         in.pixel(-(rows / 2), -(rows / 2)),
                         out.pixel(0, 0),
                         weight_[index],
                         bias_[index],
                         model_.slope,
                         mode};
    // Where images are larger than weights, a thread keeps to its part of the image, so that it finds in its
    // own cache what it wrote there; else to its part of the weights.
    const Convolution &c = layer.convolution;
    const bool by_place = out.size() + in.size() > kernel_->packed(rows, c.length, c.channels);
    const int blocks = kernel_->blocks(c), tiles = kernel_->tiles(c, blocks - 1);
    const int each = (tiles * blocks + TASKS - 1) / TASKS, parts = (tiles + each - 1) / each;
    for (int i = 0; i < parts * blocks; i++) {
        const int block = by_place ? i % blocks : i / parts, part = by_place ? i / blocks : i % parts;
        const int in_block = kernel_->tiles(c, block);
        layer.tasks.push_back({block, in_block * part / parts, in_block * (part + 1) / parts});
    }
    layers_.push_back(std::move(layer));
}

void FieldEngine::stages(double out[3]) {
    std::lock_guard<std::mutex> hold(lock_);
    std::copy(stages_, stages_ + 3, out);
}

// The metric map into the first image, whose two channels lie together.
void FieldEngine::draw(const float *depth) {
    const FieldModel &m = model_;
    map_kernel_->draw({m.pixels, m.cells, m.rays, m.growth, m.far_m, m.max_half}, {1, 0, 1}, depth,
                      map_room_.scratch, map_);
    const size_t cells = size_t(m.cells) * m.cells;
    for (int y = 0; y < m.cells; y++) {
        const float *height = map_ + size_t(y) * m.cells, *seen = height + cells;
        float *out = in_.pixel(y, 0);
        for (int x = 0; x < m.cells; x++) out[2 * x] = height[x], out[2 * x + 1] = seen[x];
    }
}

// The mean over the map passes two linear layers, which are one matrix, into up3's bias.
void FieldEngine::add_whole() {
    const Image &x = x_[3];
    const int from = model_.channels[4], to = model_.channels[3];
    std::fill_n(mean_, from, 0.0f);
    for (int v = 0; v < x.side; v++)
        for (int u = 0; u < x.side; u++) {
            const float *pixel = x.pixel(v, u);
            for (int k = 0; k < from; k++) mean_[k] += pixel[k];
        }
    float *bias = bias_[UP3];
    std::copy_n(up3_bias_, to, bias);
    const float share = 1.0f / float(x.side * x.side);
    for (int k = 0; k < from; k++) {
        const float mean = mean_[k] * share, *row = whole_ + size_t(k) * to;
        for (int o = 0; o < to; o++) bias[o] += mean * row[o];
    }
}

struct FieldEngine::Call {
    FieldEngine &engine;
    const float *depth;
    const Layer *layer;
    const float *actions;
    int64_t n;
    int share;  // candidates of a task
    Results results;
    std::atomic<int> next[MAX_THREADS];  // task of each thread's share of a layer
};

// The map is one task; the other only wakes the threads that the first layer needs.
void FieldEngine::draw_task(void *context, int task, int) {
    Call &call = *static_cast<Call *>(context);
    if (task == 0) call.engine.draw(call.depth);
}

// A thread takes tasks of its own share, the same part of every layer, and then of the others'.
void FieldEngine::layer_task(void *context, int, int thread) {
    Call &call = *static_cast<Call *>(context);
    const int count = (int)call.layer->tasks.size(), threads = call.engine.workers_.threads();
    for (int k = 0; k < threads; k++) {
        const int share = (thread + k) % threads, end = count * (share + 1) / threads;
        const int task = call.next[share].fetch_add(1, std::memory_order_relaxed);
        if (task >= end) continue;
        const Task &t = call.layer->tasks[task];
        return call.engine.kernel_->convolve(call.layer->convolution, t.block, t.begin, t.end);
    }
}

void FieldEngine::head_task(void *context, int task, int thread) {
    const Call &call = *static_cast<Call *>(context);
    const int64_t begin = int64_t(task) * call.share;
    const auto at = [&](float *array, int columns) { return array ? array + begin * columns : nullptr; };
    const Results &r = call.results;
    call.engine.kernel_->head(call.engine.head_, call.actions + begin * 3,
                              (int)std::min<int64_t>(call.share, call.n - begin), call.engine.rooms_[thread],
                              {at(r.distance, 1), at(r.probability, 1), at(r.spread, 1), at(r.gradient, 3)});
}

void FieldEngine::run(const float *depth, const float *actions, int64_t n, const Results &results) {
    std::lock_guard<std::mutex> hold(lock_);
    workers_.prepare();
    const double start = now();
    Call call{*this, depth, nullptr, nullptr, 0, 0, {}, {}};
    workers_.run(2, draw_task, &call);
    const double drawn = now();
    for (size_t i = 0; i < layers_.size(); i++) {
        if (i == UP3) add_whole();
        call.layer = &layers_[i];
        const int count = (int)call.layer->tasks.size(), threads = workers_.threads();
        for (int t = 0; t < threads; t++) call.next[t].store(count * t / threads, std::memory_order_relaxed);
        workers_.run((int)call.layer->tasks.size(), layer_task, &call);
    }
    const double convolved = now();
    constexpr int64_t MOST = 60000;  // tasks of a run
    const int64_t each = n / (4 * workers_.threads());
    call.share = (int)std::min<int64_t>(TILE, std::max<int64_t>(12, (each + 11) / 12 * 12));
    for (int64_t begin = 0; begin < n; begin += MOST * call.share) {
        const auto at = [&](float *array, int columns) { return array ? array + begin * columns : nullptr; };
        call.actions = actions + begin * 3;
        call.n = std::min(n - begin, MOST * call.share);
        call.results = {at(results.distance, 1), at(results.probability, 1), at(results.spread, 1),
                        at(results.gradient, 3)};
        workers_.run((int)((call.n + call.share - 1) / call.share), head_task, &call);
    }
    const double end = now();
    stages_[0] = drawn - start, stages_[1] = convolved - drawn, stages_[2] = end - convolved;
}
