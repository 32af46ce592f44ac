// Arrays from Python, judged by type and size.
#pragma once
#include <nanobind/nanobind.h>

#include <string>
#include <string_view>

namespace nb = nanobind;

template <class A> void require(const char *name, const A &array, size_t size) {
    if (array.size() != size)
        throw nb::value_error((std::string(name) + " has " + std::to_string(array.size()) +
                               " numbers, must have " + std::to_string(size)).c_str());
}

// A contiguous float32 array through the buffer protocol, which allocates nothing (nb::ndarray does).
struct Buffer {
    const char *name;
    Py_buffer view;
    float *data;
    size_t size;

    Buffer(const char *name, nb::handle array, bool writable = false) : name(name) {
        int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
        if (PyObject_GetBuffer(array.ptr(), &view, flags) != 0) throw nb::python_error();
        data = static_cast<float *>(view.buf);
        size = view.len / sizeof(float);
        if (std::string_view(view.format ? view.format : "B") != "f") {
            PyBuffer_Release(&view);
            throw nb::type_error((std::string(name) + " must be float32").c_str());
        }
    }
    Buffer(const Buffer &) = delete;
    ~Buffer() { PyBuffer_Release(&view); }
    void require(size_t wanted) const {
        if (size != wanted)
            throw nb::value_error((std::string(name) + " has " + std::to_string(size) +
                                   " numbers, must have " + std::to_string(wanted)).c_str());
    }
};
