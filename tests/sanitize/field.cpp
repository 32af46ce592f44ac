// Every path of the native field network under the sanitizers: instruction sets, sizes, threads, numbers of
// candidates, gradients, forks and several callers. All instruction sets must agree to rounding, and the
// map's kernels bit by bit. Run by tests/sanitize/run.sh (make sanitize).
#include "field.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <thread>

using field_kernel::Results;

static std::mt19937 generator(1);

static std::vector<float> normal(size_t n, double scale) {
    std::normal_distribution<float> draw(0, (float)scale);
    std::vector<float> values(n);
    for (float &v : values) v = draw(generator);
    return values;
}

struct Network {
    std::vector<float> weight[FieldModel::LAYERS], bias[FieldModel::LAYERS];
    std::vector<float> whole, turn, bias1, weight3, bias3 = {0.8f, -1, -4}, rays;
    FieldModel model{};

    Network(std::vector<int> channels, int hidden, int cells, int pixels) {
        std::copy(channels.begin(), channels.end(), model.channels);
        model.hidden = hidden, model.cells = cells, model.pixels = pixels;
        for (int i = 0; i < FieldModel::LAYERS; i++) {
            const size_t inputs = (size_t)FieldModel::rows(i) * FieldModel::rows(i) * model.inputs(i);
            weight[i] = normal(inputs * model.outputs(i), std::sqrt(2.0 / (double)inputs));
            bias[i] = normal(model.outputs(i), 0.1);
            model.weight[i] = weight[i].data(), model.bias[i] = bias[i].data();
        }
        whole = normal((size_t)channels[4] * channels[3], 0.1), turn = normal(4 * hidden, 0.3);
        bias1 = normal(hidden, 0.1), weight3 = normal(3 * hidden, 0.02);
        for (int i = 0; i < pixels; i++) rays.push_back(((float)i + 0.5f - 0.5f * (float)pixels) * 400 / (float)pixels);
        model.whole = whole.data(), model.turn = turn.data(), model.bias1 = bias1.data();
        model.weight3 = weight3.data(), model.bias3 = bias3.data(), model.rays = rays.data();
        model.growth = 300.0f / (float)pixels, model.far_m = 0.6f, model.max_half = 8, model.cell_m = 0.0042f;
        model.slope = 0.1f, model.scale = 0.05f;
    }
};

static int failures = 0;

static void expect(bool holds, const char *what, const char *isa, long n, double value) {
    if (holds) return;
    std::printf("FAILED: %s, %s, %ld candidates: %g\n", what, isa, n, value);
    failures++;
}

static std::vector<float> make_actions(int64_t n) {
    std::uniform_real_distribution<float> draw(-1, 1);
    std::vector<float> actions(n * 3);
    for (int64_t i = 0; i < n * 3; i++) actions[i] = draw(generator) * (i % 3 == 2 ? 6.28f : 0.3f);
    if (n > 2) actions[4] = 1e30f, actions[6] = NAN;  // must stay within the arrays
    return actions;
}

int main() {
    std::uniform_real_distribution<float> draw(0.1f, 0.5f);
    for (const Network &network : {Network({24, 32, 64, 128, 192}, 64, 80, 64), Network({5, 17, 40, 33, 70}, 20, 48, 33),
                                   Network({1, 1, 1, 1, 1}, 1, 16, 1)}) {
        const int pixels = network.model.pixels;
        std::vector<float> depth((size_t)pixels * pixels), broken(depth.size(), 1e37f);
        for (float &z : depth) z = draw(generator);
        depth[0] = 0, broken[0] = NAN;
        for (int64_t n : {1, 13, 97, 513}) {
            const std::vector<float> actions = make_actions(n);
            std::vector<float> first;
            for (const std::string &isa : FieldEngine::isas())
                for (int threads : {1, 3}) {
                    FieldEngine engine(network.model, threads, isa);
                    std::vector<float> d(n), p(n), s(n), again(n), slope(n * 3);
                    engine.run(depth.data(), actions.data(), n, Results{d.data(), p.data(), s.data(), nullptr});
                    engine.run(depth.data(), actions.data(), n, Results{again.data(), nullptr, nullptr, slope.data()});
                    expect(d == again, "gradient's distance", engine.isa(), n, 0);
                    if (first.empty()) first = d;
                    double worst = 0;
                    for (int64_t i = 0; i < n; i++) {
                        worst = std::fmax(worst, std::fabs(d[i] - first[i]));
                        expect(std::isfinite(d[i]) && p[i] >= 0 && p[i] <= 1 && s[i] > 0, "finite", engine.isa(), n, d[i]);
                    }
                    expect(worst < 1e-4, "instruction sets", engine.isa(), n, worst);
                    engine.run(broken.data(), actions.data(), n, Results{d.data(), nullptr, nullptr, nullptr});
                }
        }
    }
    const Network network({24, 32, 64, 128, 192}, 64, 80, 64);
    FieldEngine engine(network.model, 2, "");
    std::vector<float> depth(64 * 64, 0.3f), actions = make_actions(300), wanted(300);
    engine.run(depth.data(), actions.data(), 300, Results{wanted.data(), nullptr, nullptr, nullptr});
    std::vector<std::thread> callers;
    for (int t = 0; t < 3; t++)
        callers.emplace_back([&] {
            std::vector<float> d(300);
            for (int i = 0; i < 5; i++) {
                engine.run(depth.data(), actions.data(), 300, Results{d.data(), nullptr, nullptr, nullptr});
                expect(d == wanted, "several callers", engine.isa(), 300, 0);
            }
        });
    for (std::thread &caller : callers) caller.join();
// TSan does not follow threads into a child, and qemu-user stops at an assertion of its own there.
#if !defined(__SANITIZE_THREAD__) && !defined(UNDER_QEMU)
    for (int i = 0; i < 3; i++) {
        pid_t child = fork();
        if (child == 0) {
            std::vector<float> d(300);
            engine.run(depth.data(), actions.data(), 300, Results{d.data(), nullptr, nullptr, nullptr});
            _exit(d == wanted ? 0 : 1);
        }
        int status = 0;
        waitpid(child, &status, 0);
        expect(status == 0, "child of a fork", engine.isa(), 300, status);
    }
#endif
    std::printf("%s\n", failures ? "failed" : "field: all paths agree, no report");
    return failures ? 1 : 0;
}
