/* Takes rows through the stages of a chain: at each gate those that are sure leave with its answer, the rest go on. */
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "arrays.h"
#include "bundle.h"
#include "session.h"

namespace edgewright {

/* A stage with its open session, worked out once: `needs` are the model's inputs that this stage or a later one
 * takes, `free` says that this stage and all later ones take any number of rows. */
struct Piece {
  Stage stage;
  std::shared_ptr<Session> session;
  Names needs;
  bool free;
  std::optional<float> threshold;

  /* What the stage's graph takes, in its order. */
  std::vector<Array> feeds(const Arrays &values, const std::vector<Array> &carried) const;

  /* What the stage's graph returns, in its order. */
  std::vector<Array> run(const Arrays &values, const std::vector<Array> &carried) const;

  /* The model's outputs among the results, and what of them goes to the next stage. */
  Arrays outputs(const std::vector<Array> &results) const;
  std::vector<Array> carry(const std::vector<Array> &results) const;
};

/* How far a run that started at `start` (ns) may go: to stage `through`, and to the next if it ends before `by`.
 * A stage takes `highs` at most. The stages up to one take `usual` together: what slowed a run will go on. */
struct Limits {
  int64_t through;
  double start = 0;
  double by = std::numeric_limits<double>::infinity();
  std::vector<double> highs, usual;

  /* Whether nothing may run after stage `number`. */
  bool stop(size_t number, int64_t now) const;
};

/* What came of a run: outputs, the stage at which each row left, and when each stage ended, in ns. */
struct Passed {
  Arrays outputs;
  std::vector<int64_t> exits;
  std::vector<int64_t> ends;
};

/* Run the stages in order until every row has left; `rows` is how many there are, for a model without gates.
 * Raises: InputError when only some rows leave at a stage whose outputs do not have a row for each. */
Passed flow(const std::vector<Piece> &pieces, const Arrays &values, int64_t rows, const Limits &limits);

/* The stages of a variant with their sessions, in order.
 * Raises: BundleError when graphs do not take and give what the stages say, or rows cannot leave where they should. */
std::vector<Piece> make_pieces(const Bundle &bundle, const std::vector<std::shared_ptr<Session>> &sessions);

}  // namespace edgewright
