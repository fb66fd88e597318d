// Regions that a given detector offers: the best of them, and those worth a second look.
//
//   boxes        (B, Q, 4)   float  x1 y1 x2 y2 as shares of the network input's width and height
//   logits       (B, Q, Ks)  float  of the seen classes, before the sigmoid
//   image_sizes  (B, 2)      float  height, width of the resized images
//
// Meaning     the best `count` queries of an image by their highest logit, ties by the lower index,
//             NaN last; of these the ones whose box has the least size. Of the regions that are
//             left, an image's best `count` that survive NMS are looked at again.
// Twin        zsd_core/kernels/offered.py::top_regions, second_look; change both in one commit.
#pragma once

#include <cstdint>

#include "boxes.h"

namespace zsd {

struct TopRegionsParams {
  std::int64_t batch, queries, classes, count;  // B, Q, Ks
  float min_size;
};

struct SecondLookParams {
  std::int64_t regions, batch, count;  // R, B
  double nms_threshold;
};

// A box of shares in pixels, clipped to its image.
ZSD_HD Box offered_box(const float* shares, const float* image_size) {
  const float height = image_size[0], width = image_size[1];
  return {clip(shares[0], 1.0f) * width, clip(shares[1], 1.0f) * height,
          clip(shares[2], 1.0f) * width, clip(shares[3], 1.0f) * height};
}

}  // namespace zsd
