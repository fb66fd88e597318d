// What every kernel header shares: one function body for host and device.
//
// Includes    the standard library only.
#pragma once

#include <cstdint>
#include <type_traits>

#ifdef __CUDACC__
#define ZSD_HD __host__ __device__ inline
#else
#define ZSD_HD inline
#endif

// Plain loops over arrays are compiled once per instruction set and chosen when the program is
// loaded. None of these sets contains FMA, so results do not depend on the choice.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__CUDACC__) && !defined(__SANITIZE_ADDRESS__)
#define ZSD_CLONES __attribute__((target_clones("default", "avx2")))
#else
#define ZSD_CLONES
#endif

namespace zsd {

// Sums of half types are float; double stays double.
template <typename T>
using acc_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <typename T>
ZSD_HD T smaller(T a, T b) {
  return b < a ? b : a;
}

template <typename T>
ZSD_HD T larger(T a, T b) {
  return a < b ? b : a;
}

}  // namespace zsd
