// Detections from scored regions: decode, clip, threshold, NMS per class, best of an image.
//
//   class_scores   (R, C)  float  foreground; NaN is never kept
//   deltas         (R, 4)  float  weights 10 10 5 5, the same for every class
//   rois           (R, 4)  float
//   batch_indices  (R,)    int32
//   image_sizes    (B, 2)  float  height, width to clip to
//   thresholds     (C,)    float  a pair is kept when its score is above
//
// Order       images one after the other; by score, ties by (region, column).
// Capacity    at most max_detections of an image: boxes (B max_detections, 4), counts (B,).
// Twin        zsd_core/kernels/reference.py::detect; change both in one commit.
#pragma once

#include <cstdint>

#include "boxes.h"

namespace zsd {

struct DetectParams {
  std::int64_t regions, classes, batch, max_detections;
  double nms_threshold;
  float min_size;
};

// A region's final box, clipped to its image.
ZSD_HD Box refine_box(const float* roi, const float* delta, const float* image_size) {
  const Box box = decode_box({roi[0], roi[1], roi[2], roi[3]}, delta[0], delta[1], delta[2],
                             delta[3], 10.0f, 5.0f);
  return clip_box(box, image_size[0], image_size[1]);
}

// Writes image b's detections from position b max_detections on, and how many to counts[b].
void detect(const DetectParams& params, const float* class_scores, const float* deltas,
            const float* rois, const std::int32_t* batch_indices, const float* image_sizes,
            const float* thresholds, float* boxes, float* scores, std::int32_t* columns,
            std::int32_t* counts);

}  // namespace zsd
