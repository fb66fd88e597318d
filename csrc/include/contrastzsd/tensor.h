// A contiguous float array that is passed on without a copy.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace contrastzsd {

struct Tensor {
  std::vector<std::int64_t> shape;
  std::shared_ptr<float> data;  // copies of a Tensor share it

  // Memory that is not zeroed, taken from the blocks that earlier results gave back.
  static Tensor make(std::vector<std::int64_t> shape);

  std::int64_t size() const {
    std::int64_t product = 1;
    for (const std::int64_t side : shape) product *= side;
    return product;
  }
  // Elements behind one index of the first axis.
  std::int64_t row() const { return shape.empty() || shape[0] == 0 ? 0 : size() / shape[0]; }
};

}  // namespace contrastzsd
