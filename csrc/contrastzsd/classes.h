// The classes of a detector: names to roles, vectors, columns and ids; the C++ half of
// runtime/classes.py.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "contrastzsd/bundle.h"
#include "contrastzsd/detector.h"
#include "contrastzsd/scoring.h"

namespace contrastzsd {

// What a detector looks for; never changed once made.
struct ActiveClasses {
  std::vector<std::string> names;  // in the caller's order and spelling; ids are positions here
  std::vector<std::int64_t> ids;   // (C,) of every column, -1 where it was not asked for
  std::vector<bool> reported;      // (C,) asked for, and let through by the mode
  std::unordered_map<std::string, std::int64_t> columns;  // by folded name
  // Holds all seen classes of the bundle, asked for or not: the softmax of eq. 14 runs over them.
  std::shared_ptr<const ClassSet> set;
  Mode mode = Mode::kGzsd;

  Role role(std::int64_t column) const { return column < set->seen ? Role::kSeen : Role::kUnseen; }
  std::int64_t column(const std::string& folded) const;  // -1: there is none
};

// Makes active classes from names, with the bundle's table and vocabulary behind it.
// Every call throws ClassError where a class is unknown, repeated, or none is left to report.
class ClassTable {
 public:
  ClassTable(std::shared_ptr<const Bundle> bundle, Scorer& scorer);

  // From scratch; no classes means the bundle's table. `version` is that of the set before.
  ActiveClasses activate(const std::vector<Class>& classes, Mode mode, std::int64_t version) const;
  // More at the end; costs what the new ones cost.
  ActiveClasses added(const ActiveClasses& old, const std::vector<Class>& classes) const;
  // Without some; ids of those behind move up.
  ActiveClasses removed(const ActiveClasses& old, const std::vector<std::string>& names) const;
  ActiveClasses with_mode(const ActiveClasses& old, Mode mode) const;

 private:
  std::vector<float> vector_of(const Class& wanted, const std::string& folded) const;

  std::shared_ptr<const Bundle> bundle_;
  const Scorer& scorer_;
  std::unordered_map<std::string, std::int64_t> unseen_;  // row of the class table
  ActiveClasses none_;                                    // the seen columns, none asked for
};

}  // namespace contrastzsd
