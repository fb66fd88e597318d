// Inner loops that are compiled once per instruction set and chosen at run time.
//
// Every set includes simd.inl in a namespace of its own, compiled with its own flags (see
// CMakeLists.txt); nothing here or there may be an inline function of a shared header, or the
// linker could hand the AVX version of it to a CPU without AVX.
#pragma once

#include <cstdint>

#include "../mlp_int8.h"

namespace zsd {

// Channels that roi_align handles together, and the innermost axis of its copy of the map.
constexpr int kRoiChannels = 16;
// Maps of no more channels, such as images, have cells of so many floats in the forward pass.
constexpr int kRoiFew = 4;

// Per output bin of one axis the cells it reads: entries begin[b] .. begin[b + 1] of the others.
struct AxisTaps {
  const std::int32_t* begin;
  const std::int32_t* cell;
  const float* weight;
  std::int32_t bins, first, last;  // cells [first, last) are read by any bin
};

// One block of rows times one panel of hidden units. C tiles are (tile_rows, tile_columns).
struct MlpTiles {
  const float* rows;            // [panel][depth][tile_rows]: region * prototype
  const float* weights;         // [d][tile_columns]: weight1 of one panel, all d
  const float* next_weights;    // of the panel to come, to be fetched early
  const std::int32_t* offsets;  // (depth,): d * tile_columns of each row of the panel
  float* gathered;              // (depth, tile_columns) of room; null if the rows are neighbours
  std::int64_t depth, panels;
  float* hidden;         // [panel][tile]: partial sums, read unless `first`, written unless `last`
  const float* bias1;    // (tile_columns,)
  const float* weight2;  // (tile_columns,)
  float* sums;           // [row][width]: partial logits, added to when `last`
  bool first, last;      // of the blocks over d
};

// The same in integers, as mlp_int8.h defines them.
struct MlpTilesInt8 {
  const std::int32_t* rows;    // [panel][block][group of 4 entries][int8_rows]
  const std::int8_t* weights;  // [block][group][tile_columns][4]
  std::int64_t blocks, panels;
  std::int32_t* hidden;                   // [panel][tile]
  const float *bias1, *weight2;           // (tile_columns,)
  const float *column_scales, *slopes;    // (tile_columns,)
  const float *row_scales, *projections;  // [panel][int8_rows]
  float* sums;                            // [row][width]
  bool first, last;
};

struct SimdKernels {
  const char* name;
  const char* int8;  // the instruction that multiplies 8-bit integers
  int width;         // floats in a vector
  int tile_rows, int8_rows, tile_columns;

  // rows[panel][i][row] = regions[panel][entries[i]][row] * values[i], for tile_rows rows of each
  // panel; regions are [panel][joint][tile_rows] with width - 1 readable floats behind.
  void (*pack_products)(const float* regions, std::int64_t joint, std::int64_t panels,
                        const std::int32_t* entries, const float* values, std::int64_t depth,
                        float* rows);
  void (*mlp_tiles)(const MlpTiles& tiles);
  // sums (panels, tile_columns) = row (depth,) . weights [panel][d][tile_columns], added up in the
  // order of mlp_tiles.
  void (*multiply_row)(const float* row, const float* weights, std::int64_t depth,
                       std::int64_t panels, float* sums);

  // largest[row] of the products of regions (count, joint); NaN where one is not finite.
  void (*max_products)(const float* regions, std::int64_t joint, std::int64_t count,
                       const float* values, float* largest);
  // results[row] = regions (count, joint) . values.
  void (*project)(const float* regions, std::int64_t joint, std::int64_t count, const float* values,
                  float* results);
  // Products of entries begin .. begin + depth, times factors[row], rounded; padding is 0.
  void (*pack_products_int8)(const float* regions, std::int64_t joint, std::int64_t count,
                             const float* values, std::int64_t begin, std::int64_t depth,
                             const float* factors, std::int32_t* rows);
  void (*mlp_tiles_int8)(const MlpTilesInt8& tiles);

  // (count, kRoiChannels) to (channels, count) and back; channels that are not there become 0.
  void (*cells_to_planes)(const float* cells, std::int64_t count, int channels, float* planes);
  void (*planes_to_cells)(const float* planes, std::int64_t count, int channels, float* cells);

  // map (height, width, cell) to output (channels, PH PW), channels <= cell, which is kRoiFew or
  // kRoiChannels. Scratch holds (rows.last - rows.first + PH) PW cell floats.
  void (*roi_forward)(const float* map, std::int64_t width, int cell, const AxisTaps& rows,
                      const AxisTaps& columns, int channels, float* scratch, float* output);
  // The transpose: adds to the map.
  void (*roi_backward)(const float* gradient, const AxisTaps& rows, const AxisTaps& columns,
                       int channels, float* scratch, std::int64_t width, float* map);
};

extern const SimdKernels kSimdBase;
#if defined(__x86_64__)
extern const SimdKernels kSimdAvx2;
extern const SimdKernels kSimdAvx2Vnni;
extern const SimdKernels kSimdAvx512;
extern const SimdKernels kSimdAvx512Vnni;
#elif defined(__aarch64__) && defined(__linux__)
extern const SimdKernels kSimdNeonDot;
#endif

// The set in use: the best one this CPU runs, or the one chosen by set_simd.
const SimdKernels& simd();
// Null-terminated list of the sets this CPU runs, best first.
const SimdKernels* const* simd_available();
bool set_simd(const char* name);

}  // namespace zsd
