// Greedy non-maximum suppression of boxes that are already in order, best first.
//
//   boxes    (n, 4)  float
//   kept     at most `most` positions, ascending; the number kept is returned
//
// Meaning     a box goes when its IoU with a kept one is above the threshold.
// Twin        zsd_core/kernels/reference.py::nms; change both in one commit.
#pragma once

#include <cstdint>
#include <vector>

#include "boxes.h"

namespace zsd {

// Boxes by coordinate, so that one is compared with many at once.
class BoxColumns {
 public:
  explicit BoxColumns(std::int64_t capacity);
  void push(const Box& box);
  Box at(std::int64_t i) const { return {x1_[i], y1_[i], x2_[i], y2_[i]}; }
  std::int64_t size() const { return size_; }
  // suppressed[j - begin] |= iou(box i, box j) > limit, for j in [begin, end).
  void suppress(std::int64_t i, std::int64_t begin, std::int64_t end, float limit,
                std::uint8_t* suppressed) const;

 private:
  std::vector<float> x1_, y1_, x2_, y2_, area_;
  std::int64_t size_ = 0;
};

std::int64_t nms_sorted(const BoxColumns& boxes, double threshold, std::int64_t most,
                        std::int64_t* kept);

// Positions 0 .. n - 1 by descending score, ties by position, NaN last.
std::vector<std::int64_t> order_by_score(const float* scores, std::int64_t count);

}  // namespace zsd
