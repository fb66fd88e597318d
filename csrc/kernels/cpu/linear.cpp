#include "../linear.h"

#include <algorithm>

#include "simd.h"
#include "thread_pool.h"

namespace zsd {
namespace {

// Rows of a task: enough of them that a panel of weights, once in the cache, is read often.
constexpr std::int64_t kRows = 24;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// (count, depth) to (panels, depth, width); `to` holds zeros.
void interleave(std::int64_t count, std::int64_t depth, std::int64_t width, const float* rows,
                float* to) {
  for (std::int64_t i = 0; i < count; ++i)
    for (std::int64_t d = 0; d < depth; ++d)
      to[(i / width * depth + d) * width + i % width] = rows[i * depth + d];
}

}  // namespace

PackedLinear::PackedLinear(const float* weight, std::int64_t outputs, std::int64_t inputs)
    : kernels_(&simd()), outputs_(outputs), inputs_(inputs) {
  const std::int64_t columns = kernels_->tile_columns;
  weight_.resize(std::size_t(ceil_div(outputs, columns) * inputs * columns));
  interleave(outputs, inputs, columns, weight, weight_.data());
  for (std::int64_t d = 0; d < inputs; ++d) offsets_.push_back(std::int32_t(d * columns));
}

void PackedLinear::multiply(std::int64_t num_rows, const float* rows, float* output) const {
  parallel_for(num_rows, kRows, [&](std::int64_t begin, std::int64_t end) {
    multiply_chunk(end - begin, rows + begin * inputs_, output + begin * outputs_);
  });
}

void PackedLinear::multiply_chunk(std::int64_t num_rows, const float* rows, float* output) const {
  const std::int64_t height = kernels_->tile_rows, columns = kernels_->tile_columns;
  if (num_rows == 1) {  // one class more: a tile would be almost empty
    const std::int64_t panels = ceil_div(outputs_, columns);
    std::vector<float> sums(std::size_t(panels * columns));
    kernels_->multiply_row(rows, weight_.data(), inputs_, panels, sums.data());
    std::copy_n(sums.data(), outputs_, output);
    return;
  }
  const std::int64_t panels = ceil_div(num_rows, height);
  std::vector<float> packed(std::size_t(panels * inputs_ * height));
  std::vector<float> sums(std::size_t(panels * height * columns));
  interleave(num_rows, inputs_, height, rows, packed.data());
  for (std::int64_t first = 0; first < outputs_; first += columns) {
    const float* weights = weight_.data() + first * inputs_;
    const float* next = first + columns < outputs_ ? weights + inputs_ * columns : weights;
    // The first of several blocks of an MLP leaves its sums as they are.
    kernels_->mlp_tiles({packed.data(), weights, next, offsets_.data(), nullptr, inputs_, panels,
                         sums.data(), nullptr, nullptr, sums.data(), true, false});
    const std::int64_t count = std::min(columns, outputs_ - first);
    for (std::int64_t n = 0; n < num_rows; ++n)
      std::copy_n(sums.data() + n * columns, count, output + n * outputs_ + first);
  }
}

}  // namespace zsd
