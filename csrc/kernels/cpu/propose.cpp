#include "../propose.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "../fuse.h"
#include "../nms.h"
#include "thread_pool.h"

namespace zsd {
namespace {

struct Candidate {
  float logit;
  std::int64_t index;  // (y W + x) A + a

  bool operator<(const Candidate& other) const {
    return logit != other.logit ? logit > other.logit : index < other.index;
  }
};

// The best pre_nms_top of one image's logits (A, H, W), in order.
std::vector<Candidate> best_candidates(const ProposeParams& p, const float* logits) {
  const std::int64_t cells = p.height * p.width;
  std::vector<Candidate> all;
  all.reserve(std::size_t(cells * p.anchors));
  for (std::int64_t a = 0; a < p.anchors; ++a)
    for (std::int64_t cell = 0; cell < cells; ++cell) {
      const float logit = logits[a * cells + cell];
      if (!std::isnan(logit)) all.push_back({logit, cell * p.anchors + a});
    }
  if (std::int64_t(all.size()) > p.pre_nms_top) {
    std::nth_element(all.begin(), all.begin() + p.pre_nms_top, all.end());
    all.resize(std::size_t(p.pre_nms_top));
  }
  std::sort(all.begin(), all.end());
  return all;
}

}  // namespace

void propose(const ProposeParams& p, const float* objectness, const float* deltas,
             const float* anchors, const float* image_sizes, float* rois, float* scores,
             std::int32_t* counts) {
  const std::int64_t cells = p.height * p.width;
  parallel_for(p.batch, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      const std::vector<Candidate> best = best_candidates(p, objectness + b * p.anchors * cells);
      BoxColumns boxes(std::int64_t(best.size()));
      std::vector<float> logits;
      for (const Candidate& candidate : best) {
        const std::int64_t a = candidate.index % p.anchors, cell = candidate.index / p.anchors;
        const float* offset = deltas + (b * p.anchors + a) * 4 * cells + cell;
        const Box anchor = anchor_box(anchors, a, cell / p.width, cell % p.width, p.stride);
        const Box box = clip_box(decode_box(anchor, offset[0], offset[cells], offset[2 * cells],
                                            offset[3 * cells], 1.0f, 1.0f),
                                 image_sizes[2 * b], image_sizes[2 * b + 1]);
        if (!has_min_size(box, p.min_size)) continue;
        boxes.push(box);
        logits.push_back(candidate.logit);
      }
      std::vector<std::int64_t> kept(static_cast<std::size_t>(p.post_nms_top));
      const std::int64_t count = nms_sorted(boxes, p.nms_threshold, p.post_nms_top, kept.data());
      counts[b] = std::int32_t(count);
      for (std::int64_t i = 0; i < count; ++i) {
        const Box box = boxes.at(kept[std::size_t(i)]);
        float* to = rois + (b * p.post_nms_top + i) * 4;
        to[0] = box.x1, to[1] = box.y1, to[2] = box.x2, to[3] = box.y2;
        scores[b * p.post_nms_top + i] = sigmoid(logits[std::size_t(kept[std::size_t(i)])]);
      }
    }
  });
}

}  // namespace zsd
