// Box arithmetic of propose, detect and nms: one definition, for host and device.
//
//   boxes       x1 y1 x2 y2, pixels of the network input unless said otherwise
//   deltas      dx dy dw dh in units of the box's size
//
// Edges       NaN survives decoding and clipping, and such a box fails has_min_size. 0 / 0 as IoU
//             is NaN, which suppresses nothing.
// Twin        zsd_core/kernels/reference.py::decode_boxes, clip_boxes, iou; change both together.
#pragma once

#include <cmath>

#include "common.h"

namespace zsd {

struct Box {
  float x1, y1, x2, y2;
};

// exp cannot overflow above it: log(1000 / 16), Faster R-CNN's constant.
constexpr float kLogSizeLimit = 4.135166556742356f;

// Faster R-CNN's coding with signed offsets; `xy` and `wh` divide the offsets.
ZSD_HD Box decode_box(const Box& box, float dx, float dy, float dw, float dh, float xy, float wh) {
  const float width = box.x2 - box.x1, height = box.y2 - box.y1;
  const float x = dx / xy * width + (box.x1 + width * 0.5f);
  const float y = dy / xy * height + (box.y1 + height * 0.5f);
  dw /= wh;
  dh /= wh;
  const float half_w = expf(dw > kLogSizeLimit ? kLogSizeLimit : dw) * width * 0.5f;
  const float half_h = expf(dh > kLogSizeLimit ? kLogSizeLimit : dh) * height * 0.5f;
  return {x - half_w, y - half_h, x + half_w, y + half_h};
}

// Comparisons are written so that NaN stays NaN.
ZSD_HD float clip(float value, float limit) {
  value = value < 0.0f ? 0.0f : value;
  return value > limit ? limit : value;
}

ZSD_HD Box clip_box(const Box& box, float height, float width) {
  return {clip(box.x1, width), clip(box.y1, height), clip(box.x2, width), clip(box.y2, height)};
}

ZSD_HD bool has_min_size(const Box& box, float min_size) {
  return box.x2 - box.x1 >= min_size && box.y2 - box.y1 >= min_size;
}

ZSD_HD float area(const Box& box) { return (box.x2 - box.x1) * (box.y2 - box.y1); }

// Intersection over union; no pixel is added to any side.
ZSD_HD float iou(const Box& a, const Box& b, float area_a, float area_b) {
  const float width = smaller(a.x2, b.x2) - larger(a.x1, b.x1);
  const float height = smaller(a.y2, b.y2) - larger(a.y1, b.y1);
  const float common = (width > 0.0f ? width : 0.0f) * (height > 0.0f ? height : 0.0f);
  return common / (area_a + area_b - common);
}

// The float limit that `iou > limit` needs to mean the same as a comparison in double.
inline float iou_limit(double threshold) {
  const float limit = float(threshold);
  return double(limit) > threshold ? std::nextafter(limit, -1.0f) : limit;
}

}  // namespace zsd
