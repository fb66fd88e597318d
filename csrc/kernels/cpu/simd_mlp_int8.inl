// product_mlp in integers, for simd.h; included by simd.inl, in whose namespace it is.
//
// Four products fill one 32-bit word of a row. Whatever an instruction set multiplies with, the
// integers are those of mlp_int8.h; only the float epilogue's rounding differs. Where
// 16-bit sums are kept for kInt8Block entries, they cannot overflow: PackedMlp bounds the weights.

typedef std::int32_t I __attribute__((vector_size(W * 4)));
typedef std::int16_t S __attribute__((vector_size(W * 4)));

#if defined(__AVX512VNNI__) && ZSD_WIDTH == 16
constexpr char kInt8[] = "vpdpbusd";
constexpr int MR8 = 12;
typedef I Partial;  // no 16-bit sums
inline I accumulate(I sum, I products, I weights) {
  return I(_mm512_dpbusd_epi32(__m512i(sum), __m512i(products), __m512i(weights)));
}
#elif defined(__AVXVNNI__) && ZSD_WIDTH == 8
constexpr char kInt8[] = "vpdpbusd";
constexpr int MR8 = 6;
typedef I Partial;  // no 16-bit sums
inline I accumulate(I sum, I products, I weights) {
  return I(_mm256_dpbusd_avx_epi32(__m256i(sum), __m256i(products), __m256i(weights)));
}
#elif defined(__AVX512BW__) && ZSD_WIDTH == 16
constexpr char kInt8[] = "vpmaddubsw";
constexpr int MR8 = 6;
typedef S Partial;
inline S accumulate(S sum, I products, I weights) {
  sum += S(_mm512_maddubs_epi16(__m512i(products), __m512i(weights)));
  asm("" : "+v"(sum));  // in this order: regrouped sums would not fit into the registers
  return sum;
}
inline I widen(S sum) { return I(_mm512_madd_epi16(__m512i(sum), __m512i(1 - S{}))); }
#elif defined(__AVX2__) && ZSD_WIDTH == 8
constexpr char kInt8[] = "vpmaddubsw";
constexpr int MR8 = 3;  // six 16-bit and six 32-bit sums
typedef S Partial;
inline S accumulate(S sum, I products, I weights) {
  sum += S(_mm256_maddubs_epi16(__m256i(products), __m256i(weights)));
  asm("" : "+v"(sum));  // in this order: regrouped sums would not fit into the registers
  return sum;
}
inline I widen(S sum) { return I(_mm256_madd_epi16(__m256i(sum), __m256i(1 - S{}))); }
#elif defined(__SSE2__) && ZSD_WIDTH == 4
constexpr char kInt8[] = "pmaddwd";
constexpr int MR8 = 4;
typedef I Partial;  // no 16-bit sums
inline I accumulate(I sum, I products, I weights) {
  const S even = (S(weights) << 8) >> 8, odd = S(weights) >> 8;
  sum += I(_mm_madd_epi16(__m128i(products & 0x00ff00ff), __m128i(even)));
  return sum + I(_mm_madd_epi16(__m128i((products >> 8) & 0x00ff00ff), __m128i(odd)));
}
#elif defined(__ARM_FEATURE_DOTPROD) && ZSD_WIDTH == 4
constexpr char kInt8[] = "sdot";
constexpr int MR8 = 12;
typedef I Partial;  // no 16-bit sums
inline I accumulate(I sum, I products, I weights) {
  return I(vdotq_s32(int32x4_t(sum), vreinterpretq_s8_s32(int32x4_t(products)),
                     vreinterpretq_s8_s32(int32x4_t(weights))));
}
#elif defined(__ARM_NEON) && ZSD_WIDTH == 4
constexpr char kInt8[] = "smull";
constexpr int MR8 = 8;
typedef I Partial;  // no 16-bit sums
inline I accumulate(I sum, I products, I weights) {
  const int8x16_t a = vreinterpretq_s8_s32(int32x4_t(products));
  const int8x16_t b = vreinterpretq_s8_s32(int32x4_t(weights));
  const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
  return sum + I(vpaddq_s32(low, vpaddlq_s16(vmull_high_s8(a, b))));
}
#else
constexpr char kInt8[] = "portable";
constexpr int MR8 = 4;
typedef I Partial;  // no 16-bit sums
inline I accumulate(I sum, I products, I weights) {
  for (int shift = 0; shift < 32; shift += 8)
    sum += ((products >> shift) & 0xff) * ((weights << (24 - shift)) >> 24);
  return sum;
}
#endif

inline I load_words(const void* from) {
  I value;
  __builtin_memcpy(&value, from, sizeof(I));
  return value;
}

// W neighbouring floats, or the `present` of them that are there.
inline V load_some(const float* from, std::int64_t present) {
  if (present >= W) return load(from);
  V value = {};
  for (std::int64_t i = 0; i < present; ++i) value[i] = from[i];
  return value;
}

void max_products(const float* regions, std::int64_t joint, std::int64_t count, const float* values,
                  float* largest) {
  for (std::int64_t r = 0; r < count; ++r, regions += joint) {
    V most = {}, odd = {};  // odd: 0, or NaN once a product is not finite
    for (std::int64_t d = 0; d < joint; d += W) {
      const V product = load_some(regions + d, joint - d) * load_some(values + d, joint - d);
      most = product > most ? product : most;
      odd += product - product;
    }
    float highest = 0.0f, nan = 0.0f;
    for (int i = 0; i < W; ++i) {
      highest = most[i] > highest ? most[i] : highest;
      nan += odd[i];
    }
    largest[r] = highest + nan;
  }
}

void project(const float* regions, std::int64_t joint, std::int64_t count, const float* values,
             float* results) {
  for (std::int64_t r = 0; r < count; ++r, regions += joint) {
    V even = {}, odd = {};
    for (std::int64_t d = 0; d < joint; d += 2 * W) {
      even += load_some(regions + d, joint - d) * load_some(values + d, joint - d);
      if (d + W >= joint) break;
      odd += load_some(regions + d + W, joint - d - W) * load_some(values + d + W, joint - d - W);
    }
    even += odd;
    results[r] = 0.0f;
    for (int i = 0; i < W; ++i) results[r] += even[i];
  }
}

void pack_products_int8(const float* regions, std::int64_t joint, std::int64_t count,
                        const float* values, std::int64_t begin, std::int64_t depth,
                        const float* factors, std::int32_t* rows) {
  constexpr int N = W / 4;  // words of a vector
  typedef std::uint64_t Pairs __attribute__((vector_size(W * 4)));
  I shift;
  for (int i = 0; i < W; ++i) shift[i] = 8 * (i % 4);
  const std::int64_t groups = (depth + kInt8Block - 1) / kInt8Block * (kInt8Block / 4);
  const std::int64_t padded = (count + MR8 - 1) / MR8 * MR8;
  for (std::int64_t r = 0; r < padded; ++r) {
    std::int32_t* to = rows + r / MR8 * groups * MR8 + r % MR8;
    const float* from = regions + r * joint + begin;
    const V factor = spread(factors[r]);
    for (std::int64_t i = 0; i < groups; i += N) {
      const std::int64_t d = 4 * i, present = r < count ? depth - d : 0;
      const V product =
          round_product(load_some(from + d, present) * load_some(values + begin + d, present),
                        factor, spread(kInt8Levels));
      Pairs pairs = Pairs(__builtin_convertvector(product, I) << shift);
      pairs |= pairs >> 32;
      std::uint64_t halves[2 * N];  // of words
      __builtin_memcpy(halves, &pairs, sizeof(pairs));
      for (int n = 0; n < N; ++n)
        to[(i + n) * MR8] = std::int32_t(halves[2 * n] | halves[2 * n + 1]);
    }
  }
}

// Adds the products of kInt8Block entries to c.
template <typename P>
inline void multiply_block(I (&c)[MR8][2], const std::int32_t* rows, const std::int8_t* weights) {
  constexpr bool kNarrow = sizeof(P{}[0]) == 2;
  P part[MR8][2];
#pragma GCC unroll 16
  for (int g = 0; g < kInt8Block / 4; ++g, rows += MR8, weights += 4 * NR) {
    const I low = load_words(weights), high = load_words(weights + 4 * W);
#pragma GCC unroll 16
    for (int r = 0; r < MR8; ++r) {
      const I row = rows[r] - I{};
      const bool fresh = kNarrow && g == 0;
      part[r][0] = accumulate(fresh ? P{} : kNarrow ? part[r][0] : P(c[r][0]), row, low);
      part[r][1] = accumulate(fresh ? P{} : kNarrow ? part[r][1] : P(c[r][1]), row, high);
      if constexpr (!kNarrow) {
        c[r][0] = part[r][0];
        c[r][1] = part[r][1];
      }
    }
  }
  if constexpr (kNarrow) {
#pragma GCC unroll 16
    for (int r = 0; r < MR8; ++r) {
      c[r][0] += widen(part[r][0]);
      c[r][1] += widen(part[r][1]);
    }
  }
}

template <bool First, bool Last>
inline void mlp_tile_int8(const MlpTilesInt8& t, const std::int32_t* rows, std::int32_t* hidden,
                          const float* row_scales, const float* projections, float* sums) {
  I c[MR8][2];
#pragma GCC unroll 16
  for (int r = 0; r < MR8; ++r) {
    c[r][0] = First ? I{} : load_words(hidden + r * NR);
    c[r][1] = First ? I{} : load_words(hidden + r * NR + W);
  }
  for (std::int64_t block = 0; block < t.blocks; ++block)
    multiply_block<Partial>(c, rows + block * (kInt8Block / 4 * MR8),
                            t.weights + block * (kInt8Block * NR));
  if (!Last) {
#pragma GCC unroll 16
    for (int r = 0; r < MR8; ++r) {
      __builtin_memcpy(hidden + r * NR, &c[r][0], sizeof(I));
      __builtin_memcpy(hidden + r * NR + W, &c[r][1], sizeof(I));
    }
    return;
  }
  const V bias_low = load(t.bias1), bias_high = load(t.bias1 + W);
  const V out_low = load(t.weight2), out_high = load(t.weight2 + W);
  const V scale_low = load(t.column_scales), scale_high = load(t.column_scales + W);
  const V slope_low = load(t.slopes), slope_high = load(t.slopes + W);
#pragma GCC unroll 16
  for (int r = 0; r < MR8; ++r) {
    const V scale = spread(row_scales[r]), projection = spread(projections[r]);
    const V low = __builtin_convertvector(c[r][0], V) * (scale_low * scale) +
                  (slope_low * projection + bias_low);
    const V high = __builtin_convertvector(c[r][1], V) * (scale_high * scale) +
                   (slope_high * projection + bias_high);
    store(sums + r * W, load(sums + r * W) + relu(low) * out_low + relu(high) * out_high);
  }
}

template <bool First, bool Last>
void mlp_column_int8(const MlpTilesInt8& t) {
  const std::int64_t step = t.blocks * (kInt8Block / 4) * MR8;
  for (std::int64_t panel = 0; panel < t.panels; ++panel)
    mlp_tile_int8<First, Last>(t, t.rows + panel * step, t.hidden + panel * MR8 * NR,
                               t.row_scales + panel * MR8, t.projections + panel * MR8,
                               t.sums + panel * MR8 * W);
}

void mlp_tiles_int8(const MlpTilesInt8& t) {
  if (t.first && t.last) return mlp_column_int8<true, true>(t);
  if (t.first) return mlp_column_int8<true, false>(t);
  if (t.last) return mlp_column_int8<false, true>(t);
  mlp_column_int8<false, false>(t);
}
