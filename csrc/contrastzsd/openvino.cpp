// OpenVINO: Intel CPUs, their graphics and neural units; Arm CPUs.
#include <mutex>
#include <openvino/frontend/manager.hpp>
#include <openvino/openvino.hpp>
#include <stdexcept>
#include <utility>

#include "contrastzsd/backends.h"
#include "contrastzsd/errors.h"
#include "contrastzsd/text.h"

namespace contrastzsd {
namespace {

// A compiled network and its idle requests. A request is given back when the last output that
// lies in its memory is gone.
struct Network : std::enable_shared_from_this<Network> {
  ov::CompiledModel model;
  std::vector<std::string> inputs, outputs;
  std::mutex mutex;
  std::vector<ov::InferRequest> idle;

  struct Lease {
    std::shared_ptr<Network> network;
    ov::InferRequest request;
    std::vector<Tensor> inputs;  // read by the request while it runs

    ~Lease() {
      const std::lock_guard<std::mutex> lock(network->mutex);
      network->idle.push_back(std::move(request));
    }
  };

  std::shared_ptr<Lease> lease() {
    ov::InferRequest request;
    {
      const std::lock_guard<std::mutex> lock(mutex);
      if (!idle.empty()) {
        request = std::move(idle.back());
        idle.pop_back();
      }
    }
    if (!request) request = model.create_infer_request();
    return std::shared_ptr<Lease>(new Lease{shared_from_this(), std::move(request), {}});
  }
};

// An ONNX file by OpenVINO's reader of ONNX, and by no other. Else the file's content would choose:
// the same file may be ONNX with unknown fields, which our checks see, and a network of TensorFlow,
// which they do not.
//
// Twin        runtime/openvino_core.py::read_network; change both in one commit.
std::shared_ptr<ov::Model> read_network(const std::filesystem::path& file) {
  ov::frontend::FrontEndManager readers;
  const ov::frontend::FrontEnd::Ptr reader = readers.load_by_framework("onnx");
  const std::shared_ptr<ov::Model> network = reader->convert(reader->load(file.string()));
  if (network->outputs().empty()) throw std::runtime_error("it has no outputs");
  return network;
}

class OpenVino final : public Networks {
 public:
  OpenVino(const Bundle& bundle, const std::vector<std::string>& stages,
           const NetworkOptions& options) {
    check_device(options.device);
    // float32 as exported: on some CPUs the default would be bfloat16.
    ov::AnyMap settings = {ov::hint::inference_precision(ov::element::f32)};
    if (options.threads > 0 && options.device == "CPU")
      settings.insert(ov::inference_num_threads(options.threads));
    for (const std::string& stage : stages) {
      const auto file = bundle.network(stage, options.precision, "openvino");
      auto network = std::make_shared<Network>();
      try {
        network->model = core_.compile_model(read_network(file), options.device, settings);
      } catch (const std::exception& error) {
        throw BundleError(bundle.path().string() + ": openvino cannot load " +
                          file.filename().string() + ": " + error.what());
      }
      network->inputs = bundle.stage(stage).inputs;
      network->outputs = bundle.stage(stage).outputs;
      networks_[stage] = std::move(network);
    }
    const std::string version = ov::get_openvino_version().buildNumber;
    description_ = "openvino " + version.substr(0, version.find('-')) + ", " + options.device +
                   ", " + options.precision;
  }

  std::vector<Tensor> run(const std::string& stage, const std::vector<Tensor>& inputs) override {
    const std::shared_ptr<Network>& network = networks_.at(stage);
    try {
      const std::shared_ptr<Network::Lease> lease = network->lease();
      lease->inputs = inputs;
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        const ov::Shape shape(inputs[i].shape.begin(), inputs[i].shape.end());
        lease->request.set_tensor(network->inputs.at(i),
                                  ov::Tensor(ov::element::f32, shape, inputs[i].data.get()));
      }
      lease->request.infer();
      std::vector<Tensor> outputs;
      for (const std::string& name : network->outputs) {
        ov::Tensor output = lease->request.get_tensor(name);
        if (output.get_element_type() != ov::element::f32)
          throw not_float32(stage, name, output.get_element_type().get_type_name());
        const ov::Shape shape = output.get_shape();
        outputs.push_back(
            {{shape.begin(), shape.end()}, std::shared_ptr<float>(lease, output.data<float>())});
      }
      return outputs;
    } catch (const BundleError&) {
      throw;
    } catch (const std::exception& error) {
      throw DeviceError("openvino cannot run the " + stage + ": " + error.what());
    }
  }

  std::string description() const override { return description_; }

 private:
  void check_device(const std::string& device) {
    std::vector<std::string> known = core_.get_available_devices();
    for (const std::string& name : known)  // of several GPUs, GPU.0 is listed and GPU means it
      if (name == device || name.substr(0, name.find('.')) == device || device == "AUTO") return;
    throw DeviceError("openvino has no device " + in_quotes(device) + " here, only " +
                      list_in_quotes(known) + ".");
  }

  ov::Core core_;
  std::map<std::string, std::shared_ptr<Network>> networks_;
  std::string description_;
};

}  // namespace

std::unique_ptr<Networks> open_openvino(const Bundle& bundle,
                                        const std::vector<std::string>& stages,
                                        const NetworkOptions& options) {
  return std::make_unique<OpenVino>(bundle, stages, options);
}

}  // namespace contrastzsd
