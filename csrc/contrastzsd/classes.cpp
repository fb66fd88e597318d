#include "contrastzsd/classes.h"

#include <algorithm>
#include <set>
#include <utility>

#include "contrastzsd/errors.h"
#include "contrastzsd/text.h"

namespace contrastzsd {
namespace {

// Checks names: none is blank, there twice or without a form that can be read. `forms` are those in
// which they are known.
void check_names(const std::vector<std::string>& names, const std::vector<std::string>& forms) {
  std::set<std::string> known, folded;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::string& name = names[i];
    if (forms[i].empty())
      throw ClassError("class name " + in_quotes(name) + " must be a text that is not blank.");
    if (const std::string fault = name_fault(name); !fault.empty())
      throw ClassError("class name " + escaped(name) + " " + fault + ".");
    if (!known.insert(forms[i]).second || !folded.insert(fold_name(name)).second)
      throw ClassError("class " + in_quotes(name) +
                       " is given twice (case, blanks and accents do not count).");
  }
  if (names.empty()) throw ClassError("no classes are given; name at least one.");
}

// Marks what is reported; the last step of every change.
ActiveClasses sealed(ActiveClasses active) {
  bool any = false;
  active.reported.assign(active.ids.size(), false);
  for (std::size_t c = 0; c < active.ids.size(); ++c) {
    const bool hidden =
        (active.mode == Mode::kZsd && active.role(std::int64_t(c)) == Role::kSeen) ||
        (active.mode == Mode::kSeen && active.role(std::int64_t(c)) == Role::kUnseen);
    active.reported[c] = active.ids[c] >= 0 && !hidden;
    any = any || active.reported[c];
  }
  if (any) return active;
  const std::string role = active.mode == Mode::kZsd    ? "unseen class"
                           : active.mode == Mode::kSeen ? "seen class"
                                                        : "class";
  throw ClassError("this mode needs at least one " + role + ", and the " +
                   std::to_string(active.names.size()) +
                   " active classes hold none; name one, or use Mode::kGzsd.");
}

}  // namespace

std::int64_t ActiveClasses::column(const std::string& form) const {
  const auto found = columns.find(form);
  return found == columns.end() ? -1 : found->second;
}

std::string ActiveClasses::name_at(std::int64_t column) const {
  const std::int64_t id = column < 0 ? -1 : ids[std::size_t(column)];
  return id < 0 ? "" : names[std::size_t(id)];
}

ClassTable::ClassTable(std::shared_ptr<const Bundle> bundle, Scorer& scorer)
    : bundle_(std::move(bundle)), scorer_(scorer) {
  const std::vector<std::string>&seen = bundle_->seen(), &unseen = bundle_->unseen();
  for (std::size_t i = 0; i < unseen.size(); ++i) unseen_[fold_name(unseen[i])] = std::int64_t(i);
  for (std::size_t i = 0; i < seen.size(); ++i) none_.columns[fold_name(seen[i])] = std::int64_t(i);
  for (const auto& table : {seen, unseen})
    for (const std::string& name : table) plain_.emplace(plain_name(name), fold_name(name));
  none_.ids.assign(seen.size(), -1);
  none_.set =
      std::make_shared<const ClassSet>(scorer.known(seen, bundle_->class_vectors().data.get()));
}

ActiveClasses ClassTable::activate(const std::vector<Class>& classes, Mode mode,
                                   std::int64_t version) const {
  ActiveClasses start = none_;
  start.mode = mode;
  auto set = std::make_shared<ClassSet>(*none_.set);
  set->version = version;
  start.set = set;
  if (!classes.empty()) return added(start, classes);
  std::vector<Class> table(bundle_->seen().begin(), bundle_->seen().end());
  table.insert(table.end(), bundle_->unseen().begin(), bundle_->unseen().end());
  return added(start, table);
}

ActiveClasses ClassTable::added(const ActiveClasses& old, const std::vector<Class>& classes) const {
  std::vector<std::string> names, unseen_names, forms;
  for (const Class& wanted : classes) {
    const std::string folded =
        fold_name(wanted.name);  // refuses what is no UTF-8, unlike trim_name
    names.push_back(trim_name(wanted.name));
    forms.push_back(wanted.vector.empty() ? known_as(folded, old) : folded);
  }
  check_names(names, forms);
  ActiveClasses active = old;
  std::vector<float> vectors;
  for (std::size_t i = 0; i < classes.size(); ++i) {
    std::int64_t column = old.column(forms[i]);
    const std::string active_name = old.name_at(old.column(known_as(fold_name(names[i]), old)));
    if (!active_name.empty() && (column >= 0 || fold_name(active_name) == forms[i]))
      throw ClassError("class " + in_quotes(names[i]) + " is already active" +
                       (active_name == names[i] ? "" : ", as " + in_quotes(active_name)) +
                       "; remove it first.");
    if (column >= 0 && !classes[i].vector.empty())
      throw ClassError("class " + in_quotes(names[i]) +
                       " is a seen class of this bundle, whose vector training fixed; give your "
                       "own vector another name.");
    if (column < 0) {
      const std::vector<float> vector = vector_of(classes[i], forms[i]);
      vectors.insert(vectors.end(), vector.begin(), vector.end());
      unseen_names.push_back(names[i]);
      column = std::int64_t(active.ids.size());
      active.columns[forms[i]] = column;
      active.ids.push_back(-1);
    }
    active.ids[std::size_t(column)] = std::int64_t(active.names.size());
    active.names.push_back(names[i]);
  }
  active.set = std::make_shared<const ClassSet>(
      scorer_.append(*old.set, unseen_names, scorer_.rows(unseen_names, std::move(vectors))));
  return sealed(std::move(active));
}

ActiveClasses ClassTable::removed(const ActiveClasses& old,
                                  const std::vector<std::string>& names) const {
  std::set<std::int64_t> gone;  // columns
  std::vector<std::string> forms;
  for (const std::string& name : names) forms.push_back(known_as(fold_name(name), old));
  check_names(names, forms);
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::int64_t column = old.column(forms[i]);
    if (column < 0 || old.ids[std::size_t(column)] < 0)
      throw ClassError("class " + in_quotes(names[i]) + " is not active, so it cannot be removed" +
                       did_you_mean(names[i], old.names));
    gone.insert(column);
  }
  std::vector<std::int64_t> new_ids(old.names.size(), 0);
  for (const std::int64_t column : gone) new_ids[std::size_t(old.ids[std::size_t(column)])] = -1;
  ActiveClasses active;
  active.mode = old.mode;
  for (std::size_t id = 0; id < new_ids.size(); ++id) {
    if (new_ids[id] < 0) continue;
    new_ids[id] = std::int64_t(active.names.size());
    active.names.push_back(old.names[id]);
  }
  // Seen classes keep their columns, because the softmax of eq. 14 runs over them.
  std::vector<std::int64_t> left, new_columns(old.ids.size(), -1);
  for (std::size_t c = 0; c < old.ids.size(); ++c) {
    const std::int64_t column = std::int64_t(c);
    if (column >= old.set->seen) {
      if (gone.count(column)) continue;
      left.push_back(column - old.set->seen);
    }
    new_columns[c] = std::int64_t(active.ids.size());
    active.ids.push_back(old.ids[c] < 0 ? -1 : new_ids[std::size_t(old.ids[c])]);
  }
  for (const auto& [name, column] : old.columns)
    if (new_columns[std::size_t(column)] >= 0)
      active.columns[name] = new_columns[std::size_t(column)];
  active.set = std::make_shared<const ClassSet>(scorer_.keep(*old.set, left));
  return sealed(std::move(active));
}

ActiveClasses ClassTable::with_mode(const ActiveClasses& old, Mode mode) const {
  ActiveClasses active = old;
  active.mode = mode;
  auto set = std::make_shared<ClassSet>(*old.set);
  ++set->version;
  active.set = set;
  return sealed(std::move(active));
}

std::string ClassTable::known_as(const std::string& folded, const ActiveClasses& active) const {
  const Vocabulary& vocabulary = bundle_->vocabulary();
  if (active.columns.count(folded) || unseen_.count(folded)) return folded;
  const std::int64_t row = vocabulary.find(folded);
  const std::string word = row < 0 ? "" : fold_name(vocabulary.names()[std::size_t(row)]);
  if (word == folded) return folded;
  const std::string plain = plain_name(folded);
  if (const auto table = plain_.find(plain); table != plain_.end()) return table->second;
  return row < 0 ? plain : word;
}

std::vector<float> ClassTable::vector_of(const Class& wanted, const std::string& form) const {
  const std::int64_t width = bundle_->config().scoring.vector_dim;
  const std::string encoder = bundle_->encoder().empty() ? "" : ", " + bundle_->encoder();
  if (!wanted.vector.empty()) {
    if (std::int64_t(wanted.vector.size()) == width) return wanted.vector;
    throw ClassError("the vector of class " + in_quotes(wanted.name) + " holds " +
                     std::to_string(wanted.vector.size()) + " numbers, must hold " +
                     std::to_string(width) + " from the bundle's encoder" + encoder + ".");
  }
  if (const auto row = unseen_.find(form); row != unseen_.end()) {
    const float* from = bundle_->class_vectors().data.get() +
                        (std::int64_t(bundle_->seen().size()) + row->second) * width;
    return std::vector<float>(from, from + width);
  }
  const Vocabulary& vocabulary = bundle_->vocabulary();
  if (const std::int64_t row = vocabulary.find(wanted.name); row >= 0)
    return vocabulary.vector(row);
  if (vocabulary.size() == 0)
    throw ClassError(in_quotes(wanted.name) +
                     " is not in the vocabulary: this bundle has none. Give the class a vector.");
  throw ClassError(in_quotes(wanted.name) + " is not in the vocabulary of " +
                   std::to_string(vocabulary.size()) + " names" +
                   did_you_mean(wanted.name, vocabulary.names()) +
                   " Or give the class a vector of the bundle's encoder" + encoder + ".");
}

}  // namespace contrastzsd
