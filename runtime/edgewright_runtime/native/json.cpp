#include "json.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "errors.h"

namespace edgewright {

/* ------------------------------------------------------------------ what a value is */

static const char *name_of(Json::Kind kind) {
  static const char *const names[] = {"null", "true or false", "a number", "a string", "a list", "an object"};
  return names[static_cast<int>(kind)];
}

Json::Json(double number) : kind_(Kind::number), text_(shortest(number)) {}

const Json &Json::get(const std::string &key) const {
  static const Json nothing;
  for (const Member &member : members_)
    if (member.name == key) return member.value;
  return nothing;
}

const Json &Json::at(const std::string &key) const {
  expect(Kind::object, "an object");
  for (const Member &member : members_)
    if (member.name == key) return member.value;
  throw JsonError(quoted(key) + " is missing");
}

const std::string &Json::text() const {
  expect(Kind::string, "a string");
  return text_;
}

const Json::Items &Json::items() const {
  expect(Kind::array, "a list");
  return items_;
}

const Json::Members &Json::members() const {
  expect(Kind::object, "an object");
  return members_;
}

bool Json::truth() const {
  expect(Kind::boolean, "true or false");
  return truth_;
}

int64_t Json::whole() const {
  expect(Kind::number, "a whole number");
  errno = 0;
  char *end = nullptr;
  long long value = std::strtoll(text_.c_str(), &end, 10);
  if (*end || errno) throw JsonError("expected a whole number, found " + text_.substr(0, 40));
  return value;
}

double Json::real() const {
  expect(Kind::number, "a number");
  if (text_ == "Infinity" || text_ == "-Infinity") return text_[0] == '-' ? -INFINITY : INFINITY;
  return text_ == "NaN" ? NAN : std::strtod(text_.c_str(), nullptr);
}

bool Json::truthy() const {
  if (kind_ == Kind::boolean) return truth_;
  if (kind_ == Kind::number) return real() != 0.0;
  return !text_.empty() || !items_.empty() || !members_.empty();
}

void Json::set(const std::string &key, Json value) {
  expect(Kind::object, "an object");
  for (Member &member : members_)
    if (member.name == key) {
      member.value = std::move(value);
      return;
    }
  members_.push_back({key, std::move(value)});
}

void Json::expect(Kind kind, const char *what) const {
  if (kind_ != kind) throw JsonError(std::string("expected ") + what + ", found " + name_of(kind_));
}

/* ------------------------------------------------------------------ writing */

struct Json::Style {
  const char *between_items;
  const char *after_name;
  bool sorted;
};

static bool is_whole(const std::string &digits) { return digits.find_first_of(".eENI") == std::string::npos; }

/* A number as Python would write what it has read. */
static std::string canonical(const std::string &digits) {
  if (is_whole(digits)) return digits == "-0" ? "0" : digits;
  if (digits.find('N') == 0 || digits.find('I') != std::string::npos) return digits;
  return shortest(std::strtod(digits.c_str(), nullptr));
}

/* The code point at `at` of text that is known to be UTF-8; moves on behind it. */
static uint32_t next_code(const std::string &text, size_t &at) {
  auto byte = [&] { return static_cast<unsigned char>(text[at++]); };
  uint32_t first = byte();
  if (first < 0x80) return first;
  int more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
  uint32_t code = first & (0x3fu >> more);
  while (more--) code = code << 6 | (byte() & 0x3fu);
  return code;
}

static void write_text(std::string &to, const std::string &text) {
  static const std::string short_forms = "\"\\\b\f\n\r\t", letters = "\"\\bfnrt";
  char buffer[16];
  to += '"';
  for (size_t at = 0; at < text.size();) {
    uint32_t code = next_code(text, at);
    size_t form = code < 0x80 ? short_forms.find(static_cast<char>(code)) : std::string::npos;
    if (form != std::string::npos) {
      to += '\\';
      to += letters[form];
    } else if (code >= 0x20 && code < 0x7f) {
      to += static_cast<char>(code);
    } else if (code < 0x10000) {
      std::snprintf(buffer, sizeof buffer, "\\u%04x", code);
      to += buffer;
    } else {
      uint32_t rest = code - 0x10000;
      std::snprintf(buffer, sizeof buffer, "\\u%04x\\u%04x", 0xd800 + (rest >> 10), 0xdc00 + (rest & 0x3ff));
      to += buffer;
    }
  }
  to += '"';
}

void Json::write(std::string &to, const Style &style) const {
  switch (kind_) {
    case Kind::null: to += "null"; return;
    case Kind::boolean: to += truth_ ? "true" : "false"; return;
    case Kind::number: to += canonical(text_); return;
    case Kind::string: write_text(to, text_); return;
    case Kind::array: {
      to += '[';
      for (size_t i = 0; i < items_.size(); i++) {
        if (i) to += style.between_items;
        items_[i].write(to, style);
      }
      to += ']';
      return;
    }
    case Kind::object: break;
  }
  std::vector<const Member *> order;
  for (const Member &member : members_) order.push_back(&member);
  if (style.sorted) /* bytes of UTF-8 sort as code points do */
    std::sort(order.begin(), order.end(), [](auto *a, auto *b) { return a->name < b->name; });
  to += '{';
  for (const Member *member : order) {
    if (member != order.front()) to += style.between_items;
    write_text(to, member->name);
    to += style.after_name;
    member->value.write(to, style);
  }
  to += '}';
}

std::string Json::compact() const {
  std::string text;
  write(text, {",", ":", false});
  return text;
}

std::string Json::sorted() const {
  std::string text;
  write(text, {", ", ": ", true});
  return text;
}

std::string Json::shown() const {
  switch (kind_) {
    case Kind::null: return "None";
    case Kind::boolean: return truth_ ? "True" : "False";
    case Kind::string: return quoted(text_);
    default: return sorted();
  }
}

std::string shortest(double number) {
  if (std::isnan(number)) return "NaN";
  if (std::isinf(number)) return number < 0 ? "-Infinity" : "Infinity";
  char buffer[40];
  int digits = 0;
  do std::snprintf(buffer, sizeof buffer, "%.*e", digits++, number);
  while (std::strtod(buffer, nullptr) != number && digits < 17);
  std::string text = buffer;
  size_t e = text.find('e');
  int exponent = std::atoi(text.c_str() + e + 1);
  if (exponent >= 16 || exponent < -4) {
    std::snprintf(buffer, sizeof buffer, "e%c%02d", exponent < 0 ? '-' : '+', std::abs(exponent));
    return text.substr(0, e) + buffer;
  }
  std::snprintf(buffer, sizeof buffer, "%.*f", std::max(1, digits - 1 - exponent), number);
  return buffer;
}

}  // namespace edgewright
