#include "errors.h"

#include <algorithm>

namespace edgewright {

std::string joined(const Names &parts, const std::string &between) {
  std::string all;
  for (const std::string &part : parts) all += all.empty() ? part : between + part;
  return all;
}

std::string quoted(const std::string &text) {
  const char *digits = "0123456789abcdef";
  char quote = text.find('\'') != std::string::npos && text.find('"') == std::string::npos ? '"' : '\'';
  std::string shown(1, quote);
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (c == quote || c == '\\')
      shown += std::string("\\") + c;
    else if (c == '\n')
      shown += "\\n";
    else if (c == '\r')
      shown += "\\r";
    else if (c == '\t')
      shown += "\\t";
    else if (byte < 0x20 || byte == 0x7f)
      shown += std::string("\\x") + digits[byte >> 4] + digits[byte & 15];
    else
      shown += c;
  }
  return shown + quote;
}

/* How many characters match when the longest common part is taken out, and then from what is left of it and right. */
static size_t matching(const std::string &a, const std::string &b) {
  size_t best = 0, in_a = 0, in_b = 0;
  for (size_t i = 0; i < a.size(); i++)
    for (size_t j = 0; j < b.size(); j++) {
      size_t length = 0;
      while (i + length < a.size() && j + length < b.size() && a[i + length] == b[j + length]) length++;
      if (length > best) best = length, in_a = i, in_b = j;
    }
  if (!best) return 0;
  return best + matching(a.substr(0, in_a), b.substr(0, in_b)) +
         matching(a.substr(in_a + best), b.substr(in_b + best));
}

std::string suggest(const std::string &name, Names allowed) {
  constexpr double cutoff = 0.5;
  constexpr size_t longest = 80; /* whatever is longer is no misspelt name */
  std::sort(allowed.begin(), allowed.end());
  std::string close;
  double nearest = cutoff;
  for (const std::string &each : allowed) {
    if (name.size() > longest || each.size() > longest || name.empty() || each.empty()) continue;
    double ratio = 2.0 * static_cast<double>(matching(each, name)) / static_cast<double>(each.size() + name.size());
    if (ratio >= nearest) nearest = ratio, close = each;
  }
  std::string listed = "allowed: " + (allowed.empty() ? "none" : joined(allowed));
  return close.empty() ? listed : listed + "; did you mean " + quoted(close) + "?";
}

}  // namespace edgewright
