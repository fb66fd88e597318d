// Python's way to the CUDA kernels: arrays on a GPU in, work on the caller's stream, nothing waited
// for. The module is apart from the CPU's and loaded only when asked for.
//
// Arrays come by DLPack or __cuda_array_interface__; results go into arrays of the caller, so that
// a call allocates nothing and can be captured in a CUDA graph. They must stay alive until the
// stream has passed the call. Ordering with the stream that produced them is the caller's.
#include <pybind11/pybind11.h>

#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "kernels/launch.h"

namespace py = pybind11;
using namespace py::literals;

namespace zsd {
namespace {

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

[[noreturn]] void raise(const char* kind, const std::string& message) {
  const py::object type = py::module_::import("zsd_core.errors").attr(kind);
  PyErr_SetString(type.ptr(), message.c_str());
  throw py::error_already_set();
}

std::string text(const std::vector<std::int64_t>& shape) {
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

std::string dlpack_type(int code, int bits) {
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

cudaStream_t as_stream(std::uintptr_t stream) { return reinterpret_cast<cudaStream_t>(stream); }

const std::vector<std::string> kFloat = {"float32"};
const std::vector<std::string> kInt = {"int32"};
const std::vector<std::string> kFloats = {"float32", "float16", "bfloat16"};

template <typename T, typename Weight>
cudaError_t run_product_mlp(const Array& regions, const Array& prototypes, const Array& weight1,
                            const float* weight_scale, const Array& bias1, const Array& weight2,
                            const Array& bias2, const Array& output, cudaStream_t stream) {
  ProductMlpArguments<T, Weight> arguments{};
  arguments.regions = regions.as<T>();
  arguments.prototypes = prototypes.as<T>();
  arguments.weight1 = weight1.as<Weight>();
  arguments.weight_scale = weight_scale;
  arguments.bias1 = bias1.as<float>();
  arguments.weight2 = weight2.as<float>();
  arguments.bias2 = bias2.as<float>();
  arguments.output = output.as<float>();
  arguments.num_regions = static_cast<int>(regions.shape[0]);
  arguments.num_classes = static_cast<int>(prototypes.shape[0]);
  arguments.depth = static_cast<int>(regions.shape[1]);
  arguments.hidden = static_cast<int>(weight1.shape[0]);
  return launch_product_mlp(arguments, stream);
}

void product_mlp(const py::object& regions, const py::object& prototypes, const py::object& weight1,
                 const py::object& bias1, const py::object& weight2, const py::object& bias2,
                 const py::object& output, const py::object& weight_scale, std::uintptr_t stream) {
  const Arguments arguments("product_mlp");
  const bool quantized = !weight_scale.is_none();
  const Array v = arguments.read(
      "regions", regions, quantized ? std::vector<std::string>{"float16"} : kFloats, {-1, -1});
  const Array a = arguments.read("prototypes", prototypes, {v.type}, {-1, v.shape[1]});
  const Array w1 =
      arguments.read("weight1", weight1, {quantized ? "int8" : v.type}, {-1, v.shape[1]});
  const std::int64_t hidden = w1.shape[0];
  const Array b1 = arguments.read("bias1", bias1, kFloat, {hidden});
  const Array w2 = arguments.read("weight2", weight2, kFloat, {hidden});
  const Array b2 = arguments.read("bias2", bias2, kFloat, {1});
  const Array out = arguments.read("output", output, kFloat, {v.shape[0], a.shape[0]});
  const cudaStream_t on = as_stream(stream);
  if (quantized) {
    const Array scale = arguments.read("weight_scale", weight_scale, kFloat, {hidden});
    arguments.finish(
        run_product_mlp<half, std::int8_t>(v, a, w1, scale.as<float>(), b1, w2, b2, out, on));
  } else if (v.type == "float32") {
    arguments.finish(run_product_mlp<float, float>(v, a, w1, nullptr, b1, w2, b2, out, on));
  } else if (v.type == "float16") {
    arguments.finish(run_product_mlp<half, half>(v, a, w1, nullptr, b1, w2, b2, out, on));
  } else {
    arguments.finish(run_product_mlp<bfloat16, bfloat16>(v, a, w1, nullptr, b1, w2, b2, out, on));
  }
}

}  // namespace
}  // namespace zsd

PYBIND11_MODULE(_compiled_cuda, module) {
  module.doc() = "The CUDA kernels: device arrays in, results into arrays of the caller.";
  module.def("product_mlp", &zsd::product_mlp, "regions"_a, "prototypes"_a, "weight1"_a, "bias1"_a,
             "weight2"_a, "bias2"_a, "output"_a, "weight_scale"_a = py::none(), "stream"_a = 0);
}
