#include "infer.h"

#include <algorithm>

namespace edgewright {

/* What one run is fed, how many rows that is, and how many of them are examples and no filling. */
struct Block {
  Arrays feeds;
  int64_t rows, examples;
};

static int64_t examples_in(const Arrays &arrays) {
  Names listed;
  int64_t total = -1;
  bool alike = !arrays.empty();
  for (const auto &[name, array] : arrays) {
    int64_t length = array.shape.empty() ? 0 : array.shape[0];
    alike = alike && length && (total < 0 || length == total);
    total = length;
    listed.push_back(name + " " + std::to_string(length));
  }
  if (!alike)
    throw InputError("give every input as many examples (one at least) on axis 0; given: " +
                     (listed.empty() ? "none" : joined(listed)));
  return total;
}

/* The batch that the graph takes; 0 where it leaves it open. */
static int64_t fixed_batch(const Loaded &loaded) {
  if (loaded.ports().empty() || loaded.ports()[0].spec.shape.empty()) return 1;
  const Dim &first = loaded.ports()[0].spec.shape[0];
  return first.free ? 0 : first.size;
}

static Array filled(const Array &block, int64_t size) {
  std::vector<int64_t> rows;
  for (int64_t row = 0; row < size; row++) rows.push_back(std::min(row, block.shape[0] - 1));
  return size > block.shape[0] ? gather(block, rows) : block;
}

static std::vector<Block> blocks_of(const Loaded &loaded, const Arrays &arrays, int64_t batch) {
  int64_t total = examples_in(arrays), fixed = fixed_batch(loaded), size = fixed ? fixed : batch;
  if (size < 1) throw InputError("a batch of " + std::to_string(size) + " examples; allowed: 1 and more");
  std::vector<Block> blocks;
  for (int64_t start = 0; start < total; start += size) {
    int64_t examples = std::min(size, total - start), rows = fixed ? fixed : examples;
    Arrays feeds;
    for (const auto &[name, array] : arrays)
      feeds.emplace_back(name, filled(slice(array, start, start + examples), rows));
    blocks.push_back({feeds, rows, examples});
  }
  return blocks;
}

/* The rows of the examples. */
static Array kept(const Block &block, const std::string &name, Array output) {
  bool per_row = !output.shape.empty() && output.shape[0] == block.rows;
  if (!per_row && block.rows != 1)
    throw InputError("the output " + name + " has shape " + shown(output.shape) + " for " +
                     std::to_string(block.rows) + " examples; use a batch of 1");
  if (!per_row) output.shape.insert(output.shape.begin(), 1);
  return slice(output, 0, block.examples);
}

/* The model's outputs without the recurrent ones, unless it has no others. */
static Names answers_of(const Signature &signature) {
  Names all, answers;
  for (const TensorSpec &spec : signature.outputs) {
    all.push_back(spec.name);
    bool state = std::any_of(signature.state.begin(), signature.state.end(),
                             [&](const State &link) { return link.output == spec.name; });
    if (!state) answers.push_back(spec.name);
  }
  return answers.empty() ? all : answers;
}

/* Arrays that come in blocks, by name. */
class Parts {
 public:
  void add(const Block &block, const std::string &name, const Array &output) {
    auto known = std::find_if(parts_.begin(), parts_.end(), [&](const auto &each) { return each.first == name; });
    if (known == parts_.end()) known = parts_.insert(parts_.end(), {name, {}});
    known->second.push_back(kept(block, name, output));
  }

  Arrays stacked() const {
    Arrays all;
    for (const auto &[name, arrays] : parts_) all.emplace_back(name, edgewright::stacked(name, arrays));
    return all;
  }

 private:
  std::vector<std::pair<std::string, std::vector<Array>>> parts_;
};

/* An output of the steps of one example: joined on axis 1 where a run gives one of size 1, else the last. */
static Array in_time(const Signature &signature, const std::string &name, const std::vector<Array> &steps) {
  bool joins = std::any_of(signature.outputs.begin(), signature.outputs.end(),
                           [&](const TensorSpec &spec) { return spec.name == name && spec.one_step(); });
  return joins && steps.size() > 1 ? in_time(steps) : steps.back();
}

Answers infer(Loaded &loaded, const Arrays &arrays, int64_t batch, const RunOptions &options) {
  Parts parts;
  Answers answers;
  const Signature &signature = loaded.bundle().signature;
  const Names names = answers_of(signature);
  for (const Block &block : blocks_of(loaded, arrays, batch)) {
    loaded.reset();
    std::vector<std::vector<Array>> found(names.size()); /* without the states, which may be large and are many */
    Result result;
    answers.spent.push_back(0);
    for (const Arrays &feeds : signature.steps(block.feeds)) {
      result = loaded.run(feeds, options);
      for (size_t i = 0; i < names.size(); i++) {
        const Array *output = find(result.outputs, names[i]);
        if (!output) throw BundleError("the last stage does not give the model's output " + quoted(names[i]));
        found[i].push_back(*output);
      }
      answers.spent.back() += result.spent;
    }
    for (size_t i = 0; i < names.size(); i++) parts.add(block, names[i], in_time(signature, names[i], found[i]));
    size_t examples = std::min(static_cast<size_t>(block.examples), result.exits.size());
    answers.exits.insert(answers.exits.end(), result.exits.begin(),
                         result.exits.begin() + static_cast<std::ptrdiff_t>(examples));
  }
  answers.outputs = parts.stacked();
  return answers;
}

std::vector<Arrays> explore(Loaded &loaded, const Arrays &arrays, int64_t batch) {
  std::vector<Parts> stages(loaded.pieces().size());
  for (const Block &block : blocks_of(loaded, arrays, batch)) {
    loaded.reset();
    std::vector<Arrays> found = loaded.explore(block.feeds);
    for (size_t stage = 0; stage < stages.size(); stage++)
      for (const auto &[name, output] : found[stage]) stages[stage].add(block, name, output);
  }
  std::vector<Arrays> all;
  for (const Parts &stage : stages) all.push_back(stage.stacked());
  return all;
}

}  // namespace edgewright
