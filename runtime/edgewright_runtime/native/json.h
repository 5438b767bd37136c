/* JSON as Python's `json` module reads and writes it, so that digests of written text agree. */
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace edgewright {

/* Text that is no JSON, or a value that is not of the type that was asked for. */
struct JsonError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Json {
 public:
  enum class Kind { null, boolean, number, string, array, object };
  struct Member;
  using Items = std::vector<Json>;
  using Members = std::vector<Member>;

  Json() = default;
  Json(const char *text) : kind_(Kind::string), text_(text) {}
  Json(std::string text) : kind_(Kind::string), text_(std::move(text)) {}
  Json(bool truth) : kind_(Kind::boolean), truth_(truth) {}
  Json(double number);
  template <class Whole, class = std::enable_if_t<std::is_integral_v<Whole>>>
  Json(Whole number) : kind_(Kind::number), text_(std::to_string(number)) {}
  Json(Items items) : kind_(Kind::array), items_(std::move(items)) {}
  Json(Members members);

  /* Raises: JsonError for text that is no JSON, holds broken UTF-8, or nests deeper than 500 levels. */
  static Json parse(const std::string &text);

  Kind kind() const { return kind_; }
  bool is_null() const { return kind_ == Kind::null; }
  bool is_text() const { return kind_ == Kind::string; }

  /* The value of a member; null where there is none, or this is no object. */
  const Json &get(const std::string &key) const;

  /* What this is, as that type. Raises: JsonError with what was found instead. */
  const Json &at(const std::string &key) const;
  const std::string &text() const;
  const Items &items() const;
  const Members &members() const;
  bool truth() const;
  int64_t whole() const;
  double real() const;

  /* What Python takes for true: no empty text, list or object, no zero. */
  bool truthy() const;

  /* Puts a member in the place of one of that name, or at the end. */
  void set(const std::string &key, Json value);

  /* On one line, ASCII only: without spaces, or as `json.dumps(value, sort_keys=True)` has it. */
  std::string compact() const;
  std::string sorted() const;

  /* As Python shows the value. */
  std::string shown() const;

 private:
  friend class JsonReader;
  struct Style;
  void write(std::string &to, const Style &style) const;
  void expect(Kind kind, const char *what) const;

  Kind kind_ = Kind::null;
  bool truth_ = false;
  std::string text_; /* of a string its UTF-8, of a number the digits */
  Items items_;
  Members members_;
};

struct Json::Member {
  std::string name;
  Json value;
};

inline Json::Json(Members members) : kind_(Kind::object), members_(std::move(members)) {}

/* The shortest decimal that reads back as `number`, in Python's form. */
std::string shortest(double number);

/* `text` with U+FFFD in the place of bytes that are no UTF-8. */
std::string repaired(const std::string &text);

}  // namespace edgewright
