// The inner loops of simd.h in GNU vector extensions; included by simd_*.cpp, which define
// ZSD_SIMD (namespace), ZSD_WIDTH (floats in a vector) and ZSD_ROWS (rows of a tile).

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace zsd::ZSD_SIMD {
namespace {

constexpr int W = ZSD_WIDTH, MR = ZSD_ROWS, NR = 2 * W;

typedef float V __attribute__((vector_size(W * 4)));
typedef float V4 __attribute__((vector_size(16)));

template <typename T = V>
inline T load(const float* from) {
  T value;
  __builtin_memcpy(&value, from, sizeof(T));
  return value;
}

template <typename T>
inline void store(float* to, T value) {
  __builtin_memcpy(to, &value, sizeof(T));
}

inline V spread(float value) { return value - V{}; }

// NaN stays NaN: it is not below 0.
inline V relu(V value) { return value < V{} ? V{} : value; }

void pack_products(const float* regions, std::int64_t joint, std::int64_t panels,
                   const std::int32_t* entries, const float* values, std::int64_t depth,
                   float* rows) {
  for (std::int64_t panel = 0; panel < panels; ++panel, regions += joint * MR) {
    for (std::int64_t i = 0; i < depth; ++i, rows += MR) {
      const float* from = regions + std::int64_t(entries[i]) * MR;
      const V value = spread(values[i]);
      // Whole vectors: what is written too far is overwritten by the next row or unused.
      for (int r = 0; r < MR; r += W) store(rows + r, load(from + r) * value);
    }
  }
}

template <bool First, bool Last>
inline void mlp_tile(const MlpTiles& t, const float* weights, const float* rows, float* hidden,
                     float* sums) {
  if (!First || !Last)  // wanted at the end of this tile
    for (int i = 0; i < MR * NR; i += 16) __builtin_prefetch(hidden + i, 1);
  V c[MR][2] = {};
  for (std::int64_t i = 0; i < t.depth; ++i, rows += MR, weights += NR) {
    const V low = load(weights), high = load(weights + W);
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r) {
      const V row = spread(rows[r]);
      c[r][0] += row * low;
      c[r][1] += row * high;
    }
  }
  if (!First) {
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r) {
      c[r][0] += load(hidden + r * NR);
      c[r][1] += load(hidden + r * NR + W);
    }
  }
  if (!Last) {
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r) {
      store(hidden + r * NR, c[r][0]);
      store(hidden + r * NR + W, c[r][1]);
    }
    return;
  }
  const V bias_low = load(t.bias1), bias_high = load(t.bias1 + W);
  const V out_low = load(t.weight2), out_high = load(t.weight2 + W);
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r) {
    V sum = load(sums + r * W);
    sum += relu(c[r][0] + bias_low) * out_low;
    sum += relu(c[r][1] + bias_high) * out_high;
    store(sums + r * W, sum);
  }
}

template <bool First, bool Last>
void mlp_column(const MlpTiles& t) {
  const float* weights = t.depth ? t.weights + t.offsets[0] : t.weights;
  if (t.gathered) {
    // Rows with gaps between them would share the first-level cache with what fills the gaps.
    for (std::int64_t i = 0; i < t.depth; ++i) {
      store(t.gathered + i * NR, load(t.weights + t.offsets[i]));
      store(t.gathered + i * NR + W, load(t.weights + t.offsets[i] + W));
    }
    weights = t.gathered;
  }
  const std::int64_t step = t.depth * MR, share = (t.depth + t.panels - 1) / t.panels;
  for (std::int64_t panel = 0; panel < t.panels; ++panel) {
    // A share of the next weights, into the second-level cache.
    const std::int64_t end = (panel + 1) * share < t.depth ? (panel + 1) * share : t.depth;
    for (std::int64_t i = panel * share; i < end; ++i)
      for (int c = 0; c < NR; c += 16) __builtin_prefetch(t.next_weights + t.offsets[i] + c, 0, 2);
    mlp_tile<First, Last>(t, weights, t.rows + panel * step, t.hidden + panel * MR * NR,
                          t.sums + panel * MR * W);
  }
}

void mlp_tiles(const MlpTiles& t) {
  if (t.first && t.last) return mlp_column<true, true>(t);
  if (t.first) return mlp_column<true, false>(t);
  if (t.last) return mlp_column<false, true>(t);
  mlp_column<false, false>(t);
}

void multiply_row(const float* row, const float* weights, std::int64_t depth, std::int64_t panels,
                  float* sums) {
  for (std::int64_t panel = 0; panel < panels; ++panel, sums += NR) {
    V low = {}, high = {};
    for (std::int64_t d = 0; d < depth; ++d, weights += NR) {
      const V value = spread(row[d]);
      low += value * load(weights);
      high += value * load(weights + W);
    }
    store(sums, low);
    store(sums + W, high);
  }
}

#include "simd_mlp_int8.inl"

constexpr int L = kRoiChannels, N = L / W;  // vectors per cell

inline void transpose4(const float* from, std::int64_t from_stride, float* to,
                       std::int64_t to_stride) {
  const V4 a = load<V4>(from), b = load<V4>(from + from_stride);
  const V4 c = load<V4>(from + 2 * from_stride), d = load<V4>(from + 3 * from_stride);
  const V4 ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
  const V4 ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const V4 cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const V4 cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  store(to, __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5));
  store(to + to_stride, __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7));
  store(to + 2 * to_stride, __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5));
  store(to + 3 * to_stride, __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7));
}

// cells (count, L) to output (channels, count).
void cells_to_planes(const float* cells, std::int64_t count, int channels, float* output) {
  const std::int64_t whole = channels == L ? count / 4 * 4 : 0;
  for (std::int64_t i = 0; i < whole; i += 4)
    for (int c = 0; c < L; c += 4) transpose4(cells + i * L + c, L, output + c * count + i, count);
  for (std::int64_t i = whole; i < count; ++i)
    for (int c = 0; c < channels; ++c) output[c * count + i] = cells[i * L + c];
}

// The inverse; channels that are not there become 0.
void planes_to_cells(const float* planes, std::int64_t count, int channels, float* cells) {
  const std::int64_t whole = channels == L ? count / 4 * 4 : 0;
  for (std::int64_t i = 0; i < whole; i += 4)
    for (int c = 0; c < L; c += 4) transpose4(planes + c * count + i, count, cells + i * L + c, L);
  for (std::int64_t i = whole; i < count; ++i)
    for (int c = 0; c < L; ++c) cells[i * L + c] = c < channels ? planes[c * count + i] : 0.0f;
}

// output[b] = sum over taps of weight * input[cell - origin], each `length` floats long, a multiple
// of 4. The sum of one float is the same whatever lies beside it.
inline void gather(const AxisTaps& taps, int bin, const float* input, std::int64_t stride,
                   std::int64_t length, float* output) {
  const std::int32_t begin = taps.begin[bin], end = taps.begin[bin + 1];
  std::int64_t i = 0;
  for (; i + L <= length; i += L) {
    V sum[N] = {};
    for (std::int32_t t = begin; t < end; ++t) {
      const float* from = input + taps.cell[t] * stride + i;
      const V weight = spread(taps.weight[t]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sum[n] += load(from + n * W) * weight;
    }
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) store(output + i + n * W, sum[n]);
  }
  for (; i < length; i += 4) {
    V4 sum = {};
    for (std::int32_t t = begin; t < end; ++t)
      sum += load<V4>(input + taps.cell[t] * stride + i) * (taps.weight[t] - V4{});
    store(output + i, sum);
  }
}

// Cells of C floats, as roi_forward has them.
template <int C>
inline void roi_cells(const float* map, std::int64_t width, const AxisTaps& rows,
                      const AxisTaps& columns, float* scratch, float* patch) {
  const std::int64_t line = std::int64_t(columns.bins) * C;
  float* lines = scratch - rows.first * line;  // (rows, PW, C), only rows that are read
  for (std::int32_t y = rows.first; y < rows.last; ++y)
    for (int b = 0; b < columns.bins; ++b)
      gather(columns, b, map + y * width * C, C, C, lines + y * line + b * C);
  for (int b = 0; b < rows.bins; ++b) gather(rows, b, lines, line, line, patch + b * line);
}

void roi_forward(const float* map, std::int64_t width, int cell, const AxisTaps& rows,
                 const AxisTaps& columns, int channels, float* scratch, float* output) {
  const std::int64_t bins = std::int64_t(rows.bins) * columns.bins;
  float* patch = scratch + std::int64_t(rows.last - rows.first) * columns.bins * cell;
  if (cell != kRoiFew) {
    roi_cells<L>(map, width, rows, columns, scratch, patch);
    cells_to_planes(patch, bins, channels, output);
    return;
  }
  roi_cells<kRoiFew>(map, width, rows, columns, scratch, patch);
  for (int c = 0; c < channels; ++c)
    for (std::int64_t i = 0; i < bins; ++i) output[c * bins + i] = patch[i * kRoiFew + c];
}

// output[cell] += weight * input[b] for every tap of bin b.
inline void scatter(const AxisTaps& taps, int bin, const float* input, std::int64_t stride,
                    std::int64_t length, float* output) {
  for (std::int32_t t = taps.begin[bin]; t < taps.begin[bin + 1]; ++t) {
    float* to = output + taps.cell[t] * stride;
    const V weight = spread(taps.weight[t]);
    for (std::int64_t i = 0; i < length; i += W)
      store(to + i, load(to + i) + load(input + i) * weight);
  }
}

void roi_backward(const float* gradient, const AxisTaps& rows, const AxisTaps& columns,
                  int channels, float* scratch, std::int64_t width, float* map) {
  const std::int64_t line = std::int64_t(columns.bins) * L;
  float* lines = scratch - rows.first * line;
  float* patch = scratch + (rows.last - rows.first) * line;
  planes_to_cells(gradient, std::int64_t(rows.bins) * columns.bins, channels, patch);
  for (std::int64_t i = 0; i < (rows.last - rows.first) * line; i += W) store(scratch + i, V{});
  for (int b = 0; b < rows.bins; ++b) scatter(rows, b, patch + b * line, line, line, lines);
  for (std::int32_t y = rows.first; y < rows.last; ++y)
    for (int b = 0; b < columns.bins; ++b)
      scatter(columns, b, lines + y * line + b * L, L, L, map + y * width * L);
}

constexpr SimdKernels table(const char* name) {
  return {name,
          kInt8,
          W,
          MR,
          MR8,
          NR,
          pack_products,
          mlp_tiles,
          multiply_row,
          max_products,
          project,
          pack_products_int8,
          mlp_tiles_int8,
          cells_to_planes,
          planes_to_cells,
          roi_forward,
          roi_backward};
}

}  // namespace
}  // namespace zsd::ZSD_SIMD
