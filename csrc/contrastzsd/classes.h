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
  std::unordered_map<std::string, std::int64_t> columns;  // by the form ClassTable knows a name in
  // Holds all seen classes of the bundle, asked for or not: the softmax of eq. 14 runs over them.
  std::shared_ptr<const ClassSet> set;
  Mode mode = Mode::kGzsd;

  Role role(std::int64_t column) const { return column < set->seen ? Role::kSeen : Role::kUnseen; }
  std::int64_t column(const std::string& form) const;  // -1: there is none
  std::string name_at(std::int64_t column) const;      // empty: it was not asked for
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
  // The form in which a folded name is known: as the table or the vocabulary writes it, without its
  // accents where nobody writes it so.
  //
  // Twin        runtime/classes.py::ClassTable._known_as; change both in one commit.
  std::string known_as(const std::string& folded, const ActiveClasses& active) const;
  std::vector<float> vector_of(const Class& wanted, const std::string& form) const;

  std::shared_ptr<const Bundle> bundle_;
  const Scorer& scorer_;
  std::unordered_map<std::string, std::int64_t> unseen_;  // row of the class table
  std::unordered_map<std::string, std::string> plain_;    // folded names of the table, by plain
  ActiveClasses none_;                                    // the seen columns, none asked for
};

}  // namespace contrastzsd
