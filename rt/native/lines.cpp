// Contacts of closing jaws: where horizontal lines across a hand first meet a mesh, from either side.
// Python: sim.scene.lines.Lines, whose NumPy twin is the oracle, equal bit by bit.
//
// All lines of a hand are parallel and lie close together, so one walk through two levels of boxes, eight at
// a time, serves them all, and one crossing serves the finger on either side. The order of the walk does not
// matter: of equally near faces the one with the lower number counts.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <vector>

namespace nb = nanobind;

namespace {

using Points = nb::ndarray<const float, nb::shape<-1, 3>, nb::c_contig, nb::device::cpu>;
using Triangles = nb::ndarray<const int32_t, nb::shape<-1, 3>, nb::c_contig, nb::device::cpu>;
using Poses = nb::ndarray<const float, nb::shape<-1, 5>, nb::c_contig, nb::device::cpu>;
using Row = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Ranges = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Objects = nb::ndarray<const int16_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Mask = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Widths = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Faces = nb::ndarray<int32_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define EVERY_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define EVERY_PROCESSOR
#endif
#define INLINE __attribute__((always_inline)) inline

constexpr int LANES = 8;        // faces of a leaf, leaves of a group, groups of a step
constexpr float SLACK = 1e-5f;  // m; far more than float32 rounds: no box with a hit is passed over
constexpr float FAR = 1e18f;    // place of what fills up a leaf; nothing meets it
constexpr size_t MOST = 32;     // lines in a row or a column

struct Boxes {  // of eight leaves or groups
    float x[LANES], y[LANES], z[LANES], half_x[LANES], half_y[LANES], half_z[LANES];
};

struct Leaf {
    float x[3][LANES], y[3][LANES], z[3][LANES];
    int32_t face[LANES];
};

struct Mesh {
    std::vector<Boxes> groups, leaves;  // leaves[g]: the boxes of leaf[8 g] to leaf[8 g + 7]
    std::vector<Leaf> leaf;
};

struct Grid {
    const float *z, *w;
    int rows, columns;
    float low, high;
};

struct Hits {
    float *left, *right;
    int32_t *left_face, *right_face;
};

struct Beam {  // the lines' box in the hand's frame: along the closing axis, beside it, up
    float along, beside, up, half_along, half_beside, half_up;
};

// Bit l: box l can hold a meeting.
INLINE unsigned touched(const Boxes &box, const float *hand, const Beam &beam) {
    const float c = hand[3], s = hand[4], ac = std::fabs(c), as = std::fabs(s);
    int hit[LANES];
    for (int l = 0; l < LANES; ++l) {
        const float dx = box.x[l] - hand[0], dy = box.y[l] - hand[1], dz = box.z[l] - hand[2];
        const float hx = box.half_x[l], hy = box.half_y[l];
        hit[l] = (std::fabs(dz - beam.up) <= beam.half_up + box.half_z[l]) &
                 (std::fabs(s * dx - c * dy - beam.beside) <= beam.half_beside + as * hx + ac * hy) &
                 (std::fabs(c * dx + s * dy - beam.along) <= beam.half_along + ac * hx + as * hy);
    }
    unsigned mask = 0;
    for (int l = 0; l < LANES; ++l) mask |= unsigned(hit[l]) << l;
    return mask;
}

INLINE void meet(const float *px, const float *pw, const float *pz, int32_t face, const Grid &grid,
                 const Hits &hits) {
    const float *z = grid.z, *w = grid.w;
    const float w0 = std::min({pw[0], pw[1], pw[2]}), w1 = std::max({pw[0], pw[1], pw[2]});
    const float z0 = std::min({pz[0], pz[1], pz[2]}), z1 = std::max({pz[0], pz[1], pz[2]});
    int i0 = 0, i1 = grid.rows, j0 = 0, j1 = grid.columns;
    while (i0 < i1 && z[i0] < z0) ++i0;
    while (i1 > i0 && z[i1 - 1] > z1) --i1;
    while (j0 < j1 && w[j0] < w0) ++j0;
    while (j1 > j0 && w[j1 - 1] > w1) --j1;
    const float x0 = std::min({px[0], px[1], px[2]}), x1 = std::max({px[0], px[1], px[2]});
    // Edges k -> k + 1, exactly negated for the face on an edge's other side: no cracks.
    float A[3], B[3], C[3];
    for (int k = 0; k < 3; ++k) {
        const int m = (k + 1) % 3;
        A[k] = pz[k] - pz[m], B[k] = pw[m] - pw[k], C[k] = pw[k] * pz[m] - pw[m] * pz[k];
    }
    const float ux = px[1] - px[0], uw = pw[1] - pw[0], uz = pz[1] - pz[0];
    const float vx = px[2] - px[0], vw = pw[2] - pw[0], vz = pz[2] - pz[0];
    const float nx = uw * vz - uz * vw, nw = uz * vx - ux * vz, nz = ux * vw - uw * vx;
    for (int i = i0; i < i1; ++i)
        for (int j = j0; j < j1; ++j) {
            const float a = A[0] * w[j] + (B[0] * z[i] + C[0]);
            const float b = A[1] * w[j] + (B[1] * z[i] + C[1]);
            const float d = A[2] * w[j] + (B[2] * z[i] + C[2]);
            if (!((a >= 0 && b >= 0 && d >= 0) || (a <= 0 && b <= 0 && d <= 0))) continue;
            float x = px[0] - (nw * (w[j] - pw[0]) + nz * (z[i] - pz[0])) / nx;
            x = x < x0 ? x0 : x;
            x = x > x1 ? x1 : x;
            if (!(x >= grid.low && x <= grid.high)) continue;  // NaN: the face lies along the line
            const int at = i * grid.columns + j;
            if (x < hits.left[at] || (x == hits.left[at] && face < hits.left_face[at]))
                hits.left[at] = x, hits.left_face[at] = face;
            if (x > hits.right[at] || (x == hits.right[at] && face < hits.right_face[at]))
                hits.right[at] = x, hits.right_face[at] = face;
        }
}

INLINE void leaf_of(const Leaf &leaf, const float *hand, const Grid &grid, const Hits &hits) {
    const float c = hand[3], s = hand[4];
    float px[3][LANES], pw[3][LANES], pz[3][LANES];
    int row[LANES] = {}, column[LANES] = {};
    for (int k = 0; k < 3; ++k)
        for (int l = 0; l < LANES; ++l) {
            const float dx = leaf.x[k][l] - hand[0], dy = leaf.y[k][l] - hand[1];
            px[k][l] = c * dx + s * dy, pw[k][l] = s * dx - c * dy, pz[k][l] = leaf.z[k][l] - hand[2];
        }
    float w0[LANES], w1[LANES], z0[LANES], z1[LANES];
    for (int l = 0; l < LANES; ++l) {
        const float a = pw[0][l] < pw[1][l] ? pw[0][l] : pw[1][l], b = pw[0][l] < pw[1][l] ? pw[1][l] : pw[0][l];
        w0[l] = a < pw[2][l] ? a : pw[2][l], w1[l] = b > pw[2][l] ? b : pw[2][l];
        const float e = pz[0][l] < pz[1][l] ? pz[0][l] : pz[1][l], f = pz[0][l] < pz[1][l] ? pz[1][l] : pz[0][l];
        z0[l] = e < pz[2][l] ? e : pz[2][l], z1[l] = f > pz[2][l] ? f : pz[2][l];
    }
    for (int i = 0; i < grid.rows; ++i)
        for (int l = 0; l < LANES; ++l) row[l] |= (z0[l] <= grid.z[i]) & (grid.z[i] <= z1[l]);
    for (int j = 0; j < grid.columns; ++j)
        for (int l = 0; l < LANES; ++l) column[l] |= (w0[l] <= grid.w[j]) & (grid.w[j] <= w1[l]);
    for (int l = 0; l < LANES; ++l) {
        if (!(row[l] & column[l])) continue;
        const float x[3] = {px[0][l], px[1][l], px[2][l]}, w[3] = {pw[0][l], pw[1][l], pw[2][l]};
        const float z[3] = {pz[0][l], pz[1][l], pz[2][l]};
        meet(x, w, z, leaf.face[l], grid, hits);
    }
}

INLINE void walk_one(const Mesh &mesh, const float *hand, const Grid &grid, const Hits &hits) {
    Beam beam;
    beam.along = (grid.low + grid.high) / 2, beam.half_along = (grid.high - grid.low) / 2 + SLACK;
    beam.beside = (grid.w[0] + grid.w[grid.columns - 1]) / 2;
    beam.half_beside = (grid.w[grid.columns - 1] - grid.w[0]) / 2 + SLACK;
    beam.up = (grid.z[0] + grid.z[grid.rows - 1]) / 2, beam.half_up = (grid.z[grid.rows - 1] - grid.z[0]) / 2 + SLACK;
    for (size_t step = 0; step < mesh.groups.size(); ++step)
        for (unsigned some = touched(mesh.groups[step], hand, beam); some; some &= some - 1) {
            const size_t group = step * LANES + __builtin_ctz(some);
            for (unsigned near = touched(mesh.leaves[group], hand, beam); near; near &= near - 1)
                leaf_of(mesh.leaf[group * LANES + __builtin_ctz(near)], hand, grid, hits);
        }
}

EVERY_PROCESSOR
void walk(const Mesh &mesh, const float *hands, size_t count, const Grid &grid, Hits hits) {
    const size_t lines = size_t(grid.rows) * grid.columns;
    for (size_t n = 0; n < count; ++n, hands += 5) {
        walk_one(mesh, hands, grid, hits);
        hits.left += lines, hits.right += lines, hits.left_face += lines, hits.right_face += lines;
    }
}

struct Surface {
    const float *normal;  // (F, 3)
    const int16_t *object;
};

// Numbers of a closing hand, as in sim.scene.closing.
struct Jaws {
    const float *pad, *above, *w;
    const uint8_t *inner;
    int pads, aboves, columns, lines;
    float half, opening, cosine, compliance, most_shift, least;
};

constexpr int LINES = 64;  // of a pad, and of the finger above it

struct Side {
    float travel[LINES], travel_above[LINES];
    int32_t face[LINES], face_above[LINES];
    bool own[LINES], good[LINES];
    float first;  // travel to first contact of the whole finger
};

// Places of a row on or between its contacts, in place.
INLINE void between(bool *contact, int rows, int columns) {
    for (int i = 0; i < rows; ++i, contact += columns) {
        int first = 0, last = columns - 1;
        while (first < columns && !contact[first]) ++first;
        while (last > first && !contact[last]) --last;
        for (int j = first; j <= last && first < columns; ++j) contact[j] = true;
    }
}

INLINE int pressed(const bool *place, const uint8_t *inner, int rows, int columns) {
    int count = 0;
    for (int i = 0; i < rows; ++i)
        for (int j = 0; j < columns; ++j) count += place[i * columns + j] && inner[j];
    return count;
}

INLINE void touch(const Side &side, const Jaws &jaws, float contact, bool *place) {
    const int count = jaws.pads * jaws.columns;
    for (int k = 0; k < count; ++k) place[k] = side.travel[k] <= contact + jaws.compliance && side.good[k];
    between(place, jaws.pads, jaws.columns);
}

INLINE void travels(const Mesh &mesh, const float *hand, const Grid &grid, float half, const Hits &hits) {
    const int lines = grid.rows * grid.columns;
    for (int k = 0; k < lines; ++k) {
        hits.left[k] = INFINITY, hits.right[k] = -INFINITY;
        hits.left_face[k] = hits.right_face[k] = -1;
    }
    walk_one(mesh, hand, grid, hits);
    for (int k = 0; k < lines; ++k) hits.left[k] = hits.left[k] + half, hits.right[k] = half - hits.right[k];
}

// The width held by one hand, or -1, and the way along its closing axis to the middle of that.
INLINE float closed(const Mesh &mesh, const Surface &surface, const float *hand, int16_t object,
                    const Jaws &jaws, float *shift) {
    Side side[2];
    const int count = jaws.pads * jaws.columns, more = jaws.aboves * jaws.columns;
    const Grid pad{jaws.pad, jaws.w, jaws.pads, jaws.columns, -jaws.half, jaws.half};
    travels(mesh, hand, pad, jaws.half, Hits{side[0].travel, side[1].travel, side[0].face, side[1].face});
    bool place[2][LINES];
    for (int i = 0; i < 2; ++i) {
        Side &one = side[i];
        float contact = INFINITY;
        for (int k = 0; k < count; ++k) {
            contact = std::min(contact, one.travel[k]);
            const int32_t face = one.face[k];
            one.own[k] = face >= 0 && surface.object[face] == object;
            const float *normal = surface.normal + 3 * size_t(std::max(face, 0));
            const float toward = normal[0] * hand[3] + normal[1] * hand[4];
            one.good[k] = one.own[k] && (i ? toward : -toward) >= jaws.cosine;
        }
        touch(one, jaws, contact, place[i]);
        if (pressed(place[i], jaws.inner, jaws.pads, jaws.columns) < jaws.lines) return -1;
    }
    travels(mesh, hand, Grid{jaws.above, jaws.w, jaws.aboves, jaws.columns, -jaws.half, jaws.half}, jaws.half,
            Hits{side[0].travel_above, side[1].travel_above, side[0].face_above, side[1].face_above});
    for (int i = 0; i < 2; ++i) {
        Side &one = side[i];
        const int k = int(std::min_element(one.travel, one.travel + count) - one.travel);
        const int m = int(std::min_element(one.travel_above, one.travel_above + more) - one.travel_above);
        const bool high = more && one.travel_above[m] < one.travel[k];
        one.first = high ? one.travel_above[m] : one.travel[k];
        if (!(one.first < INFINITY)) return -1;
        const int32_t face = high ? one.face_above[m] : one.face[k];
        if (face < 0 || surface.object[face] != object) return -1;
        touch(one, jaws, one.first, place[i]);
    }
    for (int k = 0; k < count; ++k) place[0][k] = place[0][k] && place[1][k];
    if (pressed(place[0], jaws.inner, jaws.pads, jaws.columns) < jaws.lines) return -1;
    *shift = (side[0].first - side[1].first) / 2;
    if (!(std::fabs(*shift) <= jaws.most_shift)) return -1;
    const float width = jaws.opening - side[0].first - side[1].first;
    return width > jaws.least ? width : -1;
}

EVERY_PROCESSOR
void close_all(const Mesh &mesh, const Surface &surface, const float *hands, const int16_t *object,
               size_t count, const Jaws &jaws, float *width, float *shift) {
    for (size_t n = 0; n < count; ++n) {
        shift[n] = 0;
        width[n] = closed(mesh, surface, hands + 5 * n, object[n], jaws, shift + n);
        if (width[n] < 0) shift[n] = 0;
    }
}

class LineCaster {
  public:
    LineCaster(Points vertices, Triangles faces) {
        const float *v = vertices.data();
        const int32_t *f = faces.data();
        const size_t count = faces_ = faces.shape(0);
        std::vector<float> corner(9 * count);
        std::vector<float> middle(3 * count);
        std::vector<int32_t> order(count);
        for (size_t i = 0; i < count; ++i) {
            order[i] = int32_t(i);
            for (int k = 0; k < 3; ++k) {
                const int32_t at = f[3 * i + k];
                if (at < 0 || size_t(at) >= vertices.shape(0))
                    throw std::invalid_argument("LineCaster: a face names a vertex that is not there");
                std::memcpy(&corner[9 * i + 3 * k], v + 3 * at, 3 * sizeof(float));
            }
            for (int k = 0; k < 3; ++k) {
                const float *c = &corner[9 * i + k];
                middle[3 * i + k] = std::min({c[0], c[3], c[6]}) + std::max({c[0], c[3], c[6]});
            }
        }
        sort(order.data(), order.data() + count, middle.data());
        pack(corner, order);
    }

    void cross(Poses hands, Row z, Row w, float low, float high, Ranges left, Faces left_face,
               Ranges right, Faces right_face) const {
        const size_t n = hands.shape(0), rows = z.shape(0), columns = w.shape(0);
        auto fits = [&](const auto &array) {
            return array.shape(0) == n && array.shape(1) == rows && array.shape(2) == columns;
        };
        if (!fits(left) || !fits(right) || !fits(left_face) || !fits(right_face))
            throw std::invalid_argument("cross: shapes of hands, z, w and the results disagree");
        if (rows < 1 || columns < 1 || rows > MOST || columns > MOST)
            throw std::invalid_argument("cross: 1 to 32 rows and columns of lines");
        const Grid grid{z.data(), w.data(), int(rows), int(columns), low, high};
        const Hits hits{left.data(), right.data(), left_face.data(), right_face.data()};
        const size_t all = n * rows * columns;

        nb::gil_scoped_release release;
        std::fill(hits.left, hits.left + all, INFINITY);
        std::fill(hits.right, hits.right + all, -INFINITY);
        std::fill(hits.left_face, hits.left_face + all, -1);
        std::fill(hits.right_face, hits.right_face + all, -1);
        walk(mesh_, hands.data(), n, grid, hits);
    }

    void close(Poses hands, Objects object, Points normals, Objects face_object, Row pad, Row above, Row w,
               Mask inner, int lines, float half, float opening, float cosine, float compliance,
               float most_shift, float least, Widths width, Widths shift) const {
        const size_t n = hands.shape(0), columns = w.shape(0);
        const size_t most = columns * std::max(pad.shape(0), above.shape(0));
        if (object.shape(0) != n || width.shape(0) != n || shift.shape(0) != n || inner.shape(0) != columns)
            throw std::invalid_argument("close: shapes of hands, object, w, inner and width disagree");
        if (normals.shape(0) != faces_ || face_object.shape(0) != faces_)
            throw std::invalid_argument("close: normals and objects must be of this mesh's faces");
        if (!pad.shape(0) || !columns || most > size_t(LINES))
            throw std::invalid_argument("close: 1 to 64 lines on a pad and at most 64 above it");
        const Surface surface{normals.data(), face_object.data()};
        const Jaws jaws{pad.data(), above.data(), w.data(), inner.data(), int(pad.shape(0)), int(above.shape(0)),
                        int(columns), lines, half, opening, cosine, compliance, most_shift, least};
        if (!faces_) {
            std::fill(width.data(), width.data() + n, -1.0f), std::fill(shift.data(), shift.data() + n, 0.0f);
            return;
        }
        nb::gil_scoped_release release;
        close_all(mesh_, surface, hands.data(), object.data(), n, jaws, width.data(), shift.data());
    }

  private:
    // Halves at whole groups, then at whole leaves, so that all are full but the last.
    static void sort(int32_t *first, int32_t *last, const float *middle) {
        const size_t count = last - first;
        if (count <= LANES) return;
        float least[3] = {INFINITY, INFINITY, INFINITY}, most[3] = {-INFINITY, -INFINITY, -INFINITY};
        for (const int32_t *i = first; i < last; ++i)
            for (int k = 0; k < 3; ++k) {
                const float at = middle[3 * size_t(*i) + k];
                least[k] = std::min(least[k], at), most[k] = std::max(most[k], at);
            }
        int axis = 0;
        for (int k = 1; k < 3; ++k)
            if (most[k] - least[k] > most[axis] - least[axis]) axis = k;
        const size_t whole = count > LANES * LANES ? LANES * LANES : LANES;
        int32_t *half = first + (count / 2 + whole - 1) / whole * whole;
        std::nth_element(first, half, last, [&](int32_t a, int32_t b) {
            return middle[3 * size_t(a) + axis] < middle[3 * size_t(b) + axis];
        });
        sort(first, half, middle);
        sort(half, last, middle);
    }

    void pack(const std::vector<float> &corner, const std::vector<int32_t> &order) {
        auto blocks = [](size_t count) { return (count + LANES - 1) / LANES; };
        const size_t leaves = blocks(order.size()), groups = blocks(leaves);
        Boxes none;
        for (auto *array : {none.x, none.y, none.z}) std::fill(array, array + LANES, FAR);
        for (auto *array : {none.half_x, none.half_y, none.half_z}) std::fill(array, array + LANES, -FAR);
        mesh_.leaf.resize(groups * LANES);
        mesh_.leaves.assign(groups, none);
        mesh_.groups.assign(blocks(groups), none);
        for (size_t g = 0; g < groups; ++g) {
            float all_low[3] = {INFINITY, INFINITY, INFINITY}, all_high[3] = {-INFINITY, -INFINITY, -INFINITY};
            for (size_t i = 0; i < LANES && g * LANES + i < leaves; ++i) {
                const size_t at = g * LANES + i;
                Leaf &leaf = mesh_.leaf[at];
                float low[3] = {INFINITY, INFINITY, INFINITY}, high[3] = {-INFINITY, -INFINITY, -INFINITY};
                for (size_t l = 0; l < LANES; ++l) {
                    const bool there = at * LANES + l < order.size();
                    leaf.face[l] = there ? order[at * LANES + l] : -1;
                    for (int k = 0; k < 3; ++k) {
                        const float *c = there ? &corner[9 * size_t(leaf.face[l]) + 3 * k] : nullptr;
                        leaf.x[k][l] = c ? c[0] : FAR, leaf.y[k][l] = c ? c[1] : FAR, leaf.z[k][l] = c ? c[2] : FAR;
                        for (int m = 0; c && m < 3; ++m) low[m] = std::min(low[m], c[m]), high[m] = std::max(high[m], c[m]);
                    }
                }
                set(mesh_.leaves[g], i, low, high);
                for (int m = 0; m < 3; ++m)
                    all_low[m] = std::min(all_low[m], low[m]), all_high[m] = std::max(all_high[m], high[m]);
            }
            set(mesh_.groups[g / LANES], g % LANES, all_low, all_high);
        }
    }

    static void set(Boxes &boxes, size_t at, const float *low, const float *high) {
        boxes.x[at] = (low[0] + high[0]) / 2, boxes.half_x[at] = (high[0] - low[0]) / 2 + SLACK;
        boxes.y[at] = (low[1] + high[1]) / 2, boxes.half_y[at] = (high[1] - low[1]) / 2 + SLACK;
        boxes.z[at] = (low[2] + high[2]) / 2, boxes.half_z[at] = (high[2] - low[2]) / 2 + SLACK;
    }

    size_t faces_ = 0;
    Mesh mesh_;
};

using Heights = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Flags = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// Of the hands (x, y, z, cosine, sine of the yaw) that are marked, those stay so under whose rectangle of
// points no cell is above `level`: the twin is sim.scene.hull.Footprint.free_numpy.
EVERY_PROCESSOR
void keep_free(const float *map, int cells, const float *hand, size_t count, const float *most, const float *x,
               const float *y, size_t points, float per_m, uint8_t *result) {
    constexpr size_t BLOCK = 16;
    const float half = float(cells) / 2;
    for (size_t k = 0; k < count; ++k, hand += 5) {
        if (!result[k]) continue;
        const float c = hand[3], s = hand[4];
        bool free = most[k] >= 0;  // the twin takes a rectangle of nothing for the table
        for (size_t p = 0; p < points && free; p += BLOCK) {
            float highest[BLOCK];
            const size_t here = std::min(BLOCK, points - p);
            for (size_t b = 0; b < here; ++b) {
                int i = int((hand[0] + c * x[p + b] + s * y[p + b]) * per_m + half);
                int j = int((hand[1] + s * x[p + b] - c * y[p + b]) * per_m + half);
                i = i < 0 ? 0 : i, j = j < 0 ? 0 : j;
                i = i < cells ? i : cells - 1, j = j < cells ? j : cells - 1;
                highest[b] = map[i * cells + j];
            }
            for (size_t b = 0; b < here; ++b) free &= highest[b] <= most[k];
        }
        result[k] = free;
    }
}

void footprint_free(Heights height, Poses hands, Row level, Row x, Row y, float per_m, Flags out) {
    const size_t n = hands.shape(0), points = x.shape(0);
    if (level.shape(0) != n || out.shape(0) != n || y.shape(0) != points ||
        height.shape(0) != height.shape(1) || !height.shape(0) || height.shape(0) > 20000)
        throw std::invalid_argument("footprint_free: shapes of height, hands, level, x, y and out disagree");
    nb::gil_scoped_release release;
    keep_free(height.data(), int(height.shape(0)), hands.data(), n, level.data(), x.data(), y.data(), points, per_m,
              out.data());
}

}  // namespace

void bind_lines(nb::module_ &m) {
    nb::class_<LineCaster>(m, "LineCaster", "Lines across hands over one mesh; see sim.scene.lines.Lines.")
        .def(nb::init<Points, Triangles>(), nb::arg("vertices").noconvert(), nb::arg("faces").noconvert())
        .def("cross", &LineCaster::cross, nb::arg("hands").noconvert(), nb::arg("z").noconvert(),
             nb::arg("w").noconvert(), nb::arg("low"), nb::arg("high"), nb::arg("left").noconvert(),
             nb::arg("left_face").noconvert(), nb::arg("right").noconvert(), nb::arg("right_face").noconvert())
        .def("close", &LineCaster::close, nb::arg("hands").noconvert(), nb::arg("object").noconvert(),
             nb::arg("normals").noconvert(), nb::arg("face_object").noconvert(), nb::arg("pad").noconvert(),
             nb::arg("above").noconvert(), nb::arg("w").noconvert(), nb::arg("inner").noconvert(), nb::arg("lines"),
             nb::arg("half"), nb::arg("opening"), nb::arg("cosine"), nb::arg("compliance"), nb::arg("most_shift"),
             nb::arg("least"), nb::arg("width").noconvert(), nb::arg("shift").noconvert());
    m.def("footprint_free", &footprint_free, nb::arg("height").noconvert(), nb::arg("hands").noconvert(),
          nb::arg("level").noconvert(), nb::arg("x").noconvert(), nb::arg("y").noconvert(), nb::arg("per_m"),
          nb::arg("out").noconvert(),
          "Hands (N, 5) whose rectangle of points meets no cell above its level; see sim.scene.hull.");
}
