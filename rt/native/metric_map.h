// The choice of the metric map's kernel, and room for one drawing.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "metric_map_kernel.h"

namespace metric_map_kernel {

std::vector<std::string> isas();                  // of this processor, best first
const Kernel &find_kernel(const std::string &isa);  // '' for the best; throws std::invalid_argument

// Cut from one piece, which nothing sets to zero first; taken once, used for any number of drawings.
class Room {
  public:
    Room(int pixels, int cells);
    Scratch scratch{};

  private:
    void *take(size_t count);
    std::unique_ptr<char[]> bytes_;
    size_t used_ = 0;
};

}  // namespace metric_map_kernel
