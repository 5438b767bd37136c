"""How long, how much energy, and how sure: the measuring protocol, meters, and every statistic."""
