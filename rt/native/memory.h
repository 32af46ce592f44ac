// Memory of an engine: one zeroed block that is cut into arrays when the engine is made.
#pragma once
#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

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
