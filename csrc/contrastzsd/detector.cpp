#include "contrastzsd/detector.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <mutex>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "contrastzsd/backends.h"
#include "contrastzsd/classes.h"
#include "contrastzsd/pipeline.h"
#include "contrastzsd/text.h"
#include "kernels/cpu/thread_pool.h"

namespace contrastzsd {
namespace {

// Thresholds of a caller, checked and completed by the bundle's.
struct Limits {
  float seen, unseen;
  std::unordered_map<std::string, float> by_class;  // by folded name
  double nms;
  std::int64_t max_detections;
};

float share(const std::string& where, float value) {
  if (value >= 0 && value <= 1) return value;
  throw ConfigError(where + " is " + number_text(value) +
                    ", must be a number in [0, 1]; it is no percentage.");
}

// Those of a bundle.
Limits limits_of(const DetectionConfig& config) {
  const double unseen = config.unseen_threshold.value_or(config.score_threshold);
  return {float(config.score_threshold),
          float(unseen),
          {},
          config.nms_threshold,
          config.max_detections};
}

// `limits` with what is given in its place.
Limits changed(Limits limits, const Thresholds& given) {
  limits.seen = share("the threshold of seen classes", given.seen.value_or(limits.seen));
  limits.unseen = share("the threshold of unseen classes", given.unseen.value_or(limits.unseen));
  if (given.nms) limits.nms = double(share("the NMS threshold", *given.nms));
  limits.max_detections = given.max_detections.value_or(limits.max_detections);
  if (limits.max_detections < 1 || limits.max_detections > kMostDetections)
    throw ConfigError("max_detections is " + std::to_string(limits.max_detections) +
                      ", must be a whole number from 1 to " + std::to_string(kMostDetections) +
                      ".");
  std::unordered_set<std::string> named;
  for (const auto& [name, value] : given.by_class) {
    const std::string folded = fold_name(name);
    if (!named.insert(folded).second)
      throw ConfigError("the threshold of class " + in_quotes(name) +
                        " is given twice (case and blanks do not count).");
    limits.by_class[folded] = share("the threshold of class " + in_quotes(name), value);
  }
  return limits;
}

// Classes and limits that belong together; replaced whole, never changed.
struct State {
  State(ActiveClasses classes, Limits bounds)
      : active(std::move(classes)), limits(std::move(bounds)) {
    for (std::size_t c = 0; c < active.ids.size(); ++c)
      thresholds.push_back(!active.reported[c]                           ? kHidden
                           : active.role(std::int64_t(c)) == Role::kSeen ? limits.seen
                                                                         : limits.unseen);
    if (limits.by_class.empty()) return;
    for (std::size_t c = 0; c < active.ids.size(); ++c) {
      const auto found = limits.by_class.find(fold_name(active.name_at(std::int64_t(c))));
      if (found != limits.by_class.end() && active.reported[c]) thresholds[c] = found->second;
    }
  }

  ActiveClasses active;
  Limits limits;
  std::vector<float> thresholds;  // (C,)
};

bool is_active(const ActiveClasses& active, const std::string& folded) {
  return std::any_of(active.names.begin(), active.names.end(),
                     [&](const std::string& name) { return fold_name(name) == folded; });
}

// A threshold for a class that is not there: most likely it is misspelt. All of them are named.
void check_names(const Limits& limits, const ActiveClasses& active) {
  std::string absent;
  for (const auto& [name, value] : limits.by_class)
    if (!is_active(active, name))
      absent += (absent.empty() ? "" : "; ") + ("there is a threshold for " + in_quotes(name)) +
                ", which is none of the " + std::to_string(active.names.size()) +
                " active classes" + did_you_mean(name, active.names);
  if (!absent.empty()) throw ClassError(absent);
}

Detections named(const ActiveClasses& active, const ImageResult& result) {
  Detections found;
  found.class_set_version = active.set->version;
  found.times_ms = result.times_ms;
  for (std::size_t i = 0; i < result.boxes.size(); ++i) {
    const std::int64_t column = result.columns[i], id = active.ids[std::size_t(column)];
    found.objects.push_back({result.boxes[i], result.scores[i], id, active.names[std::size_t(id)],
                             active.role(column)});
  }
  if (result.best) {
    const std::int64_t id = active.ids[std::size_t(result.best->second)];
    found.near_miss = {active.names[std::size_t(id)], result.best->first};
  }
  return found;
}

std::shared_ptr<const Bundle> opened(const std::filesystem::path& path) {
  return std::make_shared<const Bundle>(path);
}

std::shared_ptr<Networks> loaded(const Bundle& bundle, const NetworkOptions& options) {
  return open_networks(bundle, network_stages(bundle.config()), options);
}

}  // namespace

struct Detector::Impl {
  Impl(std::shared_ptr<const Bundle> opened, std::shared_ptr<Networks> loaded,
       const DetectorOptions& options)
      : bundle(std::move(opened)),
        networks(std::move(loaded)),
        scorer(
            make_scorer(bundle->config().scoring, bundle->scorer_tensors(), options.int8_scoring)),
        table(bundle, *scorer) {
    const Limits limits = changed(limits_of(bundle->config().detection), options.thresholds);
    const ActiveClasses active = table.activate(options.classes, options.mode, 0);
    check_names(limits, active);
    state_ = std::make_shared<const State>(active, limits);
    if (options.networks.threads > 0) zsd::set_num_threads(options.networks.threads);
  }

  std::shared_ptr<const State> state() const {
    const std::lock_guard<std::mutex> lock(read_);
    return state_;
  }

  // One change at a time; readers wait for no more than the swap.
  void change(const std::function<State(const State&)>& next) {
    const std::lock_guard<std::mutex> lock(write_);
    auto made = std::make_shared<const State>(next(*state()));
    const std::lock_guard<std::mutex> swap(read_);
    state_.swap(made);
  }

  std::shared_ptr<const Bundle> bundle;
  std::shared_ptr<Networks> networks;
  std::unique_ptr<Scorer> scorer;
  ClassTable table;

 private:
  mutable std::mutex read_;
  std::mutex write_;
  std::shared_ptr<const State> state_;
};

Detector::Detector(const std::filesystem::path& bundle, const DetectorOptions& options)
    : Detector(opened(bundle), nullptr, options) {}

Detector::Detector(std::shared_ptr<const Bundle> bundle, std::shared_ptr<Networks> networks,
                   const DetectorOptions& options) {
  if (!bundle) throw ConfigError("Detector: bundle is null; open one with Bundle(path).");
  check_threads(options.networks.threads);
  if (!networks) networks = loaded(*bundle, options.networks);
  impl_ = std::make_unique<Impl>(std::move(bundle), std::move(networks), options);
}

Detector::~Detector() = default;
Detector::Detector(Detector&&) noexcept = default;
Detector& Detector::operator=(Detector&&) noexcept = default;

Detections Detector::operator()(const Image& image) const {
  return std::move((*this)(std::vector<Image>{image}, 1).front());
}

std::vector<Detections> Detector::operator()(const std::vector<Image>& images,
                                             int max_batch) const {
  const std::shared_ptr<const State> state = impl_->state();  // later changes: the next call's
  const RunOptions options{state->limits.nms, state->limits.max_detections, max_batch};
  std::vector<Detections> results;
  for (const ImageResult& result : run(*impl_->networks, *impl_->scorer, *state->active.set,
                                       impl_->bundle->config(), images, state->thresholds, options))
    results.push_back(named(state->active, result));
  return results;
}

void Detector::set_classes(const std::vector<Class>& classes) {
  impl_->change([&](const State& old) {
    return State(impl_->table.activate(classes, old.active.mode, old.active.set->version),
                 old.limits);
  });
}

void Detector::add_classes(const std::vector<Class>& classes) {
  impl_->change(
      [&](const State& old) { return State(impl_->table.added(old.active, classes), old.limits); });
}

void Detector::remove_classes(const std::vector<std::string>& names) {
  impl_->change(
      [&](const State& old) { return State(impl_->table.removed(old.active, names), old.limits); });
}

void Detector::set_thresholds(const Thresholds& thresholds) {
  impl_->change([&](const State& old) {
    Limits kept = old.limits;  // without those of classes that are gone
    for (auto entry = kept.by_class.begin(); entry != kept.by_class.end();)
      entry = is_active(old.active, entry->first) ? std::next(entry) : kept.by_class.erase(entry);
    const Limits limits = changed(std::move(kept), thresholds);
    check_names(limits, old.active);
    return State(old.active, limits);
  });
}

void Detector::set_mode(Mode mode) {
  impl_->change([&](const State& old) {
    return State(impl_->table.with_mode(old.active, mode), old.limits);
  });
}

std::vector<std::string> Detector::classes() const { return impl_->state()->active.names; }

std::vector<Role> Detector::roles() const {
  const std::shared_ptr<const State> state = impl_->state();
  std::vector<Role> roles(state->active.names.size());
  for (std::size_t c = 0; c < state->active.ids.size(); ++c)
    if (state->active.ids[c] >= 0)
      roles[std::size_t(state->active.ids[c])] = state->active.role(std::int64_t(c));
  return roles;
}

std::int64_t Detector::class_set_version() const { return impl_->state()->active.set->version; }

const Bundle& Detector::bundle() const { return *impl_->bundle; }

std::string Detector::description() const {
  return impl_->bundle->name() + " on " + impl_->networks->description();
}

std::vector<std::string> Detector::search(const std::string& text, std::size_t count) const {
  std::vector<std::string> table = impl_->bundle->seen();
  table.insert(table.end(), impl_->bundle->unseen().begin(), impl_->bundle->unseen().end());
  return impl_->bundle->vocabulary().search(text, count, table);
}

}  // namespace contrastzsd
