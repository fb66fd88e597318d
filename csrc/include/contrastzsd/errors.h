// Every error that the library throws on purpose. A message says where, what was received, and the
// fix, in one or two sentences that can be shown to a user as they are.
#pragma once

#include <stdexcept>

namespace contrastzsd {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A bundle is missing, damaged, or of a format or kind that this version cannot run.
class BundleError : public Error {
 public:
  using Error::Error;
};

// A class name is unknown or repeated, or its vector cannot be used.
class ClassError : public Error {
 public:
  using Error::Error;
};

// An option is out of its range.
class ConfigError : public Error {
 public:
  using Error::Error;
};

// A backend was not built in, or cannot run the networks on its device.
class DeviceError : public Error {
 public:
  using Error::Error;
};

// An image has no pixels, or more than memory holds.
class ImageError : public Error {
 public:
  using Error::Error;
};

}  // namespace contrastzsd
