/* Reads JSON: strictly, within the text, and no deeper than a stack can take. */
#include <unordered_map>

#include "json.h"

namespace edgewright {

constexpr int deepest = 500;

/* How many bytes of well-formed UTF-8 stand at `at` for one character; 0 where they are not well-formed. */
static size_t utf8_length(const std::string &text, size_t at) {
  auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  auto follows = [&](size_t i) { return (byte(i) & 0xc0u) == 0x80u; };
  unsigned first = byte(at), second = byte(at + 1);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first < 0xe0) return follows(at + 1) ? 2 : 0;
  if (first >= 0xe0 && first < 0xf0) {
    bool overlong = first == 0xe0 && second < 0xa0, surrogate = first == 0xed && second >= 0xa0;
    return follows(at + 1) && follows(at + 2) && !overlong && !surrogate ? 3 : 0;
  }
  if (first >= 0xf0 && first < 0xf5) {
    bool overlong = first == 0xf0 && second < 0x90, beyond = first == 0xf4 && second >= 0x90;
    return follows(at + 1) && follows(at + 2) && follows(at + 3) && !overlong && !beyond ? 4 : 0;
  }
  return 0;
}

std::string repaired(const std::string &text) {
  std::string sound;
  for (size_t at = 0; at < text.size();) {
    size_t length = utf8_length(text, at);
    sound += length ? text.substr(at, length) : "\xef\xbf\xbd";
    at += length ? length : 1;
  }
  return sound;
}

class JsonReader {
 public:
  explicit JsonReader(const std::string &text) : text_(text) {}

  Json read() {
    for (size_t at = 0; at < text_.size();) {
      size_t length = utf8_length(text_, at);
      if (!length) fail("broken UTF-8", at);
      at += length;
    }
    Json value = read_value();
    skip_spaces();
    if (at_ < text_.size()) fail("more text behind the value", at_);
    return value;
  }

 private:
  [[noreturn]] void fail(const std::string &what, size_t at) const {
    throw JsonError(what + " at byte " + std::to_string(at));
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  bool take(char wanted) {
    if (peek() != wanted || at_ >= text_.size()) return false;
    at_++;
    return true;
  }

  void skip_spaces() {
    while (at_ < text_.size() && (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r')) at_++;
  }

  bool take_word(const char *word) {
    std::string wanted = word;
    if (text_.compare(at_, wanted.size(), wanted) != 0) return false;
    at_ += wanted.size();
    return true;
  }

  Json read_value() {
    skip_spaces();
    if (peek() == '{' || peek() == '[') {
      if (++depth_ > deepest) fail("too many levels", at_);
      Json value = peek() == '{' ? read_object() : read_array();
      depth_--;
      return value;
    }
    if (peek() == '"') return Json(read_text());
    if (take_word("null")) return Json();
    if (take_word("true")) return Json(true);
    if (take_word("false")) return Json(false);
    return read_number();
  }

  Json read_array() {
    Json::Items items;
    at_++;
    skip_spaces();
    if (take(']')) return Json(std::move(items));
    do items.push_back(read_value());
    while (skip_spaces(), take(','));
    if (!take(']')) fail("expected ',' or ']'", at_);
    return Json(std::move(items));
  }

  Json read_object() {
    Json::Members members;
    std::unordered_map<std::string, size_t> places; /* of two members of one name the last counts */
    at_++;
    skip_spaces();
    if (take('}')) return Json(std::move(members));
    do {
      skip_spaces();
      if (peek() != '"') fail("expected a name", at_);
      std::string name = read_text();
      skip_spaces();
      if (!take(':')) fail("expected ':'", at_);
      auto [place, fresh] = places.emplace(name, members.size());
      if (fresh) members.push_back({name, Json()});
      members[place->second].value = read_value();
    } while (skip_spaces(), take(','));
    if (!take('}')) fail("expected ',' or '}'", at_);
    return Json(std::move(members));
  }

  Json read_number() {
    for (const char *word : {"NaN", "Infinity", "-Infinity"})
      if (take_word(word)) return number_of(word);
    size_t begin = at_;
    take('-');
    if (!take('0') && !take_digits()) fail("expected a value", begin);
    if (size_t before = at_; take('.') && !take_digits()) at_ = before;
    if (size_t before = at_; take('e') || take('E')) {
      if (!take('+')) take('-');
      if (!take_digits()) at_ = before;
    }
    return number_of(text_.substr(begin, at_ - begin));
  }

  static Json number_of(std::string digits) {
    Json number(0);
    number.text_ = std::move(digits);
    return number;
  }

  bool take_digits() {
    size_t begin = at_;
    while (peek() >= '0' && peek() <= '9') at_++;
    return at_ > begin;
  }

  std::string read_text() {
    std::string found;
    at_++;
    while (at_ < text_.size() && peek() != '"') {
      if (static_cast<unsigned char>(peek()) < 0x20) fail("a control character in a string", at_);
      if (take('\\'))
        append(found, read_escape());
      else
        found += text_[at_++];
    }
    if (!take('"')) fail("a string without an end", at_);
    return found;
  }

  uint32_t read_escape() {
    static const std::string letters = "\"\\/bfnrt", meant = "\"\\/\b\f\n\r\t";
    if (take('u')) return read_code();
    size_t form = at_ < text_.size() ? letters.find(peek()) : std::string::npos;
    if (form == std::string::npos) fail("an escape that JSON does not have", at_);
    at_++;
    return static_cast<unsigned char>(meant[form]);
  }

  uint32_t read_code() {
    uint32_t high = read_four();
    if (high < 0xd800 || high >= 0xdc00 || text_.compare(at_, 2, "\\u") != 0) return high;
    size_t before = at_;
    at_ += 2;
    uint32_t low = read_four();
    if (low >= 0xdc00 && low < 0xe000) return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
    at_ = before;
    return high; /* half a pair, which Python keeps too */
  }

  uint32_t read_four() {
    uint32_t code = 0;
    for (int i = 0; i < 4; i++) {
      static const std::string digits = "0123456789abcdef";
      char c = peek();
      size_t digit = digits.find(c >= 'A' && c <= 'F' ? static_cast<char>(c + 32) : c);
      if (!c || digit == std::string::npos) fail("expected four hexadecimal digits", at_);
      code = code << 4 | static_cast<uint32_t>(digit);
      at_++;
    }
    return code;
  }

  static void append(std::string &to, uint32_t code) {
    auto put = [&](uint32_t byte) { to += static_cast<char>(byte); };
    if (code < 0x80) return put(code);
    if (code < 0x800) return put(0xc0 | code >> 6), put(0x80 | (code & 0x3f));
    if (code < 0x10000) return put(0xe0 | code >> 12), put(0x80 | (code >> 6 & 0x3f)), put(0x80 | (code & 0x3f));
    put(0xf0 | code >> 18), put(0x80 | (code >> 12 & 0x3f)), put(0x80 | (code >> 6 & 0x3f)), put(0x80 | (code & 0x3f));
  }

  const std::string &text_;
  size_t at_ = 0;
  int depth_ = 0;
};

Json Json::parse(const std::string &text) { return JsonReader(text).read(); }

}  // namespace edgewright
