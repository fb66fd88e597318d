// Class vectors as rows of numbers.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>

#include "contrastzsd/errors.h"
#include "contrastzsd/text.h"

namespace contrastzsd {

// Scales a row to unit length. Throws ClassError, naming the class, where it has no direction.
inline void scale_to_unit(float* row, std::int64_t width, const std::string& name) {
  double squares = 0;
  for (std::int64_t i = 0; i < width; ++i) squares += double(row[i]) * double(row[i]);
  const float length = float(std::sqrt(squares));
  if (!(length > 0 && std::isfinite(length)))
    throw ClassError("the vector of class " + in_quotes(name) + " has length " +
                     number_text(length) + "; it must be finite and not zero.");
  for (std::int64_t i = 0; i < width; ++i) row[i] /= length;
}

}  // namespace contrastzsd
