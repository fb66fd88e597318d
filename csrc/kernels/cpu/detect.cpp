#include "../detect.h"

#include <algorithm>
#include <vector>

#include "../nms.h"
#include "thread_pool.h"

namespace zsd {
namespace {

struct Pair {
  float score;
  std::int32_t region, column;

  bool operator<(const Pair& other) const {
    if (score != other.score) return score > other.score;
    return region != other.region ? region < other.region : column < other.column;
  }
};

// Pairs of one image that survive their class's NMS; `regions` are its regions with a valid box.
void suppress_class(const DetectParams& p, const std::vector<Box>& boxes,
                    std::vector<Pair>& candidates, std::vector<Pair>& survivors) {
  std::sort(candidates.begin(), candidates.end());
  BoxColumns columns(std::int64_t(candidates.size()));
  for (const Pair& pair : candidates) columns.push(boxes[std::size_t(pair.region)]);
  std::vector<std::int64_t> kept(candidates.size());
  // More than max_detections of one class never leave the image.
  const std::int64_t count =
      nms_sorted(columns, p.nms_threshold,
                 std::min(p.max_detections, std::int64_t(candidates.size())), kept.data());
  for (std::int64_t i = 0; i < count; ++i)
    survivors.push_back(candidates[std::size_t(kept[std::size_t(i)])]);
}

}  // namespace

void detect(const DetectParams& p, const float* class_scores, const float* deltas,
            const float* rois, const std::int32_t* batch_indices, const float* image_sizes,
            const float* thresholds, float* boxes, float* scores, std::int32_t* columns,
            std::int32_t* counts) {
  std::vector<Box> refined(static_cast<std::size_t>(p.regions));
  std::vector<std::vector<std::int32_t>> members(static_cast<std::size_t>(p.batch));
  for (std::int64_t r = 0; r < p.regions; ++r) {
    const float* size = image_sizes + 2 * batch_indices[r];
    refined[std::size_t(r)] = refine_box(rois + 4 * r, deltas + 4 * r, size);
    if (has_min_size(refined[std::size_t(r)], p.min_size))
      members[std::size_t(batch_indices[r])].push_back(std::int32_t(r));
  }
  parallel_for(p.batch, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      std::vector<std::vector<Pair>> by_class(static_cast<std::size_t>(p.classes));
      for (const std::int32_t r : members[std::size_t(b)]) {
        const float* row = class_scores + r * p.classes;
        for (std::int64_t c = 0; c < p.classes; ++c)
          if (row[c] > thresholds[c])
            by_class[std::size_t(c)].push_back({row[c], r, std::int32_t(c)});
      }
      std::vector<Pair> survivors;
      for (std::vector<Pair>& candidates : by_class)
        suppress_class(p, refined, candidates, survivors);
      const std::int64_t count = std::min(p.max_detections, std::int64_t(survivors.size()));
      std::partial_sort(survivors.begin(), survivors.begin() + count, survivors.end());
      counts[b] = std::int32_t(count);
      for (std::int64_t i = 0; i < count; ++i) {
        const Pair& pair = survivors[std::size_t(i)];
        const Box& box = refined[std::size_t(pair.region)];
        const std::int64_t at = b * p.max_detections + i;
        boxes[4 * at] = box.x1, boxes[4 * at + 1] = box.y1;
        boxes[4 * at + 2] = box.x2, boxes[4 * at + 3] = box.y2;
        scores[at] = pair.score;
        columns[at] = pair.column;
      }
    }
  });
}

}  // namespace zsd
