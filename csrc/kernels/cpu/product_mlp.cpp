#include "../product_mlp.h"

#include <algorithm>

#include "simd.h"
#include "thread_pool.h"

namespace zsd {
namespace {

constexpr std::int64_t kDepth = 256;  // entries of d at a time: a panel of weight1 stays in L1
constexpr std::int64_t kRows = 192;   // regions at a time: their products stay in L2

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// What one thread needs for one class and one block of regions.
struct Workspace {
  std::vector<std::int32_t> entries, offsets;  // d of the entries that are not 0
  std::vector<float> values;
  std::vector<float> products, hidden, sums;
};

}  // namespace

PackedMlp::PackedMlp(const MlpWeights& w)
    : kernels_(&simd()), joint_(w.joint), hidden_(w.hidden), bias2_(*w.bias2) {
  const std::int64_t columns = kernels_->tile_columns;
  panels_ = ceil_div(hidden_, columns);
  weight1_.resize(std::size_t(panels_ * joint_ * columns));
  bias1_.resize(std::size_t(panels_ * columns));
  weight2_.resize(std::size_t(panels_ * columns));
  std::copy(w.bias1, w.bias1 + hidden_, bias1_.begin());
  std::copy(w.weight2, w.weight2 + hidden_, weight2_.begin());
  parallel_for(panels_, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t panel = begin; panel < end; ++panel) {
      const std::int64_t first = panel * columns, count = std::min(columns, hidden_ - first);
      float* to = weight1_.data() + panel * joint_ * columns;
      for (std::int64_t d = 0; d < joint_; ++d)
        for (std::int64_t m = 0; m < count; ++m)
          to[d * columns + m] = w.weight1[(first + m) * joint_ + d];
    }
  });
}

// One call: regions once in panels, then one task per class and block of regions.
class ProductMlpRun {
 public:
  ProductMlpRun(std::int64_t num_regions, std::int64_t num_classes, const float* regions,
                const float* prototypes, const std::vector<MlpOutput>& outputs)
      : kernels_(*outputs[0].mlp->kernels_),
        regions_(num_regions),
        classes_(num_classes),
        joint_(outputs[0].mlp->joint_),
        prototypes_(prototypes),
        outputs_(outputs) {
    const std::int64_t rows = kernels_.tile_rows;
    panels_ = ceil_div(regions_, rows);
    panel_block_ = ceil_div(panels_, ceil_div(regions_, kRows));
    packed_.resize(std::size_t(panels_ * rows * joint_ + kernels_.width));
    parallel_for(panels_, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin * rows; r < std::min(end * rows, regions_); ++r) {
        float* to = packed_.data() + r / rows * rows * joint_ + r % rows;
        for (std::int64_t d = 0; d < joint_; ++d) to[d * rows] = regions[r * joint_ + d];
      }
    });
  }

  void run() {
    const std::int64_t blocks = ceil_div(panels_, panel_block_);
    parallel_for(classes_ * blocks, 1, [&](std::int64_t begin, std::int64_t end) {
      thread_local Workspace space;
      for (std::int64_t task = begin; task < end; ++task) {
        const std::int64_t first = task % blocks * panel_block_;
        score(task / blocks, first, std::min(panel_block_, panels_ - first), space);
      }
    });
  }

 private:
  void score(std::int64_t k, std::int64_t first_panel, std::int64_t panels, Workspace& space) {
    const std::int64_t rows = kernels_.tile_rows, columns = kernels_.tile_columns;
    select_entries(prototypes_ + k * joint_, space);
    const std::int64_t depth = std::int64_t(space.entries.size());
    std::int64_t most_panels = 0;
    for (const MlpOutput& out : outputs_) most_panels = std::max(most_panels, out.mlp->panels_);
    const std::int64_t scorers = std::int64_t(outputs_.size());
    const std::int64_t hidden_size = panels * rows * most_panels * columns;
    const std::int64_t sums_size = panels * rows * kernels_.width;
    grow(space.products, panels * rows * std::min(depth, kDepth) + kernels_.width);
    if (depth > kDepth) grow(space.hidden, scorers * hidden_size);
    space.sums.assign(std::size_t(scorers * sums_size), 0.0f);

    std::int64_t begin = 0;
    do {  // also once for a prototype of zeros
      const std::int64_t count = std::min(kDepth, depth - begin);
      kernels_.pack_products(packed_.data() + first_panel * rows * joint_, joint_, panels,
                             space.entries.data() + begin, space.values.data() + begin, count,
                             space.products.data());
      for (std::int64_t s = 0; s < scorers; ++s) {
        const PackedMlp& mlp = *outputs_[s].mlp;
        if (k < outputs_[s].first_class) continue;
        for (std::int64_t panel = 0; panel < mlp.panels_; ++panel)
          kernels_.mlp_tiles(
              {space.products.data(), mlp.weight1_.data() + panel * joint_ * columns,
               space.offsets.data() + begin, count, panels,
               space.hidden.data() + s * hidden_size + panel * panels * rows * columns,
               mlp.bias1_.data() + panel * columns, mlp.weight2_.data() + panel * columns,
               space.sums.data() + s * sums_size, begin == 0, begin + count == depth});
      }
      begin += count;
    } while (begin < depth);

    for (std::int64_t s = 0; s < scorers; ++s)
      if (k >= outputs_[s].first_class)
        write(outputs_[s], k, first_panel * rows, space.sums.data() + s * sums_size);
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

  void write(const MlpOutput& out, std::int64_t k, std::int64_t first, const float* sums) const {
    const std::int64_t last = std::min(first + panel_block_ * kernels_.tile_rows, regions_);
    for (std::int64_t r = first; r < last; ++r, sums += kernels_.width) {
      float total = 0.0f;
      for (int i = 0; i < kernels_.width; ++i) total += sums[i];
      out.output[r * (classes_ - out.first_class) + k - out.first_class] = total + out.mlp->bias2_;
    }
  }

  static void grow(std::vector<float>& buffer, std::int64_t size) {
    if (std::int64_t(buffer.size()) < size) buffer.resize(std::size_t(size));
  }

  const SimdKernels& kernels_;
  const std::int64_t regions_, classes_, joint_;
  const float* prototypes_;
  const std::vector<MlpOutput>& outputs_;
  std::int64_t panels_, panel_block_;  // of tile_rows regions: all, and those of one task
  std::vector<float> packed_;          // (panels, D, tile_rows)
};

void product_mlp(std::int64_t num_regions, std::int64_t num_classes, const float* regions,
                 const float* prototypes, const std::vector<MlpOutput>& outputs) {
  if (num_regions == 0 || num_classes == 0) return;
  ProductMlpRun(num_regions, num_classes, regions, prototypes, outputs).run();
}

}  // namespace zsd
