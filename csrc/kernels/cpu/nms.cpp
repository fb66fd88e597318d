#include "../nms.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace zsd {
namespace {

ZSD_CLONES void suppress_columns(const float* x1, const float* y1, const float* x2, const float* y2,
                                 const float* area, const Box& box, float own, std::int64_t count,
                                 float limit, std::uint8_t* suppressed) {
  for (std::int64_t j = 0; j < count; ++j)
    suppressed[j] |= iou(box, {x1[j], y1[j], x2[j], y2[j]}, own, area[j]) > limit;
}

}  // namespace

BoxColumns::BoxColumns(std::int64_t capacity) {
  for (auto* column : {&x1_, &y1_, &x2_, &y2_, &area_}) column->resize(std::size_t(capacity));
}

void BoxColumns::push(const Box& box) {
  const std::size_t i = std::size_t(size_++);
  x1_[i] = box.x1;
  y1_[i] = box.y1;
  x2_[i] = box.x2;
  y2_[i] = box.y2;
  area_[i] = area(box);
}

void BoxColumns::suppress(std::int64_t i, std::int64_t begin, std::int64_t end, float limit,
                          std::uint8_t* suppressed) const {
  suppress_columns(x1_.data() + begin, y1_.data() + begin, x2_.data() + begin, y2_.data() + begin,
                   area_.data() + begin, at(i), area_[std::size_t(i)], end - begin, limit,
                   suppressed);
}

std::int64_t nms_sorted(const BoxColumns& boxes, double threshold, std::int64_t most,
                        std::int64_t* kept) {
  const float limit = iou_limit(threshold);
  const std::int64_t size = boxes.size();
  std::vector<std::uint8_t> suppressed(std::size_t(size), 0);
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < size && count < most; ++i) {
    if (suppressed[std::size_t(i)]) continue;
    kept[count++] = i;
    boxes.suppress(i, i + 1, size, limit, suppressed.data() + i + 1);
  }
  return count;
}

std::vector<std::int64_t> order_by_score(const float* scores, std::int64_t count) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    const bool a_nan = std::isnan(scores[a]), b_nan = std::isnan(scores[b]);
    return a_nan || b_nan ? b_nan && !a_nan : scores[a] > scores[b];
  });
  return order;
}

}  // namespace zsd
