#include "../preprocess.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "thread_pool.h"

namespace zsd {
namespace {

constexpr std::int64_t kMostRows = INT32_MAX / 255;  // whose sum 32 bits hold

// Sums of pixel rows down the image, at most kMostRows: to[i] = sum of image[row][i], i < 3 W.
ZSD_CLONES void sum_rows(const std::uint8_t* image, std::int64_t stride, std::int64_t rows,
                         std::int32_t* to) {
  for (std::int64_t i = 0; i < stride; ++i) to[i] = image[i];
  for (std::int64_t row = 1; row < rows; ++row) {
    const std::uint8_t* from = image + row * stride;
    for (std::int64_t i = 0; i < stride; ++i) to[i] += from[i];
  }
}

// Means of whole blocks: (blocks, 3) floats from summed rows (W, 3).
template <typename Sum>
void mean_columns(const Sum* sums, const ResizeAxis& axis, std::int64_t rows, float* to) {
  for (std::int64_t b = 0; b < axis.blocks; ++b) {
    const std::int64_t count = b + 1 < axis.blocks ? axis.block : axis.last;
    std::int64_t total[3] = {0, 0, 0};  // a block of 3,000 x 3,000 pixels is more than 32 bits
    for (std::int64_t i = 0; i < count; ++i)
      for (int c = 0; c < 3; ++c) total[c] += *sums++;
    for (int c = 0; c < 3; ++c) *to++ = float(total[c]) / float(count * rows);
  }
}

// The same from more rows than kMostRows, summed in portions.
void mean_tall(const std::uint8_t* image, std::int64_t stride, const ResizeAxis& axis,
               std::int64_t rows, std::vector<std::int32_t>& sums, float* to) {
  std::vector<std::int64_t> totals(sums.size());
  for (std::int64_t first = 0; first < rows; first += kMostRows) {
    sum_rows(image + first * stride, stride, std::min(kMostRows, rows - first), sums.data());
    for (std::size_t i = 0; i < sums.size(); ++i) totals[i] += sums[i];
  }
  mean_columns(totals.data(), axis, rows, to);
}

// One row of blocks, resized along x: (3, width) floats.
void resize_row(const PreprocessParams& p, const ResizeAxis& rows, const ResizeAxis& columns,
                const std::vector<ResizeSample>& samples, const std::uint8_t* image,
                std::int64_t block_row, std::vector<std::int32_t>& sums, std::vector<float>& means,
                float* output) {
  const std::int64_t stride = 3 * p.image_width;
  const std::int64_t count = block_row + 1 < rows.blocks ? rows.block : rows.last;
  const std::uint8_t* first = image + block_row * rows.block * stride;
  if (count > kMostRows) {
    mean_tall(first, stride, columns, count, sums, means.data());
  } else {
    sum_rows(first, stride, count, sums.data());
    mean_columns(sums.data(), columns, count, means.data());
  }
  for (std::int64_t x = 0; x < p.width; ++x) {
    const ResizeSample& s = samples[std::size_t(x)];
    const float *low = means.data() + 3 * s.low, *high = means.data() + 3 * s.high;
    for (int c = 0; c < 3; ++c) {
      const int from = p.bgr ? 2 - c : c;
      output[c * p.width + x] = low[from] * (1.0f - s.fraction) + high[from] * s.fraction;
    }
  }
}

ZSD_CLONES void blend_rows(const float* low, const float* high, float fraction, float mean,
                           float std, std::int64_t count, float* output) {
  for (std::int64_t x = 0; x < count; ++x) {
    const float value = low[x] * (1.0f - fraction) + high[x] * fraction;
    output[x] = normalised(value, mean, std);
  }
}

}  // namespace

void preprocess(const PreprocessParams& p, const std::uint8_t* image, float* output) {
  const ResizeAxis rows = resize_axis(p.image_height, p.height);
  const ResizeAxis columns = resize_axis(p.image_width, p.width);
  std::vector<ResizeSample> samples;
  for (std::int64_t x = 0; x < p.width; ++x) samples.push_back(resize_sample(columns, x));
  const std::int64_t plane = p.padded_height * p.padded_width;
  parallel_for(p.padded_height, 32, [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::int32_t> sums(std::size_t(3 * p.image_width));
    std::vector<float> means(std::size_t(3 * columns.blocks)), line[2];
    std::int64_t held[2] = {-1, -1};  // rows of blocks in `line`
    for (auto& buffer : line) buffer.resize(std::size_t(3 * p.width));
    for (std::int64_t y = begin; y < end; ++y) {
      const bool inside = y < p.height;
      const ResizeSample s = inside ? resize_sample(rows, y) : ResizeSample{0, 0, 0.0f};
      for (const std::int64_t row : {s.low, s.high}) {
        if (!inside || held[row % 2] == row) continue;
        held[row % 2] = row;  // low and high are neighbours, so they never share a line
        resize_row(p, rows, columns, samples, image, row, sums, means, line[row % 2].data());
      }
      for (int c = 0; c < 3; ++c) {
        float* to = output + c * plane + y * p.padded_width;
        if (inside)
          blend_rows(line[s.low % 2].data() + c * p.width, line[s.high % 2].data() + c * p.width,
                     s.fraction, p.mean[c], p.std[c], p.width, to);
        std::fill(to + (inside ? p.width : 0), to + p.padded_width, 0.0f);
      }
    }
  });
}

}  // namespace zsd
