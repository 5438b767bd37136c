"""What the verbs other than `deploy` do: run and verify, profile, compare, predict, examine."""
