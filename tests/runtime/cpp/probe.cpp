// Does with a contrastzsd::Detector what lines of JSON on stdin ask for, and answers each by a
// line.
//
//   {"do": "open", "bundle": ..., "backend": ...}     answers {"result": ...} or
//   {"do": "detect", "images": ["photo.ppm"]}         {"error": message, "kind": name of the type}
#include <contrastzsd/detector.h>
#include <contrastzsd/kernels/boxes.h>

#include <atomic>
#include <fstream>
#include <iostream>
#include <locale>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

namespace {

using contrastzsd::Role;
using nlohmann::json;

struct Picture {
  std::vector<std::uint8_t> pixels;
  contrastzsd::Image image;
};

// A PPM; with `bgr` its channels are swapped, with `gap` rows are this many bytes apart.
Picture read(const std::string& path, const json& ask) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  std::int64_t width = 0, height = 0;
  int most = 0;
  file >> magic >> width >> height >> most;
  file.get();
  const std::int64_t row = 3 * width + ask.value("gap", 0);
  Picture picture{std::vector<std::uint8_t>(std::size_t(height * row)), {}};
  for (std::int64_t y = 0; y < height; ++y) {
    auto* pixels = picture.pixels.data() + y * row;
    file.read(reinterpret_cast<char*>(pixels), 3 * width);
    for (std::int64_t x = 0; x < width && ask.value("bgr", false); ++x)
      std::swap(pixels[3 * x], pixels[3 * x + 2]);
  }
  picture.image = {picture.pixels.data(), height, width,
                   ask.value("bgr", false) ? contrastzsd::Color::kBgr : contrastzsd::Color::kRgb,
                   row};
  return picture;
}

std::vector<contrastzsd::Class> classes(const json& given) {
  std::vector<contrastzsd::Class> result;
  for (const json& entry : given) {
    if (entry.is_string())
      result.emplace_back(entry.get<std::string>());
    else
      result.emplace_back(entry[0].get<std::string>(), entry[1].get<std::vector<float>>());
  }
  return result;
}

contrastzsd::Mode mode(const std::string& name) {
  return name == "zsd"    ? contrastzsd::Mode::kZsd
         : name == "seen" ? contrastzsd::Mode::kSeen
                          : contrastzsd::Mode::kGzsd;
}

contrastzsd::Thresholds thresholds(const json& given) {
  contrastzsd::Thresholds result;
  if (given.contains("seen")) result.seen = given["seen"].get<float>();
  if (given.contains("unseen")) result.unseen = given["unseen"].get<float>();
  if (given.contains("nms")) result.nms = given["nms"].get<float>();
  if (given.contains("max_detections"))
    result.max_detections = given["max_detections"].get<std::int64_t>();
  if (given.contains("by_class"))
    result.by_class = given["by_class"].get<std::map<std::string, float>>();
  return result;
}

// Networks of a caller, which never run.
struct NoNetworks : contrastzsd::Networks {
  std::vector<contrastzsd::Tensor> run(const std::string&,
                                       const std::vector<contrastzsd::Tensor>&) override {
    return {};
  }
  std::string description() const override { return "none"; }
};

// Numbers with every ornament that a country may want: streams that follow it say 1.2,3.4 or
// U+2.02E.
struct Ornaments : std::numpunct<char> {
  char do_decimal_point() const override { return ','; }
  char do_thousands_sep() const override { return '.'; }
  std::string do_grouping() const override { return "\1"; }
};

json listed(const contrastzsd::Detections& found) {
  json objects = json::array(), stages = json::array();
  for (const contrastzsd::Detection& object : found)
    objects.push_back({{"box", {object.box.x1, object.box.y1, object.box.x2, object.box.y2}},
                       {"score", object.score},
                       {"id", object.class_id},
                       {"class", object.class_name},
                       {"role", object.role == Role::kSeen ? "seen" : "unseen"}});
  for (const auto& [stage, milliseconds] : found.times_ms) stages.push_back(stage);
  json result = {{"objects", objects}, {"version", found.class_set_version}, {"stages", stages}};
  if (found.near_miss) result["near_miss"] = {found.near_miss->first, found.near_miss->second};
  return result;
}

// Images searched by several threads while the classes change: names that do not belong together.
std::int64_t storm(contrastzsd::Detector& detector, const contrastzsd::Image& image) {
  std::atomic<bool> done = false;
  std::atomic<std::int64_t> wrong = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([&] {
      while (!done) {
        const contrastzsd::Detections found = detector(image);
        for (const contrastzsd::Detection& object : found)
          wrong += (object.class_name == "zebra") != (found.class_set_version % 2 == 0);
      }
    });
  for (int i = 0; i < 100; ++i) {
    detector.set_classes({i % 2 ? "teapot" : "zebra"});
    std::this_thread::yield();
  }
  done = true;
  for (std::thread& thread : threads) thread.join();
  return wrong;
}

json answer(const json& ask, std::unique_ptr<contrastzsd::Detector>& detector) {
  const std::string what = ask.at("do");
  if (what == "open") {
    contrastzsd::DetectorOptions options;
    options.classes = classes(ask.value("classes", json::array()));
    options.mode = mode(ask.value("mode", ""));
    options.thresholds = thresholds(ask.value("thresholds", json::object()));
    options.networks.backend = ask.value("backend", "auto");
    options.networks.precision = ask.value("precision", "float32");
    options.networks.device = ask.value("device", "CPU");
    options.networks.threads = ask.value("threads", 1);
    options.int8_scoring = ask.value("int8_scoring", false);
    detector.reset();
    const std::string path = ask.at("bundle");
    detector = ask.value("own", false) ? std::make_unique<contrastzsd::Detector>(
                                             std::make_shared<const contrastzsd::Bundle>(path),
                                             std::make_shared<NoNetworks>(), options)
                                       : std::make_unique<contrastzsd::Detector>(path, options);
    return detector->description();
  }
  if (what == "backends") return contrastzsd::backends();
  if (what == "iou") {  // the kernels' headers are installed, too
    const zsd::Box a{0, 0, 2, 2}, b{1, 0, 3, 2};
    return zsd::iou(a, b, zsd::area(a), zsd::area(b));
  }
  if (what == "detect") {
    std::vector<Picture> pictures;
    for (const json& path : ask.at("images")) pictures.push_back(read(path, ask));
    json results = json::array();
    std::vector<contrastzsd::Image> images;
    for (const Picture& picture : pictures) images.push_back(picture.image);
    for (const auto& found : (*detector)(images, ask.value("max_batch", 8)))
      results.push_back(listed(found));
    return results;
  }
  if (what == "no image") return listed((*detector)({nullptr, 3, 4}));
  if (what == "sizes") {  // of an image that cannot be
    const std::uint8_t pixels[3] = {};
    return listed((*detector)({pixels, ask.at("height"), ask.at("width"), contrastzsd::Color::kRgb,
                               ask.value("row_bytes", std::int64_t(0))}));
  }
  if (what == "storm") return storm(*detector, read(ask.at("image"), ask).image);
  if (what == "add") detector->add_classes(classes(ask.at("classes")));
  if (what == "set") detector->set_classes(classes(ask.at("classes")));
  if (what == "remove") detector->remove_classes(ask.at("names"));
  if (what == "mode") detector->set_mode(mode(ask.at("mode")));
  if (what == "thresholds") detector->set_thresholds(thresholds(ask.at("thresholds")));
  if (what == "search") return detector->search(ask.at("text"), 5);
  json roles = json::array();
  for (const Role role : detector->roles())
    roles.push_back(role == Role::kSeen ? "seen" : "unseen");
  return {{"classes", detector->classes()},
          {"roles", roles},
          {"version", detector->class_set_version()}};
}

std::string kind_of(const std::exception& error) {
  if (dynamic_cast<const contrastzsd::BundleError*>(&error)) return "BundleError";
  if (dynamic_cast<const contrastzsd::ClassError*>(&error)) return "ClassError";
  if (dynamic_cast<const contrastzsd::ConfigError*>(&error)) return "ConfigError";
  if (dynamic_cast<const contrastzsd::DeviceError*>(&error)) return "DeviceError";
  if (dynamic_cast<const contrastzsd::ImageError*>(&error)) return "ImageError";
  return "another";
}

}  // namespace

int main() {
  std::locale::global(std::locale(std::locale::classic(), new Ornaments));
  std::unique_ptr<contrastzsd::Detector> detector;
  for (std::string line; std::getline(std::cin, line);) {
    try {
      std::cout << json{{"result", answer(json::parse(line), detector)}}.dump() << std::endl;
    } catch (const std::exception& error) {
      std::cout << json{{"kind", kind_of(error)}, {"error", error.what()}}.dump() << std::endl;
    }
  }
}
