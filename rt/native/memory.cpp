#include "memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>

namespace {
constexpr size_t HUGE_PAGE = 2 << 20;
}

Memory::Memory(size_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
    size_t align = bytes >= HUGE_PAGE ? HUGE_PAGE : 64;
    size_t rounded = (bytes + align - 1) / align * align;
    data_ = static_cast<char *>(std::aligned_alloc(align, rounded));
    if (!data_) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    if (align == HUGE_PAGE) madvise(data_, rounded, MADV_HUGEPAGE);
#endif
    std::memset(data_, 0, rounded);  // touched here, not in the loop
}

Memory::~Memory() {
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(data_, used_);
#endif
    std::free(data_);
}
