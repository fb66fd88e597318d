#include "../product_mlp.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>

#include "simd.h"
#include "thread_pool.h"

namespace zsd {
namespace {

// Entries of d at a time: a panel of weight1 stays in the first-level cache.
constexpr std::int64_t kDepth[] = {256, 1024};  // by MlpPrecision
// Regions at a time: their products stay in the second-level cache.
constexpr std::int64_t kRows = 192;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
std::int64_t round_up(std::int64_t a, std::int64_t b) { return ceil_div(a, b) * b; }

// What one thread needs for one class and one block of regions.
struct Workspace {
  std::vector<std::int32_t> entries, offsets;  // d of the entries that are not 0
  std::vector<float> values, sums;
  std::vector<float> products, hidden, gathered;
  std::vector<std::int32_t> products_int8, hidden_int8;
  std::vector<float> scales, factors, projections;  // by row, the last by scorer too
};

template <typename T>
T* grow(std::vector<T>& buffer, std::int64_t size) {
  if (std::int64_t(buffer.size()) < size) buffer.resize(std::size_t(size));
  return buffer.data();
}

}  // namespace

PackedMlp::PackedMlp(const MlpWeights& w, MlpPrecision precision)
    : kernels_(&simd()),
      precision_(precision),
      joint_(w.joint),
      hidden_(w.hidden),
      bias2_(*w.bias2) {
  const bool int8 = precision == MlpPrecision::kInt8;
  const std::int64_t columns = kernels_->tile_columns;
  panels_ = ceil_div(hidden_, columns);
  if (int8) {
    find_direction(w);
    weight1_int8_.resize(std::size_t(panels_ * round_up(joint_, kInt8Block) * columns));
  } else {
    weight1_.resize(std::size_t(panels_ * joint_ * columns));
  }
  for (auto* vector : {&bias1_, &weight2_, &column_scales_, &slopes_})
    vector->resize(std::size_t(panels_ * columns));
  std::copy(w.bias1, w.bias1 + hidden_, bias1_.begin());
  std::copy(w.weight2, w.weight2 + hidden_, weight2_.begin());
  parallel_for(hidden_, columns, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t m = begin; m < end; ++m) {
      const float* row = w.weight1 + m * joint_;
      if (int8) {
        pack_row_int8(row, m);
        continue;
      }
      float* to = weight1_.data() + m / columns * joint_ * columns + m % columns;
      for (std::int64_t d = 0; d < joint_; ++d) to[d * columns] = row[d];
    }
  });
}

void PackedMlp::find_direction(const MlpWeights& w) {
  std::vector<double> sum(std::size_t(joint_), 0.0);
  for (std::int64_t m = 0; m < hidden_; ++m)
    for (std::int64_t d = 0; d < joint_; ++d)
      sum[std::size_t(d)] += double(w.weight2[m]) * w.weight1[m * joint_ + d];
  double squares = 0.0;
  for (const double value : sum) squares += value * value;
  for (const double value : sum)
    direction_.push_back(squares > 0.0 ? float(value / std::sqrt(squares)) : 0.0f);
}

void PackedMlp::pack_row_int8(const float* weights, std::int64_t m) {
  double along = 0.0;
  for (std::int64_t d = 0; d < joint_; ++d)
    along += double(weights[d]) * direction_[std::size_t(d)];
  const float slope = slopes_[std::size_t(m)] = float(along);
  std::vector<float> row(weights, weights + joint_);
  for (std::int64_t d = 0; d < joint_; ++d) {
    float& rest = row[std::size_t(d)];
    rest = float(rest - double(slope) * direction_[std::size_t(d)]);
  }
  const std::int64_t columns = kernels_->tile_columns;
  // Half a step of rounding for each of the entries of a sum.
  constexpr float kSum = float(kInt8SumLimit - kInt8Block / 4);
  float scale = 0.0f;
  for (std::int64_t block = 0; block < joint_; block += kInt8Block) {
    float positive[2] = {0, 0}, negative[2] = {0, 0};
    for (std::int64_t d = block; d < std::min(block + kInt8Block, joint_); ++d) {
      const std::int64_t sum = d / 2 % 2;
      positive[sum] += std::max(row[std::size_t(d)], 0.0f);
      negative[sum] += std::max(-row[std::size_t(d)], 0.0f);
      scale = std::max(scale, std::abs(row[std::size_t(d)]) / kInt8Levels);
    }
    for (const float total : {positive[0], positive[1], negative[0], negative[1]})
      scale = std::max(scale, total / kSum);
  }
  column_scales_[std::size_t(m)] = scale;
  if (!(scale > 0.0f)) return;
  std::int8_t* to =
      weight1_int8_.data() + m / columns * round_up(joint_, kInt8Block) * columns + m % columns * 4;
  for (std::int64_t d = 0; d < joint_; ++d)
    to[d / 4 * 4 * columns + d % 4] = std::int8_t(std::lrint(row[std::size_t(d)] / scale));
}

// One call: one task per class and block of regions.
class ProductMlpRun {
 public:
  ProductMlpRun(std::int64_t num_regions, std::int64_t num_classes, const float* regions,
                const float* prototypes, const std::vector<MlpOutput>& outputs,
                const std::uint8_t* wanted)
      : kernels_(*outputs[0].mlp->kernels_),
        int8_(outputs[0].mlp->precision_ == MlpPrecision::kInt8),
        rows_(int8_ ? kernels_.int8_rows : kernels_.tile_rows),
        num_regions_(num_regions),
        classes_(num_classes),
        joint_(outputs[0].mlp->joint_),
        regions_(regions),
        prototypes_(prototypes),
        wanted_(wanted),
        outputs_(outputs) {
    for (const MlpOutput& out : outputs_) most_panels_ = std::max(most_panels_, out.mlp->panels_);
  }

  void run() { wanted_ ? run_wanted() : run_all(); }

 private:
  // Regions of one task: the `count` from `first` on, or those of `ids`.
  struct Rows {
    const float* data;  // float32: (panels, D, rows_); int8: (count, D)
    std::int64_t first, count;
    const std::int32_t* ids;

    std::int64_t id(std::int64_t i) const { return ids ? ids[i] : first + i; }
  };

  // Some of a class's entries, for some panels of regions.
  struct Block {
    std::int64_t begin, count, panels;
    bool first, last;
  };

  void run_all() {
    const std::int64_t panels = ceil_div(num_regions_, rows_);
    const std::int64_t step = ceil_div(panels, ceil_div(num_regions_, kRows)) * rows_;
    std::vector<float> packed;
    if (!int8_) {
      packed.resize(std::size_t(panels * rows_ * joint_ + kernels_.width));
      parallel_for(num_regions_, rows_, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) put_row(r, r, packed.data());
      });
    }
    const float* data = int8_ ? regions_ : packed.data();
    const std::int64_t blocks = ceil_div(num_regions_, step);
    parallel_for(classes_ * blocks, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t task = begin; task < end; ++task) {
        const std::int64_t first = task % blocks * step;
        score(task / blocks,
              {data + first * joint_, first, std::min(step, num_regions_ - first), nullptr});
      }
    });
  }

  void run_wanted() {
    parallel_for(classes_, 1, [&](std::int64_t begin, std::int64_t end) {
      thread_local std::vector<std::int32_t> ids;
      thread_local std::vector<float> data;
      for (std::int64_t k = begin; k < end; ++k) {
        ids.clear();
        for (std::int64_t r = 0; r < num_regions_; ++r)
          if (wanted_[r * classes_ + k]) ids.push_back(std::int32_t(r));
        const std::int64_t size = std::int64_t(ids.size());
        for (std::int64_t first = 0; first < size; first += kRows) {
          const std::int64_t count = std::min(kRows, size - first);
          float* to = grow(data, round_up(count, rows_) * joint_ + kernels_.width);
          for (std::int64_t i = 0; i < count; ++i) put_row(ids[std::size_t(first + i)], i, to);
          score(k, {to, 0, count, ids.data() + first});
        }
      }
    });
  }

  // Region r as row i of a task's data.
  void put_row(std::int64_t r, std::int64_t i, float* to) const {
    const float* from = regions_ + r * joint_;
    if (int8_) {
      std::copy(from, from + joint_, to + i * joint_);
      return;
    }
    to += i / rows_ * rows_ * joint_ + i % rows_;
    for (std::int64_t d = 0; d < joint_; ++d) to[d * rows_] = from[d];
  }

  void score(std::int64_t k, const Rows& rows) const {
    thread_local Workspace space;
    const float* prototype = prototypes_ + k * joint_;
    const std::int64_t panels = ceil_div(rows.count, rows_);
    std::int64_t depth = joint_;
    if (int8_) {
      find_scales(rows, prototype, space);
      project(k, rows, prototype, space);
    } else {
      select_entries(prototype, space);
      depth = std::int64_t(space.entries.size());
    }
    const std::int64_t sums_size = panels * rows_ * kernels_.width;
    space.sums.assign(outputs_.size() * std::size_t(sums_size), 0.0f);

    const std::int64_t step = kDepth[int8_];
    std::int64_t begin = 0;
    do {  // also once for a prototype of zeros
      const Block block{begin, std::min(step, depth - begin), panels, begin == 0,
                        begin + step >= depth};
      pack(rows, prototype, block, space);
      for (std::size_t s = 0; s < outputs_.size(); ++s)
        if (k >= outputs_[s].first_class)
          multiply(*outputs_[s].mlp, std::int64_t(s), block, space.sums.data() + s * sums_size,
                   space);
      begin += step;
    } while (begin < depth);

    for (std::size_t s = 0; s < outputs_.size(); ++s)
      if (k >= outputs_[s].first_class)
        write(outputs_[s], k, rows, space.sums.data() + s * sums_size);
  }

  void find_scales(const Rows& rows, const float* prototype, Workspace& space) const {
    const std::int64_t padded = round_up(rows.count, rows_);
    float* scales = grow(space.scales, padded);
    float* factors = grow(space.factors, padded);
    kernels_.max_products(rows.data, joint_, rows.count, prototype, scales);
    for (std::int64_t r = 0; r < padded; ++r) {
      if (r >= rows.count) scales[r] = 0.0f;
      factors[r] = scales[r] > 0.0f ? kInt8Levels / scales[r] : 0.0f;
      scales[r] /= kInt8Levels;
    }
  }

  // Into space.projections, by scorer, of those that score class k.
  void project(std::int64_t k, const Rows& rows, const float* prototype, Workspace& space) const {
    const std::int64_t padded = round_up(rows.count, rows_);
    space.projections.assign(outputs_.size() * std::size_t(padded), 0.0f);
    space.values.resize(std::size_t(joint_));
    for (std::size_t s = 0; s < outputs_.size(); ++s) {
      if (k < outputs_[s].first_class) continue;
      const float* direction = outputs_[s].mlp->direction_.data();
      std::transform(direction, direction + joint_, prototype, space.values.begin(),
                     std::multiplies<>());
      kernels_.project(rows.data, joint_, rows.count, space.values.data(),
                       space.projections.data() + s * std::size_t(padded));
    }
  }

  void pack(const Rows& rows, const float* prototype, const Block& block, Workspace& space) const {
    const std::int64_t padded = block.panels * rows_;
    if (int8_) {
      const std::int64_t words = padded * round_up(block.count, kInt8Block) / 4;
      kernels_.pack_products_int8(rows.data, joint_, rows.count, prototype, block.begin,
                                  block.count, space.factors.data(),
                                  grow(space.products_int8, words));
    } else {
      kernels_.pack_products(rows.data, joint_, block.panels, space.entries.data() + block.begin,
                             space.values.data() + block.begin, block.count,
                             grow(space.products, padded * block.count + kernels_.width));
    }
  }

  void multiply(const PackedMlp& mlp, std::int64_t scorer, const Block& block, float* sums,
                Workspace& space) const {
    const std::int64_t columns = kernels_.tile_columns;
    const std::int64_t tiles = block.panels * rows_ * columns;  // of one panel of hidden units
    const bool partial = !(block.first && block.last);
    const std::int64_t first_tile = partial ? scorer * most_panels_ * tiles : 0;
    const std::int64_t hidden_size = partial ? first_tile + mlp.panels_ * tiles : 0;
    float* hidden = int8_ ? nullptr : grow(space.hidden, hidden_size);
    std::int32_t* hidden_int8 = int8_ ? grow(space.hidden_int8, hidden_size) : nullptr;
    const std::int64_t padded = round_up(joint_, kInt8Block);
    const bool gaps = !int8_ && block.count > 0 &&
                      space.entries[std::size_t(block.begin + block.count - 1)] -
                              space.entries[std::size_t(block.begin)] >=
                          block.count;
    float* gathered = gaps ? grow(space.gathered, block.count * columns) : nullptr;
    for (std::int64_t panel = 0; panel < mlp.panels_; ++panel) {
      const std::int64_t at = partial ? first_tile + panel * tiles : 0;
      const float* bias1 = mlp.bias1_.data() + panel * columns;
      const float* weight2 = mlp.weight2_.data() + panel * columns;
      if (int8_) {
        kernels_.mlp_tiles_int8(
            {space.products_int8.data(),
             mlp.weight1_int8_.data() + (panel * padded + block.begin) * columns,
             ceil_div(block.count, kInt8Block), block.panels, hidden_int8 + at, bias1, weight2,
             mlp.column_scales_.data() + panel * columns, mlp.slopes_.data() + panel * columns,
             space.scales.data(), space.projections.data() + scorer * block.panels * rows_, sums,
             block.first, block.last});
      } else {
        const float* weights = mlp.weight1_.data() + panel * joint_ * columns;
        const float* next = panel + 1 < mlp.panels_ ? weights + joint_ * columns : weights;
        kernels_.mlp_tiles({space.products.data(), weights, next,
                            space.offsets.data() + block.begin, gathered, block.count, block.panels,
                            hidden + at, bias1, weight2, sums, block.first, block.last});
      }
    }
  }

  void select_entries(const float* prototype, Workspace& space) const {
    space.entries.clear();
    space.offsets.clear();
    space.values.clear();
    for (std::int64_t d = 0; d < joint_; ++d) {
      if (prototype[d] == 0.0f) continue;
      space.entries.push_back(std::int32_t(d));
      space.offsets.push_back(std::int32_t(d * kernels_.tile_columns));
      space.values.push_back(prototype[d]);
    }
  }

  void write(const MlpOutput& out, std::int64_t k, const Rows& rows, const float* sums) const {
    for (std::int64_t i = 0; i < rows.count; ++i, sums += kernels_.width) {
      float total = 0.0f;
      for (int lane = 0; lane < kernels_.width; ++lane) total += sums[lane];
      out.output[rows.id(i) * (classes_ - out.first_class) + k - out.first_class] =
          total + out.mlp->bias2_;
    }
  }

  const SimdKernels& kernels_;
  const bool int8_;
  const std::int64_t rows_;  // of a tile
  const std::int64_t num_regions_, classes_, joint_;
  const float *regions_, *prototypes_;
  const std::uint8_t* wanted_;
  const std::vector<MlpOutput>& outputs_;
  std::int64_t most_panels_ = 0;  // of hidden units, of any scorer
};

void product_mlp(std::int64_t num_regions, std::int64_t num_classes, const float* regions,
                 const float* prototypes, const std::vector<MlpOutput>& outputs,
                 const std::uint8_t* wanted) {
  if (num_regions == 0 || num_classes == 0) return;
  ProductMlpRun(num_regions, num_classes, regions, prototypes, outputs, wanted).run();
}

}  // namespace zsd
