// Class names: the form they are compared in, and the nearest ones to a name that is not there.
#pragma once

#include <string>
#include <vector>

namespace contrastzsd {

// Unicode's NFKC, one blank for underscores and runs of white space, then full case folding; the
// same as zsd_core/semantics.py::fold_name. Throws ClassError: the bytes are no UTF-8.
std::string fold_name(const std::string& name);

// The folded form with the letters, quotes and hyphens of an English keyboard: "Café" is "cafe".
//
// Twin        zsd_core/semantics.py::plain_name; change both in one commit.
std::string plain_name(const std::string& name);

// Why UTF-8 cannot be the name of a class, such as "holds U+202E, a control character; leave it
// out"; empty where it can. The same as zsd_core/semantics.py::name_fault, but for what is no
// UTF-8, which fold_name refuses.
std::string name_fault(const std::string& name);

// Whether the bytes are UTF-8.
bool is_text(const std::string& bytes);

// Blanks at the ends gone, runs of them one blank.
std::string trim_name(const std::string& name);

// 'name', for messages.
std::string in_quotes(const std::string& name);
// The same with <U+202E> in the place of control characters.
std::string escaped(const std::string& name);
// 'a', 'b', 'c'
std::string list_in_quotes(const std::vector<std::string>& names);

// The `count` names most like `text` by the pairs of letters they share (Dice); a name that holds
// `text` as a part comes first, equals keep their order.
std::vector<std::string> rank_names(const std::string& text, const std::vector<std::string>& names,
                                    std::size_t count);

// "; did you mean 'a' or 'b'?", or "." where nothing is near.
std::string did_you_mean(const std::string& name, const std::vector<std::string>& names);

// A number in the fewest digits that read back as it, whatever the program's locale.
std::string number_text(float value);

}  // namespace contrastzsd
