// Every path of the native distance function under the sanitizers, against a plain evaluation in
// double: instruction sets, encodings, precisions, numbers of threads and candidates, gradients, forks
// and several callers. Run by tests/sanitize/run.sh (make sanitize).
#include "distance.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>

using namespace distance_kernel;

static std::mt19937 generator(1);

static std::vector<float> normal(size_t n, double scale) {
    std::normal_distribution<float> draw(0, (float)scale);
    std::vector<float> values(n);
    for (float &v : values) v = draw(generator);
    return values;
}

static uint16_t to_half(float value) {  // truncates; small numbers become 0
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    int exponent = (int)(bits >> 23 & 0xff) - 112;
    if (exponent <= 0) return (uint16_t)(bits >> 16 & 0x8000);
    return (uint16_t)((bits >> 16 & 0x8000) | (uint32_t)exponent << 10 | (bits >> 13 & 0x3ff));
}

struct Model {
    std::vector<float> conv1 = normal(CONV1 * TAPS, 1), conv1_bias = normal(CONV1, 0.2);
    std::vector<float> conv2 = normal(CONV2 * CONV1 * TAPS, 0.05), conv2_bias = normal(CONV2, 0.2);
    std::vector<float> bias_map = normal(CONV2 * (MAX_ENCODED + 1), 1);
    std::vector<float> fc1 = normal((size_t)BLOCKS * CONV2 * KNOTS * BLOCK, 0.01);
    std::vector<uint16_t> half;
    std::vector<float> fc1_bias = normal(BLOCKS * BLOCK, 0.2), fc2 = normal(BLOCKS * BLOCK, 0.01);
    std::vector<float> linear = std::vector<float>(BLOCKS * (MAX_ENCODED + 1) * BLOCK);

    Model() {
        for (float &w : fc1) {
            half.push_back(to_half(w));
            w = std::fabs(w) < 1e-4f ? 0 : w;
        }
        for (int b = 0; b < BLOCKS; b++)
            for (int c = 0; c < CONV2; c++)
                for (int o = 0; o < BLOCK; o++) {
                    double all = 0;
                    for (int p = 0; p < KNOTS; p++) all += weight(b, c, p, o);
                    for (int e = 0; e <= MAX_ENCODED; e++)
                        linear[(b * (MAX_ENCODED + 1) + e) * BLOCK + o] +=
                            (float)(all * bias_map[c * (MAX_ENCODED + 1) + e]);
                }
    }
    float weight(int b, int c, int p, int o) const {
        return fc1[(((size_t)b * CONV2 + c) * KNOTS + p) * BLOCK + o];
    }
    Weights weights(int encoded, bool in_half) const {
        return {conv1.data(), conv1_bias.data(), conv2.data(), conv2_bias.data(), bias_map.data(),
                in_half ? (const void *)half.data() : fc1.data(), fc1_bias.data(), linear.data(),
                fc2.data(), 0.1f, 0.1f, encoded, in_half};
    }
};

static double leaky(double z) { return z > 0 ? z : 0.1 * z; }

static double plain(const Model &m, const float *depth, const float *action, int encoded) {
    std::vector<double> pool1(CONV1 * POOL1 * POOL1, -1e300), image(CONV2 * KNOTS, -1e300);
    for (int i = 0; i < CONV1; i++)
        for (int y = 0; y < 2 * POOL1; y++)
            for (int x = 0; x < 2 * POOL1; x++) {
                double z = m.conv1_bias[i];
                for (int t = 0; t < TAPS; t++)
                    z += m.conv1[(i / GROUP * TAPS + t) * GROUP + i % GROUP] *
                         depth[(y + t / KERNEL) * IMAGE + x + t % KERNEL];
                double &out = pool1[(i * POOL1 + y / 2) * POOL1 + x / 2];
                out = std::fmax(out, leaky(z));
            }
    for (int o = 0; o < CONV2; o++)
        for (int y = 0; y < SIDE2; y++)
            for (int x = 0; x < SIDE2; x++) {
                double z = m.conv2_bias[o];
                for (int i = 0; i < CONV1; i++)
                    for (int t = 0; t < TAPS; t++)
                        z += m.conv2[((o / GROUP * CONV1 + i) * TAPS + t) * GROUP + o % GROUP] *
                             pool1[(i * POOL1 + y + t / KERNEL) * POOL1 + x + t % KERNEL];
                double &out = image[o * KNOTS + y / 2 * POOL2 + x / 2];
                out = std::fmax(out, z);
            }
    double e[MAX_ENCODED] = {action[0], action[1], action[2], 0};
    if (encoded == 4) e[2] = std::cos(2.0 * action[2]), e[3] = std::sin(2.0 * action[2]);
    std::vector<double> hidden(m.fc1_bias.begin(), m.fc1_bias.end());
    for (int c = 0; c < CONV2; c++) {
        double bias = m.bias_map[c * (MAX_ENCODED + 1) + MAX_ENCODED];
        for (int j = 0; j < encoded; j++) bias += m.bias_map[c * (MAX_ENCODED + 1) + j] * e[j];
        for (int p = 0; p < KNOTS; p++)
            for (int h = 0; h < BLOCKS * BLOCK; h++)
                hidden[h] += m.weight(h / BLOCK, c, p, h % BLOCK) * leaky(image[c * KNOTS + p] + bias);
    }
    double d = 0.1f;
    for (int h = 0; h < BLOCKS * BLOCK; h++) d += m.fc2[h] * leaky(hidden[h]);
    return d;
}

static int failures = 0;

static void expect(bool holds, const char *what, const char *isa, long n, double value) {
    if (holds) return;
    std::printf("FAILED: %s, %s, %ld candidates: %g\n", what, isa, n, value);
    failures++;
}

static std::vector<float> make_actions(int64_t n) {
    std::uniform_real_distribution<float> draw(-1, 1);
    std::vector<float> actions(n * 3);
    for (int64_t i = 0; i < n * 3; i++) actions[i] = draw(generator) * (i % 3 == 2 ? 6.28f : 0.5f);
    return actions;
}

int main() {
    Model model;
    std::vector<float> depth = normal(IMAGE * IMAGE, 0.1), flat(IMAGE * IMAGE, 0.3f);
    std::vector<float> broken(IMAGE * IMAGE, 1e37f);  // overflows; must stay within its arrays
    broken[77] = NAN;
    for (const std::string &isa : DistanceEngine::isas())
        for (int encoded : {3, 4})
            for (bool half : {false, true})
                for (int threads : {1, 3}) {
                    DistanceEngine engine(model.weights(encoded, half), threads, isa);
                    for (int64_t n : {1, 2, 65, 513, 2048, 2113}) {
                        if (n > 65 && threads == 1) continue;
                        std::vector<float> actions = make_actions(n), d(n), again(n), slope(n * 3);
                        engine.run(depth.data(), actions.data(), n, d.data(), nullptr);
                        engine.run(depth.data(), actions.data(), n, again.data(), slope.data());
                        double worst = 0, off = 0;
                        for (int64_t i = 0; i < n; i++) worst = std::fmax(worst, std::fabs(d[i] - again[i]));
                        if (n <= 2)
                            for (int64_t i = 0; i < n; i++)
                                off = std::fmax(off, std::fabs(d[i] - plain(model, depth.data(), &actions[i * 3], encoded)));
                        expect(worst < 1e-5, "gradient's distance", engine.isa(), n, worst);
                        expect(off < (half ? 2e-3 : 1e-5), "plain evaluation", engine.isa(), n, off);
                        engine.run(flat.data(), actions.data(), n, d.data(), slope.data());
                        for (float v : d) expect(std::isfinite(v), "flat image", engine.isa(), n, v);
                        engine.run(broken.data(), actions.data(), n, d.data(), nullptr);
                    }
                }
    DistanceEngine engine(model.weights(4, false), 2, "");
    std::vector<float> actions = make_actions(300), wanted(300);
    engine.run(depth.data(), actions.data(), 300, wanted.data(), nullptr);
    std::vector<std::thread> callers;
    for (int t = 0; t < 3; t++)
        callers.emplace_back([&] {
            std::vector<float> d(300);
            for (int i = 0; i < 20; i++) {
                engine.run(depth.data(), actions.data(), 300, d.data(), nullptr);
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
            engine.run(depth.data(), actions.data(), 300, d.data(), nullptr);
            _exit(d == wanted ? 0 : 1);
        }
        int status = 0;
        waitpid(child, &status, 0);
        expect(status == 0, "child of a fork", engine.isa(), 300, status);
    }
#endif
    std::printf("%s\n", failures ? "failed" : "all paths agree, no report");
    return failures ? 1 : 0;
}
