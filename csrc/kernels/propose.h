// Region proposals: best anchors, decoded, clipped, filtered, NMS.
//
//   objectness   (B, A, H, W)   float  logits; NaN is never proposed
//   deltas       (B, 4A, H, W)  float  channel 4a + k: dx dy dw dh of anchor a
//   anchors      (A, 4)         float  of the cell at the origin
//   image_sizes  (B, 2)         float  height, width to clip to
//
// Order       by logit, ties by the flat index (y W + x) A + a; images one after the other.
// Capacity    at most post_nms_top regions of an image: rois (B post_nms_top, 4), counts (B,).
// Twin        zsd_core/kernels/reference.py::propose; change both in one commit.
#pragma once

#include <cstdint>

#include "boxes.h"

namespace zsd {

struct ProposeParams {
  std::int64_t batch, anchors, height, width;
  std::int64_t pre_nms_top, post_nms_top;
  int stride;
  double nms_threshold;
  float min_size;
};

// Anchor `a` in the cell of row y and column x.
ZSD_HD Box anchor_box(const float* anchors, std::int64_t a, std::int64_t y, std::int64_t x,
                      int stride) {
  const float dx = float(x * stride), dy = float(y * stride);
  const float* box = anchors + 4 * a;
  return {box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy};
}

// Writes image b's regions to rois + 4 b post_nms_top and scores + b post_nms_top, best first,
// and how many there are to counts[b].
void propose(const ProposeParams& params, const float* objectness, const float* deltas,
             const float* anchors, const float* image_sizes, float* rois, float* scores,
             std::int32_t* counts);

}  // namespace zsd
