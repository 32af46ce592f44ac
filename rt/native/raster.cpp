// Depth images of a mesh over a table by rasterisation: what rays through the pixels' centres meet, without
// a ray. Python: sim.scene.raster, whose NumPy twin is the oracle, equal bit by bit.
//
// Edges are tested in homogeneous coordinates (Olano and Greer 1997), so nothing is clipped, and inclusively,
// so two triangles leave no crack between them. Depth comes from the triangle's own plane and is held within
// the depths of its corners.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

namespace nb = nanobind;

namespace {

using Points = nb::ndarray<const float, nb::shape<-1, 3>, nb::c_contig, nb::device::cpu>;
using Triangles = nb::ndarray<const int32_t, nb::shape<-1, 3>, nb::c_contig, nb::device::cpu>;
using Pose = nb::ndarray<const float, nb::shape<3, 4>, nb::c_contig, nb::device::cpu>;
using Row = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Image = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

using Numbers = nb::ndarray<int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define EVERY_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define EVERY_PROCESSOR
#endif

#define INLINE __attribute__((always_inline)) inline

constexpr float NEAR = 1e-3f;   // m; a triangle that comes nearer is tested against every pixel
constexpr float MARGIN = 0.01f; // pixels around a triangle's bounding box

struct Corners {  // every vertex in the camera, and its place in the image in pixels
    std::vector<float> x, y, z, u, v;
};

EVERY_PROCESSOR
void project(const float *vertex, size_t count, const float *T, float x0, float per_x, float y0,
             float per_y, float *x, float *y, float *z, float *u, float *v) {
    for (size_t i = 0; i < count; ++i) {
        const float dx = vertex[3 * i] - T[3], dy = vertex[3 * i + 1] - T[7], dz = vertex[3 * i + 2] - T[11];
        const float px = T[0] * dx + T[4] * dy + T[8] * dz;
        const float py = T[1] * dx + T[5] * dy + T[9] * dz;
        const float pz = T[2] * dx + T[6] * dy + T[10] * dz;
        x[i] = px, y[i] = py, z[i] = pz;
        u[i] = (px / pz - x0) * per_x, v[i] = (py / pz - y0) * per_y;
    }
}

struct Plane {
    float A[3], B[3], C[3];  // edges: A x + B y + C of a ray (x, y, 1)
    float nx, ny, nz, height, least, most;
};

INLINE void fill(const Plane &p, const float *x, int c0, int c1, const float *y, int r0, int r1, int width,
          float *out, int32_t number, int32_t *faces) {
    for (int r = r0; r <= r1; ++r) {
        const float e0 = p.B[0] * y[r] + p.C[0], e1 = p.B[1] * y[r] + p.C[1], e2 = p.B[2] * y[r] + p.C[2];
        const float n = p.ny * y[r] + p.nz;
        float *row = out + size_t(r) * width;
        for (int c = c0; c <= c1; ++c) {
            const float a = p.A[0] * x[c] + e0, b = p.A[1] * x[c] + e1, d = p.A[2] * x[c] + e2;
            float t = p.height / (p.nx * x[c] + n);
            t = t < p.least ? p.least : t;
            t = t > p.most ? p.most : t;
            const bool inside = ((a >= 0) & (b >= 0) & (d >= 0)) | ((a <= 0) & (b <= 0) & (d <= 0));
            const bool nearer = inside & (t > 0) & (t < row[c]);  // NaN: the camera lies in the plane
            row[c] = nearer ? t : row[c];
            if (faces) faces[size_t(r) * width + c] = nearer ? number : faces[size_t(r) * width + c];
        }
    }
}

EVERY_PROCESSOR
void draw(const Corners &p, const int32_t *face, size_t faces, const float *x, int width, const float *y, int height,
          float *image, int32_t *number) {
    for (size_t f = 0; f < faces; ++f) {
        const int32_t *k = face + 3 * f;
        const float z0 = std::min({p.z[k[0]], p.z[k[1]], p.z[k[2]]});
        const float z1 = std::max({p.z[k[0]], p.z[k[1]], p.z[k[2]]});
        if (!(z1 > 0)) continue;
        int c0 = 0, c1 = width - 1, r0 = 0, r1 = height - 1;
        if (z0 >= NEAR) {
            const float u0 = std::min({p.u[k[0]], p.u[k[1]], p.u[k[2]]}), u1 = std::max({p.u[k[0]], p.u[k[1]], p.u[k[2]]});
            const float v0 = std::min({p.v[k[0]], p.v[k[1]], p.v[k[2]]}), v1 = std::max({p.v[k[0]], p.v[k[1]], p.v[k[2]]});
            if (!(u1 >= 0 && v1 >= 0 && u0 <= float(c1) && v0 <= float(r1))) continue;
            c0 = int(std::ceil(std::max(u0 - MARGIN, 0.0f))), r0 = int(std::ceil(std::max(v0 - MARGIN, 0.0f)));
            c1 = int(std::floor(std::min(u1 + MARGIN, float(c1)))), r1 = int(std::floor(std::min(v1 + MARGIN, float(r1))));
            if (c0 > c1 || r0 > r1) continue;
        }
        Plane plane;
        for (int i = 0; i < 3; ++i) {
            const int32_t a = k[i], b = k[(i + 1) % 3];
            plane.A[i] = p.y[a] * p.z[b] - p.y[b] * p.z[a];
            plane.B[i] = p.z[a] * p.x[b] - p.z[b] * p.x[a];
            plane.C[i] = p.x[a] * p.y[b] - p.x[b] * p.y[a];
        }
        const float ux = p.x[k[1]] - p.x[k[0]], uy = p.y[k[1]] - p.y[k[0]], uz = p.z[k[1]] - p.z[k[0]];
        const float vx = p.x[k[2]] - p.x[k[0]], vy = p.y[k[2]] - p.y[k[0]], vz = p.z[k[2]] - p.z[k[0]];
        plane.nx = uy * vz - uz * vy, plane.ny = uz * vx - ux * vz, plane.nz = ux * vy - uy * vx;
        plane.height = plane.nx * p.x[k[0]] + plane.ny * p.y[k[0]] + plane.nz * p.z[k[0]];
        plane.least = z0, plane.most = z1;
        fill(plane, x, c0, c1, y, r0, r1, width, image, int32_t(f), number);
    }
}

EVERY_PROCESSOR
void table(const float *T, const float *x, int width, const float *y, int height, float *out, int32_t *faces) {
    for (int r = 0; r < height; ++r)
        for (int c = 0; c < width; ++c) {
            const float down = T[8] * x[c] + T[9] * y[r] + T[10], t = -T[11] / down;
            float *at = out + size_t(r) * width + c;
            const bool under = (t > 0) & (t < *at);
            *at = under ? t : *at;
            if (faces && under) faces[size_t(r) * width + c] = -1;
            *at = *at < INFINITY ? *at : 0.0f;
        }
}

void rasterise(Points vertices, Triangles faces, Pose pose, Row xs, Row ys, Image out, Numbers out_face) {
    const size_t count = vertices.shape(0), width = xs.shape(0), height = ys.shape(0);
    if (out.shape(0) != height || out.shape(1) != width || width < 2 || height < 2)
        throw std::invalid_argument("rasterise: x, y and out disagree, or the image is too small");
    const float *x = xs.data(), *y = ys.data(), *T = pose.data();
    const int32_t *face = faces.data();
    float *image = out.data();
    for (size_t i = 0; i < 3 * size_t(faces.shape(0)); ++i)
        if (face[i] < 0 || size_t(face[i]) >= count)
            throw std::invalid_argument("rasterise: a face names a vertex that is not there");
    const bool named = out_face.size() > 0;  // an empty one: no faces are asked for
    if (named && (out_face.shape(0) != height || out_face.shape(1) != width))
        throw std::invalid_argument("rasterise: the image of faces has another shape than out");
    int32_t *number = named ? out_face.data() : nullptr;

    nb::gil_scoped_release release;
    std::fill(image, image + width * height, INFINITY);
    if (number) std::fill(number, number + width * height, -1);
    const float per_x = float(width - 1) / (x[width - 1] - x[0]), per_y = float(height - 1) / (y[height - 1] - y[0]);
    Corners p;
    for (auto *array : {&p.x, &p.y, &p.z, &p.u, &p.v}) array->resize(count);
    project(vertices.data(), count, T, x[0], per_x, y[0], per_y, p.x.data(), p.y.data(), p.z.data(), p.u.data(),
            p.v.data());
    draw(p, face, faces.shape(0), x, int(width), y, int(height), image, number);
    table(T, x, int(width), y, int(height), image, number);
}

// Greatest height of the mesh over the points (x[i], y[j]), at least 0: seen straight down.
void height_map(Points vertices, Triangles faces, Row xs, Row ys, Image out) {
    const size_t count = vertices.shape(0), rows = xs.shape(0), columns = ys.shape(0);
    if (out.shape(0) != rows || out.shape(1) != columns || rows < 2 || columns < 2)
        throw std::invalid_argument("height_map: x, y and out disagree, or the map is too small");
    const float *x = xs.data(), *y = ys.data(), *vertex = vertices.data();
    float *image = out.data();
    const int32_t *face = faces.data();

    nb::gil_scoped_release release;
    std::fill(image, image + rows * columns, 0.0f);
    const float per_x = float(rows - 1) / (x[rows - 1] - x[0]), per_y = float(columns - 1) / (y[columns - 1] - y[0]);
    for (size_t f = 0; f < size_t(faces.shape(0)); ++f, face += 3) {
        float px[3], py[3], pz[3];
        for (int i = 0; i < 3; ++i) {
            if (face[i] < 0 || size_t(face[i]) >= count) return;
            const float *at = vertex + 3 * size_t(face[i]);
            px[i] = at[0], py[i] = at[1], pz[i] = at[2];
        }
        const float u0 = (std::min({px[0], px[1], px[2]}) - x[0]) * per_x, u1 = (std::max({px[0], px[1], px[2]}) - x[0]) * per_x;
        const float v0 = (std::min({py[0], py[1], py[2]}) - y[0]) * per_y, v1 = (std::max({py[0], py[1], py[2]}) - y[0]) * per_y;
        if (!(u1 >= 0 && v1 >= 0 && u0 <= float(rows - 1) && v0 <= float(columns - 1))) continue;
        const int r0 = int(std::ceil(std::max(u0 - MARGIN, 0.0f))), c0 = int(std::ceil(std::max(v0 - MARGIN, 0.0f)));
        const int r1 = int(std::floor(std::min(u1 + MARGIN, float(rows - 1))));
        const int c1 = int(std::floor(std::min(v1 + MARGIN, float(columns - 1))));
        if (r0 > r1 || c0 > c1) continue;
        float A[3], B[3], C[3];
        for (int i = 0; i < 3; ++i) {
            const int k = (i + 1) % 3;
            A[i] = py[i] - py[k], B[i] = px[k] - px[i], C[i] = px[i] * py[k] - px[k] * py[i];
        }
        const float ux = px[1] - px[0], uy = py[1] - py[0], uz = pz[1] - pz[0];
        const float vx = px[2] - px[0], vy = py[2] - py[0], vz = pz[2] - pz[0];
        const float nx = uy * vz - uz * vy, ny = uz * vx - ux * vz, nz = ux * vy - uy * vx;
        const float least = std::min({pz[0], pz[1], pz[2]}), most = std::max({pz[0], pz[1], pz[2]});
        for (int r = r0; r <= r1; ++r)
            for (int c = c0; c <= c1; ++c) {
                const float a = A[0] * x[r] + (B[0] * y[c] + C[0]), b = A[1] * x[r] + (B[1] * y[c] + C[1]);
                const float d = A[2] * x[r] + (B[2] * y[c] + C[2]);
                if (!((a >= 0 && b >= 0 && d >= 0) || (a <= 0 && b <= 0 && d <= 0))) continue;
                float h = pz[0] - (nx * (x[r] - px[0]) + ny * (y[c] - py[0])) / nz;
                h = h < least ? least : h;
                h = h > most ? most : h;
                float &at = image[size_t(r) * columns + c];
                if (h > at) at = h;  // NaN: a vertical face, whose edge its neighbours have too
            }
    }
}

}  // namespace

void bind_raster(nb::module_ &m) {
    m.def("rasterise", &rasterise, nb::arg("vertices").noconvert(), nb::arg("faces").noconvert(),
          nb::arg("pose").noconvert(), nb::arg("x").noconvert(), nb::arg("y").noconvert(),
          nb::arg("out").noconvert(), nb::arg("out_face").noconvert(), "Depth (H, W) of a mesh over the table; see sim.scene.raster.");
    m.def("height_map", &height_map, nb::arg("vertices").noconvert(), nb::arg("faces").noconvert(),
          nb::arg("x").noconvert(), nb::arg("y").noconvert(), nb::arg("out").noconvert(),
          "Heights of a mesh over points of a grid; see sim.scene.raster.");
}
