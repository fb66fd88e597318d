#include "../roi_align.h"

#include <algorithm>
#include <vector>

#include "block_cache.h"
#include "simd.h"
#include "thread_pool.h"

namespace zsd {
namespace {

constexpr int L = kRoiChannels;

// Weights of every `step`-th bin of one axis, samples on one cell summed.
class Taps {
 public:
  void fill(const RoiAxis<float>& axis, std::int64_t bins, std::int64_t cells, int step) {
    begin_.assign(1, 0);
    cell_.clear();
    weight_.clear();
    const float share = axis.count > 0 ? 1.0f / float(axis.count) : 0.0f;
    for (std::int64_t b = 0; b < bins; b += step) {
      for (int i = 0; i < axis.count; ++i) {
        const AxisSample<float> sample = sample_axis(axis.position(int(b), i), int(cells));
        add(sample.low, sample.low_weight * share);
        add(sample.high, sample.high_weight * share);
      }
      begin_.push_back(std::int32_t(cell_.size()));
    }
  }

  AxisTaps view() const {
    const auto [low, high] = std::minmax_element(cell_.begin(), cell_.end());
    const bool any = !cell_.empty();
    return {begin_.data(),  cell_.data(),       weight_.data(), std::int32_t(begin_.size() - 1),
            any ? *low : 0, any ? *high + 1 : 0};
  }

 private:
  void add(std::int32_t cell, float weight) {
    if (weight == 0.0f) return;  // also: a map's Inf or NaN is not read where it has no weight
    // Positions ascend within a bin, so a cell seen before is one of the last two.
    const std::size_t start = std::size_t(begin_.back());
    for (std::size_t i = cell_.size(); i > start && i + 2 > cell_.size(); --i) {
      if (cell_[i - 1] != cell) continue;
      weight_[i - 1] += weight;
      return;
    }
    cell_.push_back(cell);
    weight_.push_back(weight);
  }

  std::vector<std::int32_t> begin_, cell_;
  std::vector<float> weight_;
};

// What one region reads, and room to work in.
struct Worker {
  Taps rows, columns;
  std::vector<float> scratch;

  void prepare(const RoiAlignParams& p, int step, const float* roi) {
    rows.fill(roi_axis(roi[1], roi[3], p.spatial_scale, int(p.pooled_height), int(p.height),
                       p.sampling_ratio),
              p.pooled_height, p.height, step);
    columns.fill(roi_axis(roi[0], roi[2], p.spatial_scale, int(p.pooled_width), int(p.width),
                          p.sampling_ratio),
                 p.pooled_width, p.width, step);
    scratch.resize(std::size_t((p.height + p.pooled_height) * p.pooled_width * L));
  }
};

std::int64_t channel_blocks(const RoiAlignParams& p) { return (p.channels + L - 1) / L; }

// The images that regions lie in, in order.
std::vector<std::int64_t> images_of(const RoiAlignParams& p, const std::int32_t* batch_indices) {
  std::vector<std::uint8_t> read(std::size_t(p.batch), 0);
  for (std::int64_t r = 0; r < p.num_rois; ++r) read[std::size_t(batch_indices[r])] = 1;
  std::vector<std::int64_t> images;
  for (std::int64_t image = 0; image < p.batch; ++image)
    if (read[std::size_t(image)]) images.push_back(image);
  return images;
}

// Floats of a cell of the forward pass's copy of the map, the same for all of its blocks.
int cell_floats(const RoiAlignParams& p) { return p.channels > kRoiFew ? L : kRoiFew; }

// Planes of at most kRoiFew channels to (count, kRoiFew).
void few_to_cells(const float* planes, std::int64_t count, int channels, float* cells) {
  for (std::int64_t i = 0; i < count; ++i)
    for (int c = 0; c < kRoiFew; ++c)
      cells[i * kRoiFew + c] = c < channels ? planes[c * count + i] : 0.0f;
}

// (B, C, H, W) of some images to (images, blocks, H, W, cell); channels past the last are 0.
void to_blocks(const RoiAlignParams& p, const std::vector<std::int64_t>& images,
               const float* planes, float* blocks) {
  const std::int64_t cells = p.height * p.width, per_image = channel_blocks(p);
  parallel_for(
      std::int64_t(images.size()) * per_image, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          const std::int64_t image = images[std::size_t(i / per_image)], first = i % per_image * L,
                             count = std::min<std::int64_t>(L, p.channels - first);
          const float* from = planes + (image * p.channels + first) * cells;
          if (cell_floats(p) == L)
            simd().planes_to_cells(from, cells, int(count), blocks + i * cells * L);
          else
            few_to_cells(from, cells, int(count), blocks + i * cells * kRoiFew);
        }
      });
}

}  // namespace

void roi_align(const RoiAlignParams& p, int bin_step, const float* features, const float* rois,
               const std::int32_t* batch_indices, float* output) {
  const SimdKernels& kernels = simd();
  const std::int64_t cells = p.height * p.width, blocks = channel_blocks(p);
  const std::int64_t bins = stepped(p.pooled_height, bin_step) * stepped(p.pooled_width, bin_step);
  if (p.num_rois == 0 || p.channels == 0) return;
  const std::vector<std::int64_t> images = images_of(p, batch_indices);
  std::vector<std::int64_t> place(std::size_t(p.batch), 0);
  for (std::size_t i = 0; i < images.size(); ++i) place[std::size_t(images[i])] = std::int64_t(i);
  const std::int64_t per_image = blocks * cells * cell_floats(p);
  const Borrowed maps(sizeof(float) * images.size() * std::size_t(per_image));
  to_blocks(p, images, features, maps.floats());
  parallel_for(p.num_rois, 1, [&](std::int64_t begin, std::int64_t end) {
    thread_local Worker worker;
    for (std::int64_t r = begin; r < end; ++r) {
      worker.prepare(p, bin_step, rois + 4 * r);
      const AxisTaps rows = worker.rows.view(), columns = worker.columns.view();
      const float* map = maps.floats() + place[std::size_t(batch_indices[r])] * per_image;
      for (std::int64_t b = 0; b < blocks; ++b)
        kernels.roi_forward(map + b * cells * L, p.width, cell_floats(p), rows, columns,
                            int(std::min<std::int64_t>(L, p.channels - b * L)),
                            worker.scratch.data(), output + (r * p.channels + b * L) * bins);
    }
  });
}

void roi_align_backward(const RoiAlignParams& p, const float* gradient, const float* rois,
                        const std::int32_t* batch_indices, float* features) {
  const SimdKernels& kernels = simd();
  const std::int64_t cells = p.height * p.width, blocks = channel_blocks(p);
  const std::int64_t bins = p.pooled_height * p.pooled_width;
  // One block of channels belongs to one thread, which adds the regions in their order.
  parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    Worker worker;
    std::vector<float> maps(std::size_t(p.batch * cells * L));
    for (std::int64_t b = begin; b < end; ++b) {
      const int count = int(std::min<std::int64_t>(L, p.channels - b * L));
      std::fill(maps.begin(), maps.end(), 0.0f);
      for (std::int64_t r = 0; r < p.num_rois; ++r) {
        worker.prepare(p, 1, rois + 4 * r);
        kernels.roi_backward(gradient + (r * p.channels + b * L) * bins, worker.rows.view(),
                             worker.columns.view(), count, worker.scratch.data(), p.width,
                             maps.data() + batch_indices[r] * cells * L);
      }
      for (std::int64_t image = 0; image < p.batch; ++image)
        kernels.cells_to_planes(maps.data() + image * cells * L, cells, count,
                                features + (image * p.channels + b * L) * cells);
    }
  });
}

}  // namespace zsd
