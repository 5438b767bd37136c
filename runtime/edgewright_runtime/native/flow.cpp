#include "flow.h"

#include <algorithm>

#include "clock.h"

namespace edgewright {

/* ------------------------------------------------------------------ one stage */

std::vector<Array> Piece::feeds(const Arrays &values, const std::vector<Array> &carried) const {
  std::vector<Array> fed;
  fed.reserve(stage.inputs.size() + carried.size());
  for (const std::string &source : stage.inputs) fed.push_back(*find(values, source));
  fed.insert(fed.end(), carried.begin(), carried.end());
  return fed;
}

std::vector<Array> Piece::run(const Arrays &values, const std::vector<Array> &carried) const {
  return session->run(feeds(values, carried));
}

Arrays Piece::outputs(const std::vector<Array> &results) const {
  Arrays named;
  for (size_t i = 0; i < stage.outputs.size(); i++) named.emplace_back(stage.outputs[i], results[i]);
  return named;
}

std::vector<Array> Piece::carry(const std::vector<Array> &results) const {
  auto first = results.begin() + static_cast<std::ptrdiff_t>(stage.outputs.size());
  return {first, first + static_cast<std::ptrdiff_t>(stage.carry.size())};
}

bool Limits::stop(size_t number, int64_t now) const {
  if (static_cast<int64_t>(number) >= through) return true;
  if (highs.empty()) return false;
  auto moment = static_cast<double>(now);
  double expected = usual[number] != 0 ? usual[number] : std::numeric_limits<double>::infinity();
  double slowed = std::max(1.0, (moment - start) / expected);
  return moment + slowed * highs[number + 1] > by;
}

/* ------------------------------------------------------------------ rows that part */

using Mask = std::vector<char>;

/* The score of every row that is fed; a NaN is never at least anything. */
static Mask leaving_rows(const Piece &piece, const Array &scores) {
  if (!scores.dtype || scores.dtype->onnx != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT || scores.shape.empty())
    throw InputError("the score of stage " + quoted(piece.stage.name) + " is no row of float32");
  Mask leaving(static_cast<size_t>(scores.shape[0]));
  if (scores.count() != leaving.size())
    throw InputError("the score of stage " + quoted(piece.stage.name) + " has shape " + shown(scores.shape));
  for (size_t i = 0; i < leaving.size(); i++) leaving[i] = scores.as<float>()[i] >= *piece.threshold;
  return leaving;
}

static size_t count(const Mask &mask) { return static_cast<size_t>(std::count(mask.begin(), mask.end(), 1)); }

/* Rows that do not leave together: which of them still wait, and what the others were answered. */
class Crowd {
 public:
  explicit Crowd(size_t rows) : waiting_(rows, 1), left_(rows), exits_(rows, 0) {
    for (size_t i = 0; i < rows; i++) places_.push_back(i);
  }

  const Mask &waiting() const { return waiting_; }
  size_t left() const { return left_; }

  /* The waiting rows that are `leaving` do so at stage `number`. */
  void answer(size_t number, const Piece &piece, const std::vector<Array> &results, const Mask &leaving) {
    for (size_t row = 0; row < leaving.size(); row++)
      if (leaving[row]) exits_[places_[row]] = static_cast<int64_t>(number);
    for (const auto &[name, found] : piece.outputs(results)) {
      if (found.shape.empty() || static_cast<size_t>(found.shape[0]) != leaving.size())
        throw InputError("the output " + name + " of stage " + quoted(piece.stage.name) + " has shape " +
                         shown(found.shape) + " for " + std::to_string(leaving.size()) +
                         " rows, so they cannot leave one by one; run one row at a time");
      put(name, found, leaving);
    }
    for (size_t row = 0; row < leaving.size(); row++)
      if (leaving[row]) waiting_[row] = 0;
    left_ -= count(leaving);
  }

  /* Feed the stages from `piece` on with the rows that wait alone. */
  void thin_out(const Piece &piece, Arrays &values, std::vector<Array> &carried) {
    if (left_ == waiting_.size()) return;
    std::vector<int64_t> kept;
    std::vector<size_t> places;
    for (size_t row = 0; row < waiting_.size(); row++)
      if (waiting_[row]) kept.push_back(static_cast<int64_t>(row)), places.push_back(places_[row]);
    Arrays fewer;
    for (const std::string &name : piece.needs) fewer.emplace_back(name, taken(*find(values, name), kept));
    for (Array &each : carried) each = taken(each, kept);
    values = std::move(fewer);
    places_ = std::move(places);
    waiting_.assign(kept.size(), 1);
  }

  Arrays take_outputs() { return std::move(outputs_); }
  const std::vector<int64_t> &exits() const { return exits_; }

 private:
  Array taken(const Array &array, const std::vector<int64_t> &kept) const {
    if (array.shape.empty() || static_cast<size_t>(array.shape[0]) != waiting_.size())
      throw InputError("a tensor of shape " + shown(array.shape) + " goes on from " +
                       std::to_string(waiting_.size()) + " rows, so they cannot part; run one row at a time");
    return gather(array, kept);
  }

  void put(const std::string &name, const Array &found, const Mask &leaving) {
    Array *all = const_cast<Array *>(find(outputs_, name));
    if (!all) {
      Shape shape = found.shape;
      shape[0] = static_cast<int64_t>(exits_.size());
      all = &outputs_.emplace_back(name, zeros(found.dtype, shape)).second;
    }
    if (all->dtype != found.dtype || all->stride() != found.stride())
      throw InputError("the output " + name + " changes its shape from stage to stage, to " + shown(found.shape));
    for (size_t row = 0; row < leaving.size(); row++)
      if (leaving[row])
        std::copy_n(found.data.get() + row * found.stride(), found.stride(),
                    all->data.get() + places_[row] * found.stride());
  }

  Mask waiting_; /* of the rows that are fed, those without an answer */
  size_t left_;
  std::vector<size_t> places_; /* where the rows that are fed stand for the caller */
  std::vector<int64_t> exits_;
  Arrays outputs_;
};

/* ------------------------------------------------------------------ one run */

/* Which of the rows that are fed leave now; nothing where there is nothing to decide. */
static std::optional<Mask> find_leaving(const Piece &piece, const std::vector<Array> &results,
                                        const std::optional<Crowd> &crowd) {
  if (!piece.threshold) return std::nullopt;
  Mask leaving = leaving_rows(piece, results.back());
  if (crowd) {
    if (leaving.size() != crowd->waiting().size())
      throw InputError("the stage " + quoted(piece.stage.name) + " changes the number of rows");
    for (size_t row = 0; row < leaving.size(); row++) leaving[row] = leaving[row] && crowd->waiting()[row];
  }
  return leaving;
}

static std::vector<int64_t> exits_of(size_t number, const Piece &piece, const std::vector<Array> &results,
                                     int64_t rows) {
  if (!piece.stage.exits.empty()) {
    const Array &exits = results.back();
    if (exits.dtype->onnx != ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64)
      throw InputError("the exits of stage " + quoted(piece.stage.name) + " are no int64");
    return {exits.as<int64_t>(), exits.as<int64_t>() + exits.count()};
  }
  const Shape &shape = results.back().shape;
  if (piece.stage.gate && !shape.empty()) rows = shape[0];
  return std::vector<int64_t>(static_cast<size_t>(rows), static_cast<int64_t>(number));
}

Passed flow(const std::vector<Piece> &pieces, const Arrays &given, int64_t rows, const Limits &limits) {
  Arrays values = given;
  std::vector<Array> carried;
  std::vector<int64_t> ends;
  std::optional<Crowd> crowd;
  for (size_t number = 0;; number++) {
    const Piece &piece = pieces[number];
    std::vector<Array> results = piece.run(values, carried);
    std::optional<Mask> leaving = find_leaving(piece, results, crowd);
    size_t sure = leaving ? count(*leaving) : 0;
    ends.push_back(now_ns());
    bool all_leave = leaving && sure == (crowd ? crowd->left() : leaving->size());
    if (limits.stop(number, ends.back()) || all_leave) {
      if (!crowd) return {piece.outputs(results), exits_of(number, piece, results, rows), ends};
      crowd->answer(number, piece, results, crowd->waiting());
      return {crowd->take_outputs(), crowd->exits(), ends};
    }
    carried = piece.carry(results);
    if (sure) {
      if (!crowd) crowd.emplace(leaving->size());
      crowd->answer(number, piece, results, *leaving);
    }
    if (crowd && pieces[number + 1].free) crowd->thin_out(pieces[number + 1], values, carried);
  }
}

}  // namespace edgewright
