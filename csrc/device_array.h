// Arrays on a GPU as the arguments of an operator: read by DLPack or __cuda_array_interface__, and
// checked for device, type, shape and contiguity. Nothing is copied and nothing is owned.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cuda/launch.h"

namespace zsd {
namespace bindings {

namespace py = pybind11;
using namespace py::literals;

// The part of DLPack's unversioned binary interface that is read here.
struct DlTensor {
  void* data;
  std::int32_t device_type, device_id;
  std::int32_t ndim;
  std::uint8_t code, bits;
  std::uint16_t lanes;
  std::int64_t* shape;
  std::int64_t* strides;  // null: contiguous
  std::uint64_t byte_offset;
};
#ifdef ZSD_CUDA_SHIM
constexpr int kDeviceType = 1;  // the CPU
#else
constexpr int kDeviceType = 2;  // CUDA; managed memory (13) is reachable too
#endif

[[noreturn]] inline void raise(const char* kind, const std::string& message) {
  const py::object type = py::module_::import("zsd_core.errors").attr(kind);
  PyErr_SetString(type.ptr(), message.c_str());
  throw py::error_already_set();
}

inline std::string text(const std::vector<std::int64_t>& shape) {
  std::string result = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    result += std::to_string(shape[i]) + (i + 1 < shape.size() ? ", " : "");
  }
  return result + (shape.size() == 1 ? ",)" : ")");
}

// A device array that one argument of an operator names.
struct Array {
  void* data = nullptr;
  std::vector<std::int64_t> shape;
  std::string type;  // numpy's name: float32, bfloat16, ...

  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

inline std::string dlpack_type(int code, int bits) {
  const char* kinds[] = {"int", "uint", "float", "opaque", "bfloat"};
  return (code < 5 ? kinds[code] : "unknown") + std::to_string(bits);
}

// Reads what one operator's arguments are and complains in its name.
class Arguments {
 public:
  explicit Arguments(const char* where) : where_(where) {}

  // The argument, whose type must be one of `types` and whose shape must be `shape`; -1 is any
  // size.
  Array read(const char* name, const py::object& object, const std::vector<std::string>& types,
             const std::vector<std::int64_t>& shape) const {
    const std::string place = std::string(where_) + ": " + name;
    Array array;
    if (py::hasattr(object, "__dlpack__")) {
      array = from_dlpack(place, object);
    } else if (py::hasattr(object, "__cuda_array_interface__")) {
      array = from_interface(place, object.attr("__cuda_array_interface__"));
    } else {
      raise("DeviceError",
            place + " is a " + std::string(py::str(py::type::of(object))) +
                ", must offer __dlpack__ or __cuda_array_interface__ (torch, cupy).");
    }
    std::string expected;
    bool agrees = false;
    for (const std::string& type : types) {
      agrees |= type == array.type;
      expected += (expected.empty() ? "" : " or ") + type;
    }
    if (!agrees) {
      raise("ShapeError", place + " is " + array.type + ", must be " + expected + ".");
    }
    agrees = shape.size() == array.shape.size();
    for (std::size_t i = 0; agrees && i < shape.size(); ++i) {
      agrees = shape[i] < 0 || shape[i] == array.shape[i];
    }
    if (!agrees) {
      raise("ShapeError", place + " has shape " + text(array.shape) + ", expected " + text(shape) +
                              " (-1: any size).");
    }
    return array;
  }

  void finish(cudaError_t status) const {
    if (status != cudaSuccess) {
      raise("DeviceError", std::string(where_) + ": CUDA could not launch the kernel (" +
                               cudaGetErrorString(status) +
                               "); is the module built for this GPU? See build_info().");
    }
  }

 private:
  static void check_contiguous(const std::string& place, const std::vector<std::int64_t>& shape,
                               const std::vector<std::int64_t>& strides, std::int64_t unit) {
    std::int64_t expected = unit;
    for (const std::int64_t size : shape) {
      if (size == 0) return;
    }
    for (std::size_t i = shape.size(); i-- > 0;) {
      if (shape[i] > 1 && strides[i] != expected) {
        raise("ShapeError", place + " is not contiguous; pass a contiguous copy of it.");
      }
      expected *= shape[i];
    }
  }

  static Array from_dlpack(const std::string& place, const py::object& object) {
    const py::tuple device = object.attr("__dlpack_device__")();
    const int type = device[0].cast<int>();
    if (type != kDeviceType && !(kDeviceType == 2 && type == 13)) {
      raise("DeviceError", place + " lies on DLPack device type " + std::to_string(type) +
                               ", must lie on " + std::to_string(kDeviceType) +
                               "; the CPU's kernels are in zsd_core.kernels.");
    }
    // -1: the producer need not synchronise any stream with ours.
    const py::object capsule =
        kDeviceType == 2 ? object.attr("__dlpack__")("stream"_a = -1) : object.attr("__dlpack__")();
    const auto* tensor =
        static_cast<const DlTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
    if (!tensor) throw py::error_already_set();
    Array array;
    array.data = static_cast<char*>(tensor->data) + tensor->byte_offset;
    array.shape.assign(tensor->shape, tensor->shape + tensor->ndim);
    array.type = dlpack_type(tensor->code, tensor->bits);
    if (tensor->strides) {
      check_contiguous(place, array.shape, {tensor->strides, tensor->strides + tensor->ndim}, 1);
    }
    return array;
  }

  static Array from_interface(const std::string& place, const py::dict& interface) {
    Array array;
    array.data =
        reinterpret_cast<void*>(interface["data"].cast<py::tuple>()[0].cast<std::uintptr_t>());
    for (const py::handle size : interface["shape"]) {
      array.shape.push_back(size.cast<std::int64_t>());
    }
    const auto code = interface["typestr"].cast<std::string>();
    if (code.size() != 3 || code[0] == '>') {
      raise("ShapeError", place + " has the type code " + code + ", must be little-endian.");
    }
    const int bytes = code[2] - '0';
    array.type = dlpack_type(code[1] == 'i'   ? 0
                             : code[1] == 'u' ? 1
                             : code[1] == 'f' ? 2
                                              : 5,
                             8 * bytes);
    if (interface.contains("strides") && !interface["strides"].is_none()) {
      std::vector<std::int64_t> strides;
      for (const py::handle stride : interface["strides"]) {
        strides.push_back(stride.cast<std::int64_t>());
      }
      check_contiguous(place, array.shape, strides, bytes);
    }
    return array;
  }

  const char* where_;
};

inline cudaStream_t as_stream(std::uintptr_t stream) {
  return reinterpret_cast<cudaStream_t>(stream);
}

const std::vector<std::string> kFloat = {"float32"};
const std::vector<std::string> kInt = {"int32"};
const std::vector<std::string> kFloats = {"float32", "float16", "bfloat16"};

// Calls run(T{}) with the type of one of kFloats.
template <typename Run>
cudaError_t by_type(const std::string& type, Run run) {
  if (type == "float32") return run(float{});
  return type == "float16" ? run(half{}) : run(bfloat16{});
}

inline void check_workspace(const char* where, const Array& workspace, std::size_t needed) {
  if (workspace.shape[0] < static_cast<std::int64_t>(needed) ||
      reinterpret_cast<std::uintptr_t>(workspace.data) % 16) {
    raise("ShapeError", std::string(where) + ": workspace has " +
                            std::to_string(workspace.shape[0]) + " bytes, needs " +
                            std::to_string(needed) + " aligned to 16; ask " + where +
                            "_workspace().");
  }
}

}  // namespace bindings
}  // namespace zsd
