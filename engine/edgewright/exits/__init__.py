"""Models with gates: what their exits would answer, thresholds fitted to a goal, exits dropped that earn nothing."""
