// ONNX Runtime on any CPU.
#include <onnxruntime_cxx_api.h>

#include <utility>

#include "contrastzsd/backends.h"
#include "contrastzsd/errors.h"
#include "contrastzsd/text.h"

namespace contrastzsd {
namespace {

struct Network {
  Ort::Session session{nullptr};
  std::vector<std::string> inputs, outputs;
};

std::vector<const char*> pointers(const std::vector<std::string>& names) {
  std::vector<const char*> result;
  for (const std::string& name : names) result.push_back(name.c_str());
  return result;
}

class OnnxRuntime final : public Networks {
 public:
  OnnxRuntime(const Bundle& bundle, const std::vector<std::string>& stages,
              const NetworkOptions& options)
      : environment_(ORT_LOGGING_LEVEL_ERROR, "contrastzsd") {
    if (options.device != "CPU")
      throw DeviceError("device is " + in_quotes(options.device) +
                        ", and onnxruntime runs on 'CPU' only here.");
    Ort::SessionOptions settings;
    settings.SetLogSeverityLevel(ORT_LOGGING_LEVEL_ERROR);  // warnings would be about our own graph
    // A network's idle workers must not spin while the kernels or the other network run.
    settings.AddConfigEntry("session.force_spinning_stop", "1");
    // Rounding that moves up through a slice rounds what the slice leaves out too.
    settings.AddConfigEntry("optimization.disable_specified_optimizers",
                            "QDQPropagationTransformer");
    if (options.threads > 0) settings.SetIntraOpNumThreads(options.threads);
    for (const std::string& stage : stages) {
      const auto file = bundle.network(stage, options.precision, "onnxruntime");
      Network& network = networks_[stage];
      try {
        network.session = Ort::Session(environment_, file.c_str(), settings);
      } catch (const Ort::Exception& error) {
        throw BundleError(bundle.path().string() + ": onnxruntime " + Ort::GetVersionString() +
                          " cannot load " + file.filename().string() + ": " + error.what());
      }
      network.inputs = bundle.stage(stage).inputs;
      network.outputs = bundle.stage(stage).outputs;
    }
    description_ = "onnxruntime " + Ort::GetVersionString() + ", CPU, " + options.precision;
  }

  std::vector<Tensor> run(const std::string& stage, const std::vector<Tensor>& inputs) override {
    Network& network = networks_.at(stage);
    try {
      const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
      std::vector<Ort::Value> values;
      for (const Tensor& input : inputs)
        values.push_back(Ort::Value::CreateTensor<float>(memory, input.data.get(),
                                                         std::size_t(input.size()),
                                                         input.shape.data(), input.shape.size()));
      const auto input_names = pointers(network.inputs), output_names = pointers(network.outputs);
      if (input_names.size() != values.size())
        throw DeviceError("it has " + std::to_string(input_names.size()) + " inputs, and got " +
                          std::to_string(values.size()));
      std::vector<Ort::Value> made =
          network.session.Run(Ort::RunOptions{nullptr}, input_names.data(), values.data(),
                              values.size(), output_names.data(), output_names.size());
      std::vector<Tensor> outputs;
      for (std::size_t i = 0; i < made.size(); ++i) {
        const auto owner = std::make_shared<Ort::Value>(std::move(made[i]));
        const auto about = owner->GetTensorTypeAndShapeInfo();
        if (about.GetElementType() != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT)
          throw not_float32(stage, network.outputs[i],
                            std::to_string(int(about.GetElementType())) + " of ONNX");
        outputs.push_back({about.GetShape(),
                           std::shared_ptr<float>(owner, owner->GetTensorMutableData<float>())});
      }
      return outputs;
    } catch (const BundleError&) {
      throw;
    } catch (const std::exception& error) {
      throw DeviceError("onnxruntime cannot run the " + stage + ": " + error.what());
    }
  }

  std::string description() const override { return description_; }

 private:
  Ort::Env environment_;
  std::map<std::string, Network> networks_;
  std::string description_;
};

}  // namespace

std::unique_ptr<Networks> open_onnxruntime(const Bundle& bundle,
                                           const std::vector<std::string>& stages,
                                           const NetworkOptions& options) {
  return std::make_unique<OnnxRuntime>(bundle, stages, options);
}

}  // namespace contrastzsd
